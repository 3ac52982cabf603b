"""What SFT and RL optimise: brute-force sums, sampled means within four standard errors, and the boundary."""

import itertools
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz
from tests.oracles import (
    MP,
    QUICK,
    Contract,
    assert_derivatives_match_differences,
    assert_derivatives_match_limit,
    assert_outcome_axes_must_match,
    assert_trees_agree,
    compiled_by,
    dirichlet_logs,
    floats,
    kept_by,
    quick_jit,
    refused_by,
    to_float,
)

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


# GRPO

RATES = jnp.array([1e-9, 0.01, 0.2, 0.5, 0.85, 0.999])
EACH_SIZE = pytest.mark.parametrize("size", [2, 3, 8, 64])
STATIC = {"static_argnames": "group_size", "compiler_options": QUICK}
coefficient, grpo = (jax.jit(f, **STATIC) for f in (rz.grpo_coefficient, rz.grpo_objective))


def defined_coefficient(success, size):
    """E[√(K (G - K))] / (G J (1 - J)), K ~ Binomial(G, J)."""
    j = MP.mpf(success)
    masses = [MP.binomial(size, k) * j**k * (1 - j) ** (size - k) for k in range(size + 1)]
    return MP.fsum(m * MP.sqrt(k * (size - k)) for k, m in enumerate(masses)) / (size * j * (1 - j))


@EACH_SIZE
def test_grpo_coefficient_is_the_expected_deviation_over_the_binary_variance(size):
    want = floats(defined_coefficient(float(j), size) for j in RATES)
    np.testing.assert_allclose(coefficient(RATES, size), want, rtol=1e-12)
    np.testing.assert_allclose(coefficient(RATES.astype(np.float32), size), want, rtol=1e-5)


def test_grpo_coefficient_has_the_published_digits():
    got = [coefficient(*case) for case in ((0.85, 4), (0.85, 8), (0.85, 64), (0.2, 8))]
    assert np.all(np.abs(np.array(got) - [1.673, 2.207, 2.756, 2.10673]) < [1e-3, 1e-3, 1e-3, 1e-5])


@EACH_SIZE
def test_grpo_coefficient_is_symmetric_and_within_bounds_that_it_attains_at_the_ends(size):
    values = coefficient(jnp.linspace(0.0, 1.0, 65), size)
    np.testing.assert_allclose(values, values[::-1], rtol=1e-12)
    assert values.min() >= 1 - 1e-12
    assert values.max() <= np.sqrt(size - 1) * (1 + 1e-12)
    np.testing.assert_allclose(values[0], np.sqrt(size - 1), rtol=1e-14)
    np.testing.assert_allclose([rz.grpo_coefficient(end, size) for end in (0, 1)], np.sqrt(size - 1), rtol=1e-14)


@EACH_SIZE
def test_the_slope_of_grpo_coefficient_is_right_also_at_the_ends(size):
    got = quick_jit(jax.vmap(jax.grad(lambda j: rz.grpo_coefficient(j, size))))(jnp.array([0.0, 1.0, 0.2]))
    at_zero = to_float((defined_coefficient("1e-20", size) - MP.sqrt(size - 1)) / MP.mpf("1e-20"))
    inside = to_float(MP.diff(lambda j: defined_coefficient(j, size), 0.2))
    np.testing.assert_allclose(got, [at_zero, -at_zero, inside], rtol=1e-10, atol=1e-11)


def test_grpo_coefficient_nears_its_limit_like_one_over_the_group_size():
    rates = RATES[2:5]
    errors = [1 / np.sqrt(rates * (1 - rates)) - coefficient(rates, size) for size in (512, 2048)]
    np.testing.assert_allclose(errors[0] / errors[1], 4.0, rtol=0.02)
    assert np.abs(errors[1]).max() < 2e-3


def test_grpo_coefficient_of_an_unknown_success_rate_is_unknown():
    assert np.isnan(coefficient(jnp.array([np.nan, 0.5]), 8)).tolist() == [True, False]


def test_grpo_coefficient_keeps_shape_and_dtype():
    rates = jnp.stack([RATES, RATES[::-1]]).astype(np.float32)
    mapped = quick_jit(jax.vmap(lambda j: rz.grpo_coefficient(j, 8)))(rates)
    assert_trees_agree(mapped, rz.grpo_coefficient(rates, 8), rtol=1e-6)
    assert mapped.dtype == np.float32


