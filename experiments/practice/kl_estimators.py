"""Which estimator of the KL from the reference should be logged, and up to which drift?

k1 and k3 are right on average, k2 only near the reference. k3 is the quiet one there: it is k1 with a control variate
whose best coefficient, -(KL(π‖ref) + KL(ref‖π)) / χ²(ref‖π), is -1 there. That shrinks with drift, and k3 is noisier
than k1 where χ²(ref‖π) exceeds twice the sum. With the log-ratio's sign turned k3 estimates χ²(π‖ref) - KL(π‖ref).

Threads that ask: natolambert/rlhf-book issue 489, trl issues 1161 and 4967. About 6 seconds on two cores.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

import rlrazor as rz
from experiments.harness import Caption, Claim, at_most, bounded, checked_run, near, number
from rlrazor.forgetting import value_at_crossing
from rlrazor.plotting import COLORS, K_COLORS, key, note, panels, samples, theory

NAMES = ("k1", "k2", "k3", "k3 turned")
WORDS = {
    "k1": r"$k_1=\log\pi/\pi_0$",
    "k2": r"$k_2=k_1^2/2$",
    "k3": r"$k_3=\pi_0/\pi-1+k_1$",
    "k3 turned": r"$k_3$ turned, $\pi/\pi_0-1-k_1$",
}
BEST = "best control"


@dataclass(frozen=True)
class Config:
    """A reference, the policies that a reward tilts away from it, and the samples of an estimate."""

    num_outcomes: int = bounded(1000, at_least=3, at_most=100_000)
    """Answers; the reference is Zipf's law."""
    largest_beta: float = bounded(25.0, at_least=2, at_most=1000)
    """KL coefficient of the policy that is closest to the reference."""
    least_beta: float = bounded(0.35, at_least=0.1, at_most=1)
    """Of the farthest one."""
    num_drifts: int = bounded(60, at_least=2, at_most=1000)
    """Policies on the curves."""
    num_points: int = bounded(12, at_least=2, at_most=100)
    """Policies that are sampled."""
    num_samples: int = bounded(100_000, at_least=1000, at_most=1_000_000)
    """Samples of each of them."""
    seed: int = bounded(0, at_least=0)
    """Of the reward and the samples."""

    @classmethod
    def quick(cls) -> "Config":
        """Fewer answers, points and samples."""
        return cls(num_outcomes=100, num_points=8, num_samples=20_000)


class Spread(NamedTuple):
    """Mean and standard deviation of one estimate."""

    mean: Float[Array, " drifts"]
    deviation: Float[Array, " drifts"]


class Geometry(NamedTuple):
    """Where the policy is."""

    drift: Float[Array, " drifts"]  # KL(policy || ref)
    back: Float[Array, " drifts"]  # KL(ref || policy)
    chi2: Float[Array, " drifts"]  # chi2(policy || ref)
    chi2_back: Float[Array, " drifts"]  # chi2(ref || policy)
    coefficient: Float[Array, " drifts"]  # of the best control variate


class Results(NamedTuple):
    """Estimators along the drift, and on samples."""

    where: Geometry
    exact: dict[str, Spread]
    points: Geometry
    exact_at_points: dict[str, Spread]
    sampled: dict[str, Spread]

    def scores(self, against: dict[str, Spread], num_samples: int) -> Float[np.ndarray, "estimators points"]:
        """Sampled means less others, in exact standard errors, of the estimators that are right or near."""
        exact, sampled = self.exact_at_points, self.sampled
        errors = {name: exact[name].deviation / np.sqrt(num_samples) for name in ("k1", "k2", "k3")}
        return np.stack([np.abs(sampled[k].mean - against[k].mean) / error for k, error in errors.items()])

    def crossing(self) -> tuple[float, float]:
        """The drift at which k3 gets noisier than k1, by standard deviations, and by χ² = 2 (KL + KL); NaN if never."""
        noisier, where = self.exact["k3"].deviation - self.exact["k1"].deviation, self.where
        return self.drift_where(noisier), self.drift_where(where.chi2_back - 2 * (where.drift + where.back))

    def drift_where(self, excess: Any) -> float:
        """The drift at which an excess becomes positive."""
        return float(np.exp(value_at_crossing(jnp.asarray(excess), jnp.log(self.where.drift), 0.0)))


@checked_run
def run(config: Config) -> Results:
    """Closed forms along the drift, and samples at some of its points."""
    ends, key = (config.largest_beta, config.least_beta), jax.random.key(config.seed)
    betas, sampled = (jnp.asarray(np.geomspace(*ends, n)) for n in (config.num_drifts, config.num_points))
    found: Results = everything(key, betas, sampled, config.num_outcomes, config.num_samples)
    return found


