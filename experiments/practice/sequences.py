"""Does the KL of tokens say what the KL of answers does, and does a loss of tokens descend it?

Balanced brackets, an automaton of a few states: its answers of up to 256 tokens are more than atoms, and the tilt, its
reward and its KL are sums over states. The KL of answers is the sum of the token KLs that are met on the way, so it has
the value of the token estimates. Its gradient has a part that no loss of tokens has: a token also decides which states
the following ones are drawn in. Per-token k2 and k3, with the samples held fixed, drop that part; k3 besides descends
the other direction of KL, token by token.

Papers and threads: arXiv 2506.09477, trl issue 4967, verl issue 3276. About 8 seconds on two cores.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness import Caption, Claim, at_least, at_most, number
from experiments.practice.sequence_runs import Config, Results
from experiments.practice.sequence_runs import run as run
from rlrazor.plotting import COLORS, K_COLORS, panels, samples, theory


def claims(config: Config, results: Results) -> list[Claim]:
    """The recursions are exact, and losses of tokens are another objective."""
    far, last = results.optima[f"T = {config.horizons[-1]}"], config.horizons[-1]
    scores = [abs(found.sampled - found.kl) / found.error for found in results.optima.values()]
    naive = far.first * far.length
    end, strength = f"at a drift of {number(results.gradients.drift[-1])} nats", config.strengths[0]
    return [
        Claim(
            id="enumeration",
            statement="The KL of answers by dynamic programming is that of the tilt of all strings of "
            f"{config.enumerable} tokens: difference in nats.",
            source="tilt of the enumerated answers",
            expected=at_most(1e-10),
            measured=abs(results.by_tokens - results.enumerated),
            control=f"the optimum for {last} tokens",
            control_measured=abs(far.kl - results.enumerated),
        ),
        Claim(
            id="value",
            statement=f"At {last} tokens the value of the optimum is E[r] - beta KL, each by a recursion of its own: "
            "relative difference.",
            source="beta log Z",
            expected=at_most(1e-10),
            measured=abs((far.reward - config.beta * far.kl) / far.value - 1),
            control="the first token's KL times the expected length",
            control_measured=abs((far.reward - config.beta * naive) / far.value - 1),
        ),
        Claim(
            id="samples",
            statement=f"Sampled answers agree with the KL at every horizon: largest difference in standard errors of "
            f"{config.num_samples} answers.",
            source="Monte Carlo mean of k1 of answers",
            expected=at_most(4),
            measured=max(scores),
            control=f"the first token's KL times the expected length, at {last} tokens",
            control_measured=abs(far.sampled - naive) / far.error,
        ),
        Claim(
            id="k2-on-tokens",
            statement=f"A loss of tokens with k2 misses a fifth of the gradient of KL(π‖ref) of answers, {end}.",
            source="gradient of the recursion",
            expected=at_least(0.2),
            measured=results.missing("k2")[-1],
            control="tokens that lead nowhere: one state",
            control_measured=results.missing("k2", stateless=True)[-1],
        ),
        Claim(
            id="k3-on-tokens",
            statement=f"One with k3 is farther from it than half its length, {end}.",
            source="gradient of the recursion",
            expected=at_least(0.5),
            measured=results.missing("k3")[-1],
            control=f"near the reference, at a drift of {number(results.gradients.drift[0])} nats",
            control_measured=results.missing("k3")[0],
        ),
        Claim(
            id="k3-is-no-answer-kl",
            statement=f"Nor is it the gradient of KL(ref‖π) of answers: distance over its length, {end}.",
            source="gradient of the recursion",
            expected=at_least(0.5),
            measured=results.missing("k3", back=True)[-1],
            control="tokens that lead nowhere: one state",
            control_measured=results.missing("k3", back=True, stateless=True)[-1],
        ),
        Claim(
            id="near-the-reference",
            statement=f"Near the reference k2 and k3 on tokens miss a tenth at most, at a strength of {strength:g}.",
            source="gradient of the recursion",
            expected=at_most(0.1),
            measured=max(results.missing(name)[0] for name in results.gradients.tokens),
            control=f"at a strength of {config.strengths[-1]:g}",
            control_measured=max(results.missing(name)[-1] for name in results.gradients.tokens),
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """KL against length, the optimum along an answer, and what losses of tokens miss."""
    figure, axes = panels([["kl", "opening", "missing"]], height=2.7)
    draw_kl(axes["kl"], config, results)
    draw_opening(axes["opening"], config, results)
    draw_missing(axes["missing"], results)
    return figure


def draw_kl(ax: Axes, config: Config, results: Results) -> None:
    """KL of the optimum against the horizon."""
    found = [results.optima[f"T = {t}"] for t in config.horizons]
    theory(ax, config.horizons, [at.kl for at in found], color=COLORS["reverse drift"], label="recursion over states")
    bars: Any = {"fmt": "o", "markersize": 3, "color": COLORS["measured"], "label": "sampled answers"}
    ax.errorbar(config.horizons, [at.sampled for at in found], [2 * float(at.error) for at in found], **bars)
    samples(ax, [config.enumerable], [results.enumerated], marker="x", markersize=6, color="black", label="all answers")
    naive = [float(at.first * at.length) for at in found]
    theory(ax, config.horizons, naive, color=COLORS["ref"], linestyle="--", label=r"first token's KL $\times$ length")
    ax.set(xscale="log", yscale="log", xlabel="most tokens $T$", ylabel=r"KL$(\pi_\star\Vert\pi_0)$ (nats)")
    ax.set_title("the KL of answers")
    ax.legend(loc="lower right")


def draw_opening(ax: Axes, config: Config, results: Results) -> None:
    """How the optimum of the middle horizon goes along an answer."""
    horizon = config.horizons[len(config.horizons) // 2]
    opening = results.optima[f"T = {horizon}"].opening[1::2]  # the depth is 1 after an odd number of tokens
    theory(ax, np.arange(2, horizon + 1, 2), opening, color=COLORS["oracle"], label=r"$\pi_\star$")
    ax.axhline(0.5, color=COLORS["ref"], linestyle="--", label=r"base $\pi_0$")
    ax.set(xlabel="token", ylabel='probability of "(" at depth 1', ylim=(-0.02, 1), title="the optimum knows the end")
    ax.legend(loc="lower left")


def draw_missing(ax: Axes, results: Results) -> None:
    """What losses of tokens miss, against the drift."""
    drift = results.gradients.drift
    lines = [("k2", False, "-", r"$k_2$, of KL$(\pi\Vert\pi_0)$"), ("k3", False, "-", r"$k_3$, of KL$(\pi\Vert\pi_0)$"),
             ("k3", True, "--", r"$k_3$, of KL$(\pi_0\Vert\pi)$")]  # fmt: skip
    for name, back, style, label in lines:
        theory(ax, drift, results.missing(name, back=back), color=K_COLORS[name], linestyle=style, label=label)
        nowhere = results.missing(name, back=back, stateless=True)
        if name == "k2" or back:
            samples(ax, drift, nowhere, color=K_COLORS[name], marker="_", markersize=6)
    ax.set(xscale="log", xlabel=r"drift KL$(\pi\Vert\pi_0)$ of answers (nats)", ylabel="missing share of the gradient")
    ax.set_title("losses of tokens")
    ax.legend(loc="upper left")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    far = results.optima[f"T = {config.horizons[-1]}"]
    return Caption(
        "Per-token KL losses have the value of the KL of answers, but not its gradient: they leave out what a token "
        f"does to the states of the following ones. Balanced brackets, up to {config.horizons[-1]} tokens.",
        a=f"The optimum lies {number(far.kl)} nats from the base at {config.horizons[-1]} tokens, by a recursion over "
        f"{config.max_depth + 2} states; the cross enumerates every answer, bars are two standard errors.",
        b="It opens brackets until those that are open must be closed.",
        c="Distance of the expected gradient of a loss of tokens from that of a KL of answers, over the length of the "
        "latter. Dashes: a language of one state, in which tokens lead nowhere, has no such part.",
    )
