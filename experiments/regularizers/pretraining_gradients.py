"""What do pretraining gradients keep of an old task, and where do they end?

Ouyang et al. (arXiv:2203.02155, eq. 2; PPO-ptx) add gamma E_pretrain[log policy] to the KL-regularised reward. On a
finite space the optimum is policy = c / W(c e^-A) with Lambert's W: between the tilt (gamma = 0) and the pretraining
distribution (gamma -> inf), with every outcome on one curve. At equal reward it keeps more of the old task than a KL
penalty does; what keeps most is no penalty at all, beta -> 0, which is a forward KL to the pretraining distribution.

Threads that ask for it: ms-swift #5814, trl #716. About 8 seconds on two cores.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import rlrazor as rz
from experiments.harness import Caption, Claim, UserError, at_least, at_most, bounded, checked_run, number
from rlrazor.plotting import COLORS, panels, samples, theory
from rlrazor.tasks.pretraining import World, ascend, old_and_new
from rlrazor.training import log_steps

STRENGTH_COLORS = (COLORS["reverse KL"], COLORS["oracle"], COLORS["reverse drift"], COLORS["forward KL"])


@dataclass(frozen=True)
class Config:
    """A line of answers with an old mode and a new one, and the strengths of both terms."""

    num_outcomes: int = bounded(41, at_least=5, at_most=1000)
    """Answers, evenly spaced from -5 to 5."""
    old: float = bounded(-2.0, at_least=-4, below=0)
    """Where the old task's answers are, around which pretraining data are normal with standard deviation 0.8."""
    new: float = bounded(2.0, above=0, at_most=4)
    """Where the reward is, exp(-(y - new)² / 2)."""
    old_share: float = bounded(0.7, above=0, below=1)
    """Weight of the old mode in the reference; both of its modes have standard deviation 1."""
    beta: float = bounded(0.2, above=0, at_most=10)
    """Coefficient of the KL penalty."""
    gammas: tuple[float, ...] = bounded((0.0, 0.02, 0.1, 0.5), at_least=0, at_most=100, length=4)
    """Weights of the pretraining term, from none."""
    small_beta: float = bounded(1e-7, above=0, at_most=1e-3)
    """A coefficient that is as good as none."""
    large_gamma: float = bounded(1e7, at_least=1e3, at_most=1e9)
    """A weight that is as good as infinite."""
    reward: float = bounded(0.6, above=0, below=1)
    """Expected reward at which regularisers are compared."""
    num_strengths: int = bounded(200, at_least=20, at_most=10_000)
    """Strengths along a curve, log-spaced from 1e-4 to 1e3."""
    rate: float = bounded(4.0, above=0, at_most=100)
    """Step size of gradient ascent, as good as a flow."""
    num_steps: int = bounded(4000, at_least=1000, at_most=10_000_000)
    """Steps of gradient ascent on the logits from the reference; Newton's method goes on from there."""
    num_times: int = bounded(60, at_least=10, at_most=1000)
    """Steps at which the path is shown, log-spaced."""

    def __post_init__(self) -> None:
        """The first strength is none."""
        if self.gammas[0] != 0 or sorted({*self.gammas}) != [*self.gammas]:
            raise UserError(f"gammas must increase from 0, got {self.gammas}")

    @classmethod
    def quick(cls) -> "Config":
        """Fewer strengths."""
        return cls(num_strengths=60)


class Point(NamedTuple):
    """What a policy earns and has lost."""

    reward: Float[Array, " *points"]
    lost: Float[Array, " *points"]  # KL(pretrain || policy): nats a pretraining answer, above its entropy


