"""Refits to finite samples: enumeration of all samples, closed forms, and Monte Carlo within standard errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlrazor.tasks import refits

SHARES = np.array([0.30, 0.25, 0.15, 0.10, 0.05]) / 0.85


def enumerated(samples, rounds):
    """(probabilities of every state of a chain after the rounds, the states), over all possible samples."""
    draws = np.array(list(itertools.product(range(5), repeat=samples)))
    counts = (draws[..., None] == np.arange(5)).sum(1)
    states, index = np.unique(counts, axis=0, return_inverse=True)

    def after_a_round(shares):
        return (shares[..., None, :] ** counts).prod(-1) @ np.eye(len(states))[index.ravel()]

    probability = after_a_round(SHARES)
    for _ in range(rounds - 1):
        probability = probability @ after_a_round(states / samples)
    return probability, states / samples


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_expectations_are_those_over_all_possible_samples(samples, rounds):
    probability, states = enumerated(samples, rounds)
    left = refits.expected_heterozygosity(jnp.asarray(SHARES), samples, rounds)
    np.testing.assert_allclose(left, probability @ (1 - (states**2).sum(-1)), rtol=1e-12, atol=1e-15)
    spread = refits.expected_variance(jnp.asarray(SHARES), samples, rounds)
    np.testing.assert_allclose(spread, probability @ (states - SHARES) ** 2, rtol=1e-12)


def test_heterozygosity_is_the_chance_that_two_answers_differ():
    together = SHARES[:, None] * SHARES
    np.testing.assert_allclose(
        refits.heterozygosity(jnp.asarray(SHARES)), (together * (1 - np.eye(5))).sum(), rtol=1e-13
    )


@pytest.mark.parametrize("population", [2.0, 20.0])
def test_chains_follow_the_distribution_over_all_samples(population):
    keys = jax.random.split(jax.random.key(1), 4000)
    chain = jax.jit(jax.vmap(lambda key: refits.refit(key, jnp.asarray(SHARES), population, num_rounds=3)))
    paths = np.asarray(chain(keys))
    assert paths.shape == (4000, 4, 5)
    np.testing.assert_array_equal(paths[:, 0], np.tile(SHARES, (4000, 1)))
    np.testing.assert_allclose(paths.sum(-1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(paths[:, 1:] * population, np.round(paths[:, 1:] * population), atol=1e-9)
    left = refits.heterozygosity(jnp.asarray(paths[:, 3]))
    error = np.std(left, ddof=1) / np.sqrt(4000)
    assert 0 < error < 0.006
    assert abs(np.mean(left) - refits.expected_heterozygosity(jnp.asarray(SHARES), population, 3)) < 4 * error
    spread = np.asarray(refits.expected_variance(jnp.asarray(SHARES), population, 3))
    assert np.all(np.abs(paths[:, 3].mean(0) - SHARES) < 4 * np.sqrt(spread / 4000))
    np.testing.assert_allclose(paths[:, 3].var(0, ddof=1), spread, rtol=0.12)


def test_pairs_of_samples_have_the_probabilities_of_the_enumeration():
    probability, states = enumerated(2, 2)
    keys = jax.random.split(jax.random.key(2), 4000)
    ends = jax.jit(jax.vmap(lambda key: refits.refit(key, jnp.asarray(SHARES), 2.0, num_rounds=2)[-1]))(keys)
    counts = np.array([np.all(np.abs(np.asarray(ends) - state) < 1e-9, axis=-1).sum() for state in states])
    assert counts.sum() == 4000
    assert ((counts - 4000 * probability) ** 2 / (4000 * probability)).sum() < 36.1  # χ² with 14 dof, 1 in 1,000
