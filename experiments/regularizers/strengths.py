"""Which regulariser keeps most of an old task at the same gold reward on a new one?

A linear softmax learns a new task from a noisy proxy reward and forgets an old task whose prompts share its features.
Every regulariser is swept over its strength. At equal gold reward pretraining gradients lose least, an early stop comes
next, and penalties on the new prompts lose several times as much, for they look where nothing is lost. An oracle that
knows the gold reward and the old task draws the frontier. Without shared features nothing is lost, whatever is done.

About 28 seconds on two cores.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness import Caption, Claim, at_least, at_most, number
from experiments.regularizers.strength_runs import Config, Results
from experiments.regularizers.strength_runs import run as run
from rlrazor.plotting import COLORS, panels, samples, theory

PENALTY, FORWARD, BONUS = "KL penalty", "forward KL penalty", "entropy bonus"
PRETRAINING, REPLAY, STOP = "pretraining gradients", "replay of right answers", "early stop"
PREFERENCES, ANCHORED = "DPO, its beta", "DPO + NLL, its alpha"
FRONTIER, KNOWS_GOLD = "oracle: gold + old task", "KL penalty, gold reward"
STYLES = {
    PENALTY: ("#1f6fb4", "o"),
    FORWARD: ("#66b2d6", "^"),
    BONUS: ("#8c8c8c", "v"),
    PRETRAINING: ("#2e8b57", "s"),
    REPLAY: ("#b5651d", "D"),
    PREFERENCES: ("#d1495b", "P"),
    ANCHORED: ("#edae49", "X"),
    STOP: ("#5e3c99", "*"),
}


def claims(config: Config, results: Results) -> list[Claim]:
    """Who keeps most, what the extremes do, and what the proxy overstates."""
    ends = {name: results.shared[name] for name in (*STYLES, KNOWS_GOLD) if name != STOP}
    free, strongest = ends[PENALTY], config.strengths[-1]
    others = [np.array(ends[name]) - np.array(free)[..., :1] for name in (FORWARD, BONUS, PRETRAINING, REPLAY)]
    anchored = [ends[name].lost[:, -1].max() for name in (PENALTY, FORWARD, PRETRAINING, PREFERENCES)]
    overstated = {name: np.median(ends[name].proxy[:, 0] / ends[name].gold[:, 0]) for name in (PENALTY, KNOWS_GOLD)}
    penalty, data, stop = (results.lost_at(name, config) for name in (PENALTY, PRETRAINING, STOP))
    apart = results.lost_at(PENALTY, config, shared=False) - results.lost_at(PRETRAINING, config, shared=False)
    level = f"{config.level:g} of the gold reward that a training without a regulariser gains"
    return [
        Claim(
            id="envelope",
            statement="No regulariser keeps more than the oracle at its gold reward: nats by which one does.",
            source="gradient descent on the gold reward and the old task",
            expected=at_most(0.1),
            measured=results.undercut(FRONTIER),
            control="the envelope of a KL penalty with the gold reward, which knows nothing of the old task",
            control_measured=results.undercut(KNOWS_GOLD),
        ),
        Claim(
            id="strength-zero",
            statement="At strength 0 every regulariser of the reward is none: largest difference of an outcome.",
            source="definition",
            expected=at_most(1e-9),
            measured=max(np.abs(other[..., 0]).max() for other in others),
            control=f"strength {strongest:g}",
            control_measured=min(np.abs(other[..., -1]).max() for other in others),
        ),
        Claim(
            id="strength-infinite",
            statement=f"At strength {strongest:g} both KL penalties, pretraining gradients and DPO give back the base: "
            "largest loss of the old task in nats.",
            source="their optima",
            expected=at_most(0.01),
            measured=max(anchored),
            control="the entropy bonus, which knows nothing of the base",
            control_measured=ends[BONUS].lost[:, -1].min(),
        ),
        Claim(
            id="data-beat-the-penalty",
            statement=f"At {level}, pretraining gradients keep at least 0.2 nats more of the old task than the KL "
            "penalty: median over worlds.",
            source="exact gradients",
            expected=at_least(0.2),
            measured=np.nanmedian(penalty - data),
            control="no shared features",
            control_measured=apart[0],
            note=f"They keep more in {np.sum(penalty > data)} of {len(data)} worlds.",
        ),
        Claim(
            id="so-does-an-early-stop",
            statement="And so does an early stop without any regulariser: median over worlds.",
            source="exact gradients",
            expected=at_least(0.2),
            measured=np.nanmedian(penalty - stop),
            control="no shared features",
            control_measured=apart[0],
            note=f"It keeps more in {np.sum(penalty > stop)} of {len(stop)} worlds.",
        ),
        Claim(
            id="over-optimised",
            statement="Without a regulariser the proxy overstates what is gained at least 1.5 times: median over "
            "worlds.",
            source="noise of the proxy",
            expected=at_least(1.5),
            measured=overstated[PENALTY],
            control="trained on the gold reward",
            control_measured=overstated[KNOWS_GOLD],
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """The plane of new reward and old loss, a cut through it, the strengths, and what the proxy overstates."""
    draws = {"plane": draw_plane, "cut": draw_cut, "strengths": draw_strengths, "gap": draw_gap}
    figure, axes = panels([["plane", "cut"], ["strengths", "gap"]], height=5.8)
    for name, draw in draws.items():
        draw(axes[name], config, results)
    figure.legend(*axes["plane"].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


def draw_plane(ax: Axes, config: Config, results: Results) -> None:
    """What is lost of the old task against gold reward on the new one, along each strength, in the first world."""
    edge = results.shared[FRONTIER]
    theory(ax, edge.gold[0], edge.lost[0], color=COLORS["target"], linestyle="--", linewidth=1.0, label=FRONTIER)
    for name, (color, marker) in STYLES.items():
        gold, lost = results.shared[name].gold[0], results.shared[name].lost[0]
        ax.plot(gold, lost, color=color, linestyle="-" if name == STOP else ":", linewidth=0.8)
        samples(ax, gold, lost, color=color, marker=marker, markersize=3.5, at_most=20, label=name)
    ax.axvline(config.level * float(results.shared[PENALTY].gold[0, 0]), color=COLORS["ref"], linewidth=0.6)
    ax.set(yscale="log", ylim=(1e-3, 60), xlabel="gold reward on the new task, above the base")
    ax.set(ylabel=r"old task lost, KL$(\pi_0\Vert\pi)$ (nats)", title="each regulariser, over its strength")


def draw_cut(ax: Axes, config: Config, results: Results) -> None:
    """What is lost at the gold reward of the comparison, in every world, the first one large."""
    for row, (name, (color, marker)) in enumerate((STYLES | {FRONTIER: (COLORS["target"], "|")}).items()):
        lost = results.lost_at(name, config)
        samples(ax, lost, np.full(lost.shape, row), color=color, marker=marker, markersize=3.5, alpha=0.6)
        samples(ax, lost[:1], [row], color=color, marker=marker, markersize=7)
    ax.set_yticks(range(len(STYLES) + 1), [*STYLES, FRONTIER])
    ax.set(xscale="log", xlabel=r"old task lost (nats)", title=f"at {config.level:g} of the gold reward gained without")
    ax.invert_yaxis()


def draw_strengths(ax: Axes, config: Config, results: Results) -> None:
    """Gold reward against strength, the first point at none, in the first world."""
    for name, (color, marker) in STYLES.items():
        if name != STOP:
            x = np.maximum(config.strengths, config.strengths[1] / 3)
            ax.plot(x, results.shared[name].gold[0], color=color, marker=marker, markersize=3, linewidth=0.8)
    ax.set(xscale="log", xlabel="strength (leftmost: 0)", ylabel="gold reward, above the base", title="what it costs")


def draw_gap(ax: Axes, config: Config, results: Results) -> None:
    """What the proxy overstates, against drift on new prompts, in the first world."""
    for name, (color, marker) in STYLES.items():
        curve = results.shared[name]
        gap = curve.proxy[0] - curve.gold[0]
        samples(ax, curve.drift[0], gap, color=color, marker=marker, markersize=3.5, at_most=20)
    ax.set(xlabel=r"drift on new prompts, KL$(\pi\Vert\pi_0)$ (nats)", ylabel="proxy - gold reward")
    ax.set_title("over-optimisation")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    names = (PENALTY, PRETRAINING, STOP, FRONTIER)
    at = {name: number(np.nanmedian(results.lost_at(name, config))) for name in names}
    return Caption(
        f"At {config.level:g} of the gold reward that is gained without a regulariser, a KL penalty on new prompts "
        f"loses {at[PENALTY]} nats of the old task, an early stop {at[STOP]}, pretraining gradients {at[PRETRAINING]}, "
        f"an oracle {at[FRONTIER]} (medians of {config.num_worlds} worlds). What protects an old task are its data.",
        a="What is lost of the old task against the gold reward on the new one, each regulariser over its strength, in "
        "one world; dashed, gradient descent on the gold reward and the old task.",
        b="A cut through it, in every world; the one of the other panels is large.",
        c="Gold reward against strength.",
        d="By how much the proxy overstates what is gained, against drift.",
    )