class Results(NamedTuple):
    """Optima in closed form and by gradient ascent, and what is kept along the strengths."""

    world: World
    optima: Float[Array, "gammas outcomes"]  # log-policies, closed form
    optimized: Float[Array, "gammas outcomes"]  # the same, where gradient ascent and Newton's method end
    paths: Point  # [gammas, times]
    ends: Point  # [gammas], of the closed form
    curves: dict[str, Point]  # [strengths] of each regulariser, from strong to weak
    limits: dict[str, Float[Array, ""]]  # KL between an optimum at an extreme strength and what it should be there

    def lost_at(self, name: str, config: Config) -> float:
        """What a regulariser has lost of the old task where it earns the reward of the comparison."""
        curve = self.curves[name]
        order = np.argsort(np.asarray(curve.reward))
        inside = curve.reward.min() <= config.reward <= curve.reward.max()
        return float(np.interp(config.reward, curve.reward[order], curve.lost[order])) if inside else np.nan


PENALTY, BOTH, ALONE = "KL penalty", "KL penalty + pretraining", "pretraining alone"
CURVE_COLORS = {PENALTY: COLORS["reverse KL"], BOTH: COLORS["reverse drift"], ALONE: COLORS["target"]}


@checked_run
def run(config: Config) -> Results:
    """Closed forms, gradient ascent to them, and sweeps of the strengths."""
    place = jnp.array([config.old, config.new, config.old_share])
    strengths = config.beta, jnp.array(config.gammas), jnp.geomspace(1e3, 1e-4, config.num_strengths)
    steps = jnp.asarray(log_steps(config.num_steps, config.num_times))
    ends = config.small_beta, config.large_gamma
    found: Results = everything(place, *strengths, *ends, config.rate, steps, config.num_outcomes)
    return found


@partial(jax.jit, static_argnames="num_outcomes")
def everything(
    place: Float[Array, "3"],
    beta: Float[Array, ""],
    gammas: Float[Array, " gammas"],
    strengths: Float[Array, " strengths"],
    small_beta: Float[Array, ""],
    large_gamma: Float[Array, ""],
    rate: Float[Array, ""],
    steps: Int[Array, " times"],
    num_outcomes: int,
) -> Results:
    """The results, compiled once."""
    world = old_and_new(num_outcomes, *place)
    log_ref, log_pretrain, reward = (row[None] for row in world)
    ascent = jax.lax.map(lambda gamma: ascend(world, beta, gamma, rate, steps), gammas)

    def point(log_policy: Float[Array, "*points outcomes"]) -> Point:
        rows = (None,) * (log_policy.ndim - 1)
        return Point(
            rz.expected_reward(log_policy, world.reward[rows]), rz.kl_divergence(world.log_pretrain[rows], log_policy)
        )

    extremes = jnp.stack([0 * beta, 0.1 + 0 * beta, large_gamma, 0.1 + 0 * beta])
    gamma = jnp.concatenate([gammas, strengths, extremes])
    optimum = rz.ppo_ptx_optimum(
        log_ref, log_pretrain, reward, jnp.full_like(gamma, beta).at[-1].set(small_beta), gamma
    )
    optima, along, (none, some, endless, free) = jnp.split(optimum, [gammas.size, gamma.size - 4])
    alone = rz.regularized_optimum(log_pretrain, reward, jnp.append(strengths, 0.1), rz.FORWARD_KL)
    tilted = rz.tilt(world.log_ref, world.reward, beta)
    return Results(
        world=world,
        optima=optima,
        optimized=ascent.end,
        paths=point(ascent.path),
        ends=point(optima),
        curves={PENALTY: point(rz.tilt(log_ref, reward, strengths)), BOTH: point(along), ALONE: point(alone[:-1])},
        limits={
            "none, to the tilt": rz.kl_divergence(none, tilted),
            "some, to the tilt": rz.kl_divergence(some, tilted),
            "endless, to the data": rz.kl_divergence(world.log_pretrain, endless),
            "some, to the data": rz.kl_divergence(world.log_pretrain, some),
            "no penalty, to the forward KL": rz.kl_divergence(alone[-1], free),
            "some, to the forward KL": rz.kl_divergence(alone[-1], some),
        },
    )


