"""The derivations of "Implicit Regularization in RL Post-Training", as identities that hold to rounding.

SFT is the forward KL, KL-regularised RL the reverse KL to the tilted reference: each line of the two derivations is
checked on random prompts, with numpy sums written out on the one side and the library on the other.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

import rlrazor as rz

PROMPTS, OUTCOMES = 30, 7
TOLERANCE = 1e-10


def random_problem(seed=0):
    rng = np.random.default_rng(seed)
    policy, ref, target = rng.dirichlet(np.ones(OUTCOMES), size=(3, PROMPTS))
    reward = rng.normal(size=(PROMPTS, OUTCOMES))
    beta = np.exp(rng.uniform(np.log(0.05), np.log(5.0), size=PROMPTS))
    return policy, ref, target, reward, beta


def kl(p, q):
    """KL(p || q) by the plain sum over the support of p."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * np.log(np.where(p > 0, p / q, 1.0)), 0.0).sum(-1)


def tilted(ref, reward, beta):
    weights = ref * np.exp(reward / beta[:, None])
    return weights / weights.sum(-1, keepdims=True), np.log(weights.sum(-1))


def log(p):
    with np.errstate(divide="ignore"):
        return jnp.asarray(np.log(p))


def test_sft_loss_is_forward_kl_plus_the_entropy_of_the_target():
    policy, _, target, _, _ = random_problem()
    forward_kl, target_entropy = kl(target, policy), -(target * np.log(target)).sum(-1)
    np.testing.assert_allclose(rz.sft_loss(log(policy), log(target)), forward_kl + target_entropy, atol=TOLERANCE)


def test_sft_and_forward_kl_have_the_same_gradient_which_is_policy_minus_target():
    policy, _, target, _, _ = random_problem()

    def gradient(loss):
        return jax.grad(lambda logits: loss(jax.nn.log_softmax(logits)).sum())(log(policy))

    np.testing.assert_allclose(gradient(lambda lp: rz.sft_loss(lp, log(target))), policy - target, atol=TOLERANCE)
    np.testing.assert_allclose(gradient(lambda lp: rz.kl_divergence(log(target), lp)), policy - target, atol=TOLERANCE)


def test_rl_objective_is_beta_log_partition_minus_beta_reverse_kl_to_the_tilt():
    policy, ref, _, reward, beta = random_problem()
    optimum, log_partition = tilted(ref, reward, beta)
    expected = beta * log_partition - beta * kl(policy, optimum)
    measured = rz.regularized_reward(log(policy), log(ref), jnp.asarray(reward), jnp.asarray(beta))
    np.testing.assert_allclose(measured, expected, atol=TOLERANCE)


def test_the_same_identity_holds_among_the_library_functions():
    policy, ref, _, reward, beta = (jnp.asarray(x) for x in random_problem())
    objective = rz.regularized_reward(jnp.log(policy), jnp.log(ref), reward, beta)
    optimum, log_partition = (f(jnp.log(ref), reward, beta) for f in (rz.tilt, rz.log_partition))
    expected = beta * log_partition - beta * rz.kl_divergence(jnp.log(policy), optimum)
    np.testing.assert_allclose(objective, expected, atol=TOLERANCE)


def test_the_tilt_is_ref_times_exp_reward_over_beta_normalised():
    _, ref, _, reward, beta = random_problem()
    expected, log_partition = tilted(ref, reward, beta)
    np.testing.assert_allclose(
        rz.tilt(log(ref), jnp.asarray(reward), jnp.asarray(beta)), np.log(expected), rtol=1e-12, atol=TOLERANCE
    )
    measured = rz.log_partition(log(ref), jnp.asarray(reward), jnp.asarray(beta))
    np.testing.assert_allclose(measured, log_partition, atol=TOLERANCE)


def test_no_perturbation_of_the_tilt_scores_higher():
    _, ref, _, reward, beta = random_problem()
    rng = np.random.default_rng(1)
    optimum = np.exp(rz.tilt(log(ref), jnp.asarray(reward), jnp.asarray(beta)))
    other = rng.dirichlet(np.full(OUTCOMES, 0.5), size=(300, PROMPTS))
    size = 10 ** rng.uniform(-3, 0, size=(300, PROMPTS, 1))

    def objective(policy):
        return np.asarray(rz.regularized_reward(log(policy), log(ref), jnp.asarray(reward), jnp.asarray(beta)))

    assert np.all(objective((1 - size) * optimum + size * other) < objective(optimum))


def test_a_direct_search_over_the_simplex_finds_the_tilt():
    _, ref, _, reward, beta = random_problem()
    optimum = np.exp(rz.tilt(log(ref), jnp.asarray(reward), jnp.asarray(beta)))
    for i in range(8):

        def negative_objective(logits, i=i):
            p = np.exp(logits - logits.max())
            p /= p.sum()
            per_outcome = reward[i] - beta[i] * np.log(p / ref[i])
            value = p @ per_outcome
            return -value, -p * (per_outcome - value)

        options = {"ftol": 0.0, "gtol": 1e-12, "maxiter": 10_000, "maxfun": 100_000}
        bounds = [(-30.0, 0.0)] * OUTCOMES
        found = minimize(negative_objective, np.zeros(OUTCOMES), (), "L-BFGS-B", True, bounds=bounds, options=options).x
        found = np.exp(found - found.max())
        np.testing.assert_allclose(optimum[i], found / found.sum(), atol=1e-5)


