"""What SFT and RL optimise: brute-force sums, sampled means within four standard errors, and the boundary."""

import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz

SAMPLES = 200_000


def log(p):
    with np.errstate(divide="ignore"):
        return jnp.asarray(np.log(np.asarray(p, dtype=float)))


def random_problem(seed, outcomes=6):
    rng = np.random.default_rng(seed)
    policy, ref, target = rng.dirichlet(np.ones(outcomes), size=3)
    return policy, ref, target, rng.normal(size=outcomes), rng


def assert_within_four_standard_errors(draws, exact):
    assert abs(draws.mean() - float(exact)) < 4 * draws.std(ddof=1) / np.sqrt(draws.size)


@pytest.mark.parametrize("seed", range(5))
def test_each_objective_is_its_sum_over_the_outcomes(seed):
    policy, ref, target, reward, _ = random_problem(seed)
    beta = 0.3
    sft = expected = regularized = 0.0
    for y in range(policy.size):
        sft -= target[y] * np.log(policy[y])
        expected += policy[y] * reward[y]
        regularized += policy[y] * (reward[y] - beta * (np.log(policy[y]) - np.log(ref[y])))
    np.testing.assert_allclose(rz.sft_loss(log(policy), log(target)), sft, rtol=1e-13)
    np.testing.assert_allclose(rz.expected_reward(log(policy), jnp.asarray(reward)), expected, rtol=1e-12)
    measured = rz.regularized_reward(log(policy), log(ref), jnp.asarray(reward), beta)
    np.testing.assert_allclose(measured, regularized, rtol=1e-11)


def test_sft_loss_is_the_mean_negative_log_likelihood_of_demonstrations():
    policy, _, target, _, rng = random_problem(11)
    demonstrations = rng.choice(target.size, p=target, size=SAMPLES)
    assert_within_four_standard_errors(-np.log(policy)[demonstrations], rz.sft_loss(log(policy), log(target)))


def test_expected_reward_is_the_mean_reward_of_samples_of_the_policy():
    policy, _, _, reward, rng = random_problem(12)
    samples = rng.choice(policy.size, p=policy, size=SAMPLES)
    assert_within_four_standard_errors(reward[samples], rz.expected_reward(log(policy), jnp.asarray(reward)))


def test_regularized_reward_is_the_mean_of_reward_minus_beta_log_ratio_over_samples_of_the_policy():
    policy, ref, _, reward, rng = random_problem(13)
    samples = rng.choice(policy.size, p=policy, size=SAMPLES)
    draws = (reward - 0.7 * np.log(policy / ref))[samples]
    exact = rz.regularized_reward(log(policy), log(ref), jnp.asarray(reward), 0.7)
    assert_within_four_standard_errors(draws, exact)


def test_batch_axes_broadcast_and_each_row_has_its_own_beta():
    rng = np.random.default_rng(4)
    policies = rng.dirichlet(np.ones(5), size=(3, 1))
    refs = rng.dirichlet(np.ones(5), size=4)
    reward, beta = rng.normal(size=5), np.array([0.0, 0.1, 1.0, 10.0])
    measured = rz.regularized_reward(log(policies), log(refs), jnp.asarray(reward), jnp.asarray(beta))
    assert measured.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            p, q = policies[i, 0], refs[j]
            expected = p @ reward - beta[j] * (p @ np.log(p / q))
            np.testing.assert_allclose(measured[i, j], expected, rtol=1e-11, atol=1e-13)
    assert rz.sft_loss(log(policies), log(refs)).shape == (3, 4)
    assert rz.expected_reward(log(policies), jnp.asarray(reward)).shape == (3, 1)


def test_sft_loss_is_infinite_exactly_where_a_demonstration_is_impossible():
    policy = log([0.5, 0.5, 0.0])
    losses = rz.sft_loss(policy[None], log([[0.5, 0.4, 0.1], [0.5, 0.5, 0.0]]))
    assert losses[0] == jnp.inf
    np.testing.assert_allclose(losses[1], np.log(2), rtol=1e-14)


def test_a_forbidden_outcome_counts_only_if_the_policy_may_produce_it():
    reward = jnp.array([1.0, 3.0, -jnp.inf])
    values = rz.expected_reward(log([[0.5, 0.4, 0.1], [0.5, 0.5, 0.0]]), reward)
    assert values.tolist() == [-jnp.inf, 2.0]


def test_regularized_reward_is_minus_infinity_off_either_support():
    policy, reward = log([0.5, 0.5]), jnp.array([0.0, 1.0])
    assert rz.regularized_reward(policy, log([1.0, 0.0]), reward, 0.1) == -jnp.inf
    assert rz.regularized_reward(policy, policy, jnp.array([0.0, -jnp.inf]), 0.1) == -jnp.inf
    assert rz.regularized_reward(policy, log([1.0, 0.0]), jnp.array([0.0, -jnp.inf]), 0.1) == -jnp.inf


def test_regularized_reward_ignores_outcomes_that_policy_never_produces():
    value = rz.regularized_reward(log([1.0, 0.0]), log([0.25, 0.75]), jnp.array([1.0, -jnp.inf]), 0.5)
    np.testing.assert_allclose(value, 1 - 0.5 * np.log(4), rtol=1e-13)


def test_regularized_reward_at_beta_zero_is_the_expected_reward():
    policy, ref, _, reward, _ = random_problem(5)
    measured = rz.regularized_reward(log(policy), log(ref), jnp.asarray(reward), 0.0)
    np.testing.assert_allclose(measured, policy @ reward, rtol=1e-13)


def test_regularized_reward_at_beta_zero_is_a_number_also_off_the_support_of_the_reference():
    value = rz.regularized_reward(log([0.5, 0.5]), log([1.0, 0.0]), jnp.array([0.0, 1.0]), 0.0)
    assert value == 0.5


def test_regularized_reward_at_the_reference_is_the_expected_reward_at_any_beta():
    _, ref, _, reward, _ = random_problem(6)
    for beta in (0.0, 1.0, 1e6):
        measured = rz.regularized_reward(log(ref), log(ref), jnp.asarray(reward), beta)
        np.testing.assert_allclose(measured, ref @ reward, rtol=1e-13)


def test_small_kl_penalty_keeps_its_accuracy_in_float32():
    rng = np.random.default_rng(0)
    ref = np.log(rng.dirichlet(np.ones(50))).astype(np.float32)
    policy = np.asarray(ref + 1e-3 * rng.normal(size=50).astype(np.float32))
    policy = (policy - np.log(np.exp(policy.astype(float)).sum())).astype(np.float32)
    log_ratio = policy.astype(float) - ref.astype(float)
    exact = (np.exp(policy.astype(float)) * (log_ratio + np.expm1(-log_ratio))).sum()
    penalty = -rz.regularized_reward(jnp.asarray(policy), jnp.asarray(ref), jnp.zeros(50, jnp.float32), 1.0)
    assert penalty.dtype == jnp.float32
    np.testing.assert_allclose(penalty, exact, rtol=1e-4)