@partial(jax.jit, static_argnames=("num_outcomes", "num_samples"))
def everything(
    key: Key[Array, ""],
    betas: Float[Array, " drifts"],
    betas_sampled: Float[Array, " points"],
    num_outcomes: int,
    num_samples: int,
) -> Results:
    """The tilts of a reference by a reward, and what the estimators make of them."""
    log_ref = jax.nn.log_softmax(-jnp.log(jnp.arange(1.0, num_outcomes + 1)))
    reward = jax.random.normal(key, (num_outcomes,))

    log_policy = rz.tilt(log_ref, reward, betas_sampled)
    keys = jax.random.split(jax.random.fold_in(key, 1), len(betas_sampled))
    sampled = jax.lax.map(lambda row: estimate(row[0], row[1], log_ref, num_samples), (keys, log_policy))
    along = geometry(rz.tilt(log_ref, reward, betas), log_ref)
    return Results(*along, *geometry(log_policy, log_ref), sampled)


def per_sample(log_prob: Float[Array, "..."], log_prob_ref: Float[Array, "..."]) -> dict[str, Float[Array, "..."]]:
    """Every estimate."""
    forms = (rz.k1(log_prob, log_prob_ref), rz.k2(log_prob, log_prob_ref), rz.k3(log_prob, log_prob_ref))
    return dict(zip(NAMES, (*forms, rz.k3(log_prob_ref, log_prob)), strict=True))


def geometry(
    log_policy: Float[Array, "drifts outcomes"], log_ref: Float[Array, " outcomes"]
) -> tuple[Geometry, dict[str, Spread]]:
    """Divergences, and exact means and deviations."""
    log_ref = log_ref[None] + 0 * log_policy
    values = per_sample(log_policy, log_ref)
    spreads = {name: rz.moments(log_policy, value) for name, value in values.items()}
    best = rz.best_control_variate(log_policy, values["k1"], jnp.exp(log_ref - log_policy) - 1)
    exact = {name: Spread(found.mean, jnp.sqrt(found.variance)) for name, found in spreads.items()}
    where = Geometry(
        rz.kl_divergence(log_policy, log_ref),
        rz.kl_divergence(log_ref, log_policy),
        rz.chi2_divergence(log_policy, log_ref),
        rz.chi2_divergence(log_ref, log_policy),
        best.coefficient,
    )
    return where, exact | {BEST: Spread(exact["k1"].mean, jnp.sqrt(best.variance))}


def estimate(
    key: Key[Array, ""], log_policy: Float[Array, " outcomes"], log_ref: Float[Array, " outcomes"], num_samples: int
) -> dict[str, Spread]:
    """Mean and deviation of every estimate over samples of a policy."""
    drawn = rz.inverse_cdf(log_policy, jax.random.uniform(key, (num_samples,)))
    values = per_sample(log_policy[drawn], log_ref[drawn])
    return {name: Spread(value.mean(), value.std(ddof=1)) for name, value in values.items()}


