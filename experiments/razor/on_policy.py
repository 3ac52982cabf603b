"""Is it on-policy data, or the lack of negative gradients, that keeps a policy close to its base?

"RL's Razor" (Shenfeld, Pari, Agrawal, arXiv:2509.04259, section 4) crosses on-policy data with negative gradients:
GRPO, 1-0 REINFORCE, SFT and SimPO, at equal new-task accuracy. On many prompts, with exact gradients and with groups of
samples, the published answer comes back: on-policy data explains the drift and negative gradients hardly matter. It
holds while the teacher is far from the base; near it SFT drifts less. On one prompt GRPO and REINFORCE do the same.

About 20 seconds on two cores.
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

from experiments.harness import Caption, Claim, UserError, at_least, at_most, bounded, checked_run, number
from rlrazor.flows import log_times
from rlrazor.methods import GRPO, REINFORCE, SFT, SIMPO
from rlrazor.plotting import COLORS, LABELS, METHOD_STYLE, panels, samples, theory
from rlrazor.tasks import prompts

ON_POLICY, OFF_POLICY = (GRPO, REINFORCE), (SIMPO, SFT)
NEGATIVE, POSITIVE = (GRPO, SIMPO), (REINFORCE, SFT)  # with negative gradients, and without
METHODS = ON_POLICY + OFF_POLICY
Scalar = Float[Array, ""]


@dataclass(frozen=True)
class Config:
    """Prompts, teachers, groups and how long methods train."""

    num_prompts: int = bounded(32, at_most=10_000)
    """Prompts, each with its own base policy."""
    num_outcomes: int = bounded(10, at_least=2, at_most=1000)
    """Answers to each."""
    num_correct: int = bounded(5, at_most=999)
    """How many of them are correct."""
    spread: float = bounded(1.5, at_least=0, at_most=10)
    """Standard deviation of the bases' log-odds of success."""
    teacher_spread: float = bounded(2.0, at_least=0, at_most=10)
    """Standard deviation of the logits of the unrelated teacher; the bases' is 1."""
    distances: tuple[float, ...] = bounded((0.0, 0.2, 0.4, 0.6, 0.8, 1.0), at_least=0, at_most=1, min_length=2)
    """How far the teacher is: 0 is the base itself, 1 an unrelated policy."""
    group_size: int = bounded(8, at_least=2, at_most=1000)
    """Samples of each prompt in an update, and GRPO's group."""
    accuracy: float = bounded(0.95, above=0, below=1)
    """Mean success rate at which methods are compared."""
    curve_end: float = bounded(0.985, above=0, below=1)
    """Mean success rate that the curves are followed to."""
    single_success: float = bounded(0.5, above=0, below=1)
    """The single prompt is the one that the base answers correctly at a rate closest to this."""
    first_time: float = bounded(1.0, above=0, at_most=10)
    """First saved time of a flow after its start (rate times steps)."""
    end_time: float = bounded(1e6, at_least=100, at_most=1e8)
    """How long flows may take to the accuracy."""
    num_times: int = bounded(121, at_least=10, at_most=10_000)
    """Saved times, log-spaced."""
    num_worlds: int = bounded(12, at_least=2, at_most=1000)
    """Random worlds of prompts and teachers; one sampled training of each method in each."""
    rate: float = bounded(8.0, above=0, at_most=1000)
    """Their learning rate, of the mean loss over prompts."""
    num_steps: int = bounded(1000, at_most=100_000)
    """Their updates."""
    seed: int = bounded(0, at_least=0)
    """Of the random keys."""

    def __post_init__(self) -> None:
        """The teacher ranges from the base to an unrelated policy, and there is something to learn."""
        if not (self.distances[:1] + self.distances[-1:] == (0, 1) and sorted({*self.distances}) == [*self.distances]):
            raise UserError(f"distances must increase from 0 to 1, got {self.distances}")
        if self.num_correct >= self.num_outcomes:
            raise UserError(f"num_correct must be below num_outcomes {self.num_outcomes}, got {self.num_correct}")

    @classmethod
    def quick(cls) -> "Config":
        """Fewer worlds and teachers."""
        return cls(distances=(0.0, 0.5, 1.0), num_worlds=4)


