"""Students that go past their teacher, and students that are their own, for `beyond_the_teacher`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

import rlrazor as rz
from experiments.harness import UserError, bounded, checked_run
from rlrazor.sweeps import of_each
from rlrazor.training import train_at

GEOMETRIC, ARITHMETIC, TILT = "reverse KL", "forward KL", "tilt"
TRAINED_ROUNDS = 6  # of all rounds


@dataclass(frozen=True)
class Config:
    """A base and its teacher, and answers of which several are correct."""

    num_outcomes: int = bounded(200, at_least=3, at_most=10_000)
    """Answers; the base is Zipf's law, rewards are normal."""
    correlations: tuple[float, ...] = bounded((0.8, 0.5, 0.2), above=0, below=1)
    """Of the reward and the teacher's log-ratio to the base, decreasing."""
    extrapolated: float = bounded(0.5, above=0, below=1)
    """The one of them whose teacher is extrapolated and trained from."""
    farthest: float = bounded(8.0, at_least=2, at_most=100)
    """Largest weight of the teacher's log-ratio; the teacher is at 1."""
    trained: tuple[float, ...] = bounded((0.5, 1.0, 3.0, 4.5, 6.0), above=0, at_most=100)
    """Weights that are trained with."""
    num_points: int = bounded(81, at_least=9, at_most=2000)
    """Policies on each curve."""
    correct: tuple[float, ...] = bounded((0.16, 0.08, 0.04, 0.02), above=0, below=1, min_length=2)
    """The base's probabilities of the correct answers; a wrong one has the rest."""
    largest_gain: float = bounded(4.0, above=0, at_most=20)
    """Largest log-odds k that the sight of an answer adds to it."""
    gain: float = bounded(0.5, above=0, at_most=20)
    """That of a round of self-distillation."""
    num_rounds: int = bounded(40, at_least=TRAINED_ROUNDS, at_most=10_000)
    """Rounds."""
    num_steps: int = bounded(30_000, at_least=500, at_most=100_000)
    """Steps of a training."""
    seed: int = bounded(1, at_least=0)
    """Of the rewards and teachers."""

    def __post_init__(self) -> None:
        """The teacher that is extrapolated is one of them, and something is wrong."""
        if self.extrapolated not in self.correlations:
            raise UserError(f"extrapolated must be one of correlations {self.correlations}, got {self.extrapolated:g}")
        if sum(self.correct) >= 1:
            raise UserError(f"correct must sum to less than 1, got {self.correct}")

    @classmethod
    def quick(cls) -> "Config":
        """Fewer points, rounds and steps."""
        return cls(trained=(0.5, 3.0), num_points=33, num_steps=5000)


class Line(NamedTuple):
    """Policies along a line."""

    kl: Float[Array, "*lines points"]  # KL(policy || base)
    reward: Float[Array, "*lines points"]


class Slope(NamedTuple):
    """Of the reward by the square root of 2 KL, at the base."""

    law: Float[Array, " *lines"]
    measured: Float[Array, " *lines"]


class Beyond(NamedTuple):
    """Past the teacher."""

    lines: Line  # e-geodesics through the teachers, by correlation
    tilt: Line  # by the reward
    slopes: Slope  # by correlation
    tilt_slope: Slope
    peak_weight: Float[Array, ""]  # where the covariance of reward and log-ratio is 0; NaN where it is not
    peak: Line
    trained: Line  # where trainings end
    missed: Float[Array, " trained"]  # KL(end of a training || its place on the geodesic)
    far: Float[Array, " trained"]  # KL(end of a training || teacher)


class Own(NamedTuple):
    """Its own teacher, by what is minimised."""

    log_ratio: Float[Array, " gains"]  # of the first and the last correct answer, after one round
    trained: Float[Array, " gains_trained"]
    success: Float[Array, " rounds"]
    diversity: Float[Array, " rounds"]  # effective number of correct answers
    success_trained: Float[Array, " rounds_trained"]
    diversity_trained: Float[Array, " rounds_trained"]


