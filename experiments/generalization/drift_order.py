"""Does the drift from the base, or the way of the weights, order methods by what they forget of the other rule?

The drift does not. SFT weighted by probability (DFT) and SFT on filtered own answers (REINFORCE) drift further than SFT
on the prompts that they are trained on, for they sharpen a style that no reward holds, and forget next to nothing. What
actions alone drift there is the same for all, since all end where the rule is mastered. How far the weights moved
tells SFT from the rest; so does the drift of actions under the other rule, which is what was to be predicted. The law
of the razor speaks of one task's drift where features are shared; here an answer has a part that it does not speak of.

"RL's Razor" (Shenfeld, Pari, Agrawal, arXiv:2509.04259), section 5, asked of Chu et al.'s setting (arXiv:2501.17161).
About 95 seconds on two cores, with `navigation` and `dip_and_recovery`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import rlrazor as rz
from experiments.generalization.walks import Config, Results
from experiments.generalization.walks import run as run
from experiments.harness import Caption, Claim, at_least, at_most
from rlrazor.methods import DFT, EXACT_RL, GRPO, ORACLE_SFT, REINFORCE, SFT, UNIFORM_SFT
from rlrazor.plotting import METHOD_STYLE, note, panels, samples
from rlrazor.tasks.navigation import Measures

METHODS = (SFT, UNIFORM_SFT, ORACLE_SFT, DFT, EXACT_RL, REINFORCE, GRPO)  # replay sees the other rule
TRAINED, OTHER = 0, 1
ANSWERS, ACTIONS, WEIGHTS, THERE = "answers", "actions", "weights", "actions, other rule"
PREDICTORS: dict[str, Callable[[Measures], Any]] = {
    ANSWERS: lambda measures: measures.reverse[..., TRAINED],
    ACTIONS: lambda measures: measures.reverse_of_actions[..., TRAINED],
    WEIGHTS: lambda measures: measures.weights,
    THERE: lambda measures: measures.reverse_of_actions[..., OTHER],
}
AXES = {
    ANSWERS: r"KL$(\pi\Vert\pi_0)$ of answers, trained rule (nats)",
    ACTIONS: r"KL$(\pi\Vert\pi_0)$ of actions, trained rule (nats)",
    WEIGHTS: r"$\Vert\theta-\theta_0\Vert$",
    THERE: r"KL$(\pi\Vert\pi_0)$ of actions, other rule (nats)",
}
TITLES = {ANSWERS: "answers", ACTIONS: "actions", WEIGHTS: "weights", THERE: "actions, other rule"}
SILENT = "What this does not say about language models: which distance orders theirs; it says that one must be checked."


isotonic_r2 = jax.jit(rz.isotonic_r2)


def points(results: Results, name: str, method: str) -> np.ndarray:
    """A predictor at the end of every training, `[seeds]`."""
    return np.asarray(PREDICTORS[name](results.trained[method]))[:, -1]


def forgotten(results: Results, method: str) -> np.ndarray:
    """What was lost of the other rule, from the best record on, `[seeds]`."""
    other = results.accuracy(method, OTHER)
    lost: np.ndarray = other.max(-1) - other[:, -1]
    return lost


def r2(results: Results, name: str) -> float:
    """The isotonic R² of what was lost on a predictor, over all methods and seeds."""
    x, y = (
        jnp.concatenate([jnp.asarray(values(method)) for method in METHODS])
        for values in (lambda method: points(results, name, method), lambda method: forgotten(results, method))
    )
    return float(isotonic_r2(x, y))


def claims(config: Config, results: Results) -> list[Claim]:
    """Which distance predicts what is lost."""
    fits = {name: r2(results, name) for name in PREDICTORS}
    every = "Isotonic R²: " + ", ".join(f"{TITLES[name]} {fits[name]:.2f}" for name in PREDICTORS) + "."
    drift = {method: points(results, ANSWERS, method).mean() for method in METHODS}
    lost = {method: forgotten(results, method).mean() for method in METHODS}
    return [
        Claim(
            id="drift-does-not-order",
            statement="Drift of whole answers on the trained prompts does not predict what is lost of the other rule: "
            "isotonic R² over methods and seeds.",
            source="RL's Razor, arXiv:2509.04259, where it does (0.96)",
            expected=at_most(0.7),
            measured=fits[ANSWERS],
            control="how far the weights moved",
            control_measured=fits[WEIGHTS],
            note=every,
        ),
        Claim(
            id="weights-order",
            statement="How far the weights moved predicts it: isotonic R² over methods and seeds.",
            source="this world, where one method moves and the others do not",
            expected=at_least(0.9),
            measured=fits[WEIGHTS],
            control="drift of the actions alone on the trained prompts",
            control_measured=fits[ACTIONS],
            note=every,
        ),
        Claim(
            id="same-drift-other-fate",
            statement=f"{DFT} and {REINFORCE} drift as far as SFT on the trained prompts: the smaller of their drifts "
            "over SFT's.",
            source="unrewarded parts of an answer drift, too",
            expected=at_least(0.8),
            measured=min(drift[DFT], drift[REINFORCE]) / drift[SFT],
            control="what they lose of the other rule over what SFT loses, the larger",
            control_measured=max(lost[DFT], lost[REINFORCE]) / lost[SFT],
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """What was lost against every distance."""
    names = list(PREDICTORS)
    figure, axes = panels([names[:2], names[2:]], height=4.6)
    for name in names:
        for method in METHODS:
            color, marker, _ = METHOD_STYLE[method]
            x, y = points(results, name, method), forgotten(results, method)
            samples(axes[name], x, y, at_most=len(x), color=color, marker=marker, markersize=3, alpha=0.7, label=method)
        axes[name].set(xlabel=AXES[name], ylabel="lost of the other rule", title=TITLES[name], yscale="log")
        axes[name].set_xlim(0, 1.1 * axes[name].dataLim.intervalx[1])
        told = f"isotonic $R^2$ = {r2(results, name):.2f}"
        note(axes[name], told, (0.03, 0.95), xycoords="axes fraction", va="top")
    handles, labels = axes[names[0]].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(METHODS), markerscale=1.3)
    return figure


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    drift, lost = (
        {m: values(results, m).mean() for m in (SFT, DFT)} for values in (lambda r, m: points(r, ANSWERS, m), forgotten)
    )
    return Caption(
        f"SFT drifts {drift[SFT]:.2f} nats an answer on its prompts and loses {lost[SFT]:.2f} of right steps under the "
        f"other rule; {DFT} drifts {drift[DFT]:.2f} nats and loses {lost[DFT]:.2f}. The isotonic R² of what is lost is "
        f"{r2(results, ANSWERS):.2f} on this drift and {r2(results, WEIGHTS):.2f} on the way of the weights. {SILENT}",
        a="What every training lost of the other rule, from its best record on, against the drift of whole answers.",
        b="Against the part of it that is about actions.",
        c="Against the Euclidean distance of the weights from the base's.",
        d="Against the drift of actions under the other rule, which is no prediction.",
    )