class Results(NamedTuple):
    """Drift at equal accuracy by method, NaN where a flow or a training does not reach it."""

    curves: dict[str, prompts.Run]  # exact, unrelated teacher, the first world
    exact: dict[str, Float[Array, "distances worlds"]]
    one_prompt: dict[str, Float[Array, " worlds"]]
    sampled: dict[str, Float[Array, " worlds"]]  # unrelated teacher

    def effect(self, of: tuple[str, ...], against: tuple[str, ...]) -> Any:
        """Mean exact drift of some methods less that of others, mean over worlds, `[distances]`."""
        means = (np.mean([self.exact[method] for method in methods], axis=(0, -1)) for methods in (of, against))
        return np.subtract(*means)


def arrived(*drifts: dict[str, Any]) -> str:
    """How many flows or trainings reached the accuracy."""
    every = np.concatenate([np.ravel(drift[method]) for drift in drifts for method in METHODS])
    return f"{np.sum(~np.isnan(every))} of {every.size}"


@checked_run
def run(config: Config) -> Results:
    """Flows of every method for every teacher and world, on one prompt, and trainings on samples."""
    keys = jax.random.split(jax.random.key(config.seed), config.num_worlds)
    size = prompts.Size(config.num_prompts, config.num_outcomes, config.num_correct)
    spreads = config.spread, config.teacher_spread
    worlds = [random_worlds(keys, distance, *spreads, size) for distance in config.distances]
    times = log_times(config.first_time, config.end_time, config.num_times)

    def drifts(world: prompts.World) -> dict[str, Scalar]:
        runs = flows(world, config.accuracy, times, config.group_size)
        return {method: runs[method].drift_at_level for method in METHODS}

    unrelated = each(worlds[-1])
    return Results(
        curves=flows(unrelated[0], config.curve_end, times, config.group_size),
        exact=stacked([stacked([drifts(world) for world in each(some)]) for some in worlds]),
        one_prompt=stacked([drifts(prompts.one_prompt(world, config.single_success)) for world in unrelated]),
        sampled=trainings(worlds[-1], keys, config.accuracy, config.rate, config.group_size, config.num_steps),
    )


@partial(jax.jit, static_argnames="size")
def random_worlds(
    keys: Key[Array, " worlds"], distance: Scalar, spread: Scalar, teacher_spread: Scalar, size: prompts.Size
) -> prompts.World:
    """A world of prompts for each key, with the teacher at the distance."""
    return jax.vmap(lambda key: prompts.many_prompts(key, distance, spread, teacher_spread, size))(keys)


@partial(jax.jit, static_argnames="group_size")
def flows(
    world: prompts.World, level: Scalar, times: Float[Array, " times"], group_size: int
) -> dict[str, prompts.Run]:
    """Every method's exact flow in one world, compiled once for all worlds and levels."""
    return prompts.flows_to(METHODS, prompts.problem_of(world, group_size), level, times)


@partial(jax.jit, static_argnames=("group_size", "num_steps"))
def trainings(
    worlds: prompts.World, keys: Key[Array, " worlds"], level: Scalar, rate: Scalar, group_size: int, num_steps: int
) -> dict[str, Float[Array, " worlds"]]:
    """Every method on finite groups of samples in every world: drift at the level."""

    def of(world: prompts.World, key: Key[Array, ""]) -> dict[str, Scalar]:
        problem, draws = prompts.problem_of(world, group_size), jax.random.fold_in(key, 1)
        runs = prompts.train_to(METHODS, problem, level, rate, draws, num_steps=num_steps)
        return {method: runs[method].drift_at_level for method in METHODS}

    return jax.vmap(of)(worlds, keys)


def each(worlds: prompts.World) -> list[prompts.World]:
    """One by one."""
    return [jax.tree.map(lambda leaf, row=row: leaf[row], worlds) for row in range(len(worlds.log_ref))]


