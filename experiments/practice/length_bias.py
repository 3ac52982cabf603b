"""Does dividing by the number of tokens make answers longer?

A group's loss on tokens is averaged: over the tokens of each answer (GRPO, 1/|o|), over a constant (Dr. GRPO), over all
tokens of the group (DAPO). The advantage is always the reward less its mean in the group. Answers go on or stop, right
or wrong; how long they are says nothing of whether they are right. Then the mean length first grows where less
than half of the answers are right, shrinks where more are, and stays at one half, whatever the average. What 1/|o|
does is to move short answers more: as the success rate grows, those that are left wrong are longer and those that are
right are shorter than under a constant; the mean over all tokens lies between. GSPO's ratio, the geometric mean over
tokens, has the gradient of 1/|o| on own samples.

Threads that ask: understand-r1-zero issue 25, trl PR 3138 and issue 3991, tinker-cookbook issue 579. About 8 seconds on
two cores.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness import Caption, Claim, at_least, at_most, number
from experiments.practice.length_runs import Config, Results
from experiments.practice.length_runs import run as run
from rlrazor.methods import DR_GRPO, GRPO
from rlrazor.plotting import COLORS, LABELS, METHOD_STYLE, panels, theory

HALF = 0.5
LOOKS: dict[str, dict[str, Any]] = {
    "mean of each answer": {"color": METHOD_STYLE[GRPO].color, "label": "1/|o|, GRPO's"},
    "sum over a constant": {"color": METHOD_STYLE[DR_GRPO].color, "label": "sum, Dr. GRPO's", "linestyle": "--"},
    "mean over all tokens": {"color": COLORS["measured"], "label": "all tokens, DAPO's", "linestyle": ":"},
}
ANSWER, TOTAL, _ = LOOKS


def claims(config: Config, results: Results) -> list[Claim]:
    """When lengths change, and what the average has to do with it."""
    half, start = config.successes.index(HALF), config.successes.index(config.start)
    at = f"at a success rate of {config.compared:g}"
    lengths = {average: results.length_at(average, config.compared) for average in LOOKS}
    longer_wrong = lengths[ANSWER].wrong - lengths[TOTAL].wrong
    longer_right = lengths[ANSWER].right - lengths[TOTAL].right
    drifts = np.stack([results.speed[average].all for average in LOOKS])
    exact = {average: results.speed[average].wrong[start] for average in LOOKS}
    score = {a: abs(results.sampled[a].wrong - exact[a]) / results.error[a].wrong for a in LOOKS}
    return [
        Claim(
            id="half",
            statement="Where half of the answers are right, no average changes the mean length: largest speed.",
            source="expected gradient over all groups",
            expected=at_most(1e-10),
            measured=np.abs(drifts[:, half]).max(),
            control=f"at a success rate of {config.start:g}",
            control_measured=np.abs(drifts[:, start]).max(),
        ),
        Claim(
            id="wrong-longer",
            statement=f"Under 1/|o| wrong answers are longer than under a sum, {at}: difference in tokens.",
            source="exact expected gradient steps",
            expected=at_least(0.1),
            measured=longer_wrong,
            control="right answers",
            control_measured=longer_right,
        ),
        Claim(
            id="right-shorter",
            statement=f"And those that are right are shorter, {at}: difference in tokens.",
            source="exact expected gradient steps",
            expected=at_most(-0.05),
            measured=longer_right,
            control="wrong answers",
            control_measured=longer_wrong,
        ),
        Claim(
            id="samples",
            statement=f"Sampled groups change the length of wrong answers as expected, {config.num_groups} of them at "
            f"a success rate of {config.start:g}: largest difference in standard errors.",
            source="Monte Carlo",
            expected=at_most(4),
            measured=max(score.values()),
            control="1/|o| against the sum",
            control_measured=abs(results.sampled[ANSWER].wrong - exact[TOTAL]) / results.error[ANSWER].wrong,
        ),
        Claim(
            id="gspo",
            statement="On own samples the ratio of GSPO has the gradient of 1/|o|: largest difference.",
            source="∇ exp(mean log-ratio) at a ratio of 1",
            expected=at_most(1e-12),
            measured=results.ratio_gap,
            control="on an older policy's samples",
            control_measured=results.ratio_gap_old,
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """Mean length at the first step, and both kinds of answers along trainings."""
    figure, axes = panels([["start", "wrong", "right"]], height=2.7)
    draw_start(axes["start"], config, results)
    draw_path(axes["wrong"], results, "wrong")
    draw_path(axes["right"], results, "right")
    axes["wrong"].legend(loc="upper left")
    return figure


def draw_start(ax: Axes, config: Config, results: Results) -> None:
    """Speed of the mean length against the success rate: exact, and sampled at the start."""
    for average, look in LOOKS.items():
        theory(ax, config.successes, results.speed[average].all, **look)
        bars: Any = {"fmt": "o", "markersize": 3, "color": look["color"]}
        ax.errorbar([config.start], [results.sampled[average].all], [2 * float(results.error[average].all)], **bars)
    ax.axhline(0, color=COLORS["ref"], linewidth=0.6)
    ax.axvline(HALF, color=COLORS["ref"], linewidth=0.6)
    ax.set(xlabel=LABELS["success"], ylabel="tokens per unit of time", title="mean length, first step")


def draw_path(ax: Axes, results: Results, kind: str) -> None:
    """Length of one kind of answers against the success rate, along the training."""
    for average, look in LOOKS.items():
        theory(ax, results.success[average], getattr(results.path[average], kind), **look)
    ax.set(xlabel=LABELS["success"], ylabel=f"mean tokens of {kind} answers", title=f"{kind} answers in training")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    wrong = {average: number(results.length_at(average, config.compared).wrong) for average in LOOKS}
    return Caption(
        "Dividing by the tokens of each answer does not make answers longer; it makes wrong ones longer and right ones "
        f"shorter. Groups of {config.group_size}, in which length says nothing of right or wrong at the start.",
        a="Expected change of the mean length at the first step, by the base's success rate; points are of sampled "
        "groups, with two standard errors.",
        b=f"At a success rate of {config.compared:g} wrong answers have {wrong[ANSWER]} tokens under 1/|o|, "
        f"{wrong[TOTAL]} under a sum.",
        c="Right answers get shorter, most of all under 1/|o|.",
    )