def test_the_gradient_of_the_rl_objective_vanishes_at_the_tilt():
    _, ref, _, reward, beta = (jnp.asarray(x) for x in random_problem())

    def total(logits):
        return rz.regularized_reward(jax.nn.log_softmax(logits), jnp.log(ref), reward, beta).sum()

    at_optimum = jax.grad(total)(rz.tilt(jnp.log(ref), reward, beta))
    np.testing.assert_allclose(at_optimum, 0.0, atol=TOLERANCE)
    assert jnp.abs(jax.grad(total)(jnp.log(ref))).max() > 1e-3


def test_reverse_kl_gradient_is_minus_the_rl_gradient_over_beta():
    policy, ref, _, reward, beta = random_problem()
    optimum, _ = tilted(ref, reward, beta)
    logits = log(policy) + 3.0  # unnormalised on purpose

    def gradient(value):
        return jax.grad(lambda x: value(jax.nn.log_softmax(x)).sum())(logits)

    of_kl = gradient(lambda lp: rz.kl_divergence(lp, log(optimum)))
    of_objective = gradient(lambda lp: rz.regularized_reward(lp, log(ref), jnp.asarray(reward), jnp.asarray(beta)))
    by_hand = policy * (np.log(policy / optimum) - kl(policy, optimum)[:, None])
    np.testing.assert_allclose(of_kl, -of_objective / beta[:, None], atol=TOLERANCE)
    np.testing.assert_allclose(of_kl, by_hand, atol=TOLERANCE)


def test_implied_reward_inverts_the_tilt_up_to_one_constant_a_prompt():
    _, ref, _, reward, beta = random_problem()
    policy = rz.tilt(log(ref), jnp.asarray(reward), jnp.asarray(beta))
    offset = reward - np.asarray(rz.implied_reward(policy, log(ref), jnp.asarray(beta)))
    np.testing.assert_allclose(offset, np.broadcast_to(offset[:, :1], offset.shape), atol=TOLERANCE)
    np.testing.assert_allclose(offset[:, 0], beta * tilted(ref, reward, beta)[1], atol=TOLERANCE)


def test_tilting_by_the_implied_reward_gives_the_policy_back_with_partition_function_one():
    policy, ref, _, _, beta = random_problem()
    reward = rz.implied_reward(log(policy), log(ref), jnp.asarray(beta))
    np.testing.assert_allclose(rz.tilt(log(ref), reward, jnp.asarray(beta)), np.log(policy), atol=TOLERANCE)
    np.testing.assert_allclose(rz.log_partition(log(ref), reward, jnp.asarray(beta)), 0.0, atol=TOLERANCE)


def problem_with_impossible_outcomes():
    """Outcome 0 is forbidden by the reward, outcome 1 by the reference, outcome 2 by both; the policy avoids all."""
    policy, ref, target, reward, beta = random_problem()
    reward[:, [0, 2]] = -np.inf
    ref[:, [1, 2]] = 0.0
    policy[:, :3] = 0.0
    return policy / policy.sum(-1, keepdims=True), ref / ref.sum(-1, keepdims=True), target, reward, beta


def test_rl_identity_and_gradients_hold_with_forbidden_outcomes():
    policy, ref, _, reward, beta = problem_with_impossible_outcomes()
    optimum, log_partition = tilted(ref, reward, beta)
    assert np.all(optimum[:, :3] == 0)
    expected = beta * log_partition - beta * kl(policy, optimum)
    args = log(ref), jnp.asarray(reward), jnp.asarray(beta)
    np.testing.assert_allclose(rz.regularized_reward(log(policy), *args), expected, atol=TOLERANCE)
    np.testing.assert_allclose(rz.tilt(*args), log(optimum), rtol=1e-12, atol=TOLERANCE)

    def gradient(value):
        return jax.grad(lambda x: value(jax.nn.log_softmax(x)).sum())(log(policy))

    of_kl = gradient(lambda lp: rz.kl_divergence(lp, log(optimum)))
    of_objective = gradient(lambda lp: rz.regularized_reward(lp, *args))
    ratio = np.where(policy > 0, policy / np.where(optimum > 0, optimum, 1.0), 1.0)
    by_hand = policy * (np.log(ratio) - kl(policy, optimum)[:, None])
    np.testing.assert_allclose(of_kl, by_hand, atol=TOLERANCE)
    np.testing.assert_allclose(of_kl, -of_objective / beta[:, None], atol=TOLERANCE)


def test_implied_reward_inverts_the_tilt_with_forbidden_outcomes():
    _, ref, _, reward, beta = problem_with_impossible_outcomes()
    optimum = rz.tilt(log(ref), jnp.asarray(reward), jnp.asarray(beta))
    implied = np.asarray(rz.implied_reward(optimum, log(ref), jnp.asarray(beta)))
    assert np.all(implied[:, :3] == -np.inf)
    offset = reward[:, 3:] - implied[:, 3:]
    np.testing.assert_allclose(offset, np.broadcast_to(offset[:, :1], offset.shape), atol=TOLERANCE)
    np.testing.assert_allclose(rz.tilt(log(ref), jnp.asarray(implied), jnp.asarray(beta)), optimum, atol=TOLERANCE)


def test_sft_identity_holds_when_the_target_leaves_outcomes_out():
    _, _, target, _, _ = random_problem()
    policy, _, _, _, _ = random_problem(seed=1)
    target[:, :3] = 0.0
    target /= target.sum(-1, keepdims=True)
    expected = kl(target, policy) - np.where(target > 0, target * np.log(np.where(target > 0, target, 1.0)), 0.0).sum(
        -1
    )
    np.testing.assert_allclose(rz.sft_loss(log(policy), log(target)), expected, atol=TOLERANCE)
    gradient = jax.grad(lambda x: rz.sft_loss(jax.nn.log_softmax(x), log(target)).sum())(log(policy))
    np.testing.assert_allclose(gradient, policy - target, atol=TOLERANCE)