def stacked(trees: list[Any]) -> Any:
    """Trees as one, with a new leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


# One list: split, its argument would be harder to follow.
def claims(config: Config, results: Results) -> list[Claim]:
    """Which axis explains the drift, and when."""
    off_policy, negative = results.effect(OFF_POLICY, ON_POLICY), results.effect(NEGATIVE, POSITIVE)
    gap, single = results.effect((REINFORCE,), (SFT,)), results.one_prompt
    exact, sampled = results.exact, results.sampled
    flow_count = f"{arrived(exact)} flows arrive at mean success {config.accuracy:g}."
    paper, level = "RL's Razor, arXiv:2509.04259, section 4", f"mean success {config.accuracy:g}"
    return [
        Claim(
            id="on-policy-explains",
            statement=f"With an unrelated teacher, off-policy data costs at least 0.3 nats of drift at {level}: mean "
            f"forward drift of {SFT} and {SIMPO} minus that of {GRPO} and {REINFORCE}.",
            source=paper,
            expected=at_least(0.3),
            measured=off_policy[-1],
            control="a teacher that answers like the base where the base is correct",
            control_measured=off_policy[0],
            note=flow_count,
        ),
        Claim(
            id="negatives-do-not",
            statement="With an unrelated teacher, negative gradients hardly matter: their main effect on drift at "
            f"{level} is at most a fifth of that of off-policy data; size of the ratio.",
            source=paper,
            expected=at_most(0.2),
            measured=abs(negative[-1] / off_policy[-1]),
            control="a teacher that answers like the base",
            control_measured=abs(negative[0] / off_policy[0]),
            note=flow_count,
        ),
        Claim(
            id="near-teacher-wins",
            statement=f"SFT on the base's correct answers drifts at least 0.1 nats less than {REINFORCE} at {level}.",
            source="exact flows",
            expected=at_least(0.1),
            measured=gap[0],
            control="the unrelated teacher",
            control_measured=gap[-1],
            note=flow_count,
        ),
        Claim(
            id="one-prompt",
            statement=f"On a single prompt {GRPO} and {REINFORCE} run along the same curve: largest difference of "
            f"their drifts at {level} over {config.num_worlds} worlds.",
            source="E[GRPO gradient] = c_G(J) ∇J",
            expected=at_most(1e-6),
            measured=np.abs(single[GRPO] - single[REINFORCE]).max(),
            control=f"{config.num_prompts} prompts at once, which c_G weighs differently",
            control_measured=np.abs(exact[GRPO][-1] - exact[REINFORCE][-1]).max(),
            note=f"{arrived(single)} flows on one prompt arrive. What they differ by is the integrator's tolerance.",
        ),
        Claim(
            id="samples-follow",
            statement=f"Sampled training (groups of {config.group_size}, rate {config.rate:g}) follows the exact flow "
            f"within 0.06 nats at {level}: mean difference of the drifts, for the method where it is largest.",
            source="exact expected gradients",
            expected=at_most(0.06),
            measured=np.max([abs((sampled[method] - exact[method][-1]).mean()) for method in METHODS]),
            control=f"the exact flow of another method: {SFT}'s for {GRPO}",
            control_measured=abs((sampled[GRPO] - exact[SFT][-1]).mean()),
            note=f"{arrived(sampled)} trainings and {arrived({m: exact[m][-1] for m in METHODS})} flows arrive.",
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """The curves, the two axes, and the teacher."""
    draws = {"curves": draw_curves, "axes": draw_axes, "teacher": draw_teacher}
    figure, axes = panels([list(draws)], height=2.8)
    for name, draw in draws.items():
        draw(axes[name], config, results)
    return figure


def draw_curves(ax: Axes, config: Config, results: Results) -> None:
    """Drift against success in one world, exact."""
    for width, method in zip((1.3, 3.0, 1.3, 1.3), METHODS, strict=True):  # the first two nearly coincide
        run, style = results.curves[method], METHOD_STYLE[method]
        theory(ax, run.success, run.drift, color=style.color, label=method, linewidth=width, zorder=4 - width)
    ax.axvline(config.accuracy, color=COLORS["ref"], linewidth=0.6)
    ax.set(xlabel=f"mean {LABELS['success']}", ylabel=LABELS["forward drift"], title="unrelated teacher, one world")
    ax.legend(loc="upper left")


def draw_axes(ax: Axes, config: Config, results: Results) -> None:
    """The 2 x 2: exact means as lines, and in every world the exact flow beside the training on samples."""
    columns = {GRPO: 0.0, REINFORCE: 1.0, SIMPO: 2.5, SFT: 3.5}
    for pair, line, label in ((NEGATIVE, "-", "negative gradients"), (POSITIVE, ":", "no negative gradients")):
        means = [np.mean(results.exact[method][-1]) for method in pair]
        theory(ax, [columns[method] for method in pair], means, color=COLORS["exact"], linestyle=line, label=label)
    for method, column in columns.items():
        for drift, shift, face in ((results.exact[method][-1], -0.15, "none"), (results.sampled[method], 0.15, "full")):
            look: Any = {"color": METHOD_STYLE[method].color, "fillstyle": face, "at_most": drift.size}
            samples(ax, np.full(drift.size, column + shift), drift, **look)
    ax.set_xticks([0.5, 3.0], ["on-policy", "off-policy"])
    ax.margins(x=0.1, y=0.3)  # room for the legend
    ax.set(ylabel=f"forward drift at $J={config.accuracy:g}$ (nats)", title="unrelated teacher, all worlds")
    ax.legend(loc="upper left")


def draw_teacher(ax: Axes, config: Config, results: Results) -> None:
    """Drift as the teacher moves away from the base, with the standard error of what differs within a world."""
    for method in METHODS:
        drift, style = np.asarray(results.exact[method]), METHOD_STYLE[method]
        spread = (drift - results.exact[REINFORCE]).std(1, ddof=1) / np.sqrt(drift.shape[1])
        error, marker = (None, "none") if method in ON_POLICY else (2 * spread, style.marker)
        width = 3.0 if method == REINFORCE else 1.3
        look: Any = {"color": style.color, "marker": marker, "linewidth": width, "elinewidth": 1.0, "zorder": 4 - width}
        ax.errorbar(config.distances, drift.mean(1), error, label=method, **look)
    ax.set(xlabel="distance of the teacher", ylabel=f"drift at $J={config.accuracy:g}$ (nats)", title="near and far")
    ax.legend(loc="upper left")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    off_policy, negative = results.effect(OFF_POLICY, ON_POLICY), results.effect(NEGATIVE, POSITIVE)
    gap = results.effect((SFT,), (REINFORCE,))
    near, far = (f"{abs(value):.2f} nats {'farther' if value > 0 else 'less far'}" for value in gap[[0, -1]])
    if np.isnan(gap).any() or np.isnan(off_policy[-1]):
        return Caption(
            f"Too few flows reach mean success rate {config.accuracy:g} to compare: {arrived(results.exact)}."
        )
    return Caption(
        "With an unrelated teacher, off-policy data changes the forward drift at mean success rate "
        f"{config.accuracy:g} by {number(off_policy[-1])} nats and negative gradients by {number(negative[-1])}. SFT "
        f"drifts {far} than {REINFORCE} with this teacher, and {near} on the base's correct answers.",
        a=f"Exact flows in one world of {config.num_prompts} prompts, up to {config.curve_end:g} or for a time of "
        f"{config.end_time:g}; the line is where methods are compared.",
        b=f"Lines are means of exact flows over {config.num_worlds} worlds, rings are the flows, points beside them "
        f"trainings on groups of {config.group_size} samples, {arrived(results.sampled)} of which arrive.",
        c=f"Exact flows, {arrived(results.exact)} of which arrive; bars: two errors of the difference to {REINFORCE}.",
    )
