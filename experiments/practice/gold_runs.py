"""Gold reward of tilts and of best-of-n by a proxy that errs in several ways, for `over_optimization`."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

import rlrazor as rz
from experiments.harness import bounded, checked_run

NORMAL, LAPLACE, HEAVY, HACKS = "normal", "Laplace", "heavy tail", "hacks"
ERRORS = (NORMAL, LAPLACE, HEAVY, HACKS)
TILT, BEST = "tilt", "best-of-n"
DEGREES = 4.0  # of freedom of Student's t, the heavy tail
REACH = {NORMAL: 6.0, LAPLACE: 14.0, HEAVY: 40.0, HACKS: 6.0}  # the largest error; a heavy tail without end has no tilt
SAMPLED_DRAWS = (1, 2, 4, 8, 16, 32, 64)  # of best-of-n


@dataclass(frozen=True)
class Config:
    """Answers with a gold reward and a proxy of it, and how hard the proxy is optimised."""

    num_gold: int = bounded(101, at_least=11, at_most=1000)
    """Gold rewards, evenly spaced and normal under the reference."""
    num_errors: int = bounded(241, at_least=11, at_most=2000)
    """Errors of the proxy, evenly spaced and independent of the gold reward."""
    hack_share: float = bounded(0.001, above=0, at_most=0.1)
    """Share of answers that fool the proxy, where some do."""
    bonus: float = bounded(3.0, above=0, at_most=10)
    """What the proxy gives them in addition."""
    loss: float = bounded(2.0, above=0, at_most=10)
    """What they lack of the gold reward."""
    strongest: float = bounded(2.5, at_least=1, at_most=3)
    """Largest strength 1/beta of the tilt."""
    largest_n: int = bounded(10_000, at_least=64, at_most=100_000)
    """Most draws of best-of-n."""
    num_points: int = bounded(50, at_least=8, at_most=1000)
    """Policies on each curve."""
    num_trials: int = bounded(4000, at_least=100, at_most=100_000)
    """Sampled trials of best-of-n, each of 64 draws at most."""
    seed: int = bounded(0, at_least=0)
    """Of the draws."""

    @classmethod
    def quick(cls) -> "Config":
        """Fewer answers, policies and trials."""
        return cls(num_gold=41, num_errors=81, num_points=24, num_trials=1000)


class World(NamedTuple):
    """A reference over answers, and two rewards of each."""

    log_ref: Float[Array, " outcomes"]
    gold: Float[Array, " outcomes"]
    proxy: Float[Array, " outcomes"]


class Curve(NamedTuple):
    """Policies of one optimiser, from weak to strong."""

    distance: Float[Array, " points"]  # square root of KL(policy || ref)
    proxy: Float[Array, " points"]
    gold: Float[Array, " points"]


class Slopes(NamedTuple):
    """How rewards change along the tilt."""

    covariance: Float[Array, " points"]  # of gold and proxy
    variance: Float[Array, " points"]  # of the proxy
    by_strength: Float[Array, " points"]  # of the gold reward, from differences
    by_kl: Float[Array, " points"]  # the same by KL


class Sampled(NamedTuple):
    """Best-of-n by drawing n answers and keeping the best."""

    gold: Float[Array, " draws"]
    error: Float[Array, " draws"]


class Found(NamedTuple):
    """What there is to say of one kind of error."""

    curves: dict[str, Curve]  # by optimiser
    slopes: Slopes
    peak: Curve  # the tilt where the covariance of gold and proxy turns negative, NaN where it does not
    peak_strength: Float[Array, ""]
    at_draws: Curve  # best-of-n at the numbers of draws that are sampled
    sampled: Sampled


class Results(NamedTuple):
    """By kind of error."""

    strengths: Float[Array, " points"]
    draws: Float[Array, " points"]
    longest: Float[Array, ""]  # the largest error of the heavy tail
    found: dict[str, Found]


def world_of(config: Config, error: str) -> World:
    """Normal gold rewards, and a proxy with an independent error of variance 1; hacks have too much of it as well.

    Where there are no hacks their place is taken by more answers of the other kind.
    """
    gold, noise = np.linspace(-7, 7, config.num_gold), np.linspace(-REACH[error], REACH[error], config.num_errors)
    log_density = -(noise**2) / 2
    if error == LAPLACE:
        log_density = -np.sqrt(2) * np.abs(noise)
    if error == HEAVY:
        log_density = -(DEGREES + 1) / 2 * np.log1p(noise**2 / (DEGREES - 2))
    log_mass = (-(gold**2) / 2)[:, None] + log_density
    log_mass -= np.logaddexp.reduce(log_mass, axis=None)
    share, bonus, loss = hacks(config, error)
    gold, noise = (x.ravel() for x in np.meshgrid(gold, noise, indexing="ij"))
    log_ref = np.concatenate([np.log1p(-share) + log_mass.ravel(), np.log(share) + log_mass.ravel()])
    kinds = np.concatenate([gold, gold - loss]), np.concatenate([gold + noise, gold + noise + bonus])
    return World(jnp.asarray(log_ref), *(jnp.asarray(reward) for reward in kinds))


def hacks(config: Config, error: str) -> tuple[float, float, float]:
    """Share of hacks, what the proxy gives them, and what they lack of the gold reward."""
    return config.hack_share, config.bonus * (error == HACKS), config.loss * (error == HACKS)


@checked_run
def run(config: Config) -> Results:
    """All kinds of errors."""
    strengths = jnp.asarray(np.linspace(0, config.strongest, config.num_points + 1)[1:])
    draws = jnp.asarray(np.geomspace(1.02, config.largest_n, config.num_points))
    key = jax.random.key(config.seed)
    found = {error: one(world_of(config, error), strengths, draws, sampled(key, config, error)) for error in ERRORS}
    return Results(strengths, draws, jnp.asarray(REACH[HEAVY]), found)


@jax.jit
def one(world: World, strengths: Float[Array, " points"], draws: Float[Array, " points"], sampled: Sampled) -> Found:
    """One kind of error in one program."""

    def measured(log_policy: Float[Array, " outcomes"]) -> Curve:
        rewards = (rz.expected_reward(log_policy, reward) for reward in (world.proxy, world.gold))
        return Curve(jnp.sqrt(rz.kl_divergence(log_policy, world.log_ref)), *rewards)

    def along_tilt(strength: Any) -> tuple[Curve, Any, Any]:
        log_policy = rz.tilt(world.log_ref, world.proxy, 1 / strength)
        spread = rz.covariance(log_policy, world.gold, world.proxy), rz.moments(log_policy, world.proxy).variance
        return measured(log_policy), *spread

    def at(curve: Curve, places: Any) -> Curve:
        return Curve(*(leaf[places] for leaf in curve))

    steps = strengths[:, None] * jnp.array([1 - 1e-4, 1.0, 1 + 1e-4])
    near, covariance, variance = jax.lax.map(along_tilt, steps.ravel())
    near, covariance, variance = jax.tree.map(lambda x: x.reshape(steps.shape), (near, covariance, variance))
    gained, spent = (x[:, 2] - x[:, 0] for x in (near.gold, near.distance**2))
    turn = rz.peak_strength(world.log_ref, world.proxy, world.gold, strengths)
    numbers = jnp.concatenate([draws, jnp.array(SAMPLED_DRAWS, draws.dtype)])
    best = jax.lax.map(lambda n: measured(rz.best_of_n(world.log_ref, world.proxy, n)), numbers)
    return Found(
        curves={TILT: at(near, (slice(None), 1)), BEST: at(best, slice(len(draws)))},
        slopes=Slopes(covariance[:, 1], variance[:, 1], gained / (steps[:, 2] - steps[:, 0]), gained / spent),
        peak=along_tilt(turn)[0],
        peak_strength=turn,
        at_draws=at(best, slice(len(draws), None)),
        sampled=sampled,
    )


def sampled(key: Key[Array, ""], config: Config, error: str) -> Sampled:
    """Gold rewards of the best by proxy of the first n draws, which are not from the grid but from its densities."""
    share, bonus, loss = hacks(config, error)
    kept = best_of_draws(key, share, bonus, loss, error, config.num_trials)
    return Sampled(kept.mean(1), kept.std(1, ddof=1) / np.sqrt(config.num_trials))


@partial(jax.jit, static_argnames=("error", "num_trials"))
def best_of_draws(
    key: Key[Array, ""], share: Any, bonus: Any, loss: Any, error: str, num_trials: int
) -> Float[Array, "draws trials"]:
    """The gold reward of what is kept, trial by trial."""
    of_gold, of_error, of_hacks = jax.random.split(key, 3)
    shape = num_trials, max(SAMPLED_DRAWS)
    fooled = jax.random.bernoulli(of_hacks, share, shape)
    gold = jax.random.normal(of_gold, shape) - loss * fooled
    if error == LAPLACE:
        noise = jax.random.laplace(of_error, shape) / np.sqrt(2)
    elif error == HEAVY:
        noise = jax.random.t(of_error, DEGREES, shape) * np.sqrt((DEGREES - 2) / DEGREES)
    else:
        noise = jax.random.normal(of_error, shape)
    proxy = gold + noise + (loss + bonus) * fooled
    kept = (proxy[:, :n].argmax(1, keepdims=True) for n in SAMPLED_DRAWS)
    return jnp.stack([jnp.take_along_axis(gold, best, 1)[:, 0] for best in kept])