@EACH_SIZE
def test_grpo_objective_is_the_integral_of_the_coefficient(size):
    def objective(j):
        return rz.grpo_objective(jnp.log(jnp.stack([j, 1 - j])), jnp.array([True, False]), size)

    nodes, weights = np.polynomial.legendre.leggauss(40)  # exact: the coefficient is a polynomial of degree G - 2
    for end in (0.2, 0.85):
        value, slope = quick_jit(jax.value_and_grad(objective))(end)
        terms = floats(defined_coefficient(j, size) for j in end / 2 * (nodes + 1))
        np.testing.assert_allclose(value, end / 2 * (weights @ terms), rtol=1e-12)
        np.testing.assert_allclose(slope, to_float(defined_coefficient(end, size)), rtol=1e-11)


@quick_jit
def grpo_derivatives(logits):
    def f(x):
        return rz.grpo_objective(jax.nn.log_softmax(x), jnp.array([True, True, False, False]), 5)

    return f(logits), jax.grad(f)(logits), jax.hessian(f)(logits)


def test_derivatives_of_grpo_objective_match_differences_also_at_impossible_outcomes():
    assert_derivatives_match_differences(grpo_derivatives, jnp.array([0.3, -1.0, 0.5, 0.1]))
    assert_derivatives_match_limit(grpo_derivatives, jnp.array([0.3, -jnp.inf, 0.5, -jnp.inf]))


def test_grpo_objective_is_zero_and_greatest_at_its_ends_and_flat_there():
    highest = sum(1 / np.sqrt(k * (5 - k)) for k in range(1, 5))
    for logits, want in (([-jnp.inf, -jnp.inf, 0.7, 0.1], 0.0), ([0.3, 0.7, -jnp.inf, -jnp.inf], highest)):
        value, *slopes = grpo_derivatives(jnp.array(logits))
        np.testing.assert_allclose(value, want, rtol=1e-13)
        np.testing.assert_allclose(slopes[0], 0.0, atol=1e-14)
        np.testing.assert_allclose(slopes[1], 0.0, atol=1e-14)


def test_grpo_objective_of_large_groups_is_the_fisher_rao_length_of_success():
    accept = jnp.array([True, False, True, False, False])
    log_policy = dirichlet_logs(np.random.default_rng(3), (4, 5))
    length = rz.fisher_rao_distance(log_policy, rz.condition(log_policy, ~accept))
    np.testing.assert_allclose(length, 2 * np.arcsin(np.sqrt(np.exp(log_policy)[:, [0, 2]].sum(-1))), rtol=1e-12)
    errors = [length - grpo(log_policy, accept, size) for size in (512, 2048)]
    np.testing.assert_allclose(errors[0] / errors[1], 2.0, rtol=0.02)  # the integral loses 1 / √G at either end
    assert np.abs(errors[1]).max() < 0.05


# Sampled losses: every group of three samples of four outcomes, with its probability

LOGITS = jnp.array([0.3, -1.0, 0.8, 0.1])
POLICY = np.exp(LOGITS) / np.exp(LOGITS).sum()
REF, OLD, TARGET = np.random.default_rng(7).dirichlet(np.ones(4), size=3)
REWARD, BINARY = jnp.array([0.7, -1.2, 0.1, 2.0]), jnp.array([1.0, 0.0, 0.0, 1.0])
GROUPS, PAIRS = (np.array(list(itertools.product(range(4), repeat=n))) for n in (3, 2))


def ppo_clip_objective(log_policy, log_old, advantage):
    return rz.ppo_clip_objective(log_policy, log_old, advantage, 0.2)


def ppo_clip_loss(log_prob, log_prob_old, advantage):
    return rz.ppo_clip_loss(log_prob, log_prob_old, advantage, 0.2)


def k3(log_prob, log_prob_ref):
    return (jnp.exp(log_prob_ref - log_prob) - 1 + log_prob - log_prob_ref).mean(-1)


def reinforce(reward, advantage):
    return lambda log_prob, y: rz.reinforce_loss(log_prob, advantage(reward[y]))