class Results(NamedTuple):
    """Past the teacher, and without one."""

    weights: Float[Array, " points"]
    beyond: Beyond
    gains: Float[Array, " gains"]
    gains_trained: Float[Array, " gains_trained"]
    own: dict[str, Own]


@checked_run
def run(config: Config) -> Results:
    """Both halves."""
    weights = jnp.asarray(np.linspace(0, config.farthest, config.num_points))
    gains = jnp.asarray(np.linspace(0, config.largest_gain, config.num_points))
    gains_trained = jnp.asarray(np.linspace(0, config.largest_gain, 5))
    correct = jnp.array(config.correct)
    base = jnp.log(jnp.append(correct, 1 - correct.sum()))
    beyond = past(
        jax.random.key(config.seed), jnp.array(config.correlations), weights, jnp.array(config.trained),
        config.num_outcomes, config.correlations.index(config.extrapolated), config.num_steps,
    )  # fmt: skip
    own = alone(base, gains, gains_trained, config.gain, config.num_rounds, config.num_steps)
    return Results(weights, beyond, gains, gains_trained, own)


def fitted(loss: Callable[[Any], Any], log_first: Any, num_steps: int) -> Any:
    """The log-policy at the end of a training on an exact loss, rates falling."""
    rates = optax.exponential_decay(0.1, num_steps // 40, 0.75)

    def gradient(logits: Any, key: Any, step: Any) -> Any:
        return jax.grad(lambda x: loss(rz.softmax_policy(x)))(logits)

    path = train_at(gradient, log_first, optax.adam(rates), jax.random.key(0), jnp.array([num_steps]))
    return rz.softmax_policy(path[0])


@partial(jax.jit, static_argnames=("num_outcomes", "extrapolated", "num_steps"))
def past(
    key: Key[Array, ""],
    correlations: Float[Array, " lines"],
    weights: Float[Array, " points"],
    trained: Float[Array, " trained"],
    num_outcomes: int,
    extrapolated: int,
    num_steps: int,
) -> Beyond:
    """The e-geodesics from the base through teachers, the tilt, and trainings to their places."""
    base = jax.nn.log_softmax(-jnp.log(jnp.arange(1.0, num_outcomes + 1)))
    reward, noise = standardised(base, jax.random.normal(key, (2, num_outcomes)))
    log_ratios = correlations[:, None] * reward + jnp.sqrt(1 - correlations**2)[:, None] * noise
    teachers = rz.tilt(base[None], log_ratios, 1.0)

    def measured(log_policy: Any) -> Line:
        rewards = jnp.broadcast_to(reward, log_policy.shape)
        return Line(rz.kl_divergence(log_policy, base + 0 * log_policy), rz.expected_reward(log_policy, rewards))

    def along(log_teacher: Any, weight: Any) -> Any:
        return rz.e_geodesic(base + 0 * log_teacher, log_teacher, weight)

    def slope(log_ratio: Any) -> Slope:
        spread = jnp.sqrt(rz.moments(base, log_ratio).variance)
        near = measured(rz.tilt(base, log_ratio, 1e4))
        gained = near.reward - rz.expected_reward(base, reward)
        return Slope(rz.covariance(base, reward, log_ratio) / spread, gained / jnp.sqrt(2 * near.kl))

    lines = measured(along(teachers[:, None], weights))
    teacher, log_ratio = teachers[extrapolated], log_ratios[extrapolated]
    peak = rz.peak_strength(base, log_ratio, reward, weights[1:])

    def training(weight: Any) -> Any:
        """Reward by the teacher's log-ratio, and a KL penalty."""
        return fitted(lambda p: rz.kl_divergence(p, base) - weight * rz.expected_reward(p, log_ratio), base, num_steps)

    ends = jax.vmap(training)(trained)
    return Beyond(
        lines=lines,
        tilt=measured(rz.tilt(base[None], reward[None], 1 / jnp.maximum(weights, 1e-9))),
        slopes=jax.vmap(slope)(log_ratios),
        tilt_slope=slope(reward),
        peak_weight=peak,
        peak=measured(along(teacher, peak)),
        trained=measured(ends),
        missed=rz.kl_divergence(ends, along(teacher[None], trained)),
        far=rz.kl_divergence(ends, teacher + 0 * ends),
    )


def standardised(log_policy: Any, values: Float[Array, "two outcomes"]) -> Float[Array, "two outcomes"]:
    """Values of mean 0, variance 1 and no correlation under a policy."""
    p = jnp.exp(log_policy)
    first, second = values - (values @ p)[:, None]
    second = second - (second * first @ p) / (first**2 @ p) * first
    return jnp.stack([x / jnp.sqrt(x**2 @ p) for x in (first, second)])


def shown(log_policy: Any, gain: Any) -> Any:
    """Itself, having seen each of the answers: log-odds of that answer up by the gain, `[answers seen, answers]`."""
    seen = jnp.eye(len(log_policy))
    return rz.tilt(log_policy[None], gain * seen, 1.0)


def demonstrations(log_policy: Any) -> Any:
    """How often each answer is seen: those of the policy that are correct."""
    return jnp.exp(rz.condition(log_policy, jnp.arange(len(log_policy)) < len(log_policy) - 1))


# The optimum over students of each objective, of (policy, the policy having seen each answer, how often, gain).
OPTIMA: dict[str, Callable[..., Any]] = {
    GEOMETRIC: lambda log_p, seen, often, gain: jax.nn.log_softmax(often @ seen),
    ARITHMETIC: lambda log_p, seen, often, gain: jnp.log(often @ jnp.exp(seen)),
    TILT: lambda log_p, seen, often, gain: rz.tilt(log_p, jnp.append(jnp.full(len(log_p) - 1, gain), 0.0), 1.0),
}
# The objectives, of the student and the same.
LOSSES: dict[str, Callable[..., Any]] = {
    GEOMETRIC: lambda student, log_p, seen, often, gain: often @ rz.kl_divergence(student + 0 * seen, seen),
    ARITHMETIC: lambda student, log_p, seen, often, gain: often @ rz.kl_divergence(seen, student + 0 * seen),
    TILT: lambda student, log_p, seen, often, gain: (
        rz.kl_divergence(student, log_p) - gain * (1 - jnp.exp(student[-1]))
    ),
}


@partial(jax.jit, static_argnames=("num_rounds", "num_steps"))
def alone(
    base: Float[Array, " outcomes"],
    gains: Float[Array, " gains"],
    gains_trained: Float[Array, " gains_trained"],
    gain: Float[Array, ""],
    num_rounds: int,
    num_steps: int,
) -> dict[str, Own]:
    """One round by its gain, and many rounds of one gain, by each objective."""

    def log_ratio(log_policy: Any) -> Any:
        return log_policy[..., 0] - log_policy[..., -2]

    def optimum(best: Callable[..., Any]) -> Callable[[Any, Any], Any]:
        return lambda log_p, gain: best(log_p, shown(log_p, gain), demonstrations(log_p), gain)

    def rounds(step: Callable[[Any, Any], Any], num: int) -> Any:
        _, after = jax.lax.scan(lambda p, _: (step(p, gain),) * 2, base, None, length=num)
        return jnp.concatenate([base[None], after])

    def measured(log_policy: Any) -> tuple[Any, Any]:
        kept = jax.vmap(lambda p: demonstrations(p)[:-1])(log_policy)
        return -jnp.expm1(log_policy[:, -1]), jnp.exp(rz.entropy(jnp.log(kept)))

    def trained(loss: Callable[..., Any]) -> Any:
        def step(log_p: Any, gain: Any) -> Any:
            seen, often = shown(log_p, gain), demonstrations(log_p)
            return fitted(lambda student: loss(student, log_p, seen, often, gain), log_p, num_steps)

        return log_ratio(jax.lax.map(lambda k: step(base, k), gains_trained)), measured(rounds(step, TRAINED_ROUNDS))

    ends, optima = of_each(LOSSES, trained), {name: optimum(best) for name, best in OPTIMA.items()}
    return {
        name: Own(
            log_ratio(jax.vmap(lambda k, best=best: best(base, k))(gains)),
            ends[name][0],
            *measured(rounds(best, num_rounds)),
            *ends[name][1],
        )
        for name, best in optima.items()
    }
