"""DPO on one pair in random worlds whose answers share features: the runs of `likelihood_displacement`."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from experiments.harness import UserError, bounded, checked_run
from rlrazor.tasks.displacement import (
    CHOSEN,
    FREE_HEAD,
    FROZEN_HEAD,
    REJECTED,
    TABLE,
    Params,
    Path,
    fine_tune,
    measured_rate,
    policy_of,
    random_params,
    rates_of,
)

TRAINED = {"table": TABLE, "features, frozen head": FROZEN_HEAD, "features and head": FREE_HEAD}
FROZEN = "features, frozen head"
STEP = 1e-5  # of the central differences that measure a rate


@dataclass(frozen=True)
class Config:
    """Random worlds of a prompt and its answers, and a training in one of them."""

    num_outcomes: int = bounded(12, at_least=3, at_most=1000)
    """Answers."""
    num_features: int = bounded(4, at_most=1000)
    """Features of the worlds that are compared one by one."""
    dimensions: tuple[int, ...] = bounded((1, 2, 4, 8, 16, 32, 64, 128), at_most=1000, min_length=2)
    """Numbers of features over which the share of worlds with displacement is measured."""
    scale: float = bounded(1.0, above=0, at_most=10)
    """Standard deviation of the logits."""
    beta: float = bounded(1.0, above=0, at_most=10)
    """Coefficient of DPO."""
    num_worlds: int = bounded(2000, at_least=100, at_most=100_000)
    """Random worlds."""
    rate: float = bounded(0.02, above=0, at_most=1)
    """Learning rate of the training, as good as a flow."""
    num_steps: int = bounded(800, at_least=100, at_most=100_000)
    """Updates of the training; all are recorded."""
    num_alphas: int = bounded(41, at_least=11, at_most=1000)
    """NLL weights of the sweep, evenly spaced from none."""
    largest_alpha: float = bounded(1.0, above=0, at_most=100)
    """The largest of them, a token."""
    world: int = bounded(31, at_least=0)
    """Which of the worlds is trained in under every weight: one in which the chosen answer falls after a while."""
    seed: int = bounded(0, at_least=0)
    """Of the worlds."""

    def __post_init__(self) -> None:
        """Dimensions increase, and there is such a world."""
        if self.world >= self.num_worlds:
            raise UserError(f"world must be below num_worlds {self.num_worlds}, got {self.world}")
        if sorted({*self.dimensions}) != [*self.dimensions]:
            raise UserError(f"dimensions must increase, got {self.dimensions}")

    @classmethod
    def quick(cls) -> "Config":
        """Fewer worlds and dimensions."""
        return cls(num_worlds=400, dimensions=(1, 16))


class Worlds(NamedTuple):
    """What a first step does to the chosen answer in every world."""

    predicted: dict[str, Float[Array, " worlds"]]  # rate of its log-probability, by what is trained
    measured: dict[str, Float[Array, " worlds"]]
    further: Float[Array, " worlds"]  # (u+ - ū)·(u- - u+)
    without_mean: Float[Array, " worlds"]  # u+·u- - |u+|², which leaves ū out


class Results(NamedTuple):
    """First steps and trainings in every world, and more of one."""

    worlds: Worlds
    needed_most: Float[Array, " worlds"]  # the largest weight that the path without an anchor needs, frozen head
    share: dict[str, Float[Array, " dimensions"]]  # of worlds with displacement, by what is trained
    table: Float[Array, " steps"]  # log-probability of the chosen answer against the start
    change: Float[Array, "alphas steps"]  # the same with a frozen head
    needed: Float[Array, "alphas steps"]  # the NLL weight that would stop the loss, at every moment of every path
    alphas: Float[Array, " alphas"]
    measured_weight: Float[Array, " steps"]  # that stops it, along the path without an anchor

    @property
    def predicted_sufficient(self) -> float:
        """The weight that is as large as the largest that its own path needs."""
        return crossing(self.alphas, self.alphas - self.needed.max(-1))

    @property
    def measured_sufficient(self) -> float:
        """The weight from which no update of the training lowers the chosen answer."""
        return crossing(self.alphas, np.diff(self.change, axis=-1).min(-1))


def crossing(x: Any, y: Any) -> float:
    """Where y first rises through zero, between two points; NaN if it does not."""
    above = np.flatnonzero(np.asarray(y) >= 0)
    if not above.size or above[0] == 0:
        return float("nan")
    pair = slice(above[0] - 1, above[0] + 1)
    return float(np.interp(0.0, np.asarray(y)[pair], np.asarray(x)[pair]))


@checked_run
def run(config: Config) -> Results:
    """First steps in random worlds of every dimension, and trainings in one."""
    keys = jax.random.split(jax.random.key(config.seed), config.num_worlds)
    size = config.num_outcomes
    params, worlds = first_steps(keys, config.scale, config.beta, size, config.num_features)
    share = [falling(keys, config.scale, size, dimension) for dimension in config.dimensions]
    steps = jnp.arange(config.num_steps + 1)
    needed_most = unanchored(params, config.beta, config.rate, steps[:: max(config.num_steps // 40, 1)])
    one: Params = jax.tree.map(lambda leaf: leaf[config.world], params)
    alphas = jnp.linspace(0.0, config.largest_alpha, config.num_alphas)
    table, change, needed, weight = trainings(one, config.beta, config.rate, steps, alphas)
    by_name = {name: jnp.stack([row[name] for row in share]) for name in TRAINED}
    return Results(worlds, needed_most, by_name, table, change, needed, alphas, weight)


@partial(jax.jit, static_argnames=("num_outcomes", "num_features"))
def first_steps(
    keys: Key[Array, " worlds"],
    scale: Float[Array, ""],
    beta: Float[Array, ""],
    num_outcomes: int,
    num_features: int,
) -> tuple[Params, Worlds]:
    """Every world, and how a first step of DPO moves its chosen answer."""

    def of(key: Key[Array, ""]) -> tuple[Params, Worlds]:
        params = random_params(key, num_outcomes, num_features, scale)
        log_ref, u = policy_of(params), params.features
        step, mean = u[REJECTED] - u[CHOSEN], jnp.exp(log_ref) @ u
        first = {name: beta / 2 * rates_of(params, rates).preference for name, rates in TRAINED.items()}
        found = {name: measured_rate(params, log_ref, rates, beta, 0.0, STEP) for name, rates in TRAINED.items()}
        return params, Worlds(first, found, (u[CHOSEN] - mean) @ step, u[CHOSEN] @ step)

    mapped: tuple[Params, Worlds] = jax.vmap(of)(keys)
    return mapped


@partial(jax.jit, static_argnames=("num_outcomes", "num_features"))
def falling(
    keys: Key[Array, " worlds"], scale: Float[Array, ""], num_outcomes: int, num_features: int
) -> dict[str, Float[Array, ""]]:
    """The share of worlds in which the chosen answer falls at first."""

    def of(key: Key[Array, ""]) -> dict[str, Array]:
        params = random_params(key, num_outcomes, num_features, scale)
        return {name: rates_of(params, rates).preference < 0 for name, rates in TRAINED.items()}

    return {name: fell.astype(float).mean() for name, fell in jax.vmap(of)(keys).items()}


@jax.jit
def unanchored(
    params: Params, beta: Float[Array, ""], rate: Float[Array, ""], steps: Int[Array, " steps"]
) -> Float[Array, " worlds"]:
    """The largest NLL weight that DPO without one would need on its way, in every world."""

    def of(row: Params) -> Float[Array, ""]:
        return needed_along(fine_tune(row, FROZEN_HEAD, beta, 0.0, rate, steps)).max()

    return jax.vmap(of)(params)


@jax.jit
def trainings(
    params: Params,
    beta: Float[Array, ""],
    rate: Float[Array, ""],
    steps: Int[Array, " steps"],
    alphas: Float[Array, " alphas"],
) -> tuple[Float[Array, " steps"], Float[Array, "alphas steps"], Float[Array, "alphas steps"], Float[Array, " steps"]]:
    """What `Results` keeps of a table, and of a frozen head under every NLL weight."""
    paths = jax.vmap(lambda alpha: fine_tune(params, FROZEN_HEAD, beta, alpha, rate, steps))(alphas)
    log_ref = policy_of(params)

    def weight(current: Params) -> Float[Array, ""]:
        """A rate is affine in the weight, so that two measured ones give its zero."""
        without, one = (measured_rate(current, log_ref, FROZEN_HEAD, beta, alpha, STEP) for alpha in (0.0, 1.0))
        return jnp.maximum(without / (without - one), 0.0)

    unanchored: Params = jax.tree.map(lambda leaf: leaf[0], paths.params)
    table = fine_tune(params, TABLE, beta, 0.0, rate, steps)
    return change_along(table), change_along(paths), needed_along(paths), jax.vmap(weight)(unanchored)


def change_along(path: Path) -> Float[Array, "*paths steps"]:
    """Log-probability of the chosen answer against the start."""
    chosen = path.log_policy[..., CHOSEN]
    change: Float[Array, "*paths steps"] = chosen - chosen[..., :1]
    return change


def needed_along(path: Path) -> Float[Array, "*paths steps"]:
    """The NLL weight that would stop the chosen answer's loss at every moment."""
    return path.rates.sufficient_alpha(path.push)