# The distribution of the samples, the loss of groups y of them, and the exact loss that it descends.
SURROGATES = {
    "SFT": (TARGET, reinforce(REWARD, jnp.ones_like), lambda lp: rz.sft_loss(lp, log(TARGET))),
    "REINFORCE": (POLICY, reinforce(REWARD, jnp.asarray), lambda lp: -rz.expected_reward(lp, REWARD)),
    "RLOO": (POLICY, reinforce(REWARD, rz.rloo_advantage), lambda lp: -rz.expected_reward(lp, REWARD)),
    "Dr. GRPO": (POLICY, reinforce(REWARD, rz.dr_grpo_advantage), lambda lp: -rz.dr_grpo_objective(lp, REWARD, 3)),
    "GRPO": (POLICY, reinforce(BINARY, rz.grpo_advantage), lambda lp: -rz.grpo_objective(lp, BINARY > 0, 3)),
    "PPO-clip": (
        OLD,
        lambda lp, y: ppo_clip_loss(lp, log(OLD)[y], REWARD[y]),
        lambda lp: -ppo_clip_objective(lp, log(OLD), REWARD),
    ),
    "k2": (POLICY, lambda lp, y: rz.kl_penalty_loss(lp, log(REF)[y]), lambda lp: rz.kl_divergence(lp, log(REF))),
    "k3": (POLICY, lambda lp, y: k3(lp, log(REF)[y]), lambda lp: rz.kl_divergence(log(REF), lp)),
}


def value_and_gradient(loss):
    return quick_jit(jax.value_and_grad(lambda x: loss(jax.nn.log_softmax(x))))(LOGITS)


def mean_over_groups(source, loss):
    """The expected loss of a group and its gradient in the logits, with the probability of each group held fixed."""
    return value_and_gradient(lambda log_policy: source[GROUPS].prod(-1) @ loss(log_policy[GROUPS], GROUPS))


@pytest.mark.parametrize("method", SURROGATES)
def test_the_expected_gradient_of_a_sampled_loss_is_the_gradient_of_the_exact_one(method):
    source, loss, exact_loss = SURROGATES[method]
    (got, slope), (want, exact_slope) = mean_over_groups(source, loss), value_and_gradient(exact_loss)
    assert np.abs(exact_slope).max() > 1e-2
    np.testing.assert_allclose(slope, exact_slope, rtol=0, atol=1e-12)
    if source is not POLICY:
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_dr_grpo_objective_lacks_the_share_of_a_sample_in_its_own_baseline():
    for size in (2, 3, 64):
        want = (POLICY @ REWARD) * (size - 1) / size
        np.testing.assert_allclose(rz.dr_grpo_objective(log(POLICY), REWARD, size), want, rtol=1e-12)


def test_of_the_two_kl_estimators_only_k3_has_the_value_of_the_divergence():
    k2, k3 = (mean_over_groups(*SURROGATES[name][:2])[0] for name in ("k2", "k3"))
    log_ratio = np.log(POLICY / REF)
    np.testing.assert_allclose([k2, k3], [POLICY @ log_ratio**2 / 2, POLICY @ log_ratio], rtol=1e-12)
    assert abs(k2 - k3) > 0.01


def test_reinforce_loss_holds_the_advantage_fixed():
    slopes = jax.grad(rz.reinforce_loss, argnums=(0, 1))(log(POLICY), REWARD)
    np.testing.assert_allclose(slopes, [-REWARD / 4, jnp.zeros(4)], rtol=1e-14)


def test_an_impossible_sample_counts_unless_its_advantage_is_zero():
    log_prob, advantage = jnp.array([-jnp.inf, -1.0]), jnp.array([[0.0, 1.0], [2.0, 1.0], [-2.0, 1.0]])
    assert rz.reinforce_loss(log_prob, advantage).tolist() == [0.5, np.inf, -np.inf]
    slopes = quick_jit(jax.jacobian(rz.reinforce_loss))(log_prob, advantage)
    assert slopes[0].tolist() == [0.0, -0.5]
    assert not np.isnan(slopes).any()


ADVANTAGES = [rz.rloo_advantage, rz.dr_grpo_advantage, rz.grpo_advantage]
EACH_ADVANTAGE = pytest.mark.parametrize("advantage", ADVANTAGES, ids=lambda f: f.__name__)


