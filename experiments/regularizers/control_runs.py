"""A controlled KL coefficient and a synchronised reference: the runs of `kl_penalty`."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Key

from experiments.harness import UserError, bounded, checked_run
from rlrazor.divergences import kl_divergence
from rlrazor.policies import softmax_policy
from rlrazor.tasks.controller import (
    AFTER,
    BEFORE,
    Loop,
    Rest,
    closed_loop,
    loop_roots,
    measured_roots,
    rest_of,
    synchronized_drift,
)
from rlrazor.tilting import tilt

MEASURED = (BEFORE, AFTER)
SHIFT = 1e-6  # by how much a loop is displaced from its rest, so small that it is linear
LINEAR = 1e-2  # and how far it may go in the recorded updates; roots are NaN beyond


@dataclass(frozen=True)
class Config:
    """A world, a controller, and how references are synchronised."""

    num_outcomes: int = bounded(32, at_least=3, at_most=10_000)
    """Answers of the reference."""
    target: float = bounded(0.5, above=0, at_most=2)
    """KL that the controller is to hold, in nats."""
    gains: tuple[float, ...] = bounded((0.0, 0.1, 0.4, 2.0), at_least=0, at_most=4, length=4)
    """Gains K of the controller: none, the published one, one that rings and one beyond the border."""
    clip: float = bounded(0.2, above=0, at_most=0.45)
    """Clip of the controller's relative error."""
    relaxation: float = bounded(0.3, above=0, below=1)
    """Share g of the way to its optimum that the policy goes in an update."""
    relaxations: tuple[float, ...] = bounded((0.05, 0.1, 0.2, 0.4, 0.7, 1.0), above=0, at_most=1, min_length=2)
    """Shares at which the border is measured."""
    start_beta: float = bounded(2.0, above=0, at_most=100)
    """Coefficient at the start, in units of the one that meets the target."""
    num_samples: int = bounded(512, at_least=2, at_most=100_000)
    """Samples of which the controller's KL is the mean."""
    num_updates: int = bounded(1500, at_least=100, at_most=100_000)
    """Updates of a controlled training."""
    num_kappas: int = bounded(400, at_least=20, at_most=2000)
    """Loop gains κ at which roots are measured, log-spaced from 0.01 to 100."""
    num_steps: int = bounded(12, at_least=8, at_most=200)
    """Updates of which roots are measured, next to the rest."""
    shares: tuple[float, ...] = bounded((0.0, 0.1, 0.25, 1.0), at_least=0, at_most=1, length=4)
    """Shares of the policy in a synchronised reference; 0 is a fixed one, 1 a hard copy."""
    sync_beta: float = bounded(8.0, above=0, at_most=100)
    """Coefficient under synchronisation, in units of the one that meets the target."""
    num_syncs: int = bounded(120, at_least=20, at_most=10_000)
    """Synchronisations."""
    seed: int = bounded(0, at_least=0)
    """Of reference and reward, both of standard normal numbers, and of the samples."""

    def __post_init__(self) -> None:
        """There is a fixed coefficient and a fixed reference to compare with."""
        if self.gains[0] != 0 or sorted(self.gains) != [*self.gains]:
            raise UserError(f"gains must increase from 0, got {self.gains}")
        if self.shares[0] != 0 or self.shares[-1] != 1 or sorted({*self.shares}) != [*self.shares]:
            raise UserError(f"shares must increase from 0 to 1, got {self.shares}")

    @classmethod
    def quick(cls) -> "Config":
        """Shorter trainings."""
        return cls(num_updates=600)

    @property
    def kappas(self) -> Float[np.ndarray, " kappas"]:
        """The loop gains at which roots are measured."""
        return np.geomspace(0.01, 100, self.num_kappas)


class Results(NamedTuple):
    """Controlled trainings, measured roots of the loop, and drift under synchronisation."""

    rest_beta: Float[Array, ""]
    sensitivity: Float[Array, ""]  # κ / K
    exact: Loop  # [gains, updates + 1]
    sampled: Loop
    roots: dict[str, Complex[Array, "relaxations kappas 2"]]  # NaN where a loop runs away
    here: dict[str, Complex[Array, "kappas 2"]]  # at the relaxation of the config
    predicted: dict[str, Complex[Array, "kappas 2"]]  # the linearised loop there
    drift: Float[Array, "shares syncs"]
    predicted_drift: Float[Array, "shares syncs"]  # the closed form
    highest_drift: Float[Array, ""]  # -log ref(best answer)

    def critical(self, config: Config, measured: str) -> Float[np.ndarray, " relaxations"]:
        """The κ from which the measured loop is unstable, between two measured ones; NaN if it never is."""
        radii, log_kappas = np.abs(self.roots[measured]).max(-1), np.log(config.kappas)
        borders = [np.nan] * len(radii)
        for row, radius in enumerate(radii):
            beyond = np.flatnonzero(radius > 1)
            if beyond.size and beyond[0] > 0:
                pair = slice(beyond[0] - 1, beyond[0] + 1)
                borders[row] = np.exp(np.interp(1.0, radius[pair], log_kappas[pair]))
        return np.array(borders)

    def angle_error(self, config: Config, theory_of: str) -> Any:
        """Largest relative error of the angle by which a loop measured before the step turns in an update."""
        kappas = config.kappas
        predicted = np.abs(np.angle(self.predicted[theory_of][:, 0]))
        found = np.abs(np.angle(self.here[BEFORE][:, 0]))
        ringing = (kappas > config.relaxation / 2) & (kappas < 1)
        return np.abs(found / np.where(predicted > 0, predicted, np.nan) - 1)[ringing]


