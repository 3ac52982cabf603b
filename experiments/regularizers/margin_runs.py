"""Rewards fitted with margins, and the policies that follow: the runs of `reward_margin`."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

import rlrazor as rz
from experiments.harness import UserError, bounded, checked_run
from rlrazor.tasks.margins import fitted_reward, labelled, margins_of, separable_gap, separable_path
from rlrazor.training import log_steps

NONE, SMALL, LARGE, REVERSED = TABLES = ("no margin", "small margins", "large margins", "reversed margins")
SEPARABLE = {"a pair": (2, 0.0), "a pair, centred": (2, 1.0), "three answers, centred": (3, 1.0)}
# answers, and the share of the coefficient of centring


@dataclass(frozen=True)
class Config:
    """Answers, annotators and margin tables."""

    num_outcomes: int = bounded(9, at_least=3, at_most=100)
    """Answers, whose rewards are evenly spaced around zero."""
    highest: float = bounded(2.0, above=0, at_most=10)
    """The best reward, in nats of the annotators' preferences."""
    edges: tuple[float, ...] = bounded((0.6, 1.6, 2.6), above=0, length=3)
    """Gaps between the four levels of clarity."""
    small: tuple[float, ...] = bounded((0.0, 1 / 3, 2 / 3, 1.0), at_least=0, at_most=10, length=4)
    """Llama 2's small margins, from the least clear level on."""
    large: tuple[float, ...] = bounded((0.0, 1.0, 2.0, 3.0), at_least=0, at_most=10, length=4)
    """Llama 2's large margins."""
    pair_margins: tuple[float, ...] = bounded((0.0, 1.0, 3.0), at_least=0, at_most=10, length=3)
    """Margins of a single pair."""
    num_preferences: int = bounded(25, at_least=5, at_most=1000)
    """How often the better answer of a single pair is preferred: so many values from 1/2 to nearly 1."""
    num_labels: int = bounded(3000, at_least=100, at_most=1_000_000)
    """Labels of a finite data set."""
    num_sets: int = bounded(10, at_least=2, at_most=1000)
    """Such data sets."""
    spread: float = bounded(1.0, above=0, at_most=10)
    """Standard deviation of the reference's logits."""
    beta: float = bounded(1.0, above=0, at_most=100)
    """KL coefficient of the policies that follow."""
    centering: float = bounded(0.01, above=0, at_most=10)
    """Coefficient of TRL's centring, its published 0.01."""
    rate: float = bounded(0.05, above=0, at_most=0.2)
    """Learning rate on annotators who always agree."""
    num_steps: int = bounded(40_000, at_least=1000, at_most=10_000_000)
    """Its updates."""
    seed: int = bounded(0, at_least=0)
    """Of the reference and the labels."""

    def __post_init__(self) -> None:
        """Levels are ordered, and the last pair margin is the largest."""
        for name in ("edges", "pair_margins"):
            values = getattr(self, name)
            if sorted({*values}) != [*values]:
                raise UserError(f"{name} must increase, got {values}")

    @classmethod
    def quick(cls) -> "Config":
        """Shorter trainings."""
        return cls(num_steps=8000, num_sets=4)

    @property
    def tables(self) -> dict[str, tuple[float, ...]]:
        """The margin of each level of clarity."""
        return {NONE: (0.0,) * 4, SMALL: self.small, LARGE: self.large, REVERSED: self.large[::-1]}


class Fit(NamedTuple):
    """What is fitted with a margin table, and the policies that follow."""

    reward: Float[Array, " outcomes"]
    sampled: Float[Array, "sets outcomes"]  # from finitely many labels
    path: rz.Frontier  # true reward and KL of the tilts by the fitted reward, [betas]
    end: rz.Frontier  # at the beta of the config, [1]


class Results(NamedTuple):
    """Fits of a single pair, fits of all pairs, and what agreement leads to."""

    preferences: Float[Array, " preferences"]
    pair_gaps: Float[Array, "margins preferences"]  # minimisers of the loss
    predicted_gaps: Float[Array, "margins preferences"]  # the formula
    reward: Float[Array, " outcomes"]  # of the annotators
    fits: dict[str, Fit]  # by margin table
    times: Float[Array, " times"]
    separable: dict[str, Float[Array, "margins times"]]  # gaps where annotators always agree
    predicted_separable: Float[Array, "margins times"]  # the formula, for a pair

    @property
    def true_gaps(self) -> Float[np.ndarray, " preferences"]:
        """The gap of a single pair in the annotators' reward."""
        return np.log(self.preferences / (1 - self.preferences))

    def shortfall(self, table: str) -> float:
        """The largest true reward lost at equal KL against the frontier, along the tilts of a fitted reward."""
        path, frontier = self.fits[table].path, self.fits[NONE].path
        best = np.interp(path.kl, frontier.kl, frontier.reward)
        return float((best - path.reward).max())


