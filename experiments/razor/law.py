"""When is forgetting a function of drift?

Drift on new inputs predicts forgetting, for all methods together, if new and old inputs share features. Without shared
features drift is anything and forgetting is zero. R² does not know the size of the effect: computed from exact
forgetting it survives at small overlap, where nobody would notice any; measured with finitely many test answers it
fades with the overlap.

"RL's Razor" (Shenfeld, Pari, Agrawal, arXiv:2509.04259), figure 3 and table 1, which report R² = 0.96 between
forgetting and the forward drift E KL(base || policy). About 35 seconds on two cores, with `law_limits`.
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
FORWARD, ISOTONIC, RANK = "forward drift", "isotonic", "rank"
PREDICTOR_COLORS = {
    "forward drift": COLORS["forward drift"],
    "reverse drift": COLORS["reverse drift"],
    "forward drift, old inputs": COLORS["exact"],
}
FIT_MARKERS = {"quadratic": "o", "isotonic": "s", "rank": "^"}
FIT_LABELS = {"quadratic": "quadratic $R^2$", "isotonic": "isotonic $R^2$", "rank": "rank correlation"}


def claims(config: Config, results: Results) -> list[Claim]:
    """The law, and that it needs shared features to be and an effect to be seen."""
    weakest, none, full = 1, 0, len(config.overlaps) - 1  # rows of the overlaps, which increase from 0 to 1
    blind = results.exact_r2.value - results.measured_r2.value
    return [
        Claim(
            id="law",
            statement="With shared features forward drift on new inputs predicts measured forgetting, for all methods "
            "together: R² of the parabola, lower end of its interval over worlds.",
            source=f"{LAW} (R² = 0.96)",
            expected=at_least(0.85),
            measured=results.measured_r2.low[full],
            control="no shared features, upper end",
            control_measured=results.measured_r2.high[none],
        ),
        Claim(
            id="law-of-any-form",
            statement="It predicts exact forgetting by an increasing law of any form: isotonic R².",
            source=LAW,
            expected=at_least(0.9),
            measured=results.fits[ISOTONIC][FORWARD].value,
            control="no shared features, measured forgetting",
            control_measured=results.unshared[ISOTONIC].value,
        ),
        Claim(
            id="law-of-ranks",
            statement="And exact forgetting without any form: rank correlation.",
            source=LAW,
            expected=at_least(0.85),
            measured=results.fits[RANK][FORWARD].value,
            control="no shared features, measured forgetting",
            control_measured=results.unshared[RANK].value,
        ),
        Claim(
            id="needs-sharing",
            statement="Without shared features nothing is forgotten at any drift: largest forgetting.",
            source="a gradient step at x moves x' in proportion to features(x) · features(x')",
            expected=at_most(1e-12),
            measured=np.abs(results.all_forgetting(none)).max(),
            control="full overlap",
            control_measured=np.abs(results.all_forgetting(full)).max(),
            note=f"The largest drift without shared features is {results.all_drift(none).max():.2g} nats.",
        ),
        Claim(
            id="blind-to-size",
            statement=f"R² does not know the size of the effect: at overlap {config.overlaps[weakest]:g} the exact R² "
            f"exceeds the one measured from {config.num_answers} answers by this much.",
            source="exact training against a finite test",
            expected=at_least(0.25),
            measured=blind[weakest],
            control="full overlap",
            control_measured=blind[full],
            note=f"The largest forgetting there is {results.all_forgetting(weakest).max():.2g}.",
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """Two scatters, R² against overlap, and which drift predicts."""
    figure, axes = panels([["shared", "unshared"], ["overlap", "predictors"]], height=5.6)
    axes["unshared"].sharey(axes["shared"])
    draw_points(axes["shared"], config, results, len(config.overlaps) - 1)
    draw_points(axes["unshared"], config, results, 0)
    draw_overlap(axes["overlap"], config, results)
    draw_predictors(axes["predictors"], config, results)
    handles = axes["shared"].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=4, markerscale=2)
    return figure


def draw_points(ax: Axes, config: Config, results: Results, row: int) -> None:
    """Measured forgetting against forward drift, every world and checkpoint, and the parabola of the exact values."""
    for method in METHODS:
        training = results.trainings[method]
        points = training.drift.forward[row].ravel(), results.measured[method][row].ravel()
        style = METHOD_STYLE[method]
        options = {"color": style.color, "marker": style.marker, "markersize": 2.2, "alpha": 0.7}
        samples(ax, *points, at_most=len(points[0]), label=method, **options)
    x, y = results.all_drift(row), results.all_forgetting(row)
    grid = np.linspace(0, x.max(), 100)
    parabola = np.polynomial.Polynomial.fit(x, y, 2)
    theory(ax, grid, parabola(grid), color=COLORS["target"], linestyle="--", linewidth=1.0)
    value, low, high = (float(bound[row]) for bound in results.measured_r2)
    note(ax, rf"$R^2={value:.2f}$ [{low:.2f}, {high:.2f}]", (0.03, 0.97), xycoords="axes fraction", va="top")
    ax.set(xlabel=f"{LABELS[FORWARD]}, new inputs", ylabel=LABELS["forgetting"])
    ax.set_title(f"overlap {config.overlaps[row]:g}")


def draw_overlap(ax: Axes, config: Config, results: Results) -> None:
    """R² against overlap, exact and as a finite test shows it; exact forgetting is constant without overlap."""
    overlaps = np.array(config.overlaps)
    ax.set_xscale("symlog", linthresh=min(config.overlaps[1:]), linscale=0.5)
    band(ax, overlaps, results.exact_r2, color=COLORS["exact"], label="exact forgetting")
    label = f"from {config.num_answers} test answers"
    band(ax, overlaps, results.measured_r2, color=COLORS["measured"], label=label)
    ticks = [0, *(tick for tick in 10.0 ** np.arange(-9, 1) if tick >= overlaps[1])]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set(xlabel="overlap of new with old inputs", ylabel="quadratic $R^2$", title="it needs shared features")
    ax.legend(loc="upper left")


def draw_predictors(ax: Axes, config: Config, results: Results) -> None:
    """Every predictor under every fit."""
    for fit, shift in zip(FIT_MARKERS, (-0.2, 0.0, 0.2), strict=True):
        for place, (predictor, color) in enumerate(PREDICTOR_COLORS.items()):
            estimate, x = results.fits[fit][predictor], place + shift
            samples(ax, [x], [float(estimate.value)], marker=FIT_MARKERS[fit], color=color, markersize=3.5)
            ax.plot([x, x], [float(estimate.low), float(estimate.high)], color=color)
        ax.plot([], [], FIT_MARKERS[fit], color=COLORS["target"], markersize=3.5, label=FIT_LABELS[fit])
    ax.set_xticks(range(len(PREDICTOR_COLORS)), [name.replace(", ", ",\n") for name in PREDICTOR_COLORS])
    low, high = ax.get_ylim()
    ax.set(ylim=(low - 0.5 * (high - low), high), xlim=(-0.5, len(PREDICTOR_COLORS) - 0.5))
    ax.set(ylabel="of exact forgetting", title=f"which drift predicts, overlap {config.overlaps[-1]:g}")
    ax.legend(loc="lower right")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    none, full = 0, len(config.overlaps) - 1
    measured = results.measured_r2
    return Caption(
        f"Where new and old inputs share their features, forward drift predicts forgetting with R² = "
        f"{measured.value[full]:.2f} for {len(METHODS)} methods together; where they share none, methods "
        f"drift by up to {results.all_drift(none).max():.2g} nats and forget nothing. Exact R² does not know the size "
        f"of the effect: measured from {config.num_answers} test answers it is {measured.value[1]:.2f} at overlap "
        f"{config.overlaps[1]:g}, where it is {results.exact_r2.value[1]:.2f} exactly.",
        a=f"Measured forgetting against forward drift at full overlap after up to {config.horizon} updates, a point a "
        "method, world and checkpoint, with the parabola of exact forgetting and R² with its interval over worlds.",
        b="The same without overlap.",
        c="R² of the parabola against overlap, of exact forgetting and of forgetting from finitely many answers.",
        d="Both drifts on new inputs and the forward drift on old ones as predictors of exact forgetting, by three "
        "fits, with intervals over worlds.",
    )
