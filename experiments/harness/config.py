"""Configs: fields that know their range and length, and what a run refuses."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax

C = TypeVar("C")
R = TypeVar("R")

Number = float | int  # the tests check types as written: an int is no float there


class UserError(Exception):
    """A mistake of the caller's, told in one line."""


def bounded(
    default: Any,
    *,
    above: Number | None = None,
    at_least: Number | None = None,
    below: Number | None = None,
    at_most: Number | None = None,
    length: int | None = None,
    min_length: int = 1,
) -> Any:
    """A config field whose number, or every entry of whose tuple, must lie in a range; a tuple has a length, too."""
    limits = {"above": above, "at_least": at_least, "below": below, "at_most": at_most}
    sizes = {"length": length, "min_length": min_length}
    return dataclasses.field(default=default, metadata={"limits": limits, "sizes": sizes})


def check_config(config: Any) -> None:
    """Raise unless every number is finite and in its range and every tuple has its length; counts are 1 or more."""
    for field in dataclasses.fields(config):
        values = getattr(config, field.name)
        sizes = field.metadata.get("sizes", {"length": None, "min_length": 1})
        if isinstance(values, tuple):
            if sizes["length"] is not None and len(values) != sizes["length"]:
                raise UserError(f"{field.name} must hold {sizes['length']} values, got {len(values)}: {values}")
            if len(values) < sizes["min_length"]:
                raise UserError(f"{field.name} must hold at least {sizes['min_length']} values, got {values}")
        for value in values if isinstance(values, tuple) else (values,):
            if not isinstance(value, bool | str):
                _check_number(field.name, value, field.metadata.get("limits", {}))


def _check_number(name: str, value: Number, limits: dict[str, Number | None]) -> None:
    """Raise unless the number is finite and inside the limits."""
    is_count = isinstance(value, int)
    if not is_count and not math.isfinite(value):
        raise UserError(f"{name} must be finite, got {value}")
    default = {"at_least": 1, "at_most": 2**31 - 1} if is_count else {"at_least": -1e100, "at_most": 1e100}
    if is_count and limits.get("above") is not None:
        default.pop("at_least")
    given = {kind: limit for kind, limit in limits.items() if limit is not None}
    outside: dict[str, Callable[[Number], bool]] = {
        "above": lambda limit: value <= limit,
        "at_least": lambda limit: value < limit,
        "below": lambda limit: value >= limit,
        "at_most": lambda limit: value > limit,
    }
    for kind, limit in (default | given).items():
        if outside[kind](limit):
            raise UserError(f"{name} must be {kind.replace('_', ' ')} {limit:g}, got {value:g}")


def check_sum(name: str, probabilities: Sequence[float]) -> None:
    """Raise unless the probabilities sum to one."""
    total = math.fsum(probabilities)
    if not abs(total - 1) < 1e-9:
        raise UserError(f"{name} must sum to 1, but {' + '.join(map(str, probabilities))} = {total:.6g}")


def checked_run(run: Callable[[C], R]) -> Callable[[C], R]:
    """A run that refuses a config outside its range, and float32, in which claims of 1e-9 mean nothing."""

    @functools.wraps(run)
    def checked(config: C) -> R:
        if not jax.config.read("jax_enable_x64"):
            raise UserError("experiments need float64: call jax.config.update('jax_enable_x64', True) first")
        check_config(config)
        return run(config)

    return checked


def as_json(config: Any) -> dict[str, Any]:
    """The config as it comes back from its JSON record."""
    record: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return record


def departures(config: Any) -> dict[str, tuple[Any, Any]]:
    """The settings that are not the published ones: field -> (ours, published).

    What `quick` changes is effort, such as seeds and grid points; at its value, too, a field is at its published
    setting.
    """
    published, quick = as_json(type(config)()), as_json(type(config).quick())
    ours = as_json(config)
    return {name: (ours[name], published[name]) for name in ours if ours[name] not in (published[name], quick[name])}


def command(name: str, config: Any) -> str:
    """The command that makes this figure."""
    for known, flag in ((type(config)(), ""), (type(config).quick(), " --quick")):
        if config == known:
            return f"python -m experiments {name}{flag}"
    published, ours = as_json(type(config)()), as_json(config)
    options = []
    for field, value in ours.items():
        if value != published[field]:
            values = value if isinstance(value, list) else [value]
            options.append(f" --{field.replace('_', '-')} {' '.join(str(v) for v in values)}")
    return f"python -m experiments {name}{''.join(options)}"