def claims(config: Config, results: Results) -> list[Claim]:
    """Which estimators are right, which is quiet, and where that ends."""
    exact, where, points = results.exact, results.where, results.exact_at_points
    last, first = (f"at a drift of {where.drift[i]:.3g} nats" for i in (-1, 0))
    off = {name: np.abs(exact[name].mean / where.drift - 1) for name in NAMES}
    others = {name: points[other] for name, other in (("k1", "k2"), ("k2", "k1"), ("k3", "k2"))}
    by_deviation, by_chi2 = results.crossing()
    turned, difference = exact["k3 turned"].mean, where.chi2 - where.drift
    return [
        Claim(
            id="k1-and-k3-are-right",
            statement="The means of k1 and k3 are the KL: largest relative difference along the drift.",
            source="KL divergence",
            expected=at_most(1e-9),
            measured=max(off["k1"].max(), off["k3"].max()),
            control=f"k2, {last}",
            control_measured=off["k2"][-1],
        ),
        Claim(
            id="samples",
            statement=f"Means over {config.num_samples} samples agree with the exact ones: largest difference of k1, "
            f"k2 and k3 in standard errors, at {config.num_points} drifts.",
            source="Monte Carlo",
            expected=at_most(4),
            measured=results.scores(points, config.num_samples).max(),
            control="the exact mean of another estimator",
            control_measured=results.scores(others, config.num_samples).max(),
        ),
        Claim(
            id="k3-is-quiet-near",
            statement=f"Near the reference k3's standard deviation is at most a tenth of k1's, {first}: their ratio.",
            source="exact variances",
            expected=at_most(0.1),
            measured=exact["k3"].deviation[0] / exact["k1"].deviation[0],
            control=last,
            control_measured=exact["k3"].deviation[-1] / exact["k1"].deviation[-1],
        ),
        Claim(
            id="best-coefficient",
            statement=f"There its coefficient of the control variate, -1, is the best one: the best one {first}.",
            source="-(KL(π‖ref) + KL(ref‖π)) / χ²(ref‖π)",
            expected=near(-1, 0.1),
            measured=where.coefficient[0],
            control=last,
            control_measured=where.coefficient[-1],
        ),
        Claim(
            id="k3-gets-loud",
            statement="k3 is noisier than k1 from the drift on at which χ²(ref‖π) exceeds 2 (KL(π‖ref) + KL(ref‖π)).",
            source="χ²(ref‖π) = 2 (KL(π‖ref) + KL(ref‖π))",
            expected=near(by_chi2, 0.01 * by_chi2),
            measured=by_deviation,
            control="where χ²(π‖ref) exceeds it",
            control_measured=results.drift_where(where.chi2 - 2 * (where.drift + where.back)),
        ),
        Claim(
            id="turned",
            statement="With the sign of the log-ratio turned, k3 estimates χ²(π‖ref) - KL(π‖ref): largest relative "
            "difference.",
            source="χ² divergence",
            expected=at_most(1e-9),
            measured=np.abs(turned / difference - 1).max(),
            control="the KL",
            control_measured=np.abs(turned / where.drift - 1).max(),
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """Means, standard deviations, and the best coefficient, against the drift."""
    figure, axes = panels([["mean", "deviation", "coefficient"]], height=2.7)
    draw_means(axes["mean"], results)
    draw_deviations(axes["deviation"], results)
    draw_coefficient(axes["coefficient"], results)
    for ax in axes.values():
        ax.set(xscale="log", xlabel=r"drift KL$(\pi\Vert\pi_0)$ (nats)")
    return figure


def draw_means(ax: Axes, results: Results) -> None:
    """Means over the KL: exact and sampled."""
    for name in NAMES:
        dashes = "--" if name == "k3" else "-"  # k1 lies below it
        theory(ax, results.where.drift, results.exact[name].mean / results.where.drift, color=K_COLORS[name], ls=dashes)
        samples(ax, results.points.drift, results.sampled[name].mean / results.points.drift, color=K_COLORS[name])
        key(ax, WORDS[name], color=K_COLORS[name], linestyle=dashes)
    ax.set(yscale="log", ylabel="mean / KL", title="what they estimate")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_yticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    ax.legend(loc="upper left")


def draw_deviations(ax: Axes, results: Results) -> None:
    """Standard deviations over the KL: exact and sampled, and the least that a control variate leaves."""
    for name in ("k1", "k2", "k3"):
        theory(ax, results.where.drift, results.exact[name].deviation / results.where.drift, color=K_COLORS[name])
        samples(ax, results.points.drift, results.sampled[name].deviation / results.points.drift, color=K_COLORS[name])
    best: Any = {"color": COLORS["exact"], "linestyle": ":", "label": "best coefficient"}
    theory(ax, results.where.drift, results.exact[BEST].deviation / results.where.drift, **best)
    ax.legend(loc="lower left")
    border, _ = results.crossing()  # NaN draws nothing
    ax.axvline(border, color=COLORS["ref"], linewidth=0.6)
    at: Any = {"xycoords": ("data", "axes fraction"), "ha": "right", "va": "top"}
    note(ax, f"$k_3$ noisier \nbeyond {border:.2f} ", (border, 0.97), **at)
    ax.set(yscale="log", ylabel="standard deviation / KL", title="one sample's noise")


def draw_coefficient(ax: Axes, results: Results) -> None:
    """The coefficient of the control variate that leaves the least variance."""
    theory(ax, results.where.drift, results.where.coefficient, color=COLORS["exact"], linestyle=":")
    for name, at, side in (("k1", 0, "top"), ("k3", -1, "bottom")):
        ax.axhline(at, color=K_COLORS[name], linewidth=0.8)
        note(
            ax,
            f"${name[0]}_{name[1]}$",
            (float(results.where.drift[0]), 0.98 * at - 0.01),
            va=side,
            color=K_COLORS[name],
        )
    ax.set(ylabel=r"$c$ in $k_1-c\,(\pi_0/\pi-1)$", title="best control variate")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    border, _ = results.crossing()
    return Caption(
        f"Near the reference k3 is the estimator to log; k1 is quieter beyond {number(border)} nats. Over "
        f"{config.num_outcomes} answers, with the policy tilted away from the reference.",
        a="Lines are exact, points means of samples. k1 and k3 are right, k2 drifts off, and k3 with the sign of its "
        "log-ratio turned is another divergence.",
        b="Where χ²(ref‖π) exceeds 2 (KL(π‖ref) + KL(ref‖π)), k3's control variate does more harm than good; rare "
        "answers make the noise, so samples show it late.",
        c="The best coefficient, -(KL(π‖ref) + KL(ref‖π)) / χ²(ref‖π), goes from "
        f"{number(results.where.coefficient[0])} to {number(results.where.coefficient[-1])}.",
    )