def test_each_advantage_is_its_formula():
    for r in np.random.default_rng(8).normal(size=(3, 5)):
        rloo, dr_grpo, grpo = (np.asarray(advantage(jnp.asarray(r))) for advantage in ADVANTAGES)
        np.testing.assert_allclose(rloo, [r[i] - np.delete(r, i).mean() for i in range(5)], rtol=1e-12)
        np.testing.assert_allclose(dr_grpo, [x - sum(r) / 5 for x in r], rtol=1e-12)
        np.testing.assert_allclose(grpo, [(x - statistics.mean(r)) / statistics.pstdev(r) for x in r], rtol=1e-12)
        np.testing.assert_allclose([rloo.sum(), dr_grpo.sum(), grpo.sum()], 0.0, atol=1e-14)
        np.testing.assert_allclose((grpo**2).mean(), 1.0, rtol=1e-14)


@pytest.mark.parametrize(("scale", "dtype"), [(1e-200, float), (1e200, float), (1e-23, np.float32)])
def test_grpo_advantage_does_not_depend_on_the_scale_of_the_rewards(scale, dtype):
    got = rz.grpo_advantage(jnp.array([1.0, 0.0, 0.0, 3.0], dtype) * jnp.asarray(scale, dtype))
    np.testing.assert_allclose(got, np.array([0.0, -1.0, -1.0, 2.0]) / np.sqrt(1.5), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("count", "dtype"), [(3, float), (7, float), (7, np.float32)])
@EACH_ADVANTAGE
def test_equal_rewards_have_no_advantage_at_all(advantage, count, dtype):
    assert advantage(jnp.full(count, 0.1, dtype)).tolist() == [0.0] * count


# PPO

PPO = pytest.mark.parametrize("function", [ppo_clip_objective, ppo_clip_loss], ids=lambda f: f.__name__)


def test_ppo_clip_objective_is_the_sum_over_the_outcomes_of_the_worse_of_two_terms():
    policy, old, _, advantage, _ = random_problem(31, outcomes=40)
    ratio = policy / old
    for clip in (0.0, 0.2, 0.9, 3.0):
        total = 0.0
        for q, r, a in zip(old, ratio, advantage, strict=True):
            total += q * a * (min(r, 1 + clip) if a > 0 else max(r, 1 - clip))
        got = quick_jit(rz.ppo_clip_objective)(log(policy), log(old), jnp.asarray(advantage), clip)
        np.testing.assert_allclose(got, total, rtol=1e-12)
    assert len({(r > 1.2, r < 0.8, a > 0) for r, a in zip(ratio, advantage, strict=True)}) == 6


def test_ppo_at_the_old_policy_climbs_the_expected_advantage():
    _, slope = value_and_gradient(lambda log_policy: ppo_clip_objective(log_policy, log(POLICY), REWARD))
    np.testing.assert_allclose(slope, POLICY * (REWARD - POLICY @ REWARD), rtol=1e-12)


@PPO
def test_ppo_stops_only_where_the_ratio_has_left_the_interval_for_the_better(function):
    old, ratio, advantage = np.full(4, 0.25), np.array([1.5, 0.5, 1.5, 0.5]), np.array([1.0, -2.0, -3.0, 4.0])
    slope = quick_jit(jax.grad(function))(log(old * ratio), log(old), jnp.asarray(advantage))
    sign = 1 if function is ppo_clip_objective else -1
    np.testing.assert_allclose(slope, sign * old * ratio * advantage * [0.0, 0.0, 1.0, 1.0], rtol=1e-12)


@PPO
def test_ppo_holds_the_old_policy_and_the_advantage_fixed(function):
    slope, *fixed = quick_jit(jax.grad(function, argnums=(0, 1, 2)))(log(POLICY), log(OLD), REWARD)
    assert slope.any()
    assert not np.any(fixed)


