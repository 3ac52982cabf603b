"""Why does plain policy gradient leave the frontier, and what brings it back?

The flow on the logits shifts exp(-θ) by the same amount for all correct answers, and by another for all wrong ones. So
exp(-θ_i) - exp(-θ_j) is conserved for correct answers i and j, their ratios cannot stay, and the flow ends at the
likeliest correct answer alone. The natural gradient keeps the ratios instead. A KL penalty restores them at
convergence, and a weak one lets the flow leave the frontier first.

Theorem 5.2 and figure 3 of "RL's Razor" (Shenfeld, Pari, Agrawal, arXiv:2509.04259). About 8 seconds on two cores.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import rlrazor as rz
from experiments.harness import Caption, Claim, UserError, at_least, at_most, bounded, check_sum, checked_run, near
from rlrazor.methods import REINFORCE, plus_kl
from rlrazor.plotting import COLORS, LABELS, METHOD_STYLE, key, note, panels, samples, success_axis, theory
from rlrazor.tasks.success_flow import Laws, laws_of_success

NATURAL, PLAIN = "natural gradient", 0.0

Policies = Float[Array, "points outcomes"]
Policy = Float[Array, " outcomes"]
Accept = Bool[Array, " outcomes"]
Points = Float[Array, " points"]
Scalar = Float[Array, ""]
Indices = Int[Array, "..."]


@dataclass(frozen=True)
class Config:
    """A base with correct and wrong answers, and the penalties."""

    correct: tuple[float, ...] = bounded((0.30, 0.25, 0.15, 0.10, 0.05), above=0, min_length=2)
    """Base probabilities of the correct answers."""
    wrong: tuple[float, ...] = bounded((0.05, 0.03, 0.04, 0.02, 0.01), above=0)
    """Base probabilities of the wrong answers."""
    betas: tuple[float, ...] = bounded((0.03, 0.1, 0.3), above=0, at_most=10)
    """Coefficients of the KL penalty; claims are on the median."""
    off: float = bounded(0.02, above=0)
    """Reverse drift above the frontier (nats) from which a policy counts as off it."""
    first_time: float = bounded(0.1, above=0, at_most=0.5)
    """First saved time after the start (rate times steps)."""
    end_time: float = bounded(1e5, at_least=1, at_most=1e6)
    """How long the flows run."""
    num_times: int = bounded(160, at_least=10, at_most=10_000)
    """Saved times, log-spaced."""

    def __post_init__(self) -> None:
        """The base is normalised, and prefers some correct answers to others."""
        check_sum("correct + wrong", self.correct + self.wrong)
        if len(set(self.correct)) == 1:
            raise UserError("correct must not all be equal: policy gradient keeps equal answers equal")

    @classmethod
    def quick(cls) -> "Config":
        """Shorter flows and fewer times."""
        return cls(end_time=1e4, num_times=60)

    @property
    def base_success(self) -> float:
        """p0, the success rate of the base."""
        return math.fsum(self.correct)

    @property
    def likeliest(self) -> tuple[int, ...]:
        """The likeliest correct answers, more than one where they are equally likely."""
        return tuple(i for i, p in enumerate(self.correct) if p == max(self.correct))

    @property
    def median_beta(self) -> float:
        """The penalty that the claims are on."""
        return sorted(self.betas)[len(self.betas) // 2]


class Path(NamedTuple):
    """Policies in the plane of success and reverse drift, and how much of their success the likeliest answer has."""

    success: Points
    reverse_drift: Points
    excess: Points  # of reverse drift above the frontier
    top_share: Points


class Results(NamedTuple):
    """The flows, plain policy gradient in closed form, and the laws of it."""

    times: Points
    paths: dict[str, Path]  # by coefficient of the penalty; 0 is the plain flow
    closed_form: Path
    laws: Laws

    def path(self, beta: float) -> Path:
        """The flow with a penalty."""
        return self.paths[str(beta)]


@checked_run
def run(config: Config) -> Results:
    """The flows, and what is known of the plain one in closed form."""
    log_ref, top = jnp.log(jnp.array(config.correct + config.wrong)), config.likeliest[0]
    task = log_ref, jnp.arange(log_ref.size) < len(config.correct)
    others = jnp.array([answer for answer in range(len(config.correct)) if answer != top])
    times = rz.log_times(config.first_time, config.end_time, config.num_times)
    betas = (PLAIN, *config.betas)
    found = flows(*task, jnp.array(betas), times)
    laws = jax.jit(laws_of_success)(*task, found.params[betas.index(PLAIN)], times, top, others)
    paths = {str(beta): path_of(*task, found.log_policy[row], top) for row, beta in enumerate(betas)}
    return Results(times, paths, path_of(*task, laws.log_policy, top), laws)


@jax.jit
def flows(log_ref: Policy, accept: Accept, betas: Float[Array, " betas"], times: Points) -> rz.Trajectory:
    """Policy gradient on the logits with each penalty."""

    def flow(beta: Scalar) -> rz.Trajectory:
        problem = rz.Problem(log_ref, accept, beta=beta)
        return rz.gradient_flow(rz.exact_loss(plus_kl(REINFORCE), problem), log_ref, times)

    found: rz.Trajectory = jax.lax.map(flow, betas)
    return found


@jax.jit
def path_of(log_ref: Policy, accept: Accept, log_policy: Policies, top: Indices) -> Path:
    """Where policies are, and the share pi(top | S)."""
    log_success, log_p0 = rz.log_success(log_policy, accept), rz.log_success(log_ref, accept)
    drift = rz.reverse_drift(log_policy[:, None], log_ref[None])
    excess = drift - rz.success_frontier(jnp.exp(log_p0), jnp.exp(log_success)).reverse
    return Path(jnp.exp(log_success), drift, excess, jnp.exp(log_policy[:, top] - log_success))


# One list: split, its argument would be harder to follow.
def claims(config: Config, results: Results) -> list[Claim]:
    """What the flow conserves and minimizes, where it ends, and what a penalty changes."""
    paper, beta = "RL's Razor, arXiv:2509.04259", config.median_beta
    middle, strongest, end = results.path(beta).excess, max(config.betas), f"time {config.end_time:g}"
    plain, natural = results.laws.euclidean, results.laws.natural
    return [
        Claim(
            id="collapse",
            statement="Plain policy gradient ends at the likeliest correct answers alone: limit of its reverse drift.",
            source="closed form of the flow",
            expected=near(-math.log(len(config.likeliest) * max(config.correct)), 1e-9),
            measured=plain.limit,
            control="the natural gradient, whose limit is the frontier's -log p0",
            control_measured=natural.limit,
        ),
        Claim(
            id="closed-form",
            statement="The flow on the logits runs along init / (1 - a init) on the correct and init / (1 + b init) on "
            "the wrong answers: largest difference of a probability.",
            source="conserved quantities of the flow",
            expected=at_most(1e-7),
            measured=plain.error,
            control="the natural gradient flow",
            control_measured=natural.error,
        ),
        Claim(
            id="conserved",
            statement="exp(-θ_i) - exp(-θ_j) is conserved for correct answers i, j: largest change along the flow.",
            source="d exp(-θ_i) / dt = -(1 - J) / Z for every correct i",
            expected=at_most(5e-6 / min(config.correct)),  # of the largest exp(-θ)
            measured=np.ptp(plain.conserved, axis=0).max(),
            control="the natural gradient flow",
            control_measured=np.ptp(natural.conserved, axis=0).max(),
        ),
        Claim(
            id="what-it-minimizes",
            statement="Of all weights exp(θ) with its totals on the correct and on the wrong answers, the flow has "
            "those of least Itakura-Saito divergence from the base's: least advantage over the base's ratios.",
            source="conserved quantities of the flow: 1/w - 1/w0 is constant on either set",
            expected=at_least(-1e-9),
            measured=(natural.itakura_saito - plain.itakura_saito).min(),
            control="by reverse drift, which the base's ratios minimize",
            control_measured=-results.path(PLAIN).excess.max(),
        ),
        Claim(
            id="penalty",
            statement=f"A KL penalty of {beta:g} has restored the razor at {end}: reverse drift above the frontier.",
            source=f"{paper}, figure 3 (GRPO + KL); fixed point base exp(reward / beta) / Z",
            expected=near(0, 1e-3),
            measured=middle[-1],
            control="without the penalty",
            control_measured=results.path(PLAIN).excess[-1],
        ),
        Claim(
            id="penalty-is-late",
            statement=f"On its way to convergence a penalty of {beta:g} leaves the frontier by {config.off:g} nats or "
            "more: largest reverse drift above the frontier.",
            source="exact flow",
            expected=at_least(config.off),
            measured=middle.max(),
            control=f"a penalty of {strongest:g}",
            control_measured=results.path(strongest).excess.max() if strongest > beta else np.nan,
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """Ratios, what is conserved and minimized, and the penalty."""
    figure, axes = panels([["share", "conserved"], ["minimized", "penalty"]], height=5.0)
    draw_share(axes["share"], config, results)
    draw_conserved(axes["conserved"], results)
    draw_minimized(axes["minimized"], config, results)
    draw_penalty(axes["penalty"], config, results)
    return figure


def draw_share(ax: Axes, config: Config, results: Results) -> None:
    """The likeliest correct answer takes over, unless the penalty or the metric holds it."""
    plain, penalized = METHOD_STYLE[REINFORCE], METHOD_STYLE[plus_kl(REINFORCE)]
    theory(ax, results.closed_form.success, results.closed_form.top_share, color=plain.color, label="closed form")
    flow = results.path(PLAIN)
    samples(ax, flow.success, flow.top_share, color=plain.color, label=REINFORCE)
    path, label = results.path(config.median_beta), rf"{plus_kl(REINFORCE)}, $\beta={config.median_beta:g}$"
    theory(ax, path.success, path.top_share, color=penalized.color, linestyle=penalized.line, label=label)
    ax.axhline(float(results.path(PLAIN).top_share[0]), color=COLORS["exact"], linewidth=1.0, label=NATURAL)
    success_axis(ax, config.base_success, float(results.path(PLAIN).success[-1]))
    ax.set(ylim=(0, 1.02), ylabel=r"$\pi(\mathrm{top}\mid S)$", title="what becomes of the likeliest correct answer")
    ax.legend(loc="lower right")


def draw_conserved(ax: Axes, results: Results) -> None:
    """What plain policy gradient conserves and the natural gradient does not."""
    for law, name, color in (
        (results.laws.natural, NATURAL, COLORS["exact"]),
        (results.laws.euclidean, REINFORCE, METHOD_STYLE[REINFORCE].color),
    ):
        theory(ax, results.times[1:], law.conserved[1:], color=color, linewidth=1.0)
        key(ax, name, color=color)
    ax.set_xscale("log")
    ax.set(xlim=(results.times[1], results.times[-1]), xlabel=LABELS["time"], title="what it conserves")
    ax.set_ylabel(r"$e^{-\theta_\mathrm{top}}-e^{-\theta_j}$, $j\in S$")
    ax.legend(loc="center right")


def draw_minimized(ax: Axes, config: Config, results: Results) -> None:
    """By one divergence plain policy gradient is closer at equal success, by the other the natural gradient is."""
    flow, laws = results.path(PLAIN), results.laws
    kl_ratio = flow.reverse_drift[1:] / (flow.reverse_drift - flow.excess)[1:]
    theory(ax, flow.success[1:], kl_ratio, color=COLORS["reverse drift"], label="KL: plain to natural")
    ratio, label = (
        laws.natural.itakura_saito[1:] / laws.euclidean.itakura_saito[1:],
        r"Itakura$-$Saito: natural to plain",
    )
    theory(ax, flow.success[1:], ratio, color=COLORS["measured"], label=label)
    success_axis(ax, config.base_success, float(results.path(PLAIN).success[-1]))
    ax.axhline(1, color=COLORS["target"], linestyle="--", linewidth=0.8)
    ax.set(ylabel="times as far from the base", title="what either gradient minimizes")
    ax.legend(loc="upper left")


def draw_penalty(ax: Axes, config: Config, results: Results) -> None:
    """Excess drift over time, with and without the penalty."""
    plain, penalized = METHOD_STYLE[REINFORCE], METHOD_STYLE[plus_kl(REINFORCE)]
    theory(ax, results.times[1:], results.path(PLAIN).excess[1:], color=plain.color, label=REINFORCE)
    bottom = math.inf
    for beta in config.betas:
        excess = results.path(beta).excess
        bottom = min(bottom, float(excess.max()) / 30)
        theory(ax, results.times[1:], excess[1:], color=penalized.color, linestyle=penalized.line)
        place = float(results.times[excess.argmax()]), float(excess.max())
        note(ax, rf"$\beta={beta:g}$", place, xytext=(4, 1), textcoords="offset points")
    key(ax, plus_kl(REINFORCE), color=penalized.color, linestyle=penalized.line)
    limit = float(results.laws.euclidean.limit - results.laws.natural.limit)
    label = rf"limit ${results.laws.euclidean.limit:.3f}-{results.laws.natural.limit:.3f}$"
    ax.axhline(limit, color=COLORS["target"], linestyle="--", linewidth=0.8, label=label)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set(ylim=(bottom, 30 * limit), xlabel=LABELS["time"], ylabel=LABELS["excess"], title="a KL penalty")
    ax.legend(loc="upper left", ncols=2)


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    peak, end = results.path(config.median_beta).excess, f"time {config.end_time:g}"
    return Caption(
        "Plain policy gradient conserves the differences of exp(-θ) between correct answers, so it cannot keep their "
        f"ratios and ends at {results.laws.euclidean.limit:.4g} nats of reverse drift, where the closest policy is at "
        f"{results.laws.natural.limit:.4g}. With a KL penalty of {config.median_beta:g} it is at most "
        f"{peak.max():.4g} nats above the frontier on its way, and {abs(peak[-1]):.4g} at {end}.",
        a="Share of the likeliest correct answer in the success rate: points are the integrated flow.",
        b="The conserved differences along the plain and along the natural gradient flow, a line a pair.",
        c="At equal success, by how many times plain policy gradient has more reverse drift than the natural gradient, "
        "and the base's ratios more Itakura-Saito divergence of exp(θ) than plain policy gradient.",
        d=f"Reverse drift above the frontier, without and with a KL penalty, up to {end}.",
    )