def claims(config: Config, results: Results) -> list[Claim]:
    """Where the optimum is, its limits, and what it keeps."""
    ouyang = "Ouyang et al., arXiv:2203.02155, eq. 2; optimum derived here"
    found, closed = np.exp(results.optimized), np.exp(results.optima)
    limits, level = results.limits, f"an expected reward of {config.reward:g}"
    penalty, both = (results.lost_at(name, config) for name in (PENALTY, BOTH))
    return [
        Claim(
            id="lambert",
            statement="The optimum is c / W(c e^-A): largest difference of a probability from where gradient ascent "
            "and Newton's method end.",
            source=ouyang,
            expected=at_most(1e-8),
            measured=np.abs(found - closed).max(),
            control="the tilt, which has no pretraining term",
            control_measured=np.abs(found - closed[0]).max(),
        ),
        Claim(
            id="strength-zero",
            statement="At gamma = 0 it is the tilt: KL(policy || tilt) in nats.",
            source=ouyang,
            expected=at_most(1e-12),
            measured=limits["none, to the tilt"],
            control="gamma = 0.1",
            control_measured=limits["some, to the tilt"],
        ),
        Claim(
            id="strength-infinite",
            statement=f"At gamma = {config.large_gamma:g} it is the pretraining distribution: KL(pretrain || policy).",
            source=ouyang,
            expected=at_most(1e-9),
            measured=limits["endless, to the data"],
            control="gamma = 0.1",
            control_measured=limits["some, to the data"],
        ),
        Claim(
            id="no-penalty",
            statement="Without the KL penalty, beta -> 0, it is the optimum under a forward KL to the pretraining "
            f"distribution: KL between the two at beta = {config.small_beta:g}.",
            source=ouyang,
            expected=at_most(1e-6),
            measured=limits["no penalty, to the forward KL"],
            control=f"beta = {config.beta:g}",
            control_measured=limits["some, to the forward KL"],
        ),
        Claim(
            id="keeps-more",
            statement=f"At {level} it keeps at least 0.1 nats a pretraining answer more than the KL penalty does.",
            source="exact optima",
            expected=at_least(0.1),
            measured=penalty - both,
            control="weight 0, which is the KL penalty",
            control_measured=penalty - penalty,
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """The optima, the curve that all outcomes lie on, the paths, and what is kept at which reward."""
    draws = {"optima": draw_optima, "lambert": draw_lambert, "paths": draw_paths, "kept": draw_kept}
    figure, axes = panels([["optima", "lambert"], ["paths", "kept"]], height=5.2)
    for name, draw in draws.items():
        draw(axes[name], config, results)
    return figure


def draw_optima(ax: Axes, config: Config, results: Results) -> None:
    """The optimum at each weight, closed form and optimised, between reference, reward and pretraining data."""
    y, world = np.linspace(-5, 5, config.num_outcomes), results.world
    ax.fill_between(y, np.exp(world.log_ref), color=COLORS["ref"], alpha=0.3, linewidth=0, label=r"$\pi_0$")
    theory(ax, y, np.exp(world.log_pretrain), color=COLORS["target"], linestyle="--", label="pretraining data")
    for row, (gamma, color) in enumerate(zip(config.gammas, STRENGTH_COLORS, strict=True)):
        theory(ax, y, np.exp(results.optima[row]), color=color, label=rf"$\gamma={gamma:g}$")
        samples(ax, y, np.exp(results.optimized[row]), color=color, at_most=30)
    ax.set(xlabel="answer", ylabel="probability", title=rf"optima at $\beta={config.beta:g}$")
    ax.set_ylim(0, 1.45 * ax.get_ylim()[1])
    ax.legend(loc="upper right", ncols=2)


def draw_lambert(ax: Axes, config: Config, results: Results) -> None:
    """The w = c / policy against c e^-A = w e^w, for every outcome and weight."""
    low, high = np.inf, 0.0
    for row, (gamma, color) in enumerate(zip(config.gammas, STRENGTH_COLORS, strict=True)):
        if gamma > 0:
            w = np.exp(results.world.log_pretrain - results.optimized[row]) * gamma / config.beta
            log_ratio = results.optimized[row] - results.world.log_ref
            level = np.mean(results.world.reward - config.beta * log_ratio + config.beta * w)  # L, up to rounding
            a = (results.world.reward - level) / config.beta + results.world.log_ref
            x = np.exp(np.log(gamma / config.beta) + results.world.log_pretrain - a)
            samples(ax, x, w, color=color, markersize=3, label=rf"$\gamma={gamma:g}$")
            low, high = min(low, w.min()), max(high, w.max())
    w = np.geomspace(max(low, 1e-6), high, 400)
    theory(ax, w * np.exp(np.minimum(w, 600)), w, color=COLORS["target"], linewidth=1.0, label=r"$W(c\,e^{-A})$")
    ax.set(xscale="log", yscale="log", xlabel=r"$c\,e^{-A}$", ylabel=r"$c/\pi$, $c=\gamma\,$pretrain$/\beta$")
    ax.set(title="all answers on Lambert's curve", ylim=(max(low, 1e-6), 3 * high), xlim=(max(low, 1e-6), None))
    ax.legend(loc="lower right")


def draw_paths(ax: Axes, config: Config, results: Results) -> None:
    """Gradient ascent from the reference to the optimum of each weight."""
    for row, (gamma, color) in enumerate(zip(config.gammas, STRENGTH_COLORS, strict=True)):
        theory(ax, results.paths.reward[row], results.paths.lost[row], color=color, label=rf"$\gamma={gamma:g}$")
        samples(ax, results.ends.reward[row : row + 1], results.ends.lost[row : row + 1], color=color, markersize=6)
    look: Any = {"color": COLORS["ref"], "markersize": 6, "label": r"$\pi_0$"}
    samples(ax, results.paths.reward[0, :1], results.paths.lost[0, :1], **look)
    ax.set(xlabel=r"expected reward", ylabel=r"lost, KL(pretrain$\Vert\pi$) (nats)", title="the way there")
    ax.legend(loc="upper left")


def draw_kept(ax: Axes, config: Config, results: Results) -> None:
    """What is lost of the old task at which reward, along the strength of each regulariser."""
    for name, color in CURVE_COLORS.items():
        curve, line = results.curves[name], "--" if name == ALONE else "-"
        theory(ax, curve.reward, curve.lost, color=color, linestyle=line, label=name)
    for row, color in enumerate(STRENGTH_COLORS):
        samples(ax, results.ends.reward[row : row + 1], results.ends.lost[row : row + 1], color=color, markersize=6)
    ax.axvline(config.reward, color=COLORS["ref"], linewidth=0.6)
    top = 1.2 * float(results.ends.lost.max())
    ax.set(xlabel="expected reward", ylabel=r"lost, KL(pretrain$\Vert\pi$) (nats)", ylim=(0, top))
    ax.set_title("what each strength keeps")
    ax.legend(loc="upper left")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    penalty, both, alone = (number(results.lost_at(name, config)) for name in (PENALTY, BOTH, ALONE))
    return Caption(
        f"At an expected reward of {config.reward:g} a KL penalty alone loses {penalty} nats a pretraining answer, "
        f"with pretraining gradients {both}, and pretraining gradients alone lose {alone}, the least that any policy "
        "can. The optimum is Lambert's W of the tilt.",
        a="The optimum at each weight gamma: lines in closed form, points by gradient ascent and Newton's method; "
        "reference in grey.",
        b="Every answer of the optimised policies, on the curve w against w e^w.",
        c="Gradient ascent on a table from the reference to each optimum (large points).",
        d="What is lost of the old task at which reward: along beta of the KL penalty, along gamma at beta = "
        f"{config.beta:g}, and along gamma without a penalty, which is the frontier.",
    )
