"""k1, k2 or k3, in the reward or as a loss: which penalty does a training run have, where does it end, how noisy is it?

The expected gradient of every placement is a sum over answers, so what it descends can be read off. As a loss on own
samples k2 descends KL(π‖ref), as does k1 in the reward, by the same gradient sample by sample; k3 descends KL(ref‖π);
k1 descends nothing. In the reward k3 and k2 descend no divergence of the table. On another policy's samples none is
right without the ratio π/b; with it k1 and k3 are, if the ratio is differentiated. With the sign of the log-ratio
turned k3 descends χ²(π‖ref)/2: a token that the policy gives 0.01 and the reference 0.0001 pulls with a weight of
99 where Schulman's pulls with 0.99, which is why it spikes.

Threads that ask: natolambert/rlhf-book issue 489, trl issue 4967 and PRs 4638 and 6594, OpenRLHF PR 1309 and issue
1101, open-instruct issue 534, verl issues 3276 and 509. About 8 seconds on two cores.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.harness import Caption, Claim, at_least, at_most, near, number
from experiments.practice.loss_runs import Config, Results
from experiments.practice.loss_runs import run as run
from rlrazor.plotting import COLORS, K_COLORS, key, note, panels, samples, theory

LOOKS = {"k1": "$k_1$", "k2": "$k_2$", "k3": "$k_3$", "k3 turned": "$k_3$ turned"}
SHORT = {
    "KL(policy || ref)": r"KL$(\pi\Vert\pi_0)$",
    "KL(ref || policy)": r"KL$(\pi_0\Vert\pi)$",
    "chi2(policy || ref)": r"$\chi^2(\pi\Vert\pi_0)$",
    "chi2(ref || policy)": r"$\chi^2(\pi_0\Vert\pi)$",
}


def claims(config: Config, results: Results) -> list[Claim]:
    """What each placement descends, where it ends, and how a rare token pulls."""
    kl, reverse, chi2 = (f"{name}" for name in ("KL(policy || ref)", "KL(ref || policy)", "chi2(policy || ref)"))
    gradients = results.gradients
    same = np.abs(gradients["in reward"]["k1"] - gradients["as loss"]["k2"]).max()
    noises = np.abs(results.noise["in reward"]["k1"] / results.noise["as loss"]["k2"] - 1).max()
    at = f"over {config.num_policies} random policies"
    descends = [
        ("k2-as-loss", "As a loss k2 descends KL(π‖ref)", "as loss", "k2", kl, "as loss", "k3"),
        ("k3-as-loss", "As a loss k3 descends KL(ref‖π)", "as loss", "k3", reverse, "as loss", "k2"),
        ("turned", "As a loss k3 turned descends χ²(π‖ref)", "as loss", "k3 turned", chi2, "as loss", "k3"),
        ("k1-in-reward", "In the reward k1 descends KL(π‖ref)", "in reward", "k1", kl, "in reward", "k3"),
        ("ratio", "Off-policy k3 with the ratio descends KL(π‖ref)", "with ratio", "k3", kl, "off-policy", "k3"),
        ("ratio-held", "With the ratio held k3 descends KL(ref‖π)", "ratio held", "k3", reverse, "with ratio", "k3"),
    ]
    return [
        Claim(
            id=name,
            statement=f"{words}: least cosine of the gradients {at}.",
            source="autodiff of the divergence",
            expected=at_least(1 - 1e-9),
            measured=results.cosine(placement, estimator, known),
            control=f"{other_estimator} {other}",
            control_measured=results.cosine(other, other_estimator, known),
        )
        for name, words, placement, estimator, known, other, other_estimator in descends
    ] + [
        Claim(
            id="k1-as-loss",
            statement=f"As a loss k1 descends nothing: largest gradient {at}.",
            source="E[score] = 0",
            expected=at_most(1e-12),
            measured=results.size("as loss", "k1"),
            control="off-policy, without the ratio",
            control_measured=results.size("off-policy", "k1"),
        ),
        Claim(
            id="one-gradient",
            statement="k1 in the reward and k2 as a loss have one gradient and one noise: largest difference.",
            source="∇(log π/ref)²/2 = log π/ref ∇ log π",
            expected=at_most(1e-9),
            measured=max(same, noises),
            control="k2 in the reward",
            control_measured=np.abs(gradients["in reward"]["k2"] - gradients["as loss"]["k2"]).max(),
        ),
        Claim(
            id="ends",
            statement="Trainings with k2, k3 and k3 turned as a loss end at the tilt, at the optimum under KL(ref‖π) "
            "and at that under χ²/2: largest difference in probability.",
            source="f-regularised optima",
            expected=at_most(1e-9),
            measured=max(results.apart(name, name) for name in results.optima),
            control="k3 against the tilt",
            control_measured=results.apart("k3", "k2"),
        ),
        Claim(
            id="rare-token",
            statement=f"A token of probability {config.likely:g} under the policy and {config.rare:g} under the "
            "reference pulls on the policy with the weight π/ref - 1 if k3 is turned.",
            source="π/ref - 1",
            expected=near(config.likely / config.rare - 1, 1e-6 * config.likely / config.rare),
            measured=results.rare("k3 turned"),
            control="Schulman's k3, 1 - ref/π",
            control_measured=results.rare("k3"),
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """What is descended, where it ends, the noise, and the weight of one sample."""
    figure, axes = panels([["descends", "ends"], ["noise", "weight"]], height=5.2, width_ratios=[1.15, 1])
    draw_descends(axes["descends"], results)
    draw_ends(axes["ends"], config, results)
    draw_noise(axes["noise"], results)
    draw_weights(axes["weight"], results)
    return figure


def descended(results: Results, placement: str, estimator: str) -> tuple[str, str]:
    """What a placement descends, in symbols, and its color."""
    if results.size(placement, estimator) < 1e-12:
        return "nothing", K_COLORS["k1"]
    for name, color in zip(
        results.known, (K_COLORS["k2"], K_COLORS["k3"], K_COLORS["k3 turned"], COLORS["ref"]), strict=True
    ):
        if results.cosine(placement, estimator, name) > 1 - 1e-9:
            return SHORT[name], color
    return f"none\n({results.cosine(placement, estimator, 'KL(policy || ref)'):.2f})", "white"


def draw_descends(ax: Axes, results: Results) -> None:
    """A table: estimator by placement."""
    for row, estimator in enumerate(LOOKS):
        for column, placement in enumerate(results.gradients):
            words, color = descended(results, placement, estimator)
            ax.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, alpha=0.35, edgecolor="black", lw=0.4)
            )
            note(ax, words, (column, row), ha="center", va="center")
    ax.set(
        xlim=(-0.5, len(results.gradients) - 0.5), ylim=(len(LOOKS) - 0.5, -0.5), title="what a gradient step descends"
    )
    ax.set_xticks(range(len(results.gradients)), [name.replace(" ", "\n") for name in results.gradients])
    ax.set_yticks(range(len(LOOKS)), LOOKS.values())
    ax.tick_params(length=0)


def draw_ends(ax: Axes, config: Config, results: Results) -> None:
    """Drift at the end against the coefficient: closed forms as lines, trainings as points."""
    for name in results.optima:
        theory(ax, results.betas, results.curves[name], color=K_COLORS[name], label=LOOKS[name])
        samples(ax, config.betas, results.trained[name], color=K_COLORS[name])
    without = np.full(len(results.betas), results.unpenalised)
    theory(ax, results.betas, without, color=K_COLORS["k1"], linestyle="--", label=f"{LOOKS['k1']}: no penalty")
    ax.set(xscale="log", yscale="log", xlabel=r"coefficient $\beta$", ylabel=r"drift KL$(\pi\Vert\pi_0)$ (nats)")
    ax.set(title="where training with it as a loss ends")
    ax.legend(loc="lower left")


def draw_noise(ax: Axes, results: Results) -> None:
    """One sample's noise in the gradient, against the drift."""
    for name in LOOKS:
        theory(ax, results.drift, results.noise["as loss"][name], color=K_COLORS[name], label=f"{LOOKS[name]} as loss")
    theory(ax, results.drift, results.noise["in reward"]["k1"], color=COLORS["exact"], ls=":", label="$k_1$ in reward")
    ax.set(
        xscale="log", yscale="log", xlabel=r"drift KL$(\pi\Vert\pi_0)$ (nats)",
        ylabel="noise of a sample's gradient", title="how noisy the penalty is",
    )  # fmt: skip
    ax.legend(loc="lower right")


