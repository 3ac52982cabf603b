"""When a teacher is distilled, what decides how far the student drifts: KL direction, rollout policy, learning rate?

The grid of Piskorz et al., arXiv:2609.35259, in answers of two tokens, where the token-level KL is exact: the student
is trained by Adam to the same success rate in every cell, and its forward drift is compared. Across rates 100 times
apart the learning rate decides. Who rolls out the prefixes hardly matters at slow rates only; at fast ones the
student's own rollouts drift well over a third farther. A share of variance would hide this: it depends on the rates
chosen, which are ours.

About 25 seconds on two cores.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from experiments.harness import Caption, Claim, UserError, at_least, at_most, bounded, checked_run
from rlrazor.plotting import COLORS, panels, samples, theory
from rlrazor.tasks import two_tokens
from rlrazor.tasks.two_tokens import DIRECTIONS, FORWARD, REVERSE, ROLLOUTS, STUDENT, TEACHER

LINES = {STUDENT: "-", TEACHER: ":"}
FACES = {STUDENT: "full", TEACHER: "none"}


@dataclass(frozen=True)
class Config:
    """Teacher, student, and the grid of trainings."""

    num_prompts: int = bounded(16, at_most=10_000)
    """Prompts, each with its own base policy."""
    vocabulary: int = bounded(6, at_least=2, at_most=100)
    """Tokens to choose from, twice."""
    correct_share: float = bounded(0.3, above=0, below=1)
    """Probability that an answer is correct."""
    temperature: float = bounded(0.15, above=0, at_most=100)
    """The teacher is an unrelated policy times exp(correct / temperature)."""
    group_size: int = bounded(8, at_most=1000)
    """Prefixes of each prompt in an update."""
    rates: tuple[float, ...] = bounded((0.01, 0.03, 0.1, 0.3, 1.0), above=0, at_most=100, min_length=3)
    """Learning rates of Adam, increasing."""
    num_seeds: int = bounded(8, at_most=1000)
    """Trainings of every cell of the grid."""
    num_steps: int = bounded(500, at_most=100_000)
    """Updates of each."""
    accuracy: float = bounded(0.85, above=0, below=1)
    """Mean success rate at which cells are compared."""
    seed: int = bounded(0, at_least=0)
    """Of the random keys."""

    def __post_init__(self) -> None:
        """Rates increase."""
        if not list(self.rates) == sorted(set(self.rates)):
            raise UserError(f"rates must increase, got {self.rates}")

    @classmethod
    def quick(cls) -> "Config":
        """Fewer seeds and rates."""
        return cls(num_seeds=3, rates=(0.01, 0.03, 1.0))


class Results(NamedTuple):
    """Forward drift at the accuracy in every cell, NaN where a training does not reach it."""

    drift: dict[str, dict[str, Float[Array, "rates seeds"]]]  # direction -> rollouts

    def rollout_ratio(self) -> dict[str, Any]:
        """Drift with the student's rollouts over that with the teacher's, by direction: geometric mean, `[rates]`."""
        return {direction: ratio(cell[STUDENT], cell[TEACHER]) for direction, cell in self.drift.items()}

    def direction_ratio(self) -> dict[str, Any]:
        """Drift under the forward KL over that under the reverse, by rollouts: geometric mean, `[rates]`."""
        return {who: ratio(self.drift[FORWARD][who], self.drift[REVERSE][who]) for who in ROLLOUTS}

    def rate_share(self, num_rates: int) -> Any:
        """Share of the variance of log drift that the rate's main effect explains among the first so many rates."""
        cells = [self.drift[direction][who][:num_rates] for direction in DIRECTIONS for who in ROLLOUTS]
        log_drift = np.log(np.stack(cells, axis=-1))
        return log_drift.mean(axis=(1, 2)).var() / log_drift.var()

    def arrived(self) -> str:
        """How many trainings reached the accuracy."""
        every = np.concatenate([np.ravel(self.drift[direction][who]) for direction in DIRECTIONS for who in ROLLOUTS])
        return f"{np.sum(np.isfinite(every))} of {every.size} trainings arrive"


def ratio(over: Any, under: Any) -> Any:
    """The geometric mean over seeds of the ratio of two drifts, `[rates]`; NaN where a training did not arrive."""
    return np.exp(np.mean(np.log(over) - np.log(under), axis=-1))


def extremes(ratios: dict[str, Any]) -> tuple[Any, Any]:
    """Smallest and largest of several ratios, `[rates]` each."""
    every = np.stack(list(ratios.values()))
    return every.min(0), every.max(0)


