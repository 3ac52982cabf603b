"""Which distillation am I running: what does each descend, where does it end, and what is forgotten there?

The student remembers one token, its teacher two, so it can't become the teacher and the choice of a loss decides where
it ends. SFT descends KL(teacher‖student) of answers. On-policy distillation, token KLs on the student's own prefixes,
which are not differentiated, descends no KL of answers: it stops short of the least KL(student‖teacher), which the
derivative of the prefixes would reach. The direction of the token KL moves the end, and who writes the prefixes hardly
does; nor does the learning rate, but for noise. At equal reward all of them have forgotten the same.

Names: arXiv:2605.16826; learning rates: arXiv:2609.35259. Threads that ask why a forward KL on student rollouts: GLM-5
issue 34, tinker-cookbook PR 677, slime issue 1068. About 25 seconds on two cores.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import rlrazor as rz
from experiments.harness import Caption, Claim, at_least, at_most, number
from experiments.practice.distillation_runs import Config, Place, Results
from experiments.practice.distillation_runs import run as run
from rlrazor.methods import SFT
from rlrazor.plotting import COLORS, note, panels, samples, theory

OFFLINE, DAGGER, ON_POLICY, WHOLE = "offline", "DAgger", "on-policy distillation", "reverse KL of answers"
CELLS = (SFT, OFFLINE, DAGGER, ON_POLICY, WHOLE)
TRAINED = CELLS[:-1]
LOOKS: dict[str, Any] = {  # the direction's color, the student's prefixes full
    SFT: {"color": COLORS["forward KL"], "fillstyle": "none"},
    DAGGER: {"color": COLORS["forward KL"], "fillstyle": "full"},
    OFFLINE: {"color": COLORS["reverse KL"], "fillstyle": "none"},
    ON_POLICY: {"color": COLORS["reverse KL"], "fillstyle": "full"},
    WHOLE: {"color": COLORS["exact"], "fillstyle": "full"},
}
LINES = {SFT: ":", DAGGER: "-", OFFLINE: ":", ON_POLICY: "-", WHOLE: "--"}
WORDS = {
    SFT: "SFT: forward, teacher's prefixes",
    DAGGER: "DAgger: forward, own prefixes",
    OFFLINE: "offline: reverse, teacher's prefixes",
    ON_POLICY: "on-policy: reverse, own prefixes",
    WHOLE: "the same, prefixes differentiated",
}


def ends(results: Results) -> dict[str, Place]:
    """Where exact trainings end."""
    return {name: Place(*(np.asarray(leaf)[-1] for leaf in path)) for name, path in results.paths.items()}


def drift_at(path: Place, level: float) -> float:
    """Drift where a training reaches the reward."""
    return float(rz.value_at_crossing(jnp.asarray(path.reward), jnp.asarray(path.drift), level))


def factor(values: Any) -> float:
    """The largest over the smallest."""
    return float(np.max(values) / np.min(values))


def claims(config: Config, results: Results) -> list[Claim]:
    """What is descended, where it ends, and what decides."""
    end, gap = ends(results), results.gap
    by_writer = max(factor([end[a].drift, end[b].drift]) for a, b in ((SFT, DAGGER), (OFFLINE, ON_POLICY)))
    by_direction = min(factor([end[a].drift, end[b].drift]) for a, b in ((SFT, OFFLINE), (DAGGER, ON_POLICY)))
    best = np.asarray(results.curve.reverse)[-1]
    weights = np.linspace(0, 1, config.num_weights)
    least = (1 - weights) * results.curve.forward + weights * results.curve.reverse
    below = [least - ((1 - weights) * place.forward + weights * place.reverse) for place in end.values()]
    apart = [max(place.forward, place.reverse) for place in end.values()]
    reached = [max(np.max(place.forward), np.max(place.reverse)) for place in results.able.values()]
    off = np.array([np.abs(np.mean(results.sampled[name].drift, 1) / end[name].drift - 1) for name in TRAINED])
    matched = [drift_at(path, config.level) for path in results.paths.values()]
    fast, slow = f"rate {config.rates[-1]:g}", f"rate {config.rates[0]:g}"
    return [
        Claim(
            id="what-is-descended",
            statement="SFT descends KL(teacher‖student) of answers, and the reverse KL on own prefixes that are "
            "differentiated KL(student‖teacher): largest difference of gradients, relative.",
            source="chain rule of the KL",
            expected=at_most(1e-9),
            measured=max(gap.forward[CELLS.index(SFT)], gap.reverse[CELLS.index(WHOLE)]),
            control="on-policy distillation",
            control_measured=min(gap.forward[CELLS.index(ON_POLICY)], gap.reverse[CELLS.index(ON_POLICY)]),
        ),
        Claim(
            id="on-policy-stops-short",
            statement="On-policy distillation ends at no less than 1.1 times the least KL(student‖teacher).",
            source="exact gradients",
            expected=at_least(1.1),
            measured=end[ON_POLICY].reverse / best,
            control="prefixes differentiated",
            control_measured=end[WHOLE].reverse / best,
        ),
        Claim(
            id="frontier",
            statement="No end has less of both KL divergences than the students that minimise their weighted sum: by "
            "how much one has, largest.",
            source="exact gradients on the sum",
            expected=at_most(1e-6),
            measured=np.max(below),
            control="the teacher, which no such student is",
            control_measured=np.max(least),
        ),
        Claim(
            id="a-student-that-can",
            statement="A student that remembers as much as the teacher becomes the teacher under all of them: largest "
            "KL in either direction.",
            source="exact gradients",
            expected=at_most(1e-3),
            measured=max(reached),
            control="the student that can't, its least",
            control_measured=min(apart),
        ),
        Claim(
            id="who-writes-hardly-matters",
            statement="Who writes the prefixes changes the drift at the end by a factor of at most 1.15.",
            source="exact gradients",
            expected=at_most(1.15),
            measured=by_writer,
            control="the direction of the KL, its smaller factor",
            control_measured=by_direction,
        ),
        Claim(
            id="rates",
            statement=f"On sampled prefixes drifts at {slow} are those of the exact ends within 3%: largest relative "
            "difference.",
            source="mean of the last quarter of updates and of seeds",
            expected=at_most(0.03),
            measured=off[:, 0].max(),
            control=f"{fast}; the most",
            control_measured=off[:, -1].max(),
        ),
        Claim(
            id="equal-reward",
            statement=f"Where they have an expected reward of {config.level:g} all have drifted as far, within 5%: the "
            "factor between the most and the least.",
            source="exact gradients",
            expected=at_most(1.05),
            measured=factor(matched),
            control="their ends",
            control_measured=factor([place.drift for place in end.values()]),
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """Ends in the plane of both KLs, paths in that of reward and drift, and drifts by learning rate."""
    figure, axes = panels([["ends", "paths", "rates"]], height=3.4)
    draw_ends(axes["ends"], results)
    draw_paths(axes["paths"], config, results)
    draw_rates(axes["rates"], config, results)
    handles, labels = axes["ends"].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def draw_ends(ax: Axes, results: Results) -> None:
    """Ends, and the curve of least sums."""
    theory(ax, results.curve.forward, results.curve.reverse, color=COLORS["ref"], label="least weighted sum of both")
    for name, place in ends(results).items():
        samples(ax, [place.forward], [place.reverse], markersize=5, label=WORDS[name], **LOOKS[name])
    ax.set(xlabel=r"KL$(T\Vert\pi)$ of answers (nats)", ylabel=r"KL$(\pi\Vert T)$ of answers (nats)")
    ax.set_title("where each ends")


def draw_paths(ax: Axes, config: Config, results: Results) -> None:
    """Drift by reward along exact trainings."""
    for name, path in results.paths.items():
        theory(ax, path.reward, path.drift, color=LOOKS[name]["color"], linestyle=LINES[name])
        samples(ax, [path.reward[-1]], [path.drift[-1]], markersize=5, **LOOKS[name])
    ax.plot(results.teacher.reward, results.teacher.drift, "*", color=COLORS["target"])
    note(ax, "teacher", (float(results.teacher.reward), float(results.teacher.drift) - 0.15), ha="center", va="top")
    ax.axvline(config.level, color=COLORS["ref"], linewidth=0.6)
    ax.set(xlabel="expected reward", ylabel=r"drift KL$(\pi_0\Vert\pi)$ (nats)", title="what is forgotten")


def draw_rates(ax: Axes, config: Config, results: Results) -> None:
    """Drift at the end by learning rate: exact and sampled."""
    for name in TRAINED:
        ax.axhline(float(ends(results)[name].drift), color=LOOKS[name]["color"], linestyle=LINES[name], linewidth=1)
        for seed in np.asarray(results.sampled[name].drift).T:
            samples(ax, config.rates, seed, markersize=2, **LOOKS[name])
    ax.set(xscale="log", xlabel="learning rate (Adam)", ylabel=r"drift KL$(\pi_0\Vert\pi)$ (nats)")
    ax.set_title("on sampled prefixes")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    end = ends(results)
    short = float(end[ON_POLICY].reverse) / float(np.asarray(results.curve.reverse)[-1])
    drifts = {name: number(place.drift) for name, place in end.items()}
    return Caption(
        f"On-policy distillation ends at {number(short)} times the least KL(student‖teacher). Drifts at the ends: SFT "
        f"{drifts[SFT]}, DAgger {drifts[DAGGER]}, offline {drifts[OFFLINE]}, on-policy {drifts[ON_POLICY]} nats; at a "
        f"reward of {config.level:g} they are equal. Answers of {config.horizon} tokens, exact.",
        a="The student remembers one token, the teacher two.",
        b="Exact trainings from the base; the vertical line is where rewards are equal.",
        c=f"Lines are exact ends, points seeds of Adam on prefixes of {config.num_prompts} answers an update.",
    )