def draw_weights(ax: Axes, results: Results) -> None:
    """What multiplies the score of a sample, against its ratio."""
    for name in LOOKS:
        theory(ax, results.ratio, results.weights[name], color=K_COLORS[name])
        samples(ax, results.ratio[-1:], [results.rare(name)], color=K_COLORS[name], clip_on=False)
        label = f"{LOOKS[name]}: {number(results.rare(name))}"
        key(ax, label, color=K_COLORS[name], marker="o")
    ax.set(
        xscale="log", xlabel=r"$\pi(y)/\pi_0(y)$ of a sampled answer", ylabel=r"weight on $\nabla\log\pi(y)$, as loss",
        title="one sample's pull",
    )  # fmt: skip
    ax.set_yscale("symlog", linthresh=1)
    ax.legend(loc="lower right", title=f"at a ratio of {results.ratio[-1]:.0f}", title_fontsize=6.5)


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    return Caption(
        "Of KL penalties on own samples, k1 in the reward and k2 as a loss are the KL(π‖ref) that the objective names; "
        f"k3 as a loss is KL(ref‖π), and k1 as a loss is nothing but noise. {config.num_outcomes} answers.",
        a="Found by comparing expected gradients with those of the divergences at "
        f"{config.num_policies} random policies; in brackets the least cosine with that of KL(π‖ref) elsewhere; "
        "the last three columns sample another policy b, and the ratio π/b is differentiated or held fixed.",
        b="Lines are the closed forms, points trainings on the reward and the expected loss by natural gradient steps.",
        c="Root mean squared deviation of a sample's gradient, as the reward tilts the policy away.",
        d=f"A token of probability {config.likely:g} that the reference gives {config.rare:g}: k3 with its sign turned "
        f"pulls with {number(results.rare('k3 turned'))}, Schulman's with {number(results.rare('k3'))}.",
    )