def factor(ratios: dict[str, Any]) -> Any:
    """By what factor drifts differ at most, in either direction, `[rates]`, >= 1."""
    low, high = extremes(ratios)
    return np.maximum(high, 1 / low)


def by_rate(config: Config, ratios: dict[str, Any]) -> str:
    """The range of the ratios at every rate, in words."""
    ranges = zip(config.rates, *extremes(ratios), strict=True)
    return ", ".join(
        f"{low:.2f} to {high:.2f} at {rate:g}" if np.isfinite(low + high) else f"not reached at {rate:g}"
        for rate, low, high in ranges
    )


@checked_run
def run(config: Config) -> Results:
    """Every cell of the grid, every seed."""
    world_key = jax.random.fold_in(jax.random.key(config.seed), 1)
    world = random_world(
        world_key,
        config.correct_share,
        config.temperature,
        num_prompts=config.num_prompts,
        vocabulary=config.vocabulary,
    )
    *_, seeds_key = jax.random.split(world_key, 4)  # the world takes the first three
    seeds, rates = jax.random.split(seeds_key, config.num_seeds), jnp.array(config.rates)
    lengths = {"group_size": config.group_size, "num_steps": config.num_steps}
    return Results({
        direction: {who: cell(world, rates, seeds, config.accuracy, direction, who, **lengths) for who in ROLLOUTS}
        for direction in DIRECTIONS
    })  # fmt: skip


random_world = jax.jit(two_tokens.random_world, static_argnames=("num_prompts", "vocabulary"))


@partial(jax.jit, static_argnames=("direction", "rollouts", "group_size", "num_steps"))
def cell(
    world: two_tokens.World,
    rates: Float[Array, " rates"],
    seeds: Key[Array, " seeds"],
    level: Float[Array, ""],
    direction: str,
    rollouts: str,
    group_size: int,
    num_steps: int,
) -> Float[Array, "rates seeds"]:
    """Drift at the level for one loss and one author of the rollouts, at every rate."""

    def drift(rate: Float[Array, ""], seed: Key[Array, ""]) -> Float[Array, ""]:
        lengths = {"group_size": group_size, "num_steps": num_steps}
        return two_tokens.distill(world, direction, rollouts, level, rate, seed, **lengths).drift_at_level

    drifts: Float[Array, "rates seeds"] = jax.lax.map(lambda rate: jax.vmap(partial(drift, rate))(seeds), rates)
    return drifts


