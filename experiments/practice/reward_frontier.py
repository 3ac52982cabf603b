"""How much reward is a nat worth, and who pays more than it costs?

The reward-KL frontier is the tilt, and its slope is the KL coefficient: a further nat buys beta of reward. Best-of-n,
the tilt by the win rate, and optima under another divergence pay for the same reward with more nats. Best-of-n is near
the tilt by the win rate, of all policies the one that wins most often for its KL, and its own KL stays below
log n - (n - 1)/n.

Papers that compare them: arXiv 2401.01879, 2404.01730, 2406.00832. Threads: trl issue 1178 (more reward or less KL),
trlx issue 166 (best-of-n instead of PPO's own samples). About 8 seconds on two cores.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import rlrazor as rz
from experiments.harness import Caption, Claim, UserError, at_most, bounded, checked_run, number
from rlrazor.plotting import COLORS, K_COLORS, note, panels, samples, theory

TILT, BEST, WINS, FORWARD, CHI2 = "tilt", "best-of-n", "tilt by win rate", "under forward KL", "under chi2"
LOOKS = {
    TILT: {"color": COLORS["reverse KL"]},
    BEST: {"color": COLORS["measured"]},
    WINS: {"color": COLORS["oracle"], "linestyle": "--"},
    FORWARD: {"color": COLORS["forward KL"]},
    CHI2: {"color": K_COLORS["k3 turned"]},
}


@dataclass(frozen=True)
class Config:
    """Answers with a reward, how many are drawn, and how strong the penalties are."""

    num_outcomes: int = bounded(500, at_least=3, at_most=20_000)
    """Answers; the reference is Zipf's law."""
    largest_n: int = bounded(64, at_least=2, at_most=10_000)
    """Most draws of best-of-n."""
    num_points: int = bounded(40, at_least=3, at_most=1000)
    """Policies on each curve."""
    beta: float = bounded(0.5, above=0, at_most=100)
    """Coefficient at which the slope is drawn."""
    n: int = bounded(16, at_least=2, at_most=10_000)
    """Draws at which best-of-n is compared."""
    seed: int = bounded(0, at_least=0)
    """Of the rewards, which are normal."""

    def __post_init__(self) -> None:
        """The draws that are compared are on the curve."""
        if self.n > self.largest_n:
            raise UserError(f"n must be at most largest_n {self.largest_n}, got {self.n}")

    @classmethod
    def quick(cls) -> "Config":
        """Fewer answers and policies."""
        return cls(num_outcomes=60, num_points=12)


class Curve(NamedTuple):
    """Policies of one kind, from weak to strong."""

    kl: Float[Array, " points"]  # KL(policy || ref)
    back: Float[Array, " points"]  # KL(ref || policy)
    reward: Float[Array, " points"]
    wins: Float[Array, " points"]  # against a draw of the reference, ties half
    lost: Float[Array, " points"]  # reward less than that of the tilt at the same KL
    beaten: Float[Array, " points"]  # win rate less than that of the tilt by the win rate at the same KL


class Results(NamedTuple):
    """Curves, and single policies on them."""

    curves: dict[str, Curve]
    draws: Float[Array, " points"]  # of best-of-n
    base: Float[Array, ""]  # reward of the reference
    at_beta: Curve  # the tilt at the coefficient
    slope: Float[Array, ""]  # of the frontier there, from two neighbours
    at_n: Curve  # best-of-n at the draws that are compared

    def lost_share(self, curve: Curve) -> Float[np.ndarray, " points"]:
        """Reward that is lost to the tilt at the same KL, over what the tilt gains."""
        lost = np.asarray(curve.lost)
        share: Float[np.ndarray, " points"] = lost / (np.asarray(curve.reward) + lost - np.asarray(self.base))
        return share


@checked_run
def run(config: Config) -> Results:
    """All curves, and their distance from the frontier."""
    found: Results = everything(
        jax.random.key(config.seed), config.beta, float(config.n), float(config.largest_n), config.num_outcomes,
        config.num_points,
    )  # fmt: skip
    return found


