"""What does the forgetting law need besides shared features?

New inputs that span the shared features, and training that stops before forgetting saturates, which is long before the
new task is learned. Forward drift then runs on without bound, as unwanted answers vanish, and reverse drift predicts
better.

"RL's Razor" (Shenfeld, Pari, Agrawal, arXiv:2509.04259), figure 3 and table 1, which report R² = 0.96 for forward and
0.93 for reverse drift. About 35 seconds on two cores, with `law`.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness import Caption, Claim, at_least, at_most
from experiments.razor.law_runs import Config, Results
from experiments.razor.law_runs import run as run
from rlrazor.plotting import COLORS, LABELS, METHOD_STYLE, band, note, panels, samples, theory
from rlrazor.tasks.shared_features import METHODS

LAW = "RL's Razor, arXiv:2509.04259, figure 3 and table 1"
FORWARD, REVERSE = "forward drift", "reverse drift"


def claims(config: Config, results: Results) -> list[Claim]:
    """Coverage and short training."""
    coverages, r2 = np.array(config.coverages), results.coverage_r2.value
    few = int(np.flatnonzero(coverages < config.num_features)[-1])
    enough = (coverages >= 2 * config.num_features) & (coverages < config.num_prompts)
    forward, reverse = results.horizon_r2[FORWARD].value, results.horizon_r2[REVERSE].value
    short, long = config.horizons[0], config.horizons[-1]
    first, last = results.rates(0), results.rates(-1)
    return [
        Claim(
            id="needs-coverage",
            statement=f"New inputs must span the shared features: R² lost with {config.coverages[few]} instead of "
            f"{config.num_prompts} prompts for {config.num_features} features.",
            source="exact training",
            expected=at_least(0.15),
            measured=r2[-1] - r2[few],
            control="twice as many prompts as features or more",
            control_measured=r2[-1] - r2[enough].min() if enough.any() else np.nan,
        ),
        Claim(
            id="needs-short-training",
            statement=f"Forward drift runs on after forgetting has saturated: its R² after {long} updates.",
            source="exact training; published fits turn over, too",
            expected=at_most(0.85),
            measured=forward[-1],
            control=f"after {short} updates",
            control_measured=forward[0],
            note=f"By then the methods succeed at rates of {last.min():.2f} to {last.max():.2f}; after {short} "
            f"updates, of {first.min():.2f} to {first.max():.2f}.",
        ),
        Claim(
            id="reverse-predicts-better",
            statement=f"Reverse drift, which saturates like forgetting, predicts better after {long} updates: R² of "
            "reverse minus R² of forward drift.",
            source=f"{LAW} report 0.93 against 0.96, the other way round",
            expected=at_least(0.1),
            measured=reverse[-1] - forward[-1],
            control=f"after {short} updates",
            control_measured=reverse[0] - forward[0],
            note="Independent replications find the same on old inputs.",
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """R² against coverage and length of training, and the points of the longest training."""
    figure, axes = panels([["coverage", "horizon"], ["forward", "reverse"]], height=5.6)
    draw_coverage(axes["coverage"], config, results)
    draw_horizon(axes["horizon"], config, results)
    axes["reverse"].sharey(axes["forward"])
    for name, direction in (("forward", FORWARD), ("reverse", REVERSE)):
        draw_points(axes[name], config, results, direction)
    handles = axes["forward"].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=4, markerscale=2)
    return figure


def draw_coverage(ax: Axes, config: Config, results: Results) -> None:
    """R² against the number of new prompts."""
    band(ax, config.coverages, results.coverage_r2, color=COLORS[FORWARD], label=LABELS[FORWARD])
    ax.axvline(config.num_features, color=COLORS["exact"], linewidth=0.8, linestyle=":", label="shared features")
    ax.set_xscale("log", base=2)
    ax.set_xticks(config.coverages, [str(count) for count in config.coverages])
    ax.minorticks_off()
    ax.set(xlabel="new prompts", ylabel="quadratic $R^2$", title="it needs coverage")
    ax.legend(loc="lower right")


def draw_horizon(ax: Axes, config: Config, results: Results) -> None:
    """R² against the length of training, both drifts."""
    for direction in (FORWARD, REVERSE):
        estimate = results.horizon_r2[direction]
        band(ax, config.horizons, estimate, color=COLORS[direction], label=LABELS[direction])
    ax.set_xscale("log")
    ax.set_xticks(config.horizons, [str(count) for count in config.horizons])
    ax.minorticks_off()
    ax.set(xlabel="updates", ylabel="quadratic $R^2$", title="it needs short training")
    ax.legend(loc="lower left")


def draw_points(ax: Axes, config: Config, results: Results, direction: str) -> None:
    """Exact forgetting against a drift in the longest training, every world and checkpoint, and its parabola."""
    all_drift, all_forgetting = [], []
    for method in METHODS:
        training = results.longest[method]
        drift = training.drift.forward if direction == FORWARD else training.drift.reverse
        style = METHOD_STYLE[method]
        options = {"color": style.color, "marker": style.marker, "markersize": 2.2, "alpha": 0.7}
        samples(ax, drift.ravel(), training.forgetting.ravel(), at_most=drift.size, label=method, **options)
        all_drift.append(drift.ravel())
        all_forgetting.append(training.forgetting.ravel())
    x, y = np.concatenate(all_drift), np.concatenate(all_forgetting)
    grid = np.linspace(0, x.max(), 100)
    theory(ax, grid, np.polynomial.Polynomial.fit(x, y, 2)(grid), color=COLORS["target"], linestyle="--", linewidth=1.0)
    value, low, high = (float(bound[-1]) for bound in results.horizon_r2[direction])
    text = rf"quadratic $R^2={value:.2f}$ [{low:.2f}, {high:.2f}]"
    note(ax, text, (0.97, 0.04), xycoords="axes fraction", ha="right")
    ax.set(xlabel=LABELS[direction], ylabel=LABELS["forgetting"], title=f"up to {config.horizons[-1]} updates")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    forward, reverse = results.horizon_r2[FORWARD].value, results.horizon_r2[REVERSE].value
    r2, short, long = results.coverage_r2.value, config.horizons[0], config.horizons[-1]
    return Caption(
        f"Forward drift predicts forgetting with R² = {forward[0]:.2f} within {short} updates and {forward[-1]:.2f} "
        f"within {long}, reverse drift with {reverse[0]:.2f} and {reverse[-1]:.2f}. With {config.coverages[0]} of "
        f"{config.num_prompts} new prompts for {config.num_features} shared features forward drift has R² = "
        f"{r2[0]:.2f} instead of {r2[-1]:.2f}.",
        a=f"R² of the parabola after up to {config.horizon} updates against the number of new prompts, with its "
        "interval over worlds.",
        b="The same against the length of training, by either drift on new inputs.",
        c=f"Exact forgetting against forward drift, a point a method, world and checkpoint of {long} updates, with "
        "the parabola.",
        d="The same against reverse drift.",
    )