@checked_run
def run(config: Config) -> Results:
    """Closed loops with exact and with sampled KL, their roots next to the rest, and synchronised references."""
    world_key, loop_key = jax.random.split(jax.random.key(config.seed))
    log_ref, reward, rest = make_world(world_key, config.target, config.num_outcomes)
    controls = (config.target, jnp.array(config.gains), config.relaxation, config.clip)
    start = log_ref, reward, config.start_beta * rest.beta
    exact = trainings(*start, *controls, loop_key, None, config.num_updates)
    sampled = trainings(*start, *controls, loop_key, config.num_samples, config.num_updates)
    gains = jnp.asarray(config.kappas) / rest.sensitivity
    relaxations = jnp.array((*config.relaxations, config.relaxation))
    roots = {
        measured: roots_at(log_ref, reward, rest, config.target, gains, relaxations, measured, config.num_steps)
        for measured in MEASURED
    }
    shares = jnp.array(config.shares)
    drift = synchronizations(log_ref, reward, config.sync_beta * rest.beta, shares, config.num_syncs)
    return Results(
        rest_beta=rest.beta,
        sensitivity=rest.sensitivity,
        exact=exact,
        sampled=sampled,
        roots={measured: found[:-1] for measured, found in roots.items()},
        here={measured: found[-1] for measured, found in roots.items()},
        predicted={
            measured: predicted_roots(jnp.asarray(config.kappas), config.relaxation, measured) for measured in MEASURED
        },
        drift=drift[0],
        predicted_drift=drift[1],
        highest_drift=-log_ref[jnp.argmax(reward)],
    )


@partial(jax.jit, static_argnames="num_outcomes")
def make_world(
    key: Key[Array, ""], target: Float[Array, ""], num_outcomes: int
) -> tuple[Float[Array, " outcomes"], Float[Array, " outcomes"], Rest]:
    """A reference, a reward that is unrelated to it, and where a controlled policy rests."""
    logits, reward = jax.random.normal(key, (2, num_outcomes))
    log_ref = softmax_policy(logits)
    return log_ref, reward, rest_of(log_ref, reward, target)


@partial(jax.jit, static_argnames=("num_samples", "num_updates"))
def trainings(
    log_ref: Float[Array, " outcomes"],
    reward: Float[Array, " outcomes"],
    beta: Float[Array, ""],
    target: Float[Array, ""],
    gains: Float[Array, " gains"],
    relaxation: Float[Array, ""],
    clip: Float[Array, ""],
    key: Key[Array, ""],
    num_samples: int | None,
    num_updates: int,
) -> Loop:
    """A controlled training for each gain, from the reference on, as released code measures it."""

    def of(gain: Float[Array, ""]) -> Loop:
        sizes: Any = {"measured": BEFORE, "num_samples": num_samples, "num_updates": num_updates}
        return closed_loop(log_ref, reward, log_ref, beta, target, gain, relaxation, clip, key, **sizes)

    return jax.vmap(of)(gains)


@partial(jax.jit, static_argnames=("measured", "num_steps"))
def roots_at(
    log_ref: Float[Array, " outcomes"],
    reward: Float[Array, " outcomes"],
    rest: Rest,
    target: Float[Array, ""],
    gains: Float[Array, " gains"],
    relaxations: Float[Array, " relaxations"],
    measured: str,
    num_steps: int,
) -> Complex[Array, "relaxations gains 2"]:
    """The roots that loops obey next to their rest, from which the coefficient is displaced a little."""

    def of(relaxation: Float[Array, ""], gain: Float[Array, ""]) -> Complex[Array, "2"]:
        beta, controls = rest.beta * (1 + SHIFT), (target, gain, relaxation, jnp.inf)
        sizes: Any = {"measured": measured, "num_samples": None, "num_updates": num_steps}
        loop = closed_loop(log_ref, reward, rest.log_policy, beta, *controls, jax.random.key(0), **sizes)
        deviation = jnp.log(loop.beta / rest.beta)
        linear = jnp.abs(deviation).max() < LINEAR  # NaN is not
        return jnp.where(linear, measured_roots(jnp.where(linear, deviation, 0.0)), jnp.nan)

    return jax.vmap(jax.vmap(of, (None, 0)), (0, None))(relaxations, gains)


@partial(jax.jit, static_argnames="measured")
def predicted_roots(
    kappas: Float[Array, " kappas"], relaxation: Float[Array, ""], measured: str
) -> Complex[Array, "kappas 2"]:
    """The roots of the linearised loop."""
    return jax.vmap(lambda kappa: loop_roots(kappa, relaxation, measured))(kappas)


@partial(jax.jit, static_argnames="num_syncs")
def synchronizations(
    log_ref: Float[Array, " outcomes"],
    reward: Float[Array, " outcomes"],
    beta: Float[Array, ""],
    shares: Float[Array, " shares"],
    num_syncs: int,
) -> tuple[Float[Array, "shares syncs"], Float[Array, "shares syncs"]]:
    """Drift from the first reference for every share, simulated and in closed form."""
    simulated = jax.vmap(lambda share: synchronized_drift(log_ref, reward, beta, share, num_syncs))(shares)
    strength = (1 + shares[:, None] * jnp.arange(num_syncs + 1.0)[None]) / beta
    log_policy = tilt(log_ref, reward, 1 / strength)
    return simulated, kl_divergence(log_policy, log_ref)