@partial(jax.jit, static_argnames=("num_outcomes", "num_points"))
def everything(
    key: Key[Array, ""],
    beta: Float[Array, ""],
    n: Float[Array, ""],
    largest_n: Float[Array, ""],
    num_outcomes: int,
    num_points: int,
) -> Results:
    """All of it in one program."""
    log_ref = jax.nn.log_softmax(-jnp.log(jnp.arange(1.0, num_outcomes + 1)))[None]
    reward = jax.random.normal(key, (1, num_outcomes))
    beats = (reward[0][:, None] > reward[0][None]) + 0.5 * (reward[0][:, None] == reward[0][None])
    win_rate = (beats @ jnp.exp(log_ref[0]))[None]

    def curve(log_policy: Float[Array, "points outcomes"]) -> Curve:
        kl, gained = rz.kl_divergence(log_policy, log_ref), rz.expected_reward(log_policy, reward)
        wins = rz.expected_reward(log_policy, win_rate)
        best = (rz.expected_reward(rz.tilt_to_kl(log_ref, r, kl).log_policy, r) for r in (reward, win_rate))
        lost, beaten = (most - own for most, own in zip(best, (gained, wins), strict=True))
        return Curve(kl, rz.kl_divergence(log_ref, log_policy), gained, wins, lost, beaten)

    draws = jnp.geomspace(1.2, largest_n, num_points)
    strengths = jnp.geomspace(0.05, 2.0, num_points)
    near_beta = beta * jnp.array([0.999, 1.0, 1.001])
    policies = {
        TILT: rz.tilt(log_ref, reward, jnp.append(1 / strengths, near_beta)),
        BEST: rz.best_of_n(log_ref, reward, jnp.append(draws, n)),
        WINS: rz.tilt(log_ref, win_rate, 0.25 / strengths),
        FORWARD: rz.regularized_optimum(log_ref, reward, 1 / strengths, divergence=rz.FORWARD_KL),
        CHI2: rz.regularized_optimum(log_ref, reward, 0.5 / strengths, divergence=rz.CHI2),
    }
    every = curve(jnp.concatenate([*policies.values()]))
    ends = np.cumsum([len(log_policy) for log_policy in policies.values()])[:-1]
    rows = dict(zip(policies, zip(*(jnp.split(leaf, ends) for leaf in every), strict=True), strict=True))
    first, at_beta, last = (Curve(*(leaf[num_points + i] for leaf in rows[TILT])) for i in range(3))
    return Results(
        curves={name: Curve(*(leaf[:num_points] for leaf in leaves)) for name, leaves in rows.items()},
        draws=draws,
        base=rz.expected_reward(log_ref, reward)[0],
        at_beta=at_beta,
        slope=(first.reward - last.reward) / (first.kl - last.kl),
        at_n=Curve(*(leaf[num_points] for leaf in rows[BEST])),
    )


def bound(draws: Float[Array, " points"]) -> Float[np.ndarray, " points"]:
    """The most that the KL of best-of-n can be."""
    n = np.asarray(draws)
    most: Float[np.ndarray, " points"] = np.log(n) - (n - 1) / n
    return most


