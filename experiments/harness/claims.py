"""A statement with a number, the interval that it must lie in, and a control in which it must fail."""

import math
import string
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsFloat


class Interval(NamedTuple):
    """What a claim expects: a closed interval of the real line."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether the value lies inside; NaN never does."""
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        if self.low == -math.inf:
            return f"≤ {number(self.high)}"
        if self.high == math.inf:
            return f"≥ {number(self.low)}"
        return f"{number((self.low + self.high) / 2)} ± {number((self.high - self.low) / 2)}"


def near(value: SupportsFloat, tolerance: SupportsFloat) -> Interval:
    """[value - tolerance, value + tolerance]."""
    return Interval(float(value) - float(tolerance), float(value) + float(tolerance))


def at_most(value: SupportsFloat) -> Interval:
    """(-inf, value]."""
    return Interval(-math.inf, float(value))


def at_least(value: SupportsFloat) -> Interval:
    """[value, inf)."""
    return Interval(float(value), math.inf)


def number(value: SupportsFloat) -> str:
    """Four significant digits."""
    return f"{float(value):.4g}"


@dataclass(frozen=True)
class Claim:
    """A statement with a number, and a control in which the same test must fail.

    Attributes:
        id: short name, unique in its figure.
        statement: what is claimed.
        source: who says so, or which theorem.
        expected: where the number must lie.
        measured: the number, computed from the results; NaN where what it speaks of was not reached.
        control: the condition under which the claim must fail.
        control_measured: the same number there; NaN where there is no such condition.
        note: what a reader should know, above all where a claim does not hold.
        published: whether the expected number is one of the published settings, and says nothing about others.
    """

    id: str
    statement: str
    source: str
    expected: Interval
    measured: SupportsFloat
    control: str
    control_measured: SupportsFloat
    note: str = ""
    published: bool = False

    def verdict(self, at_published: bool) -> str:
        """What came out: "holds", or why it does not."""
        measured, control = float(self.measured), float(self.control_measured)
        if self.published and not at_published:
            return "not applicable"
        if math.isnan(measured):
            return "not reached"
        if not self.expected.holds(measured):
            return "does not hold"
        if math.isnan(control):
            return "no control"
        return "control holds, too" if self.expected.holds(control) else "holds"

    def record(self, at_published: bool) -> dict[str, Any]:
        """The claim as JSON, in which a number that is not finite is a string."""
        return {
            "id": self.id,
            "statement": self.statement,
            "source": self.source,
            "expected": str(self.expected),
            "measured": as_json_number(self.measured),
            "control": self.control,
            "control_measured": as_json_number(self.control_measured),
            "verdict": self.verdict(at_published),
            "note": self.note,
        }


class Caption:
    """Two sentences that a reader can quote, and a sentence for each panel letter: Caption("...", a="...", b="...")."""

    def __init__(self, summary: str, **panels: str) -> None:
        if list(panels) != list(string.ascii_lowercase[: len(panels)]):
            raise ValueError(f"panels must be lettered a, b, ... in order, got {', '.join(panels)}")
        self.summary, self.panels = summary, panels

    def __str__(self) -> str:
        return " ".join([self.summary, *(f"({letter}) {text}" for letter, text in self.panels.items())])


def as_json_number(value: SupportsFloat) -> float | str:
    """The number, or its name where JSON has none."""
    value = float(value)
    return value if math.isfinite(value) else str(value)


def fails(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The claims of a record that apply and do not hold."""
    return [claim for claim in record["claims"] if not passes(claim)]


def passes(claim: dict[str, Any]) -> bool:
    """Whether a recorded claim holds, or does not apply."""
    return claim["verdict"] in ("holds", "not applicable")


def summary(record: dict[str, Any]) -> str:
    """How many claims hold, and where the settings are not the published ones."""
    verdicts = [claim["verdict"] for claim in record["claims"]]
    applicable = [verdict for verdict in verdicts if verdict != "not applicable"]
    counted = f"{applicable.count('holds')} of {len(applicable)} claims hold"
    if not record["departures"]:
        return counted
    away = ", ".join(f"{name} {ours}, not {published}" for name, (ours, published) in record["departures"].items())
    return f"away from the published settings ({away}): {counted}, {verdicts.count('not applicable')} do not apply"
