"""When does DPO lower the answer that it prefers, and which NLL weight stops it?

In a softmax table never. Where answers share features it does iff (u+ - ū)·(u- - u+) > 0: the rejected answer lies
further along than the chosen one, seen from the policy's mean feature ū. An NLL anchor of weight alpha / |y+|
stops it at that moment iff alpha / |y+| >= beta σ(-beta gap) (u+ - ū)·(u- - u+) / |u+ - ū|². The weight that suffices
for a whole training is the largest that it needs on its own path.

Razin et al. (arXiv:2410.08847) name the cause, Pang et al. (arXiv:2404.19733) add the anchor. Threads that ask:
eric-mitchell/direct-preference-optimization #8, #32, #36; OpenRLHF #1054; trl PR 1705, #1904 (alpha stands at the NLL
term). About 13 seconds on two cores.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness import Caption, Claim, at_least, at_most, near
from experiments.regularizers.displacement_runs import Config, Results
from experiments.regularizers.displacement_runs import run as run
from rlrazor.plotting import COLORS, key, note, panels, samples, theory

TABLE, FROZEN, FREE = "table", "features, frozen head", "features and head"
TRAINED_COLORS = {TABLE: COLORS["target"], FROZEN: COLORS["forward KL"], FREE: COLORS["reverse KL"]}
ALPHA_COLORS = (COLORS["forward KL"], COLORS["reverse drift"], COLORS["oracle"])


def claims(config: Config, results: Results) -> list[Claim]:
    """Where it happens, what decides, and what stops it."""
    worlds, razin = results.worlds, "Razin et al., arXiv:2410.08847"
    fell = worlds.measured[FROZEN] < 0
    agree, without_mean = (np.mean((x > 0) == fell) for x in (worlds.further, worlds.without_mean))
    at_start, ever = np.mean(fell), np.mean(results.needed_most > 0)
    path_needs = results.needed[0]
    inside = path_needs > 0.05 * path_needs.max()
    error = np.abs(results.measured_weight / np.where(inside, path_needs, np.nan) - 1)
    enough = int(np.argmax(results.alphas >= results.predicted_sufficient))
    return [
        Claim(
            id="never-in-a-table",
            statement=f"In a softmax table DPO never lowers the chosen answer: share of {config.num_worlds} worlds in "
            "which a first step does.",
            source="d log policy(y+) / dt = beta σ(-beta gap) (1 - policy(y+) + policy(y-))",
            expected=at_most(0),
            measured=np.mean(worlds.measured[TABLE] < 0),
            control="answers that share features, with a frozen head",
            control_measured=at_start,
        ),
        Claim(
            id="iff-further-along",
            statement="With a frozen head it does iff (u+ - ū)·(u- - u+) > 0: share of worlds in which a step agrees.",
            source=f"{razin}, theorem 1, for one token",
            expected=at_least(1),
            measured=agree,
            control="the sign of u+·u- - |u+|², which leaves the policy's mean feature out",
            control_measured=without_mean,
        ),
        Claim(
            id="rate",
            statement="In every parametrisation the first step moves it at the rate of the kernel: largest error, in "
            "nats a unit of time.",
            source="rlrazor.displacement against central differences",
            expected=at_most(1e-7),
            measured=max(np.abs(worlds.measured[name] - worlds.predicted[name]).max() for name in TRAINED_COLORS),
            control="the kernel of a frozen head for a free one",
            control_measured=np.abs(worlds.measured[FREE] - worlds.predicted[FROZEN]).max(),
        ),
        Claim(
            id="later",
            statement="Most worlds that lose do so later: share in which the chosen answer falls at some time, over "
            "the share in which it falls at first.",
            source="exact trainings",
            expected=at_least(2),
            measured=ever / at_start,
            control="those that fall at first, alone",
            control_measured=at_start / at_start,
        ),
        Claim(
            id="threshold",
            statement="The NLL weight that stops it moves along the training as the formula says: largest relative "
            "error against measured steps, where it is at least a twentieth of its largest.",
            source="Pang et al., arXiv:2404.19733, eq. 1 (the loss); threshold derived here",
            expected=at_most(0.01),
            measured=np.nanmax(error),
            control="its value at the largest, all the time",
            control_measured=np.max(np.abs(path_needs.max() / path_needs[inside] - 1)),
        ),
        Claim(
            id="sufficient",
            statement="The weight that suffices for a whole training is the largest that its own path needs: the "
            "smallest weight under which no update lowers the chosen answer, over the predicted one.",
            source="formula along every path",
            expected=near(1, 0.01),
            measured=results.measured_sufficient / results.predicted_sufficient,
            control="what the start needs",
            control_measured=path_needs[0] / results.predicted_sufficient,
        ),
        Claim(
            id="strengths",
            statement="With that weight the chosen answer never falls below its start: its lowest log-probability "
            "against the start, in nats.",
            source="exact training",
            expected=at_least(-1e-9),
            measured=results.change[enough].min(),
            control="no anchor",
            control_measured=results.change[0].min(),
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """Trainings, the weight that stops it, what decides the sign, and how many features it takes."""
    draws = {"trainings": draw_trainings, "weight": draw_weight, "sign": draw_sign, "share": draw_share}
    figure, axes = panels([["trainings", "weight"], ["sign", "share"]], height=5.2)
    for name, draw in draws.items():
        draw(axes[name], config, results)
    return figure


def draw_trainings(ax: Axes, config: Config, results: Results) -> None:
    """Log-probability of the chosen answer along trainings of a table, and of a frozen head under three weights."""
    time = config.rate * np.arange(config.num_steps + 1)
    theory(ax, time, results.table, color=TRAINED_COLORS[TABLE], label="table")
    enough = int(np.argmax(results.alphas >= results.predicted_sufficient))
    for row, color in zip((0, enough // 4, enough), ALPHA_COLORS, strict=True):
        theory(ax, time, results.change[row], color=color, label=rf"frozen head, $\alpha={results.alphas[row]:.2f}$")
    ax.axhline(0, color=COLORS["ref"], linewidth=0.6)
    ax.set(xlabel="time (rate × steps)", ylabel=r"$\log\pi(y_+)$ against the start (nats)", title="the chosen answer")
    ax.legend(loc="upper left", ncols=2)
    ax.set_ylim(None, 1.5 * ax.get_ylim()[1])


def draw_weight(ax: Axes, config: Config, results: Results) -> None:
    """The weight that would stop it: along the path without one, formula and measured, and what suffices throughout."""
    time = config.rate * np.arange(config.num_steps + 1)
    theory(ax, time, results.needed[0], color=COLORS["forward KL"], label="needed, without an anchor (formula)")
    samples(ax, time, results.measured_weight, color=COLORS["forward KL"], label="measured by steps")
    ax.axhline(results.predicted_sufficient, color=COLORS["oracle"], label="largest that its own path needs")
    ax.axhline(results.measured_sufficient, color=COLORS["target"], linestyle="--", linewidth=1.0)
    key(ax, "smallest under which no update lowers it", color=COLORS["target"], linestyle="--", linewidth=1.0)
    ax.set(xlabel="time (rate × steps)", ylabel=r"NLL weight $\alpha/|y_+|$", title="what stops it")
    ax.set_ylim(0, 1.5 * max(float(results.needed[0].max()), results.predicted_sufficient))
    ax.legend(loc="upper right")


def draw_sign(ax: Axes, config: Config, results: Results) -> None:
    """The rate of the chosen answer in a first step against how far along the rejected one lies, in every world."""
    worlds = results.worlds
    x = np.array([min(float(worlds.further.min()), -1.0), max(float(worlds.further.max()), 1.0)])
    theory(ax, x, -config.beta / 2 * x, color=COLORS["target"], linestyle="--", linewidth=1.0)
    for name, marker in ((FROZEN, "o"), (FREE, "^")):
        look: Any = {"color": TRAINED_COLORS[name], "marker": marker, "at_most": 300, "alpha": 0.6, "label": name}
        samples(ax, worlds.further, worlds.measured[name], **look)
    ax.axhline(0, color=COLORS["ref"], linewidth=0.6)
    ax.axvline(0, color=COLORS["ref"], linewidth=0.6)
    note(ax, "falls", (0.98, 0.03), xycoords="axes fraction", ha="right")
    ax.set_xlim(1.4 * float(np.quantile(worlds.further, 0.01)), None)
    top = 1.3 * float(np.quantile(worlds.measured[FREE], 0.99))
    ax.set_ylim(-0.25 * top, top)
    ax.set(xlabel=r"$(u_+-\bar u)\cdot(u_--u_+)$", ylabel=r"$d\log\pi(y_+)/dt$ at the start", title="what decides")
    ax.legend(loc="upper left")


def draw_share(ax: Axes, config: Config, results: Results) -> None:
    """The share of worlds in which the chosen answer falls at first, with two standard errors, against features."""
    for name, color in TRAINED_COLORS.items():
        share = np.asarray(results.share[name])
        error = 2 * np.sqrt(share * (1 - share) / config.num_worlds)
        look: Any = {"color": color, "marker": "o", "linewidth": 1.0, "markersize": 4, "label": name}
        ax.errorbar(config.dimensions, share, error, **look)
    ax.set(
        xscale="log", xlabel="features", ylabel="share of worlds in which it falls", title="it takes shared features"
    )
    ax.legend(loc="upper right")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    fell, ever = np.mean(results.worlds.measured[FROZEN] < 0), np.mean(results.needed_most > 0)
    return Caption(
        f"With {config.num_features} features and a frozen head DPO lowers the chosen answer at first in {fell:.0%} of "
        f"random worlds and at some time in {ever:.0%}, in a softmax table in none. An NLL weight of "
        f"{results.predicted_sufficient:.3g} a token prevents it in world {config.world}, where the start needs "
        f"{results.needed[0, 0]:.2g}.",
        a=f"Log-probability of the chosen answer along DPO with an NLL anchor of weight alpha in world {config.world}.",
        b="The weight that would stop the fall: along the path without an anchor, by formula and by measured steps; "
        "and the weight that suffices for a whole training, predicted and measured.",
        c="How fast a first step moves the chosen answer, against how far along the rejected one lies; dashed, "
        "-beta / 2 times that. A free head adds what a table does, |h|² times.",
        d="Share of worlds in which it falls at first against the number of features.",
    )