def claims(config: Config, results: Results) -> list[Claim]:
    """The tilt is the frontier, its slope is beta, and best-of-n is close to another one."""
    curves, best = results.curves, results.curves[BEST]
    others = [curves[name] for name in (BEST, WINS, FORWARD, CHI2)]
    share = results.lost_share(results.at_n)
    return [
        Claim(
            id="frontier",
            statement="No best-of-n, tilt by the win rate or optimum under another divergence has more reward than the "
            "tilt at its KL: largest excess.",
            source="tilt at the same KL",
            expected=at_most(1e-9),
            measured=max(np.max(-np.asarray(curve.lost)) for curve in others),
            control="the win rate, of which the tilt by it has more than the tilt",
            control_measured=np.max(np.asarray(curves[TILT].beaten)),
        ),
        Claim(
            id="slope",
            statement=f"The slope of the frontier is the KL coefficient, {config.beta:g}: relative difference.",
            source="dE[r]/dKL = beta",
            expected=at_most(1e-4),
            measured=abs(results.slope / config.beta - 1),
            control="the mean slope from the reference on",
            control_measured=abs((results.at_beta.reward - results.base) / results.at_beta.kl / config.beta - 1),
        ),
        Claim(
            id="best-of-n-bound",
            statement="The KL of best-of-n is at most log n - (n - 1)/n: largest excess.",
            source="Beirami et al., arXiv:2401.01879",
            expected=at_most(1e-12),
            measured=np.max(np.asarray(best.kl) - bound(results.draws)),
            control="KL(ref‖π)",
            control_measured=np.max(np.asarray(best.back) - bound(results.draws)),
        ),
        Claim(
            id="best-of-n-loses-little",
            statement=f"Best of {config.n} loses at most a tenth of the reward that its KL could buy.",
            source="tilt at the same KL",
            expected=at_most(0.1),
            measured=share,
            control="the optimum under forward KL, its largest loss",
            control_measured=np.max(results.lost_share(curves[FORWARD])),
        ),
        Claim(
            id="best-of-n-wins",
            statement=f"Best of {config.n} wins nearly as often as any policy of its KL: the win rate that it lacks.",
            source="tilt by the win rate at the same KL",
            expected=at_most(0.01),
            measured=results.at_n.beaten,
            control="the tilt by the reward, its largest lack",
            control_measured=np.max(np.asarray(curves[TILT].beaten)),
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """Reward, what is lost of it, and wins, against KL."""
    figure, axes = panels([["reward", "lost", "wins"]], height=2.7)
    draw_reward(axes["reward"], config, results)
    draw_lost(axes["lost"], results)
    draw_wins(axes["wins"], config, results)
    for ax in axes.values():
        ax.set_xlabel(r"KL$(\pi\Vert\pi_0)$ (nats)")
    return figure


def draw_reward(ax: Axes, config: Config, results: Results) -> None:
    """The plane of reward and KL, with the tangent at the coefficient."""
    for name, curve in results.curves.items():
        theory(ax, curve.kl, curve.reward, label=name, **LOOKS[name])
    at, reach = results.at_beta, np.array([-0.45, 0.45])
    theory(ax, float(at.kl) + reach, float(at.reward) + config.beta * reach, color=COLORS["target"], linestyle=":")
    samples(ax, [at.kl], [at.reward], color=COLORS["target"])
    note(ax, rf"slope $\beta={config.beta:g}$", (float(at.kl) - 0.1, float(at.reward) + 0.1), ha="right")
    ax.set(ylabel=r"E$_\pi[r]$", title="what a nat buys")
    ax.legend(loc="lower right")


def draw_lost(ax: Axes, results: Results) -> None:
    """Reward lost to the tilt, as a share of its gain."""
    for name, curve in results.curves.items():
        if name != TILT:
            theory(ax, curve.kl, results.lost_share(curve), **LOOKS[name])
    ax.set(ylabel="share of the gain", title="reward lost to the tilt")
    ax.set_ylim(bottom=0)


def draw_wins(ax: Axes, config: Config, results: Results) -> None:
    """Win rate that is lacking."""
    for name in (TILT, BEST, FORWARD, CHI2):
        theory(ax, results.curves[name].kl, results.curves[name].beaten, **LOOKS[name])
    ax.set(ylabel="win rate", title="wins lost to tilt by win rate")
    ax.set_ylim(bottom=0)


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    return Caption(
        f"A further nat buys beta of reward. Best of {config.n} costs {number(results.at_n.kl)} nats and loses "
        f"{100 * float(results.lost_share(results.at_n)):.1f}% of what they could buy. {config.num_outcomes} answers, "
        "normal rewards.",
        a="Each curve runs from weak to strong; the dotted line has the slope beta.",
        b="At equal KL, over what the tilt gains.",
        c="Best-of-n lacks least of the win rate that its KL could buy.",
    )
