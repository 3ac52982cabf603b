"""Does drift on new inputs predict what a network forgets? ParityMNIST on real images.

Drift on new inputs predicts forgetting much better than changes of weights do and little better than those of
activations, for methods that only see the new task. Forgetting saturates, so that a parabola misses part of the law in
forward drift; the best increasing function explains as much by either drift, by total variation and by L2. Replay
breaks the law: it drifts as far as SFT and forgets nothing.

"RL's Razor" (arXiv:2509.04259), section 3, figure 3 and table 1. About 150 seconds on two cores, with `parity_razor`.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness import Caption, Claim, at_least, at_most
from experiments.razor.parity_sweep import Config, Results
from experiments.razor.parity_sweep import run as run
from rlrazor.forgetting import pareto_optimal
from rlrazor.laws import isotonic_fit, isotonic_r2, quadratic_r2, rank_correlation
from rlrazor.methods import SFT_1
from rlrazor.plotting import COLORS, LABELS, METHOD_STYLE, panels, samples, theory
from rlrazor.tasks.parity import METHODS, REPLAY, Measures

PAPER = "RL's Razor, arXiv:2509.04259"
LAW_METHODS = tuple(method for method in METHODS if method != REPLAY)

Methods: TypeAlias = tuple[str, ...]
Statistic: TypeAlias = Callable[[Float[Array, " points"], Float[Array, " points"]], Float[Array, ""]]


class Predictor(NamedTuple):
    """A measure, and the R² of its parabola in table 1."""

    of: Callable[[Measures], Any]
    published: float = math.nan


FORWARD, REVERSE, OLD_REVERSE = "forward drift", "reverse drift", "reverse drift, garments"
WEIGHTS = {
    "weights, L1": Predictor(lambda measures: measures.weight_l1, 0.34),
    "weights, Fisher": Predictor(lambda measures: measures.weight_fisher, 0.58),
    "weights, spectral": Predictor(lambda measures: measures.weight_spectral, 0.58),
}
ACTIVATIONS = {
    "activations, L1": Predictor(lambda measures: measures.activation_l1, 0.52),
    "activations, L2": Predictor(lambda measures: measures.activation_l2, 0.55),
}
PREDICTORS = {
    FORWARD: Predictor(lambda measures: measures.new.forward, 0.96),
    REVERSE: Predictor(lambda measures: measures.new.reverse, 0.93),
    "total variation": Predictor(lambda measures: measures.new.total_variation, 0.80),
    "L2": Predictor(lambda measures: measures.new.l2, 0.56),
    **WEIGHTS,
    **ACTIVATIONS,
    "Jensen-Shannon": Predictor(lambda measures: measures.new.jensen_shannon),
    "forward drift, garments": Predictor(lambda measures: measures.old.forward),
    OLD_REVERSE: Predictor(lambda measures: measures.old.reverse),
    "total variation, garments": Predictor(lambda measures: measures.old.total_variation),
    "L2, garments": Predictor(lambda measures: measures.old.l2),
    "Jensen-Shannon, garments": Predictor(lambda measures: measures.old.jensen_shannon),
}
STATISTICS: dict[str, Statistic] = {
    "parabola $R^2$": quadratic_r2,
    "isotonic $R^2$": isotonic_r2,
    r"ranks $\rho$": rank_correlation,
}
MARKS: dict[str, dict[str, Any]] = {
    "parabola (bar: seeds)": {"marker": "o", "markersize": 3.5, "color": COLORS["measured"]},
    "any increasing function": {"marker": "o", "markersize": 4.5, "color": COLORS["measured"], "fillstyle": "none"},
    "parabola, best checkpoints": {"marker": "|", "markersize": 7, "color": COLORS["measured"]},
    "parabola, published": {"marker": "D", "markersize": 3.5, "color": COLORS["exact"], "fillstyle": "none"},
}


class Points(NamedTuple):
    """Every checkpoint after the base, of some methods, `[seeds, points]`."""

    predictor: Float[np.ndarray, "seeds points"]
    forgetting: Float[np.ndarray, "seeds points"]  # drop of the garments' accuracy
    best: Bool[np.ndarray, "seeds points"]  # no other checkpoint of the method and seed beats it in both accuracies


class Fit(NamedTuple):
    """How well a measure predicts forgetting: over all seeds, then the least and the largest of the single seeds."""

    value: float
    least: float
    largest: float


def points(results: Results, predictor: str, methods: Methods) -> Points:
    """A measure against forgetting, from uniform bases."""

    def by_seed(values: Any) -> Float[np.ndarray, "seeds points"]:
        return np.moveaxis(np.asarray(values, float), 3, 0).reshape(values.shape[3], -1)

    columns = []
    for method in methods:
        tuned = results.uniform[method]
        lost = by_seed(tuned.garments[..., :1] - tuned.garments[..., 1:])
        best = pareto_optimal(*(jnp.asarray(by_seed(x[..., 1:])) for x in (tuned.parity, tuned.garments)))
        columns.append((by_seed(PREDICTORS[predictor].of(tuned)[..., 1:]), lost, np.asarray(best)))
    return Points(*(np.concatenate(column, axis=1) for column in zip(*columns, strict=True)))


def fit(
    results: Results, predictor: str, statistic: Statistic, methods: Methods = LAW_METHODS, *, only_best: bool = False
) -> Fit:
    """A statistic of a measure and forgetting at the checkpoints of the methods."""
    x, y, best = points(results, predictor, methods)
    keep, measured = best | (not only_best), jax.jit(statistic)
    single = [float(measured(a[kept], b[kept])) for a, b, kept in zip(x, y, keep, strict=True)]
    return Fit(float(measured(x[keep], y[keep])), min(single), max(single))


def best_of(results: Results, predictors: Iterable[str]) -> str:
    """The measure whose parabola predicts best."""
    return max(predictors, key=lambda name: fit(results, name, quadratic_r2).value)


class Ends(NamedTuple):
    """How many fine-tunings of a method end at the accuracy of the comparison or above, and the worst of them."""

    arrived: int
    total: int
    forgetting: float  # the largest; NaN if none arrives


def ends(config: Config, results: Results, method: str) -> Ends:
    """What a method has forgotten where it has learned the new task."""
    tuned = results.uniform[method]
    arrived = np.asarray(tuned.parity[..., -1] >= config.accuracy)
    lost = np.asarray(tuned.garments[..., 0] - tuned.garments[..., -1])[arrived]
    return Ends(lost.size, arrived.size, float(lost.max()) if lost.size else math.nan)


def turning_point(results: Results) -> str:
    """What the parabola in forward drift does inside the data."""
    x, y, _ = points(results, FORWARD, LAW_METHODS)
    curvature, slope, _ = np.polyfit(x.ravel(), y.ravel(), 2)
    vertex = -slope / (2 * curvature)
    turns = curvature < 0 and vertex < x.max()
    return f"the parabola turns down at {vertex:.1f} of {x.max():.1f} nats" if turns else "the parabola keeps rising"


def forms_of_the_law(results: Results) -> list[Claim]:
    """Forward drift predicts forgetting: as a parabola, as any increasing law, and without any form."""
    reverse, best = fit(results, REVERSE, quadratic_r2), fit(results, FORWARD, quadratic_r2, only_best=True)
    table_1 = f"figure 3 and table 1 ({PREDICTORS[FORWARD].published:.2f} ± 0.01)"
    subject = "Forward drift on held-out digits predicts forgetting, for all methods that only see the new task"
    spread = f"reverse drift {reverse.value:.2f}; checkpoints that no other of their method and seed beats in both "
    forms = (
        ("law", f"{subject}: R² of the parabola, every checkpoint.", 0.6, f"{spread}accuracies {best.value:.2f}."),
        ("law-of-any-form", "The same for any increasing law: isotonic R².", 0.8, f"{turning_point(results)}."),
        ("law-of-ranks", "The same without any form: rank correlation.", 0.8, "ties share their mean rank."),
    )
    found = []
    for (name, statement, least, note), statistic in zip(forms, STATISTICS.values(), strict=True):
        law = fit(results, FORWARD, statistic)
        found.append(
            Claim(
                id=name,
                statement=statement,
                source=f"{PAPER}, {table_1}" if statistic is quadratic_r2 else PAPER,
                expected=at_least(least),
                measured=law.value,
                control="with replay, which drifts and does not forget",
                control_measured=fit(results, FORWARD, statistic, METHODS).value,
                note=f"Single seeds {law.least:.2f} to {law.largest:.2f}; {note}",
            )
        )
    return found


def claims(config: Config, results: Results) -> list[Claim]:
    """The law in three forms, its rivals, and its exception."""
    weights, activations = best_of(results, WEIGHTS), best_of(results, ACTIVATIONS)
    beyond = {
        name: fit(results, FORWARD, quadratic_r2).value - fit(results, name, quadratic_r2).value
        for name in (weights, activations, OLD_REVERSE)
    }
    isotonic = fit(results, FORWARD, isotonic_r2).value - fit(results, activations, isotonic_r2).value
    published = PREDICTORS[FORWARD].published - PREDICTORS[activations].published
    replay, without = ends(config, results, REPLAY), ends(config, results, SFT_1)
    return [
        *forms_of_the_law(results),
        Claim(
            id="better-than-weights",
            statement="Forward drift predicts better than changes of weights: its R² minus that of the best of them.",
            source=f"{PAPER}, table 1",
            expected=at_least(0.1),
            measured=beyond[weights],
            control="minus that of the reverse drift on the old task's images",
            control_measured=beyond[OLD_REVERSE],
            note=f"The best of them is {weights}. Minus that of the best of the activations, {activations}, it is "
            f"{beyond[activations]:.2f}, where the table has {published:.2f}; by isotonic R² {isotonic:.2f}. The "
            f"Fisher information is that of {config.fisher_images} garments.",
        ),
        Claim(
            id="replay-breaks-the-law",
            statement=f"SFT with replay forgets next to nothing: largest forgetting of its {replay.arrived} of "
            f"{replay.total} fine-tunings that end at parity accuracy {config.accuracy:g} or above.",
            source="pretraining gradients, Ouyang et al., arXiv:2203.02155",
            expected=at_most(0.1),
            measured=replay.forgetting,
            control=f"the same SFT without replay, {without.arrived} of {without.total} fine-tunings",
            control_measured=without.forgetting,
            note=f"Its forward drift is up to {points(results, FORWARD, (REPLAY,)).predictor.max():.1f} nats.",
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """The law, its predictors, and the representation."""
    figure, axes = panels([["law", "predictors"], ["representation", "predictors"]], height=5.4)
    draw_law(axes["law"], results)
    draw_predictors(axes["predictors"], results)
    draw_representation(axes["representation"], config, results)
    handles, labels = axes["representation"].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, markerscale=1.5)
    return figure


def draw_checkpoints(ax: Axes, x: Any, y: Any, method: str) -> None:
    """Every checkpoint of a method."""
    color, marker, _ = METHOD_STYLE[method]
    samples(ax, x, y, at_most=len(x), color=color, marker=marker, markersize=1.8, alpha=0.6, label=method)


def draw_law(ax: Axes, results: Results) -> None:
    """Forgetting against forward drift; the parabola and the best increasing function of all methods but replay."""
    for method in METHODS:
        x, y, _ = points(results, FORWARD, (method,))
        draw_checkpoints(ax, x.ravel(), y.ravel(), method)
    data = points(results, FORWARD, LAW_METHODS)
    x, y = data.predictor.ravel(), data.forgetting.ravel()
    order, dense = np.argsort(x), np.linspace(0, x.max(), 200)
    increasing = isotonic_fit(jnp.asarray(x), jnp.asarray(y))[order]
    parabola = dense, np.polyval(np.polyfit(x, y, 2), dense), "--"
    lines: Any = (parabola, (x[order], increasing, "-"), ([], [], "none"))
    for (name, statistic), (a, b, line) in zip(STATISTICS.items(), lines, strict=True):
        theory(ax, a, b, color=COLORS["exact"], linestyle=line, linewidth=1.0)
        ax.lines[-1].set_label(f"{name} {fit(results, FORWARD, statistic).value:.2f}")
    ax.legend(handles=ax.lines[-len(STATISTICS) :], title="without replay", loc="lower right", bbox_to_anchor=(1, 0.14))
    ax.set(xlabel=f"{LABELS['forward drift']}, digits", ylabel="forgetting of garments", title="the law")


def draw_predictors(ax: Axes, results: Results) -> None:
    """R² of every measure: by a parabola and by any increasing function, and as published."""
    for row, name in enumerate(PREDICTORS):
        parabola, isotonic = (fit(results, name, statistic) for statistic in (quadratic_r2, isotonic_r2))
        best = fit(results, name, quadratic_r2, only_best=True)
        ax.plot([parabola.least, parabola.largest], [row, row], color=COLORS["measured"], linewidth=2.5, alpha=0.4)
        values = (parabola.value, isotonic.value, best.value, PREDICTORS[name].published)
        for (label, style), value in zip(MARKS.items(), values, strict=True):
            ax.plot(value, row, linestyle="none", label=None if row else label, **style)
    ax.set_yticks(range(len(PREDICTORS)), list(PREDICTORS))
    ax.invert_yaxis()
    ax.set(xlabel="$R^2$", title="what predicts forgetting")
    ax.legend(loc="lower left")


def draw_representation(ax: Axes, config: Config, results: Results) -> None:
    """Alignment of the last hidden layer with the base's against parity accuracy."""
    for method in METHODS:
        run = results.uniform[method]
        draw_checkpoints(ax, run.parity[..., 1:].ravel(), run.cknna[..., 1:].ravel(), method)
    ax.set(
        xlabel="parity accuracy", ylabel=f"CKNNA to the base, {config.aligned_images} digits", title="representation"
    )


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    value = {name: fit(results, name, quadratic_r2).value for name in PREDICTORS}
    weights, activations = best_of(results, WEIGHTS), best_of(results, ACTIVATIONS)
    replay, drift = ends(config, results, REPLAY), points(results, FORWARD, (REPLAY,)).predictor.max()
    lost = f"at most {replay.forgetting:.2f}" if replay.forgetting > 0 else "nothing"
    forgets = f"forgets {lost} where it ends" if replay.arrived else "never ends"
    return Caption(
        f"In a network that learns parity of digits, a parabola in forward drift explains {value[FORWARD]:.2f} of the "
        f"variance of what it forgets of garments, one in the best measure of its weights {value[weights]:.2f} and of "
        f"its activations {value[activations]:.2f}. SFT with replay drifts up to {drift:.1f} nats, and "
        f"{forgets} at parity accuracy {config.accuracy:g} or above.",
        a="Forgetting against forward drift at every checkpoint, with the best parabola and the best increasing "
        "function of all methods but replay.",
        b="R² of every measure on held-out digits and garments, over all seeds and seed by seed.",
        c="Alignment of the last hidden layer with the base's, against parity accuracy.",
    )
