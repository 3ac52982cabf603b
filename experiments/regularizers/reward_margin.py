"""What does a margin do to the reward that is fitted, and to the policy that follows?

Llama 2 (Touvron et al., arXiv:2307.09288, eq. 2) subtracts a margin that grows with how clearly annotators prefer an
answer. One pair then ends at the gap g / 2 + asinh(e^m sinh(g / 2)), with g the true one. The textbook's g + m holds
for annotators who agree; for those who toss coins a margin does nothing. Without a margin the fitted reward is
calibrated; with one it is stretched, and the policy that follows has gone further along nearly the same reward-KL
frontier: a margin is a smaller beta.

Threads that ask: trl #718, #2493 (Llama 3 dropped the margin). About 8 seconds on two cores.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness import Caption, Claim, at_least, at_most
from experiments.regularizers.margin_runs import Config, Results
from experiments.regularizers.margin_runs import run as run
from rlrazor.plotting import COLORS, panels, samples, theory

NONE, SMALL, LARGE, REVERSED = "no margin", "small margins", "large margins", "reversed margins"
TABLE_COLORS = {
    NONE: COLORS["exact"],
    SMALL: COLORS["oracle"],
    LARGE: COLORS["reverse KL"],
    REVERSED: COLORS["measured"],
}
MARGIN_COLORS = (COLORS["exact"], COLORS["oracle"], COLORS["reverse KL"])
PAIR, CENTERED, TRIPLE = "a pair", "a pair, centred", "three answers, centred"


def claims(config: Config, results: Results) -> list[Claim]:
    """Where a fit ends, what it does to the policy, and what agreement leads to."""
    llama = "Touvron et al., arXiv:2307.09288, eq. 2 (the loss)"
    gaps, margins = results.true_gaps[None], np.array(config.pair_margins)[:, None]
    textbook, fitted, last = np.abs(results.pair_gaps - gaps - margins), results.fits, -1
    calibration = {name: np.abs(fitted[name].reward - results.reward).max() for name in TABLE_COLORS}
    kl = {name: float(fitted[name].end.kl[0]) for name in TABLE_COLORS}
    by_formula, paths = results.predicted_separable, results.separable
    return [
        Claim(
            id="gap",
            statement="A pair ends at the gap g / 2 + asinh(e^m sinh(g / 2)): largest difference from the minimiser of "
            f"the loss, over margins up to {config.pair_margins[last]:g}.",
            source=f"{llama}; optimum derived here",
            expected=at_most(1e-8),
            measured=np.abs(results.pair_gaps - results.predicted_gaps).max(),
            control="the textbook's g + m",
            control_measured=textbook.max(),
        ),
        Claim(
            id="agreeing-annotators",
            statement="For annotators who agree the textbook's g + m holds: largest difference at a preference of "
            f"{results.preferences[last]:.3f}.",
            source=f"{llama}; limit of the formula",
            expected=at_most(0.05),
            measured=textbook[:, last].max(),
            control="annotators who toss coins",
            control_measured=textbook[:, 0].max(),
        ),
        Claim(
            id="calibrated-without",
            statement="Without a margin the reward that is fitted to all pairs is the annotators': largest difference.",
            source="Bradley and Terry",
            expected=at_most(1e-8),
            measured=calibration[NONE],
            control="Llama 2's large margins",
            control_measured=calibration[LARGE],
        ),
        Claim(
            id="further-along",
            statement=f"With large margins the policy at beta = {config.beta:g} has gone further: its KL over that "
            "without margins.",
            source="exact tilts",
            expected=at_least(1.5),
            measured=kl[LARGE] / kl[NONE],
            control="without margins",
            control_measured=kl[NONE] / kl[NONE],
        ),
        Claim(
            id="a-smaller-beta",
            statement="And it has gone along the frontier: largest true reward lost at equal KL, as a share of the "
            "range of rewards.",
            source="exact tilts",
            expected=at_most(5e-4),
            measured=results.shortfall(LARGE) / (2 * config.highest),
            control="large margins for unclear preferences and none for clear ones",
            control_measured=results.shortfall(REVERSED) / (2 * config.highest),
        ),
        Claim(
            id="no-bound",
            statement="Where annotators always agree the gap grows as m + log ω(2 t + e^-m - m), without bound: "
            "largest difference of a training.",
            source=f"{llama}; flow derived here",
            expected=at_most(0.05),
            measured=np.abs(paths[PAIR] - by_formula).max(),
            control="the same without the margin",
            control_measured=np.abs(paths[PAIR] - by_formula[:1]).max(),
        ),
        Claim(
            id="centring-holds-no-pair",
            statement="Centring rewards does not bound the gap of a pair: the gap at the end, less that without it.",
            source="TRL's center_rewards_coefficient penalises sums",
            expected=at_most(1e-6),
            measured=np.abs(paths[CENTERED] - paths[PAIR]).max(),
            control="three answers, of which each sum leaves one out",
            control_measured=np.abs(paths[TRIPLE] - paths[PAIR]).max(),
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """A single pair, calibration, the policies that follow, and agreement."""
    draws = {"pair": draw_pair, "calibration": draw_calibration, "policies": draw_policies, "agreed": draw_agreed}
    figure, axes = panels([["pair", "calibration"], ["policies", "agreed"]], height=5.2)
    for name, draw in draws.items():
        draw(axes[name], config, results)
    return figure


def draw_pair(ax: Axes, config: Config, results: Results) -> None:
    """Fitted against true gap of a single pair: formula, minimisers, and the textbook."""
    gaps = results.true_gaps
    for row, (margin, color) in enumerate(zip(config.pair_margins, MARGIN_COLORS, strict=True)):
        theory(ax, gaps, results.predicted_gaps[row], color=color, label=f"$m={margin:g}$")
        samples(ax, gaps, results.pair_gaps[row], color=color)
        if margin:
            theory(ax, gaps, gaps + margin, color=color, linestyle=":", label=f"$g+{margin:g}$")
    ax.set(xlabel=r"true gap $g=\mathrm{logit}\,p$", ylabel=r"fitted gap $\Delta$", title="one pair of answers")
    ax.legend(loc="upper left")


def draw_calibration(ax: Axes, config: Config, results: Results) -> None:
    """Fitted against true reward with every margin table: all preferences as lines, finite labels as points."""
    for name, color in TABLE_COLORS.items():
        theory(ax, results.reward, results.fits[name].reward, color=color, label=name)
        for row in results.fits[name].sampled:
            samples(ax, results.reward, row, color=color, alpha=0.4)
    ax.set(xlabel="annotators' reward", ylabel="fitted reward", title="all pairs")
    ax.legend(loc="upper left")


def draw_policies(ax: Axes, config: Config, results: Results) -> None:
    """True reward against KL along the tilts by each fitted reward, and where they are at the beta of the config."""
    for name, color in TABLE_COLORS.items():
        fit, line = results.fits[name], "--" if name == NONE else "-"
        theory(ax, fit.path.kl, fit.path.reward, color=color, linestyle=line, zorder=4 if name == NONE else 2)
        samples(ax, fit.end.kl, fit.end.reward, color=color, markersize=6, label=name, zorder=5)
    ax.set(xlabel=r"KL$(\pi\Vert\pi_0)$ (nats)", ylabel="true expected reward")
    ax.set(title=rf"the policies that follow, points at $\beta={config.beta:g}$")
    ax.legend(loc="lower right")


def draw_agreed(ax: Axes, config: Config, results: Results) -> None:
    """The gap over time where annotators always agree: formula and training, and what centring does."""
    times = results.times
    for row, (margin, color) in enumerate(zip(config.pair_margins, MARGIN_COLORS, strict=True)):
        theory(ax, times[1:], results.predicted_separable[row, 1:], color=color, label=f"pair, $m={margin:g}$")
        samples(ax, times[1:], results.separable[PAIR][row, 1:], color=color, at_most=20)
    for name, marker in ((CENTERED, "s"), (TRIPLE, "^")):
        look: Any = {"color": COLORS["measured"], "marker": marker, "label": f"{name}, $m=0$", "at_most": 25}
        samples(ax, times[1:], results.separable[name][0, 1:], **look)
    ax.set(
        xscale="log", xlabel="time (rate × steps)", ylabel=r"fitted gap $\Delta$", title="annotators who always agree"
    )
    ax.legend(loc="upper left")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    kl = {name: float(results.fits[name].end.kl[0]) for name in TABLE_COLORS}
    lost = results.shortfall(LARGE) / (2 * config.highest)
    return Caption(
        f"Large margins take the policy at beta = {config.beta:g} from {kl[NONE]:.2f} to {kl[LARGE]:.2f} nats of KL, "
        f"along the reward-KL frontier but for {lost:.2g} of the range of rewards: they are a smaller beta. One pair "
        "ends at g / 2 + asinh(e^m sinh(g / 2)), not at g + m.",
        a="The gap that a pair is fitted with under a margin m: formula as lines, minimisers as points, dotted g + m.",
        b=f"The reward that is fitted to all pairs with a margin by clarity; points from {config.num_labels} labels.",
        c="True expected reward and KL of the tilts by each fitted reward; dashed, the frontier, which is that without "
        "margins.",
        d="The gap of the best over the worst answer where annotators always agree; centred with a coefficient of "
        f"{config.centering:g}.",
    )