@pytest.mark.parametrize("advantage", [5.0, -5.0, np.inf])
def test_ppo_never_looks_where_the_old_policy_never_goes(advantage):
    log_policy, log_old, advantage = log([0.5, 0.2, 0.3]), log([0.4, 0.6, 0.0]), jnp.array([1.0, 2.0, advantage])
    value, slope = quick_jit(jax.value_and_grad(ppo_clip_objective))(log_policy, log_old, advantage)
    np.testing.assert_allclose(value, 0.4 * 1.2 + 2 * 0.2, rtol=1e-12)
    np.testing.assert_allclose(slope, [0.0, 0.4, 0.0], rtol=1e-12)


@pytest.mark.parametrize(("advantage", "value", "slope"), [(3.0, 0.5, 0.0), (0.0, 0.5, 0.0), (-3.0, -1.0, -1.5)])
@pytest.mark.parametrize(("far", "dtype"), [(-1000.0, float), (-120.0, np.float32)])
def test_ppo_survives_a_ratio_beyond_the_floats(far, dtype, advantage, value, slope):
    args = jnp.log(jnp.array([0.5, 0.5], dtype)), jnp.array([far, 0.0], dtype), jnp.array([advantage, 1.0], dtype)
    got, slopes = quick_jit(jax.value_and_grad(ppo_clip_objective))(*args)
    loss, loss_slopes = quick_jit(jax.value_and_grad(ppo_clip_loss))(*args)
    np.testing.assert_allclose(got, value, rtol=1e-6)
    np.testing.assert_allclose(slopes, [slope, 0.5], rtol=1e-6)
    np.testing.assert_allclose(loss, np.inf if advantage < 0 else -(1.2 * advantage + 0.5) / 2, rtol=1e-6)
    np.testing.assert_allclose(loss_slopes, [np.inf if advantage < 0 else 0.0, -0.25], rtol=1e-6)


# SimPO


def simpo_loss(log_prob_chosen, log_prob_rejected):
    return rz.simpo_loss(log_prob_chosen, log_prob_rejected, 2.5, 0.7)


def expected_simpo(log_policy, log_rejected, log_chosen):
    return rz.expected_simpo_loss(log_policy, log_chosen, log_rejected, 2.5, 0.7)


SIMPO_LOSSES = {
    "expected": (lambda lp: expected_simpo(lp, log(REF), log(TARGET)), np.outer(TARGET, REF)),
    "sampled": (lambda lp: simpo_loss(*lp[PAIRS.T]), np.full((4, 4), 1 / 16)),
}


@pytest.mark.parametrize(("loss", "weights"), SIMPO_LOSSES.values(), ids=SIMPO_LOSSES)
def test_simpo_losses_and_their_gradients_are_sums_over_pairs_of_outcomes(loss, weights):
    want, want_slope = 0.0, np.zeros(4)
    for i, j in PAIRS:
        odds_against = np.exp(0.7) * (POLICY[j] / POLICY[i]) ** 2.5
        want += weights[i, j] * np.log1p(odds_against)
        step = 2.5 * weights[i, j] * odds_against / (1 + odds_against)
        want_slope += step * (np.eye(4)[j] - np.eye(4)[i])  # the normaliser cancels from the gap
    value, slope = value_and_gradient(loss)
    np.testing.assert_allclose(value, want, rtol=1e-12)
    np.testing.assert_allclose(slope, want_slope, rtol=1e-11, atol=1e-14)


def test_an_impossible_chosen_answer_costs_everything_and_an_impossible_rejected_one_nothing():
    chosen, rejected = jnp.array([[-1.0, -jnp.inf], [-1.0, -1.0]]), jnp.array([[-1.0, -1.0], [-1.0, -jnp.inf]])
    np.testing.assert_allclose(simpo_loss(chosen, rejected), [np.inf, np.log1p(np.exp(0.7)) / 2], rtol=1e-12)
    assert simpo_loss(chosen[0, 1:], rejected[1, 1:]) == np.inf
    for slopes in quick_jit(jax.jacobian(simpo_loss, argnums=(0, 1)))(chosen, rejected):
        assert np.isfinite(slopes).all()


