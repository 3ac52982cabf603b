"""Is policy gradient EM, and does EM end at the closest policy?

EM on the success rate alternates the projections of "RL's Razor" (Shenfeld, Pari, Agrawal, arXiv:2509.04259): condition
the policy on success, then fit the family to that. Policy gradient is EM whose M-step is one infinitesimal step; with
longer ones it moves to the frontier, which exact EM on all distributions reaches at once. In a smaller family exact EM
need not end at the closest policy: an exponential family and a family of mixtures in which it does not.

Lemma A.2, Theorem 5.2 and Proposition A.4. About 10 seconds on two cores.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import rlrazor as rz
from experiments.harness import Caption, Claim, UserError, at_least, bounded, check_sum, checked_run, near
from rlrazor.methods import ORACLE_SFT, REINFORCE, SFT_1
from rlrazor.plotting import COLORS, METHOD_STYLE, panels, samples, theory
from rlrazor.tasks.em_families import Exponential, Mixtures, exponential_family, mixtures

LIMITS = (REINFORCE, ORACLE_SFT)
EXPONENTIAL, SKEWED, SYMMETRIC = "exponential", "skewed", "symmetric"
Policy = Float[Array, " outcomes"]
Accept = Bool[Array, " outcomes"]
Counts = Int[Array, " lengths"]
Points = Float[Array, " points"]
Scalar = Float[Array, ""]


@dataclass(frozen=True)
class Config:
    """A base for M-steps of any length, an exponential family, and a family of mixtures."""

    correct: tuple[float, ...] = bounded((0.30, 0.25, 0.15, 0.10, 0.05), above=0)
    """Base probabilities of the correct answers."""
    wrong: tuple[float, ...] = bounded((0.05, 0.03, 0.04, 0.02, 0.01), above=0)
    """Base probabilities of the wrong answers."""
    accuracy: float = bounded(0.99, above=0, below=1)
    """Success rate at which M-steps of different lengths are compared."""
    end_time: float = bounded(1e5, at_least=1, at_most=1e6)
    """By when their limits, two flows, must have it (rate times steps)."""
    m_steps: tuple[int, ...] = (1, 10, 30, 100, 300, 1000, 3000, 10000, 30000)
    """Gradient steps in each M-step."""
    m_rate: float = bounded(0.02, above=0, at_most=1)
    """Their learning rate."""
    m_total: int = bounded(40000, at_most=200_000)
    """Gradient steps in all."""
    exponential_base: tuple[float, ...] = bounded((0.15, 0.50, 0.15, 0.20), above=0, length=4)
    """Base of the exponential family with statistic y = 0, 1, 2, 3."""
    exponential_wrong: int = bounded(2, at_least=1, at_most=2)
    """The one outcome that is wrong there."""
    strength: float = bounded(12.0, above=0, at_most=100)
    """The family is drawn for natural parameters up to this, of either sign."""
    em_steps: int = bounded(3000, at_most=100_000)
    """Alternations in the exponential family."""
    first: tuple[float, ...] = bounded((0.80, 0.15, 0.05), at_least=0, length=3)
    """The first component of the mixtures, over three correct outcomes."""
    second: tuple[float, ...] = bounded((0.05, 0.05, 0.90), at_least=0, length=3)
    """The second component."""
    third: tuple[float, ...] = bounded((0.05, 0.60, 0.05, 0.30), above=0, length=4)
    """The third component, which alone can produce a fourth outcome, the wrong one."""
    symmetric_first: tuple[float, ...] = bounded((0.90, 0.05, 0.05), at_least=0, length=3)
    """In place of the first, in the control."""
    mixture_weights: tuple[float, ...] = bounded((0.05, 0.15, 0.80), above=0, length=3)
    """Weights of the three in the base."""
    mixture_steps: int = bounded(40, at_most=10_000)
    """Alternations in the family of mixtures."""
    mixture_m_steps: int = bounded(500, at_most=10_000)
    """Updates of the weights in each M-step."""
    shares: int = bounded(40001, at_least=401, at_most=1_000_000)
    """Mixtures of the first two that are searched for the closest."""
    arrival: float = bounded(1e-5, above=0, below=0.1)
    """Failure rate at which EM counts as arrived."""

    def __post_init__(self) -> None:
        """Distributions are normalised, and the comparison lies above the base."""
        check_sum("correct + wrong", self.correct + self.wrong)
        for name in ("exponential_base", "first", "second", "third", "symmetric_first", "mixture_weights"):
            check_sum(name, getattr(self, name))
        if not self.base_success < self.accuracy:
            raise UserError(f"accuracy must lie between {self.base_success:g} and 1, got {self.accuracy}")

    @classmethod
    def quick(cls) -> "Config":
        """Fewer lengths of M-steps, larger steps, fewer alternations."""
        return cls(end_time=1e4, m_steps=(1, 100, 1000, 8000), m_rate=0.1, m_total=8000, em_steps=1000)

    @property
    def base_success(self) -> float:
        """p0, the success rate of the base."""
        return math.fsum(self.correct)


class Hurry(NamedTuple):
    """EM with M-steps of any length, at the accuracy of the comparison; NaN where that is not reached."""

    cosine: dict[str, Scalar]  # of ∇J with the gradient of oracle SFT, and of SFT on the likeliest answer
    drift: rz.Drifts  # by length of the M-step
    limits: dict[str, rz.Drifts]  # the flows of policy gradient and of the exact M-step
    simplex: Scalar  # drift above the least after one step of EM among all distributions


class Results(NamedTuple):
    """M-steps of any length, and exact EM in either family."""

    hurry: Hurry
    exponential: Exponential
    shares: Points
    mixtures: dict[str, Mixtures]

    def gaps(self, config: Config) -> dict[str, float]:
        """By family, KL(where EM ends || base) minus the least of those that succeed; NaN if EM has not arrived."""
        line = self.exponential
        gaps = {EXPONENTIAL: (line.em.success[-1], line.em.drift[-1] - np.minimum(line.low_end, line.high_end))}
        gaps |= {name: (found.em_success, found.em_drift - found.least_drift) for name, found in self.mixtures.items()}
        return {name: float(gap) if 1 - rate <= config.arrival else math.nan for name, (rate, gap) in gaps.items()}


@checked_run
def run(config: Config) -> Results:
    """M-steps of any length, then exact EM in either family."""
    log_ref, log_base = jnp.log(jnp.array(config.correct + config.wrong)), jnp.log(jnp.array(config.exponential_base))
    accept = jnp.arange(log_ref.size) < len(config.correct)
    right = jnp.arange(log_base.size) != config.exponential_wrong
    strengths = jnp.linspace(-config.strength, config.strength, 401)
    log_weights, shares = jnp.log(jnp.array(config.mixture_weights)), jnp.linspace(0.0, 1.0, config.shares)
    others, steps = ((*config.second, 0.0), config.third), (config.mixture_steps, config.mixture_m_steps)
    search = jax.jit(mixtures, static_argnums=(3, 4))
    searched = {
        name: search(jnp.log(jnp.array([(*first, 0.0), *others])), log_weights, shares, *steps)
        for name, first in ((SKEWED, config.first), (SYMMETRIC, config.symmetric_first))
    }
    counts, shown = jnp.array(config.m_steps), slice(None, None, config.shares // 400)
    return Results(
        hurry=hurry(log_ref, accept, counts, config.m_rate, config.accuracy, config.end_time, config.m_total),
        exponential=jax.jit(exponential_family, static_argnums=3)(log_base, right, strengths, config.em_steps),
        shares=shares[shown],
        mixtures={name: found._replace(drift=found.drift[shown]) for name, found in searched.items()},
    )


@partial(jax.jit, static_argnames="total")
def hurry(
    log_ref: Policy, accept: Accept, counts: Counts, rate: Scalar, level: Scalar, end: Scalar, total: int
) -> Hurry:
    """EM by the number of gradient steps in its M-step, its two limits, and the first of these steps."""

    def success(logits: Policy) -> Scalar:
        return rz.success_rate(rz.softmax_policy(logits), accept)

    def cosine(target: Policy) -> Scalar:
        fit = jax.grad(lambda logits: -rz.kl_divergence(target, rz.softmax_policy(logits)))(log_ref)
        return jnp.vdot(climb, fit) / jnp.sqrt(jnp.vdot(climb, climb) * jnp.vdot(fit, fit))

    def drifts(count: Int[Array, ""]) -> rz.Drifts:
        path = rz.partial_m_steps(log_ref, accept, rate, count, total).log_policy
        away, rates = rz.drifts(path[:, None], log_ref[None]), rz.success_rate(path, accept)
        return rz.Drifts(*(rz.value_at_crossing(rates, drift, level) for drift in away))

    climb, likeliest = jax.grad(success)(log_ref), jnp.where(accept, log_ref, -jnp.inf).argmax()
    targets = {ORACLE_SFT: rz.condition(log_ref, accept), SFT_1: jnp.log(jax.nn.one_hot(likeliest, log_ref.size))}
    losses = rz.exact_losses(LIMITS, rz.Problem(log_ref, accept))
    flows = rz.gradient_flows(losses, log_ref, jnp.stack([end]), stop=lambda logits: success(logits) - level)
    one_step = rz.alternate(lambda log_target, _: log_target, log_ref, accept, 1).log_policy[-1]
    return Hurry(
        cosine={method: cosine(target) for method, target in targets.items()},
        drift=jax.vmap(drifts)(counts),
        limits={m: rz.drifts(jnp.where(f.stopped, f.log_policy, jnp.nan), log_ref[None]) for m, f in flows.items()},
        simplex=rz.kl_divergence(one_step, log_ref) + rz.log_success(log_ref, accept),
    )


def claims(config: Config, results: Results) -> list[Claim]:
    """Policy gradient as the first step of EM, and where exact EM ends."""
    paper, hurried, gaps = "RL's Razor, arXiv:2509.04259", results.hurry, results.gaps(config)
    shortest, longest = min(config.m_steps), max(config.m_steps)
    reverse = dict(zip(config.m_steps, hurried.drift.reverse - hurried.limits[ORACLE_SFT].reverse, strict=True))
    return [
        Claim(
            id="one-step-of-em",
            statement="Policy gradient is the first step of the M-step: cosine of ∇J and -∇KL(base(.|S) || policy).",
            source=f"{paper}, Lemma A.2",
            expected=near(1, 1e-12),
            measured=hurried.cosine[ORACLE_SFT],
            control="with the gradient of SFT on the likeliest answer",
            control_measured=hurried.cosine[SFT_1],
        ),
        Claim(
            id="exact-m-steps",
            statement=f"M-steps of {longest} gradient steps bring policy gradient close to exact EM: reverse drift at "
            f"J = {config.accuracy:g} minus that of SFT on the oracle.",
            source=f"{paper}, Proposition A.4 (ii): the errors of the M-steps must be summable",
            expected=near(0, 2e-3),
            measured=reverse[longest],
            control=f"M-steps of {shortest} gradient step{'s' if shortest > 1 else ', which is policy gradient'}",
            control_measured=reverse[shortest] if shortest < longest else math.nan,
        ),
        Claim(
            id="exponential-family",
            statement="In an exponential family exact EM need not end at the closest policy: KL(end || base) minus "
            "that of the closest policy that always succeeds.",
            source=f"{paper}, Proposition A.4 says 0; P* meets the family's closure only",
            expected=at_least(0.01),
            measured=gaps[EXPONENTIAL],
            control="all distributions, where one step ends at base(.|S)",
            control_measured=hurried.simplex,
        ),
        Claim(
            id="mixture-family",
            statement="In a convex family, too, exact EM need not end at the minimum: KL(end || base) minus the least.",
            source=f"{paper}, Theorem 5.2 says 0",
            expected=at_least(1e-6),
            measured=gaps[SKEWED],
            control="a symmetric pair of components",
            control_measured=gaps[SYMMETRIC],
            note="The M-step minimizes KL(q || policy), the theorem's conclusion speaks of KL(policy || base).",
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """EM in a hurry, and exact EM in two families."""
    figure, axes = panels([["hurry", "exponential", "mixtures"]], height=2.9)
    draw_hurry(axes["hurry"], config, results.hurry)
    draw_exponential(axes["exponential"], results.exponential)
    draw_mixtures(axes["mixtures"], results)
    return figure


def draw_hurry(ax: Axes, config: Config, results: Hurry) -> None:
    """From policy gradient to EM by the length of the M-step."""
    length = config.m_rate * np.array(config.m_steps)
    least = rz.success_frontier(config.base_success, config.accuracy)
    for direction, symbol in (("forward", r"KL$(\pi_0\Vert\pi)$"), ("reverse", r"KL$(\pi\Vert\pi_0)$")):
        samples(ax, length, getattr(results.drift, direction), color=COLORS[f"{direction} drift"], label=symbol)
        named = direction == "reverse"  # each line once in the legend
        for method in LIMITS:
            look: Any = {"color": METHOD_STYLE[method].color, "label": method if named else None}
            ax.axhline(float(getattr(results.limits[method], direction)), linewidth=1.0, zorder=0, **look)
        look = {"color": COLORS["target"], "label": "frontier" if named else None}
        ax.axhline(float(getattr(least, direction)), linestyle="--", linewidth=0.8, **look)
    ax.set(xscale="log", xlim=(length.min() / 2, 2 * length.max()), title="EM in a hurry")
    ax.set(ylim=(0, 1.6 * ax.dataLim.ymax), ylabel=f"drift at $J={config.accuracy:g}$ (nats)")
    ax.set_xlabel("length of an M-step (rate × steps)")
    ax.legend(loc="upper center", ncols=2)


def draw_exponential(ax: Axes, results: Exponential) -> None:
    """EM in the exponential family climbs to one end, which may be the farther one."""
    theory(ax, *results.family, color=COLORS["ref"], label=r"family $\pi_0e^{\lambda y}/Z$")
    steps = np.unique(np.geomspace(1, len(results.em.drift), 40).astype(int)) - 1
    samples(ax, results.em.success[steps], results.em.drift[steps], color=COLORS["exact"], label="exact EM")
    for name, success, drift, color in (
        (f"EM after {len(results.em.drift) - 1} steps", results.em.success[-1], results.em.drift[-1], COLORS["exact"]),
        ("closest with $J=1$", 1.0, np.minimum(results.low_end, results.high_end), COLORS["oracle"]),
    ):
        ax.plot(success, drift, "*", markersize=8, color=color, clip_on=False, zorder=5, label=f"{name}: {drift:.3f}")
    ax.set(xlabel=r"success rate $J$", ylabel=r"KL$(\pi\Vert\pi_0)$ (nats)", title="an exponential family")
    ax.set_ylim(0, 1.5 * ax.dataLim.ymax)
    ax.legend(loc="upper left")


def draw_mixtures(ax: Axes, results: Results) -> None:
    """Where EM ends among the mixtures that always succeed, and where the minimum is."""
    found = results.mixtures[SKEWED]
    center = (found.em_share + found.closest_share) / 2
    shown = np.abs(results.shares - center) <= max(2 * abs(found.em_share - found.closest_share), 0.05)
    label = r"$wf_1+(1-w)f_2$, all with $J=1$"
    theory(ax, results.shares[shown], found.drift[shown], color=COLORS["ref"], label=label)
    for name, share, drift, color in (
        (f"EM at $J={found.em_success:.4g}$", found.em_share, found.em_drift, COLORS["exact"]),
        ("closest", found.closest_share, found.least_drift, COLORS["oracle"]),
    ):
        ax.plot(share, drift, "*", markersize=8, color=color, label=f"{name}: $w={share:.4f}$, {drift:.5f}")
    low, high = ax.dataLim.intervaly
    ax.set_ylim(low - 0.1 * (high - low), high + 0.6 * (high - low))
    ax.set(xlabel="mixture weight $w$", ylabel=r"KL$(\pi\Vert\pi_0)$ (nats)", title="a convex family")
    ax.legend(loc="upper center")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    gaps = {name: f"{gap:.4g} nats above it" for name, gap in results.gaps(config).items() if gap == gap}
    exponential, mixture = (gaps.get(name, "not there yet") for name in (EXPONENTIAL, SKEWED))
    return Caption(
        "Policy gradient is EM whose M-step is cut short, and with longer M-steps it moves to the frontier. In a "
        "smaller family exact EM need not end at the closest policy that always succeeds: in the exponential family "
        f"it is {exponential}, in the convex one {mixture}.",
        a=f"Drift at success rate {config.accuracy:g} by the length of an M-step, and the flows at either end.",
        b=f"EM in the exponential family, {config.em_steps} steps.",
        c="Where EM ends among mixtures that always succeed, and where the minimum is.",
    )