def claims(config: Config, results: Results) -> list[Claim]:
    """What the rate decides over the grid, and at each rate what the rollouts and the direction do."""
    rollouts, directions = results.rollout_ratio(), results.direction_ratio()
    slow, fast = f"{config.rates[0]:g}", f"{config.rates[-1]:g}"
    level, arrived = f"mean success {config.accuracy:g}", f"{results.arrived()}."
    paper = "Piskorz et al., arXiv:2609.35259 (the question)"
    who = f"drift with the student's rollouts over drift with the teacher's, either loss: {by_rate(config, rollouts)}"
    which = f"drift under the forward KL over the reverse, either rollouts: {by_rate(config, directions)}"
    return [
        Claim(
            id="rate-decides",
            statement=f"When an unrelated teacher is distilled at rates from {slow} to {fast}, the learning rate "
            f"decides the drift at {level}: its share of the variance of log drift is at least half.",
            source=paper,
            expected=at_least(0.5),
            measured=results.rate_share(len(config.rates)),
            control=f"rates {slow} and {config.rates[1]:g} alone",
            control_measured=results.rate_share(2),
            note=f"A share of variance depends on the grid of rates, which is a choice of ours. {arrived}",
        ),
        Claim(
            id="rollouts-hardly-matter",
            statement=f"At rate {slow} the rollout policy hardly matters: drifts at {level} differ by a factor of at "
            "most 1.1, whichever the loss.",
            source=paper,
            expected=at_most(1.1),
            measured=factor(rollouts)[0],
            control=f"rate {fast}",
            control_measured=factor(rollouts)[-1],
            note=f"By rate, {who}. {arrived}",
        ),
        Claim(
            id="student-rollouts-drift",
            statement=f"At rate {fast} the rollout policy matters: the student's own rollouts drift at least 1.2 times "
            f"as far as the teacher's at {level}, whichever the loss; the smaller of the two ratios.",
            source="this grid",
            expected=at_least(1.2),
            measured=extremes(rollouts)[0][-1],
            control=f"the other axis, forward over reverse KL at rate {fast}",
            control_measured=extremes(directions)[0][-1],
            note=f"By rate, {who}. {arrived}",
        ),
        Claim(
            id="direction-hardly-matters",
            statement=f"At no rate does the direction of the loss change the drift at {level} by more than a factor of "
            "1.25, whoever rolls out: largest factor.",
            source="this grid",
            expected=at_most(1.25),
            measured=factor(directions).max(),
            control="the other axis, the rollout policy",
            control_measured=factor(rollouts).max(),
            note=f"By rate, {which}. {arrived}",
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """The grid, and both ratios rate by rate."""
    figure, axes = panels([["grid", "rollouts", "directions"]], height=2.7)
    draw_grid(axes["grid"], config, results)
    for direction in DIRECTIONS:
        pair = results.drift[direction][STUDENT], results.drift[direction][TEACHER]
        draw_ratio(axes["rollouts"], config, *pair, COLORS[direction], "-", direction)
    axes["rollouts"].set(ylabel="drift, student over teacher", title="who rolls out")
    for who in ROLLOUTS:
        pair = results.drift[FORWARD][who], results.drift[REVERSE][who]
        draw_ratio(axes["directions"], config, *pair, COLORS["exact"], LINES[who], f"{who} rolls out", FACES[who])
    axes["directions"].set(ylabel="drift, forward over reverse KL", title="direction of the loss")
    low = min(axes[name].get_ylim()[0] for name in ("rollouts", "directions"))
    high = max(axes[name].get_ylim()[1] for name in ("rollouts", "directions"))
    for name in ("rollouts", "directions"):
        axes[name].set_ylim(low, high)
        axes[name].legend(loc="upper left")
    return figure


def log_axes(ax: Axes) -> None:
    """Rates and drifts on log scales, with plain numbers on the second."""
    ax.set(xscale="log", yscale="log", xlabel="learning rate (Adam)")
    ax.yaxis.set_major_formatter(ScalarFormatter())
    low, high = ax.get_ylim()
    ticks = [tick for tick in (0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3, 4, 6, 8) if low <= tick <= high]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()


def draw_grid(ax: Axes, config: Config, results: Results) -> None:
    """Drift by learning rate in every cell: every seed, and their means."""
    for direction in DIRECTIONS:
        for who in ROLLOUTS:
            drift = np.asarray(results.drift[direction][who])
            look: Any = {"color": COLORS[direction], "linestyle": LINES[who]}
            theory(ax, config.rates, drift.mean(-1), label=f"{direction}, {who} rolls out", **look)
            for column in drift.T:
                samples(
                    ax, config.rates, column, color=COLORS[direction], markersize=2, fillstyle=FACES[who], alpha=0.7
                )
    log_axes(ax)
    ax.set(ylabel=f"forward drift at $J={config.accuracy:g}$ (nats)", title="every cell")
    ax.legend(loc="upper left")


def draw_ratio(
    ax: Axes, config: Config, over: Any, under: Any, color: str, line: str, label: str, face: str = "full"
) -> None:
    """The ratio of two drifts by rate: every seed, and the geometric mean."""
    ax.axhline(1, color=COLORS["ref"], linewidth=0.6, zorder=0)
    theory(ax, config.rates, ratio(over, under), color=color, linestyle=line, label=label)
    for column in (np.asarray(over) / np.asarray(under)).T:
        samples(ax, config.rates, column, color=color, markersize=2, fillstyle=face, alpha=0.7)
    log_axes(ax)


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    rollouts, share = factor(results.rollout_ratio()), results.rate_share(len(config.rates))
    decides = f"The learning rate explains {share:.0%} of the variance of log drift over this grid of rates"
    if np.isnan(share):
        decides = f"{results.arrived()}, so the learning rate's share of the variance of log drift is not measured"
    sizes = {"at most 1.1": rollouts <= 1.1, f"up to {np.nanmax([1, *rollouts]):.2f}": rollouts > 1.1}
    found = [
        f"{size} at rate{'s' if at.sum() > 1 else ''} {', '.join(f'{r:g}' for r in np.compress(at, config.rates))}"
        for size, at in sizes.items()
        if at.any()
    ]
    changes = f"The rollout policy changes the drift by a factor of {' and of '.join(found)}"
    return Caption(
        f"{decides}; such a share depends on the grid. {changes if found else 'At no rate do all trainings arrive'}.",
        a=f"Drift where the mean success rate reaches {config.accuracy:g}: lines are means, points the "
        f"{config.num_seeds} trainings of each cell; {results.arrived()}.",
        b="Drift with the student's rollouts over drift with the teacher's, by loss: geometric means and every seed.",
        c="Drift under the forward KL over drift under the reverse KL, by who rolls out.",
    )
