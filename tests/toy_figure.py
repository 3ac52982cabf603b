"""A figure for the tests of the harness.

Discounted sums, which need no second to compute.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments.harness import Caption, Claim, UserError, at_least, bounded, check_sum, checked_run, near


@dataclass(frozen=True)
class Config:
    """Settings of the toy."""

    size: int = bounded(5, at_most=100)
    """Terms of a sum."""
    rate: float = bounded(0.5, above=0.0, below=1.0)
    """Discount."""
    weights: tuple[float, ...] = bounded((0.25, 0.75), at_least=0.0, length=2)
    """Of the two sums."""
    radii: tuple[float, ...] = bounded((1.0, 2.0), above=0.0)
    """Any number of them."""
    label: str = "toy"
    """Text."""

    def __post_init__(self) -> None:
        check_sum("weights", self.weights)
        if self.rate > 0.9 and self.size > 50:
            raise UserError("rate over 0.9 needs size of at most 50")

    @classmethod
    def quick(cls) -> "Config":
        """Fewer terms."""
        return cls(size=4)


class Path(NamedTuple):
    """A partial sum after each term."""

    total: Float[np.ndarray, " terms"]


class Results(NamedTuple):
    """Sums by the sign of their terms."""

    paths: dict[str, dict[str, Path]]
    count: Float[np.ndarray, ""]

    def last(self, sign: str) -> float:
        """The whole sum."""
        return float(self.paths["geometric"][sign].total[-1])


@checked_run
def run(config: Config) -> Results:
    """Geometric sums."""
    powers = config.rate ** np.arange(config.size)
    signs = {"alternating": (-1.0) ** np.arange(config.size), "plain": np.ones(config.size)}
    paths = {name: Path(np.cumsum(sign * powers)) for name, sign in signs.items()}
    return Results({"geometric": paths}, np.float64(config.size))


def claims(config: Config, results: Results) -> list[Claim]:
    """The closed form, a bound that large rates break, and a number that someone published."""
    exact = (1 - config.rate**config.size) / (1 - config.rate)
    plain, alternating = results.last("plain"), results.last("alternating")
    return [
        Claim("sum", f"The sum at rate {config.rate}.", "Euclid", near(exact, 1e-9), plain, "signs", alternating),
        Claim("small", "The sum is small.", "us", near(1.5, 0.5), plain, "signs", alternating, note="to rate 0.6"),
        Claim("published", "The sum is 1.9.", "someone", at_least(1.8), plain, "signs", alternating, published=True),
    ]


def plot(config: Config, results: Results) -> Figure:
    """The partial sums."""
    figure = Figure()
    ax = figure.add_subplot()
    for path in results.paths["geometric"].values():
        ax.plot(path.total)
    ax.set_title(config.label)
    return figure


def caption(config: Config, results: Results) -> Caption:
    """What is seen."""
    return Caption(f"Sums at rate {config.rate} end at {results.last('plain'):.3f}. They converge.", a="Partial sums.")