@checked_run
def run(config: Config) -> Results:
    """Fits with every margin table, exact and with finitely many labels, and tilts by what was fitted."""
    preferences = jax.nn.sigmoid(jnp.linspace(0.0, 7.0, config.num_preferences))
    reward = jnp.linspace(-config.highest, config.highest, config.num_outcomes)
    ref_key, labels_key = jax.random.split(jax.random.key(config.seed))
    log_ref = rz.softmax_policy(config.spread * jax.random.normal(ref_key, reward.shape))
    tables, margins = jnp.array(list(config.tables.values())), jnp.array(config.pair_margins)
    label_keys = jax.random.split(labels_key, config.num_sets)
    fits = fits_of(reward, log_ref, jnp.array(config.edges), tables, label_keys, config.beta, config.num_labels)
    steps = jnp.asarray(log_steps(config.num_steps, 60))
    gaps, predicted_gaps = pair_fits(preferences, margins)
    separable = {name: (answers, share * config.centering) for name, (answers, share) in SEPARABLE.items()}
    paths = {name: agreed(margins, *of, config.rate, steps) for name, of in separable.items()}
    return Results(
        preferences=preferences,
        pair_gaps=gaps,
        predicted_gaps=predicted_gaps,
        reward=reward,
        fits=dict(zip(TABLES, fits, strict=True)),
        times=config.rate * steps,
        separable={name: path for name, (path, _) in paths.items()},
        predicted_separable=paths["a pair"][1],
    )


@jax.jit
def pair_fits(
    preferences: Float[Array, " preferences"], margins: Float[Array, " margins"]
) -> tuple[Float[Array, "margins preferences"], Float[Array, "margins preferences"]]:
    """The gap that a single pair is fitted with, for every preference and margin, and the formula."""

    def of(margin: Float[Array, ""], preference: Float[Array, ""]) -> Float[Array, ""]:
        both = rz.PreferencePairs(np.array([0, 1]), np.array([1, 0]), jnp.stack([preference, 1 - preference]))
        return -jnp.diff(fitted_reward(both, jnp.full(2, margin), 2))[0]

    found = jax.vmap(jax.vmap(of, (None, 0)), (0, None))(margins, preferences)
    return found, rz.margin_gap(preferences[None], margins[:, None])


@partial(jax.jit, static_argnames="num_labels")
def fits_of(
    reward: Float[Array, " outcomes"],
    log_ref: Float[Array, " outcomes"],
    edges: Float[Array, " edges"],
    tables: Float[Array, "tables levels"],
    label_keys: Key[Array, " sets"],
    beta: Float[Array, ""],
    num_labels: int,
) -> list[Fit]:
    """The fit with each margin table, over all pairs of answers alike."""
    pairs = rz.bradley_terry_pairs(jnp.zeros_like(reward), reward)
    betas = jnp.geomspace(50.0, 0.02, 300)

    def tilts(fitted: Float[Array, " outcomes"], betas: Float[Array, " betas"]) -> rz.Frontier:
        log_policy = rz.tilt(log_ref[None], fitted[None], betas)
        kl, forward = (rz.kl_divergence(*ends) for ends in ((log_policy, log_ref[None]), (log_ref[None], log_policy)))
        return rz.Frontier(betas, rz.expected_reward(log_policy, reward[None]), kl, forward)

    def of(table: Float[Array, " levels"]) -> Fit:
        margins = margins_of(pairs, reward, edges, table)
        fitted = fitted_reward(pairs, margins, reward.size)
        sets = jax.vmap(lambda key: labelled(pairs, num_labels, key).weights)(label_keys)
        sampled = jax.vmap(lambda weights: fitted_reward(pairs._replace(weights=weights), margins, reward.size))(sets)
        return Fit(fitted, sampled, tilts(fitted, betas), tilts(fitted, beta[None]))

    found = jax.lax.map(of, tables)
    return [jax.tree.map(lambda leaf, row=row: leaf[row], found) for row in range(len(tables))]


@partial(jax.jit, static_argnames="num_answers")
def agreed(
    margins: Float[Array, " margins"],
    num_answers: int,
    centering: Float[Array, ""],
    rate: Float[Array, ""],
    steps: Int[Array, " times"],
) -> tuple[Float[Array, "margins times"], Float[Array, "margins times"]]:
    """Fitted gaps where annotators always agree, for every margin, and the formula for a pair."""
    path = jax.vmap(lambda margin: separable_path(num_answers, margin, centering, rate, steps))(margins)
    return path, jax.vmap(lambda margin: separable_gap(margin, rate * steps))(margins)
