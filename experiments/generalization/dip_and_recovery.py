"""Does the forgotten rule come back when SFT goes on, or when RL takes over?

Here it does neither. Under the other rule SFT first improves, then falls, and never recovers, though its own rule stays
mastered and it is trained three times as long as in `navigation`. GRPO that takes over within the first few dozen
updates keeps what is there; after the fall it cannot bring it back, for it is never rewarded under the other rule. What
arXiv:2604.06628 calls dip and recovery, and arXiv:2509.12235 healing by RL, needs something that this world lacks.

Chu et al. (arXiv:2501.17161), figures 19 and 21. About 95 seconds on two cores, with `navigation` and `drift_order`.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.generalization.walks import Config, Results
from experiments.generalization.walks import run as run
from experiments.harness import Caption, Claim, at_least, at_most
from rlrazor.methods import EXACT_RL, GRPO, SFT, plus_replay
from rlrazor.plotting import COLORS, METHOD_STYLE, key, panels, samples, theory

REPLAY = plus_replay(SFT)
DRAWN = (SFT, EXACT_RL, GRPO)
TRAINED, OTHER = 0, 1
SILENT = (
    "What this does not say about language models: that theirs cannot recover; their answers are long, their bases "
    "strong and their data many, which is where recovery was reported."
)


def long_accuracy(results: Results, method: str, rule: int = OTHER) -> np.ndarray:
    """Right steps of the long trainings, `[seeds, records]`."""
    return np.asarray(results.long[method].scores.per_step)[..., rule]


def rescued(results: Results, rule: int = OTHER) -> np.ndarray:
    """Right steps where GRPO takes over and where it ends, `[lengths, seeds, 2]`."""
    return np.asarray(results.rescued.scores.per_step)[..., rule]


def recovery(path: np.ndarray) -> float:
    """The end of a path above its lowest point."""
    return float(path[-1] - path.min())


def claims(config: Config, results: Results) -> list[Claim]:
    """The early peak, the fall, and the two ways back."""
    sft, rl = (long_accuracy(results, method).mean(0) for method in (SFT, EXACT_RL))
    ends, starts = rescued(results).mean(1)[:, 1], rescued(results).mean(1)[:, 0]
    first, last = config.sft_steps[0], config.sft_steps[-1]
    return [
        Claim(
            id="early-peak",
            statement="SFT first improves under the rule that it is not trained on: its best accuracy there above its "
            "base's, mean over seeds.",
            source="Jin et al., arXiv:2509.12235 (the early peak)",
            expected=at_least(0.05),
            measured=sft.max() - sft[0],
            control="the end of its training",
            control_measured=sft[-1] - sft[0],
        ),
        Claim(
            id="no-recovery",
            statement=f"Within {config.long_steps} updates it does not come back: accuracy in the end above its lowest "
            "point, mean over seeds.",
            source="against Ren et al., arXiv:2604.06628 (dip and recovery)",
            expected=at_most(0.01),
            measured=recovery(sft[np.argmax(sft) :]),
            control="before it fell",
            control_measured=recovery(sft[: np.argmax(sft) + 1]),
            note=f"SFT ends at {sft[-1]:.3f} under the other rule and at "
            f"{long_accuracy(results, SFT, TRAINED).mean(0)[-1]:.3f} under its own.",
        ),
        Claim(
            id="long-rl-slips-only",
            statement=f"Exact RL slips, too, but slowly: what {config.long_steps} updates take from its best accuracy "
            "under the other rule.",
            source="exact policy gradient",
            expected=at_most(0.25),
            measured=rl.max() - rl[-1],
            control=SFT,
            control_measured=sft.max() - sft[-1],
        ),
        Claim(
            id="rl-cannot-rescue",
            statement=f"GRPO that takes over after {last} updates of SFT does not bring the other rule back: accuracy "
            f"there after {config.rescue_steps} updates of it.",
            source="Chu et al., arXiv:2501.17161, figures 19 and 21",
            expected=at_most(0.3),
            measured=ends[-1],
            control=f"after {first} updates",
            control_measured=ends[0],
            note="By updates of SFT, before and after: "
            + ", ".join(f"{n}: {a:.2f} to {b:.2f}" for n, a, b in zip(config.sft_steps, starts, ends, strict=True))
            + ".",
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """Long trainings, and the rescue."""
    figure, axes = panels([["long", "rescue"]], height=2.8)
    draw_long(axes["long"], results)
    draw_rescue(axes["rescue"], config, results)
    return figure


def draw_long(ax: Axes, results: Results) -> None:
    """Right steps under both rules along long trainings: means, and every seed under the other rule."""
    steps = np.maximum(results.long_steps, 1)
    for method in DRAWN:
        color, _, line = METHOD_STYLE[method]
        other = long_accuracy(results, method)
        theory(ax, steps, other.T, color=color, linewidth=0.4, alpha=0.5)
        theory(ax, steps, other.mean(0), color=color, linestyle=line, linewidth=1.5, label=method)
        own = long_accuracy(results, method, TRAINED).mean(0)
        theory(ax, steps, own, color=color, linewidth=0.7, linestyle=(0, (1, 1)))
    color, _, line = METHOD_STYLE[REPLAY]
    mixed = results.accuracy(REPLAY, OTHER).mean(0)
    theory(ax, np.maximum(results.steps, 1), mixed, color=color, linestyle=line, label=REPLAY)
    key(ax, "trained rule", color=COLORS["ref"], linewidth=0.7, linestyle=(0, (1, 1)))
    ax.set(xscale="log", xlabel="updates", ylabel="right steps (published count)", ylim=(0, 1.03), title="going on")
    ax.legend(loc="lower left")


def draw_rescue(ax: Axes, config: Config, results: Results) -> None:
    """The other rule where GRPO takes over, and where it ends: every seed, and means joined by a line."""
    found = rescued(results)
    looks = ((0, SFT, "where GRPO takes over"), (1, GRPO, f"{config.rescue_steps} updates later"))
    for at, method, label in looks:
        color, marker, _ = METHOD_STYLE[method]
        ax.plot(config.sft_steps, found[..., at].mean(1), color=color, linewidth=1.3, label=label)
        x = np.repeat(config.sft_steps, found.shape[1])
        samples(ax, x, found[..., at].ravel(), at_most=len(x), color=color, marker=marker)
    ax.set(xscale="log", xlabel="updates of SFT before GRPO", ylabel="other rule, right steps", ylim=(0, 1.03))
    ax.set_title("RL after SFT")
    ax.legend(loc="lower left")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    sft = long_accuracy(results, SFT).mean(0)
    starts, ends = rescued(results).mean(1).T
    return Caption(
        f"Under the other rule SFT rises from {sft[0]:.2f} to {sft.max():.2f} and falls to {sft[-1]:.2f} by update "
        f"{config.long_steps}. GRPO after {config.sft_steps[0]} updates of SFT ends at {ends[0]:.2f}; after "
        f"{config.sft_steps[-1]} it goes from {starts[-1]:.2f} to {ends[-1]:.2f}. {SILENT}",
        a="Right steps under the other rule (thick: means, thin: seeds) and under the trained one (dotted, means); "
        f"SFT with {config.replay_share:g} of its prompts under the other rule dips and recovers.",
        b="Right steps under the other rule when GRPO takes over from SFT, and after it: every seed, and means.",
    )