def test_expected_simpo_loss_holds_at_impossible_answers_and_is_infinite_where_one_is_preferred():
    policy, rejected = log([0.4, 0.6, 0.0]), log([0.2, 0.3, 0.5])
    loss = quick_jit(jax.value_and_grad(expected_simpo, argnums=(0, 1)))
    (value, slopes), (limit, inside) = (loss(x, rejected, log([0.5, 0.5, 0.0])) for x in (policy, policy.clip(-1e4)))
    np.testing.assert_allclose(value, limit, rtol=1e-12)
    np.testing.assert_allclose(slopes, inside, atol=1e-12)
    value, slopes = loss(policy, rejected, log([0.5, 0.4, 0.1]))
    assert value == np.inf
    assert np.isfinite(slopes[0]).all()


# Contract


def grpo_objective(log_policy, accept):
    return rz.grpo_objective(log_policy, accept, 4)


def dr_grpo_objective(log_policy, reward):
    return rz.dr_grpo_objective(log_policy, reward, 4)


SIMPO_NUMBERS = {"beta": (1.0, 2.5, 0.1), "margin": (1.0, 0.0, -0.5)}
EXACT = [
    Contract(grpo_objective, ("log_policy", "accept")),
    Contract(dr_grpo_objective, ("log_policy", "reward")),
    Contract(rz.ppo_clip_objective, ("log_policy", "log_old", "advantage"), {"clip": (0.2, 0.0, 0.5)}),
    Contract(rz.expected_simpo_loss, ("log_policy", "log_chosen", "log_rejected"), SIMPO_NUMBERS),
]
SAMPLED = [
    Contract(rz.reinforce_loss, ("log_prob", "advantage")),
    Contract(rz.rloo_advantage, ("reward",)),
    Contract(rz.dr_grpo_advantage, ("reward",)),
    Contract(rz.grpo_advantage, ("reward",)),
    Contract(ppo_clip_loss, ("log_prob", "log_prob_old", "advantage")),
    Contract(simpo_loss, ("log_prob_chosen", "log_prob_rejected")),
    Contract(rz.kl_penalty_loss, ("log_prob", "log_prob_ref")),
]
SHARED_REFUSALS = [case for case in refused_by(SAMPLED) if case.values[0] is not assert_outcome_axes_must_match]


@pytest.mark.parametrize(("keeps", "case"), compiled_by(EXACT + SAMPLED) + kept_by(EXACT + SAMPLED))
def test_contract(keeps, case):
    keeps(case)


@pytest.mark.parametrize(("refuses", "case"), refused_by(EXACT) + SHARED_REFUSALS)
def test_refusals(refuses, case, as_installed):
    refuses(case)


@pytest.mark.parametrize("case", [case for case in SAMPLED if len(case.arrays) > 1], ids=lambda c: c.function.__name__)
def test_sample_axes_must_match(case, as_installed):
    for position, name in enumerate(case.arrays[1:], start=1):
        for samples in (4, 6) if name == "advantage" else (1, 4, 6):  # one advantage is that of every sample
            arrays = case.inputs((3,))
            arrays[position] = case.draw(name, (3,), samples)
            with pytest.raises(ValueError, match=rf"{name} has {samples} (samples|pairs)"):
                case.function(*arrays)


P, GROUP, SCALE = log([0.5, 0.5]), "group_size must be at least 2, got 1", "must be at least 0, got -1.0"


@pytest.mark.parametrize(
    ("function", "args", "error", "message"),
    [
        (rz.grpo_coefficient, (0.5, 1), ValueError, GROUP),
        (rz.grpo_coefficient, (jnp.array([0, 1]), 4), TypeError, "success must be a floating array"),
        (rz.grpo_objective, (P, P > 0, 1), ValueError, GROUP),
        (rz.dr_grpo_objective, (P, P, 1), ValueError, GROUP),
        *((f, (jnp.ones((3, 1)),), ValueError, "samples of reward must be at least 2, got 1") for f in ADVANTAGES),
        (rz.ppo_clip_objective, (P, P, P, -1.0), ValueError, "clip " + SCALE),
        (rz.ppo_clip_loss, (P, P, P, -1.0), ValueError, "clip " + SCALE),
        (rz.expected_simpo_loss, (P, P, P, -1.0, 1.0), ValueError, "beta must be above 0, got -1.0"),
        (rz.simpo_loss, (P, P, -1.0, 1.0), ValueError, "beta must be above 0, got -1.0"),
    ],
)
def test_other_values_are_refused_by_name(function, args, error, message, as_installed):
    with pytest.raises(error, match=message):
        function(*args)
