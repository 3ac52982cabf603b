"""Reference x reward -> optimal policy and back, against mpmath, enumeration, finite differences and brute force."""

import functools
import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz
from tests import oracles
from tests.oracles import (
    MP,
    Contract,
    assert_derivatives_match_differences,
    assert_derivatives_match_limit,
    dirichlet_logs,
    exact,
    floats,
    kept_by,
    normalized,
    quick_jit,
    refused_by,
    relative_error,
)

INF, NAN = np.inf, np.nan
BETAS = [1e-6, 1e-3, 0.3, 1.0, 40.0, 1e3, 1e6]


def _problems():
    """(log_ref, reward), `[rows, 5]`: plain, tiny, huge and offset rewards, ties, forbidden and impossible outcomes."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(10, 5)) * np.array([1, 1, 1, 1, 10, 100, 1, 1, 1, 1])[:, None]
    reward = rng.normal(size=(10, 5))
    reward[1] *= 1e-4
    reward[2] *= 1e4 / np.abs(reward[2]).max()
    reward[3] += 1e4
    reward[6] = [1.0, 0.0, 1.0, 0.5, -1e4]
    reward[7, [0, 3]] = -INF
    logits[8, [1, 4]] = -INF
    logits[9, [1, 4]] = -INF
    reward[9, [1, 2]] = -INF  # the best outcome of the others may be impossible
    reward[9, 4] = 50.0
    return jax.jit(jax.nn.log_softmax)(jnp.asarray(logits)), jnp.asarray(reward)


LOG_REF, REWARD = _problems()
REF = [normalized(row) for row in LOG_REF]

tilt = jax.jit(rz.tilt)
condition = jax.jit(rz.condition)
log_partition = jax.jit(rz.log_partition)
tilt_to_reward = quick_jit(rz.tilt_to_reward)
tilt_to_kl = quick_jit(rz.tilt_to_kl)
best_of_n = jax.jit(rz.best_of_n)
kl_divergence = jax.jit(rz.kl_divergence)


# tilt


@pytest.mark.parametrize("beta", BETAS)
def test_tilt_matches_mpmath(beta):
    got = np.asarray(tilt(LOG_REF, REWARD, beta))
    want = np.array([floats(oracles.tilt(p, r, beta)) for p, r in zip(REF, REWARD, strict=True)])
    np.testing.assert_array_equal(np.isinf(got), np.isinf(want))
    # A gap in reward enters as gap / beta, rounded relative to itself, and so does log ref, up to 300 here.
    np.testing.assert_allclose(got, want, rtol=1e-14, atol=1e-13)


def test_tilt_at_beta_0_is_ref_on_the_best_outcomes():
    log_ref = jnp.log(jnp.array([0.1, 0.3, 0.2, 0.4]))
    reward = jnp.array([[2.0, 2.0, 1.0, 0.0], [1.0, 0.0, 1e-300, -INF], [-INF, -5.0, -5.0, -6.0]])
    want = [[0.25, 0.75, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.6, 0.4, 0.0]]
    np.testing.assert_allclose(jnp.exp(tilt(log_ref, reward, 0.0)), want, rtol=1e-15)


def test_tilt_at_beta_0_ignores_impossible_outcomes():
    log_ref = jnp.log(jnp.array([0.5, 0.25, 0.25, 0.0]))
    got = jnp.exp(tilt(log_ref, jnp.array([0.0, 1.0, 1.0, 9.0]), 0.0))
    np.testing.assert_allclose(got, [0.0, 0.5, 0.5, 0.0], rtol=1e-15)


def test_tilt_at_infinite_beta_is_ref_on_the_allowed_outcomes():
    log_ref = jnp.log(jnp.array([0.1, 0.3, 0.2, 0.4]))
    got = jnp.exp(tilt(log_ref, jnp.array([[3.0, -1e4, 0.0, 7.0], [3.0, -INF, 0.0, -INF]]), INF))
    np.testing.assert_allclose(got, [[0.1, 0.3, 0.2, 0.4], [1 / 3, 0.0, 2 / 3, 0.0]], rtol=1e-15)


@pytest.mark.parametrize("beta", [0.0, 1.0, INF])
def test_everything_forbidden_gives_minus_infinity_throughout(beta):
    log_ref = jnp.log(jnp.array([0.5, 0.5, 0.0, 0.0]))
    got = tilt(log_ref, jnp.array([[-INF] * 4, [-INF, -INF, 3.0, 0.0]]), beta)
    assert jnp.all(got == -INF)


def test_everything_forbidden_has_partition_function_zero():
    log_ref = jnp.log(jnp.array([0.5, 0.5, 0.0, 0.0]))
    reward = jnp.array([[-INF] * 4, [-INF, -INF, 3.0, 0.0]])
    assert log_partition(log_ref, reward, 1.0).tolist() == [-INF, -INF]


def test_tilt_of_a_constant_reward_is_the_reference():
    for beta in (0.0, 1e-6, 1.0, INF):
        np.testing.assert_allclose(tilt(LOG_REF, jnp.full((10, 5), -7.0), beta), LOG_REF, rtol=1e-13, atol=1e-14)


def test_tilt_in_float32_with_extreme_rewards():
    log_ref, reward = (jnp.asarray(x, np.float32) for x in (LOG_REF, REWARD))
    for beta in (0.0, 1e-6, 1.0, 1e6, INF):
        got = tilt(log_ref, reward, beta)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(jnp.exp(got).sum(-1), 1.0, rtol=1e-6)


def test_tilting_twice_adds_the_rewards():
    other = jnp.flip(REWARD[:2], axis=-1)
    twice = tilt(tilt(LOG_REF[:2], REWARD[:2], 2.0), other, 2.0)
    np.testing.assert_allclose(twice, tilt(LOG_REF[:2], REWARD[:2] + other, 2.0), rtol=1e-14, atol=1e-14)


def test_tilt_is_the_best_policy_among_random_ones():
    rng = np.random.default_rng(1)
    log_ref, reward, beta = LOG_REF[0], REWARD[0], 0.7
    policies = dirichlet_logs(rng, (2000, 5))
    near = jax.nn.log_softmax(tilt(log_ref, reward, beta)[None] + 1e-3 * rng.normal(size=(2000, 5)))

    @jax.jit
    def objective(log_policy):
        return (jnp.exp(log_policy) * (reward[None] - beta * (log_policy - log_ref[None]))).sum(-1)

    best = objective(tilt(log_ref, reward, beta)[None])[0]
    assert jnp.all(objective(policies) < best)
    assert jnp.all(objective(near) < best)
    assert best == pytest.approx(float(beta * log_partition(log_ref, reward, beta)), rel=1e-13)


# log_partition


@pytest.mark.parametrize("beta", BETAS)
def test_log_partition_matches_mpmath(beta):
    got = np.asarray(log_partition(LOG_REF, REWARD, beta))
    want = floats([oracles.log_sum(oracles.log_weights(p, r, beta)) for p, r in zip(REF, REWARD, strict=True)])
    scale = np.abs(np.where(np.isinf(REWARD), 0.0, REWARD)).max(-1) / beta  # top / beta is rounded relative to itself
    np.testing.assert_array_less(np.abs(got - want), 2e-16 * scale + 1e-13 * np.abs(want) + 1e-15)


@pytest.mark.parametrize("beta", [1e3, 1e6, 1e9, 1e12])
def test_beta_log_partition_stays_accurate_as_beta_grows(beta):
    allowed = np.isfinite(REWARD).all(-1)
    got = beta * np.asarray(log_partition(LOG_REF, REWARD, beta))[allowed]
    rows = zip(REF, REWARD, allowed, strict=True)
    want = floats([beta * oracles.log_sum(oracles.log_weights(p, r, beta)) for p, r, ok in rows if ok])
    # 1e-10 absolute for rewards of order 1, relative to rewards of 1e4.
    np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-10 if beta < 1e7 else 1e-13)


def test_log_partition_where_its_two_formulas_meet():
    """E_ref[x] + log(1 + ...) takes over once no reward is beta away from the mean."""
    log_ref, reward = LOG_REF[0], REWARD[0]
    widest = np.abs(REWARD[0] - np.exp(log_ref) @ np.asarray(reward)).max()
    betas = widest * np.array([1 - 1e-3, 1 - 1e-12, 1 + 1e-12, 1 + 1e-3])
    got = log_partition(log_ref, reward, jnp.asarray(betas))
    want = floats([oracles.log_sum(oracles.log_weights(REF[0], reward, beta)) for beta in betas])
    assert relative_error(got, want).max() < 1e-14


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("beta", [0.1, 0.7, 1.9, 2.1, 30.0, 1e4])
def test_an_extreme_row_changes_no_other(beta, dtype):
    """The textbook formulas serve where all rows allow it; next to an extreme row the exact forms serve all."""
    rng = np.random.default_rng(0)
    log_ref = jax.nn.log_softmax(jnp.asarray(rng.normal(size=(5, 7)), dtype))
    reward = jnp.asarray(rng.uniform(-1, 1, size=(5, 7)), dtype)
    extreme = reward.at[-1, 0].set(-INF).at[-1, 1].set(1e30)
    for function in (tilt, log_partition):
        alone, beside = (quick_jit(function)(log_ref, x, beta)[:-1] for x in (reward, extreme))
        np.testing.assert_allclose(alone, beside, rtol=30 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps / beta)
    rows = [(np.exp(p.astype(float)), r) for p, r in zip(*map(np.asarray, (log_ref, reward)), strict=True)]
    sums = [[oracles.log_sum(oracles.log_weights(p, x, beta)) for x in (r, 0 * r)] for p, r in rows]
    want = floats([of_all - of_ref for of_all, of_ref in sums])  # the reference sums to 1 but for its rounding
    np.testing.assert_allclose(
        quick_jit(log_partition)(log_ref, reward, beta),
        want,
        rtol=60 * np.finfo(dtype).eps,
        atol=np.finfo(dtype).eps / beta,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("beta", [0.5, 3.0, 1e3, 1e6])
def test_log_partition_of_a_fair_coin_is_log_cosh(beta, dtype):
    """Its mean is nothing, so that all digits are those of the spread."""
    log_ref, reward = jnp.log(jnp.full(2, 0.5, dtype)), jnp.array([-1.0, 1.0], dtype)
    want = float(MP.log(MP.cosh(1 / MP.mpf(beta))))
    assert quick_jit(log_partition)(log_ref, reward, beta) == pytest.approx(want, rel=float(20 * np.finfo(dtype).eps))


def test_log_partition_at_infinite_beta_is_the_log_mass_of_the_allowed():
    log_ref = jnp.log(jnp.array([0.1, 0.3, 0.2, 0.4]))
    got = log_partition(log_ref, jnp.array([[3.0, -1e4, 0.0, 7.0], [3.0, -INF, 0.0, -INF]]), INF)
    np.testing.assert_allclose(got, [0.0, np.log(0.3)], rtol=1e-15, atol=1e-15)


# implied_reward and condition


@pytest.mark.parametrize("beta", [0.01, 1.0, 1e4])
def test_implied_reward_inverts_tilt_up_to_beta_log_z(beta):
    got = jax.jit(rz.implied_reward)(tilt(LOG_REF, REWARD, beta), LOG_REF, beta)
    possible = np.asarray((LOG_REF > -INF) & (REWARD > -INF))
    want = np.asarray(REWARD) - np.asarray(beta * log_partition(LOG_REF, REWARD, beta))[:, None]
    scale = beta * np.abs(np.where(possible, LOG_REF, 0.0)).max() + 1e4
    np.testing.assert_allclose(np.asarray(got)[possible], want[possible], atol=1e-14 * scale)
    assert np.all(np.asarray(got)[~possible] == -INF)


def test_implied_reward_of_a_policy_outside_the_reference_is_infinite():
    log_policy, log_ref = jnp.log(jnp.array([[0.5, 0.0, 0.5, 0.0], [0.5, 0.5, 0.0, 0.0]]))
    got = jax.jit(rz.implied_reward)(log_policy, log_ref, 2.0)
    assert got.tolist() == [0.0, -INF, INF, -INF]


def test_implied_reward_has_partition_function_one():
    log_policy, log_ref = dirichlet_logs(np.random.default_rng(2), (2, 5))
    reward = rz.implied_reward(log_policy, log_ref, 0.3)
    np.testing.assert_allclose(log_partition(log_ref, reward, 0.3), 0.0, atol=1e-15)
    np.testing.assert_allclose(tilt(log_ref, reward, 0.3), log_policy, rtol=1e-14)


@pytest.mark.parametrize("accept", [a for a in itertools.product([False, True], repeat=5) if any(a)])
def test_condition_is_bayes(accept):
    accept = np.array(accept)
    got = condition(LOG_REF[8], jnp.asarray(accept))  # a reference with two zeros
    mass = MP.fsum(p for p, ok in zip(REF[8], accept, strict=True) if ok)
    if mass == 0:
        assert jnp.all(got == -INF)
        return
    want = floats([p / mass if ok else 0 for p, ok in zip(REF[8], accept, strict=True)])
    np.testing.assert_allclose(jnp.exp(got), want, rtol=1e-14)
    np.testing.assert_allclose(kl_divergence(got, LOG_REF[8]), -float(MP.log(mass)), rtol=1e-13, atol=1e-15)


def test_condition_on_a_far_tail_keeps_its_accuracy():
    log_ref = jax.nn.log_softmax(jnp.array([0.0, -500.0, -501.0, -502.0]))
    got = jnp.exp(condition(log_ref, jnp.array([False, True, True, True])))
    want = np.exp([0.0, -1.0, -2.0]) / np.exp([0.0, -1.0, -2.0]).sum()
    np.testing.assert_allclose(got, [0.0, *want], rtol=2e-15)


def test_no_successful_policy_is_closer_than_the_conditioned_reference():
    log_ref, accept = LOG_REF[0], jnp.array([True, False, True, True, False])
    successful = dirichlet_logs(np.random.default_rng(3), (500, 5))
    successful = condition(successful, accept)
    assert jnp.all(kl_divergence(successful, log_ref) >= kl_divergence(condition(log_ref, accept), log_ref))


def test_condition_refuses_what_is_not_boolean(as_installed):
    for accept in (jnp.array([1, 0, 1, 1, 0]), jnp.array([1.0, 0.0, 1.0, 1.0, 0.0])):
        with pytest.raises(TypeError, match="accept"):
            rz.condition(LOG_REF[0], accept)
        with pytest.raises(TypeError, match="accept"):
            jax.jit(rz.condition)(LOG_REF[0], accept)


# tilt_to_reward and tilt_to_kl

SOLVABLE = [0, 6, 7, 8, 9]  # plain, ties, forbidden, impossible, both
FRACTIONS = [1e-12, 1e-9, 1e-6, 1e-3, 0.1, 0.5, 0.9, 1 - 1e-3, 1 - 1e-6, 1 - 1e-9, 1 - 1e-12]


def _oracle_policy(row, beta):
    return [MP.exp(x) for x in oracles.tilt(REF[row], REWARD[row], beta)]


def _reward_of(row, beta):
    return oracles.expectation(_oracle_policy(row, beta), REWARD[row])


def _ends(row):
    """(E[r], KL) at beta = inf and at beta = 0, in mpmath."""
    reward = [MP.mpf(float(r)) for r in REWARD[row]]
    allowed = [p if r > MP.ninf else MP.mpf(0) for p, r in zip(REF[row], reward, strict=True)]
    top = max(r for p, r in zip(allowed, reward, strict=True) if p > 0)
    best = MP.fsum(p for p, r in zip(allowed, reward, strict=True) if r == top)
    mass = MP.fsum(allowed)
    low = oracles.expectation([p / mass for p in allowed], reward)
    return (low, -MP.log(mass)), (top, -MP.log(best))


@pytest.mark.parametrize("row", SOLVABLE)
def test_tilt_to_reward_over_the_whole_attainable_range(row):
    (low, _), (high, _) = _ends(row)
    values = np.array([float(low + f * (high - low)) for f in FRACTIONS])
    got = tilt_to_reward(LOG_REF[row], REWARD[row], jnp.asarray(values))
    width = float(high - low)
    assert got.converged.all()
    np.testing.assert_allclose(got.reward, values, atol=2e-15 * width + 4e-16 * np.abs(values).max())
    assert np.all(np.diff(got.beta) < 0)
    for i, beta in enumerate(got.beta):  # the policy is the tilt at the reported beta, and KL is its KL
        policy = _oracle_policy(row, beta)
        np.testing.assert_allclose(jnp.exp(got.log_policy[i]), floats(policy), atol=1e-13)
        kl = float(oracles.kl(policy, REF[row]))  # of log-ratios of size sqrt(kl), with log-policies rounded by 1e-16
        assert got.kl[i] == pytest.approx(kl, rel=1e-12 + 4e-16 / np.sqrt(kl))
        np.testing.assert_allclose(values[i], float(_reward_of(row, beta)), atol=1e-14 * width)


@pytest.mark.parametrize("row", SOLVABLE)
def test_tilt_to_kl_over_the_whole_attainable_range(row):
    (_, low), (_, high) = _ends(row)
    budgets = np.array([float(low + f * (high - low)) for f in FRACTIONS])
    got = tilt_to_kl(LOG_REF[row], REWARD[row], jnp.asarray(budgets))
    assert got.converged.all()
    np.testing.assert_allclose(got.kl, budgets, atol=4e-15 * float(high))
    assert np.all(np.diff(got.beta) < 0)
    for i, beta in enumerate(got.beta):
        policy = _oracle_policy(row, beta)
        np.testing.assert_allclose(jnp.exp(got.log_policy[i]), floats(policy), atol=1e-13)
        np.testing.assert_allclose(budgets[i], float(oracles.kl(policy, REF[row])), atol=1e-14 * float(high))
        np.testing.assert_allclose(got.reward[i], float(_reward_of(row, beta)), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("beta", [0.1, 0.3, 5.0, 1e3])
def test_solvers_recover_the_beta_of_a_tilt(beta):
    log_ref, reward = LOG_REF[0], REWARD[0]
    policy = _oracle_policy(0, beta)
    value, budget = float(oracles.expectation(policy, reward)), float(oracles.kl(policy, REF[0]))
    by_reward, by_kl = tilt_to_reward(log_ref, reward, value).beta, tilt_to_kl(log_ref, reward, budget).beta
    assert by_reward == pytest.approx(beta, rel=1e-11)
    assert by_kl == pytest.approx(beta, rel=1e-11)


def test_exact_ends_are_attained_with_limiting_beta():
    log_ref, reward = LOG_REF[6], REWARD[6]
    best = np.exp(log_ref)[[0, 2]]
    at_ref, at_best = tilt_to_kl(log_ref, reward, 0.0), tilt_to_reward(log_ref, reward, 1.0)
    assert (at_ref.beta, at_best.beta) == (INF, 0.0)
    assert at_ref.converged
    assert at_best.converged
    np.testing.assert_allclose(at_ref.log_policy, log_ref, rtol=1e-14)
    np.testing.assert_allclose(jnp.exp(at_best.log_policy)[jnp.array([0, 2])], best / best.sum(), rtol=1e-14)
    assert at_best.kl == pytest.approx(-np.log(best.sum()), rel=1e-14)


@pytest.mark.parametrize("row", SOLVABLE)
def test_outside_the_range_the_nearest_end_without_convergence(row):
    (low_reward, low_kl), (high_reward, high_kl) = _ends(row)
    log_ref, reward = LOG_REF[row], REWARD[row]
    for solve, low, high in ((tilt_to_reward, low_reward, high_reward), (tilt_to_kl, low_kl, high_kl)):
        low, high = float(low), float(high)
        wrong = [-1e300, low - 1e3, low - 0.01, high + 0.01, high + 1e3, 1e300, -INF, INF, NAN, -NAN, low - 1.0]
        got = solve(log_ref, reward, jnp.asarray(wrong))
        assert not got.converged.any()
        assert not any(np.isnan(np.asarray(leaf)).any() for leaf in (got.log_policy, got.beta, got.kl))
        below, above = np.array([0, 1, 2, 6, 10]), np.array([3, 4, 5, 7])
        assert np.all(got.beta[below] == INF)
        assert np.all(got.beta[above] == 0)
        np.testing.assert_allclose(got.reward[below], float(low_reward), rtol=1e-13)
        np.testing.assert_allclose(got.reward[above], float(high_reward), rtol=1e-13)
        np.testing.assert_allclose(got.kl[above], float(high_kl), rtol=1e-12)


def test_a_constant_reward_attains_only_itself():
    constant = jnp.full(5, 0.3)
    values = jnp.asarray([0.3, 0.2, 0.4, NAN, INF, -INF, 0.3, 0.0, 1.0, 0.29, 0.31])
    got = tilt_to_reward(LOG_REF[0], constant, values)
    assert got.converged.tolist() == [v == 0.3 for v in values.tolist()]
    assert np.all(np.asarray(got.beta)[values == 0.3] == INF)  # the reference itself, not the limit of its tilts
    np.testing.assert_allclose(got.log_policy, jnp.broadcast_to(LOG_REF[0], (11, 5)), rtol=1e-13)
    assert not jnp.isnan(got.beta).any()
    got = tilt_to_kl(LOG_REF[0], constant, jnp.asarray([0.0, 0.1, -0.1, NAN, INF, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
    assert got.converged.tolist() == [True, False, False, False, False] + [True] * 6
    assert not jnp.isnan(got.beta).any()


def test_everything_forbidden_converges_nowhere():
    values = jnp.array([-1.0, 0.0, 0.5, 1.0])  # among them the "reward" 0 and the "KL" 1 of no policy at all
    for solve in (tilt_to_reward, tilt_to_kl):
        got = solve(LOG_REF[0], jnp.full(5, -INF), values)
        assert not got.converged.any()
        assert jnp.all(got.log_policy == -INF)


def test_solvers_work_in_float32():
    (low_reward, low_kl), (high_reward, high_kl) = _ends(0)
    log_ref, reward = LOG_REF[0].astype(np.float32), REWARD[0].astype(np.float32)
    fractions = np.array([1e-4, 1e-2, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999, 0.9999, 0.2])
    for solve, low, high in ((tilt_to_reward, low_reward, high_reward), (tilt_to_kl, low_kl, high_kl)):
        target = (float(low) + fractions * float(high - low)).astype(np.float32)
        got = solve(log_ref, reward, jnp.asarray(target))
        assert got.log_policy.dtype == got.beta.dtype == got.kl.dtype == got.reward.dtype == jnp.float32
        assert got.converged.all()
        achieved = got.reward if solve is tilt_to_reward else got.kl
        np.testing.assert_allclose(achieved, target, atol=3e-6)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_solvers_do_not_care_about_the_units_of_reward(scale, offset):
    plain = tilt_to_kl(LOG_REF[0], REWARD[0], 0.1)
    scaled = tilt_to_kl(LOG_REF[0], scale * (REWARD[0] + offset), 0.1)
    tolerance = 1e-9 * (1 + offset)  # the offset rounds the differences away
    np.testing.assert_allclose(scaled.log_policy, plain.log_policy, atol=tolerance)
    assert scaled.beta == pytest.approx(scale * float(plain.beta), rel=tolerance)
    assert scaled.converged
    by_reward = tilt_to_reward(LOG_REF[0], scale * (REWARD[0] + offset), scaled.reward)
    assert by_reward.converged
    np.testing.assert_allclose(by_reward.log_policy, plain.log_policy, atol=tolerance)


def test_solvers_broadcast_over_batches():
    log_ref, reward = LOG_REF[:4, None], jnp.stack([REWARD[0], REWARD[6], REWARD[8]])
    got = tilt_to_kl(log_ref, reward, jnp.array([0.01, 0.02, 0.03]))
    assert got.log_policy.shape == (4, 3, 5)
    assert got.beta.shape == got.kl.shape == got.reward.shape == got.converged.shape == (4, 3)
    one = tilt_to_kl(log_ref[2, 0], reward[1], 0.02)
    np.testing.assert_allclose(got.log_policy[2, 1], one.log_policy, rtol=1e-13)


def test_no_policy_of_equal_reward_is_closer():
    policies = dirichlet_logs(np.random.default_rng(5), (300, 5))
    log_ref, reward = LOG_REF[0], REWARD[0]
    values = np.exp(policies) @ np.asarray(reward)
    (low, _), (high, _) = _ends(0)
    inside = (values > float(low)) & (values < float(high))
    got = tilt_to_reward(log_ref, reward, jnp.asarray(values))
    assert inside.sum() > 50
    assert np.array_equal(got.converged, inside)
    rivals = np.asarray(kl_divergence(policies, log_ref))
    assert np.all(np.asarray(got.kl)[inside] <= rivals[inside])


def test_no_policy_of_equal_kl_earns_more():
    policies = dirichlet_logs(np.random.default_rng(6), (300, 5))
    budgets = kl_divergence(policies, LOG_REF[0])
    got = tilt_to_kl(LOG_REF[0], REWARD[0], budgets)
    assert np.all(np.asarray(got.reward) >= np.exp(policies) @ np.asarray(REWARD[0]))


def test_the_reverse_envelope_price_of_reward_is_one_over_beta():
    values = jnp.linspace(float(_ends(0)[0][0]), float(_ends(0)[1][0]), 13)[1:-1]
    slope = quick_jit(jax.vmap(jax.value_and_grad(lambda v: rz.tilt_to_reward(LOG_REF[0], REWARD[0], v).kl)))
    np.testing.assert_allclose(slope(values)[1], 1 / tilt_to_reward(LOG_REF[0], REWARD[0], values).beta, rtol=1e-9)
    budgets = jnp.linspace(0, float(_ends(0)[1][1]), 13)[1:-1]
    slope = quick_jit(jax.vmap(jax.value_and_grad(lambda b: rz.tilt_to_kl(LOG_REF[0], REWARD[0], b).reward)))
    np.testing.assert_allclose(slope(budgets)[1], tilt_to_kl(LOG_REF[0], REWARD[0], budgets).beta, rtol=1e-9)


@pytest.mark.parametrize("solve", [rz.tilt_to_reward, rz.tilt_to_kl], ids=lambda f: f.__name__)
def test_solver_gradients_match_finite_differences(solve):
    weights = jnp.array([0.3, -1.0, 0.7, 0.2, 0.4])

    def function(x):
        got = solve(jax.nn.log_softmax(x[:5]), x[5:10], x[10])
        return got.log_policy @ weights + 2 * got.beta - 0.5 * got.reward + 3 * got.kl

    loss = quick_jit(function)
    target = {"tilt_to_reward": 0.5 * float(_ends(0)[0][0] + _ends(0)[1][0]), "tilt_to_kl": 0.2}[solve.__name__]
    x = jnp.concatenate([LOG_REF[0], REWARD[0], jnp.array([target])])
    slopes, forward = quick_jit(lambda x: (jax.grad(function)(x), jax.jacfwd(function)(x)))(x)
    differences = [(loss(x.at[i].add(1e-5)) - loss(x.at[i].add(-1e-5))) / 2e-5 for i in range(11)]
    np.testing.assert_allclose(slopes, differences, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(forward, slopes, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("solve", [rz.tilt_to_reward, rz.tilt_to_kl], ids=lambda f: f.__name__)
@pytest.mark.parametrize("target", ["inside", "low", "high", "below", "above"])
def test_solver_gradients_are_never_nan(solve, target):
    (low_reward, low_kl), (high_reward, high_kl) = _ends(9)
    low, high = (low_reward, high_reward) if solve is rz.tilt_to_reward else (low_kl, high_kl)
    low, high = float(low), float(high)
    value = {"inside": (low + high) / 2, "low": low, "high": high, "below": low - 1, "above": high + 1}[target]
    slopes = _solver_slopes(solve)(LOG_REF[9], REWARD[9], value)
    assert all(jnp.isfinite(slope).all() for slope in slopes)


@functools.cache
def _solver_slopes(solve):
    def loss(logits, reward, value):
        got = solve(jax.nn.log_softmax(logits), reward, value)
        return got.reward + got.kl + jnp.where(got.log_policy > -INF, got.log_policy, 0.0).sum()

    return quick_jit(jax.grad(loss, argnums=(0, 1, 2)))


# frontier


def test_frontier_matches_mpmath():
    betas = np.geomspace(0.05, 50, 9)
    got = jax.jit(rz.frontier)(LOG_REF, REWARD, jnp.asarray(betas))
    assert got.reward.shape == got.kl.shape == got.forward_kl.shape == (10, 9)
    np.testing.assert_array_equal(got.beta, betas)
    for row, i in itertools.product(SOLVABLE, range(9)):
        policy = _oracle_policy(row, betas[i])
        np.testing.assert_allclose(got.reward[row, i], float(_reward_of(row, betas[i])), rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(got.kl[row, i], float(oracles.kl(policy, REF[row])), rtol=1e-12)
        np.testing.assert_allclose(got.forward_kl[row, i], float(oracles.kl(REF[row], policy)), rtol=1e-12)


def test_frontier_slope_is_beta_and_both_coordinates_fall_with_beta():
    betas = jnp.geomspace(0.05, 50, 9)
    h = 1e-5
    curve = jax.jit(rz.frontier)
    down, up = (curve(LOG_REF[:1], REWARD[:1], betas * (1 + s * h)) for s in (-1, 1))
    np.testing.assert_allclose((up.reward - down.reward) / (up.kl - down.kl), betas[None], rtol=1e-6)
    middle = curve(LOG_REF[:1], REWARD[:1], betas)
    assert np.all(np.diff(middle.reward) < 0)
    assert np.all(np.diff(middle.kl) < 0)
    slope = np.diff(middle.reward) / np.diff(middle.kl)  # concave: the chords steepen with beta
    assert np.all(np.diff(slope) > 0)


def test_frontier_needs_a_list_of_betas(as_installed):
    for betas in (jnp.array(1.0), jnp.ones((2, 2))):
        with pytest.raises(ValueError, match="betas"):
            rz.frontier(LOG_REF[0], REWARD[0], betas)


# best_of_n

DRAWS = [
    ([0.1, 0.2, 0.3, 0.4], [0.0, 3.0, 1.0, 2.0]),
    ([0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 1.0, 0.0]),
    ([0.1, 0.2, 0.3, 0.4], [2.0, 2.0, 2.0, 2.0]),
    ([0.0, 0.2, 0.0, 0.8], [5.0, 1.0, 0.0, 0.5]),
    ([0.0, 0.5, 0.3, 0.2], [1.0, 1.0, -INF, -INF]),
    ([0.5, 0.0, 0.3, 0.2], [-INF, -INF, -1.0, 4.0]),
    ([1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 3.0]),
]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize(("ref", "reward"), DRAWS)
def test_best_of_n_matches_the_enumeration_of_all_draws(ref, reward, n):
    exact_ref = [Fraction(x).limit_denominator(100) for x in ref]
    want = [Fraction(0)] * 4
    for draws in itertools.product(range(4), repeat=n):
        weight = Fraction(1)
        for y in draws:
            weight *= exact_ref[y]
        want[max(draws, key=lambda y: reward[y])] += weight  # the first of equals
    got = jnp.exp(best_of_n(jnp.log(jnp.array(ref)), jnp.array(reward), n))
    np.testing.assert_allclose(got, [float(x) for x in want], rtol=1e-12, atol=0)


@pytest.mark.parametrize("n", [1.0, 1.5, 2.7, 64.0, 1e4, 1e12])
def test_best_of_n_matches_mpmath_for_real_n(n):
    got = best_of_n(LOG_REF[:9], REWARD[:9], n)
    want = np.array([floats(_best_of_n(p, r, n)) for p, r in zip(REF[:9], REWARD[:9], strict=True)])
    assert not np.isnan(got).any()
    # n log F: the rounding of F, 1e-16, is magnified by n; entries below -1e3 are measured relative to themselves.
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13 + 1e-15 * n)


def _best_of_n(p, reward, n):
    """Logs of (F(y)^n - F(y-)^n) ref(y) / ref(tie)."""
    n, logs = MP.mpf(n), []
    pairs = [(x, float(r)) for x, r in zip(p, reward, strict=True)]
    for x, r in pairs:
        below, tie = (MP.fsum(y for y, s in pairs if keep(s, r)) for keep in (float.__lt__, float.__eq__))
        logs.append(MP.log(((below + tie) ** n - below**n) * x / tie) if x > 0 else MP.ninf)
    return logs


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_best_of_n_survives_underflowing_probabilities(dtype):
    logits = np.array([[0.0, -800.0, -801.0, -1.0], [-800.0, 0.0, -1000.0, -1.0], [-900.0, -900.0, -900.0, 0.0]])
    log_ref = jax.nn.log_softmax(jnp.asarray(logits, dtype))
    reward = jnp.asarray([[0.0, 1.0, 1.0, 2.0], [0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 1.0, 2.0]], dtype)
    got = best_of_n(log_ref, reward, 3)
    with MP.workdps(1000):  # F(y) - F(y-) is as small as 1e-434
        want = np.array([floats(_best_of_n(normalized(p), r, 3)) for p, r in zip(log_ref, reward, strict=True)])
    np.testing.assert_allclose(got, want, rtol=1e-6 if dtype == np.float32 else 1e-12, atol=1e-6)


def test_best_of_n_at_n_1_is_the_reference():
    np.testing.assert_allclose(jnp.exp(best_of_n(LOG_REF, REWARD, 1.0)), jnp.exp(LOG_REF), rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("n", [1.0, 1.7, 8.0, 1e3])
def test_best_of_n_stays_within_its_kl_bound(n):
    got = best_of_n(LOG_REF, REWARD, n)
    np.testing.assert_allclose(jnp.exp(got).sum(-1), 1.0, rtol=1e-12)
    assert jnp.all(kl_divergence(got, LOG_REF) <= np.log(n) - (n - 1) / n + 1e-14)


def test_best_of_n_on_many_outcomes_nearly_attains_its_bound():
    outcomes, n = 20_000, 8
    policy = best_of_n(jnp.full(outcomes, -np.log(outcomes)), jnp.arange(float(outcomes)), n)
    got = float(kl_divergence(policy, jnp.full(outcomes, -np.log(outcomes))))
    assert got == pytest.approx(1.2044415348, abs=1e-10)
    wins = [Fraction(i**n - (i - 1) ** n, outcomes**n) for i in range(1, outcomes + 1)]
    want = sum(float(w) * (np.log(float(w)) + np.log(outcomes)) for w in wins)
    assert got == pytest.approx(want, rel=1e-12)
    assert got < np.log(n) - (n - 1) / n


def test_best_of_n_earns_no_more_than_the_tilt_of_its_kl():
    for n in (2.0, 4.0, 16.0):
        policy = best_of_n(LOG_REF[:1], REWARD[:1], n)
        best = tilt_to_kl(LOG_REF[:1], REWARD[:1], kl_divergence(policy, LOG_REF[:1]))
        assert jnp.all(best.converged)
        assert jnp.all((jnp.exp(policy) * REWARD[:1]).sum(-1) <= best.reward)


# Derivatives


@functools.cache
def derivatives_of(function):
    def loss(x, number):
        out = function(jax.nn.log_softmax(x[0]), x[1], number)
        weights = jnp.array([0.3, -1.0, 0.7, 0.2, 0.4])
        return out if out.ndim == 0 else jnp.where(out > -1e3, jnp.where(out > -1e3, out, 0.0) * weights, 0.0).sum()

    def derivatives(x, number):
        return loss(x, number), jax.grad(loss)(x, number), jax.hessian(loss)(x, number)

    return quick_jit(derivatives)


def objective(log_policy, reward, beta):
    log_ref = jnp.log(jnp.array([0.3, 0.1, 0.2, 0.3, 0.1]))
    return rz.regularized_reward(log_policy, log_ref, reward, beta)


def odds(log_policy, x, beta):
    return rz.implied_reward(log_policy, jax.nn.log_softmax(x), beta)


def best(log_ref, reward, n):
    return rz.best_of_n(log_ref, jax.lax.stop_gradient(reward), n)


INSIDE = jnp.array([[0.3, -1.2, 1.0, 0.1, 0.7], [0.25, 0.7, -0.8, 0.4, 0.5]])


@pytest.mark.parametrize("number", [0.4, 3.0])
@pytest.mark.parametrize("function", [rz.tilt, rz.log_partition, odds])
def test_derivatives_inside_match_finite_differences(function, number):
    assert_derivatives_match_differences(lambda x: derivatives_of(function)(x, number), INSIDE)


def test_best_of_n_derivatives_match_finite_differences():
    derivatives = derivatives_of(best)

    def by_logits(logits):
        value, gradient, hessian = derivatives(jnp.stack([logits, INSIDE[1]]), 2.5)
        return value, gradient[0], hessian[0, :, 0]

    assert_derivatives_match_differences(by_logits, INSIDE[0])


@pytest.mark.parametrize("number", [0.4, 3.0])
@pytest.mark.parametrize("function", [rz.tilt, rz.log_partition, objective])
def test_derivatives_where_the_reference_vanishes(function, number):
    x = INSIDE.at[0, jnp.array([1, 3])].set(-INF)
    assert_derivatives_match_limit(lambda x: derivatives_of(function)(x, number), x)


def test_best_of_n_derivatives_where_the_reference_vanishes():
    x = INSIDE.at[0, jnp.array([1, 3])].set(-INF)
    assert_derivatives_match_limit(lambda x: derivatives_of(best)(x, 2.5), x)


@pytest.mark.parametrize("function", [rz.tilt, rz.log_partition])
def test_derivatives_where_the_reward_forbids(function):
    x = INSIDE.at[1, jnp.array([1, 3])].set(-INF)
    assert_derivatives_match_limit(lambda x: derivatives_of(function)(x, 1.0), x)
    both = x.at[0, jnp.array([2, 3])].set(-INF)
    assert_derivatives_match_limit(lambda x: derivatives_of(function)(x, 1.0), both)


@pytest.mark.parametrize("beta", [0.0, INF])
@pytest.mark.parametrize("forbidden", [False, True])
def test_tilt_derivatives_at_limiting_beta_are_finite(beta, forbidden):
    x = INSIDE.at[1, jnp.array([1, 3])].set(-INF) if forbidden else INSIDE
    _, gradient, hessian = derivatives_of(rz.tilt)(x, beta)
    assert jnp.isfinite(gradient).all()
    assert jnp.isfinite(hessian).all()
    np.testing.assert_allclose(gradient[1], 0.0, atol=1e-15)  # at either end the size of the reward does not matter


@pytest.mark.parametrize("beta", [0.0, 1e-3, 1.0, INF])
def test_tilt_slope_in_beta_matches_mpmath(beta):
    def reward_of(beta):
        return jnp.exp(rz.tilt(LOG_REF[0], REWARD[0], beta)) @ REWARD[0]

    got = quick_jit(jax.grad(reward_of))(beta)
    want = 0.0
    if 0 < beta < INF:
        policy = _oracle_policy(0, beta)
        mean = oracles.expectation(policy, REWARD[0])
        want = -float(
            oracles.expectation(policy, [(MP.mpf(float(r)) - mean) ** 2 for r in REWARD[0]]) / MP.mpf(beta) ** 2
        )
    assert got == pytest.approx(want, rel=1e-9, abs=1e-15)


def test_log_partition_gradient_in_the_reward_is_the_policy():
    gradient = quick_jit(jax.grad(lambda r: 0.7 * rz.log_partition(LOG_REF, r, 0.7).sum()))(REWARD)
    np.testing.assert_allclose(gradient, jnp.exp(tilt(LOG_REF, REWARD, 0.7)), rtol=1e-11, atol=1e-14)


# Contract


def frontier(log_ref, reward):
    return rz.frontier(log_ref, reward, jnp.array([0.1, 1.0, 10.0], log_ref.dtype))[1:]


PUBLIC = [
    Contract(rz.log_partition, ("log_ref", "reward"), {"beta": (0.5, 1.0, 20.0)}),
    Contract(rz.tilt, ("log_ref", "reward"), {"beta": (0.5, 0.0, INF)}),
    Contract(rz.implied_reward, ("log_policy", "log_ref"), {"beta": (0.5, 1.0, 2.0)}),
    Contract(rz.condition, ("log_ref", "accept")),
    Contract(rz.tilt_to_reward, ("log_ref", "reward"), {"value": (0.5, 0.6, 9.0)}),
    Contract(rz.tilt_to_kl, ("log_ref", "reward"), {"budget": (0.05, 0.1, 9.0)}),
    Contract(frontier, ("log_ref", "reward")),
    Contract(rz.best_of_n, ("log_ref", "reward"), {"n": (2.0, 1.0, 3.5)}),
]


@pytest.mark.parametrize(("keeps", "case"), kept_by(PUBLIC))
def test_contract(keeps, case):
    keeps(case)


@pytest.mark.parametrize(("refuses", "case"), refused_by(PUBLIC))
def test_refusals(refuses, case, as_installed):
    refuses(case)


@pytest.mark.parametrize("beta", [-1.0, -1, NAN])
@pytest.mark.parametrize("function", [rz.tilt, rz.log_partition, rz.implied_reward], ids=lambda f: f.__name__)
def test_a_negative_beta_is_refused(function, beta, as_installed):
    with pytest.raises(ValueError, match="beta"):
        function(LOG_REF[0], LOG_REF[1], beta)
    with pytest.raises(ValueError, match="beta"):
        jax.jit(lambda log_ref: function(log_ref, LOG_REF[1], beta))(LOG_REF[0])


@pytest.mark.parametrize("n", [0, 0.5, -1, NAN])
def test_fewer_than_one_sample_is_refused(n, as_installed):
    with pytest.raises(ValueError, match="n must"):
        rz.best_of_n(LOG_REF[0], REWARD[0], n)
    with pytest.raises(ValueError, match="n must"):
        jax.jit(lambda log_ref: rz.best_of_n(log_ref, REWARD[0], n))(LOG_REF[0])


def test_integer_numbers_are_fine():
    for two in (2, jnp.array(2)):
        np.testing.assert_array_equal(tilt(LOG_REF[0], REWARD[0], two), tilt(LOG_REF[0], REWARD[0], 2.0))


UNDERFLOWS = [
    ([-1953.0, 0.0, -INF], [0.0, 1.0, 2.0]),
    ([-1953.0, 0.0, -INF], [1.0, 0.0, -1.0]),
    ([-1000.0, -0.7, -0.7], [0.0, 1.0, 1.0]),
    ([-50.0, -0.7, -0.7], [0.0, 1.0, 2.0]),
    ([-INF, -800.0, 0.0], [0.0, 1.0, 1.0]),
    ([-INF, -INF, 0.0], [0.0, 1.0, 2.0]),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1.0, 2.5])
@pytest.mark.parametrize(("log_ref", "reward"), UNDERFLOWS)
def test_best_of_n_derivatives_where_probabilities_underflow(log_ref, reward, n, dtype):
    log_ref, reward = jnp.asarray(log_ref, dtype), jnp.asarray(reward, dtype)

    def loss(log_ref, n):
        policy = rz.best_of_n(log_ref, reward, n)
        return jnp.where(policy > -INF, policy, 0.0) @ jnp.array([0.3, -1.0, 0.7], dtype)

    def want(shifts, n):
        logs = _best_of_n([MP.exp(MP.mpf(float(x)) + s) for x, s in zip(log_ref, shifts, strict=True)], reward, n)
        return MP.fsum(w * x for w, x in zip(map(MP.mpf, (0.3, -1.0, 0.7)), logs, strict=True) if x > MP.ninf)

    got = quick_jit(jax.jacrev(loss, argnums=(0, 1)))(log_ref, jnp.asarray(n, dtype))
    with MP.workdps(6000):
        h = MP.mpf("1e-20")
        by_ref = [(want(h * row, n) - want(-h * row, n)) / (2 * h) for row in np.eye(3, dtype=int)]
        by_n = (want([0] * 3, n + h) - want([0] * 3, n - h)) / (2 * h)
        by_ref, by_n = floats(by_ref), floats([by_n])[0]
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(got[0], by_ref, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(got[1], by_n, rtol=rtol, atol=rtol)


# Numbers next to the ends of their dtype


@pytest.mark.parametrize(("dtype", "compiled"), [(np.float32, False), (np.float32, True), (np.float64, True)])
def test_a_subnormal_beta_is_0_and_one_with_a_subnormal_reciprocal_is_infinite(dtype, compiled):
    info = np.finfo(dtype)
    log_ref = jnp.log(jnp.array([0.1, 0.3, 0.2, 0.4], dtype))
    rewards = jnp.array([[2.0, 2.0, 1.0, 0.0], [0.0, 0.0, -1.0, -2.0], [-3.0, -3.0, -4.0, -INF]], dtype)
    for function in (rz.tilt, rz.log_partition, lambda *x: rz.frontier(*x[:2], x[2][None])[1:]):
        call = jax.jit(function) if compiled else function
        for beta, limit in ((info.tiny / 2, 0.0), (info.smallest_subnormal, 0.0), (1.5 / info.tiny, INF)):
            got, want = (call(log_ref, rewards, jnp.asarray(b, dtype)) for b in (beta, limit))
            for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-6)
                assert not np.isnan(a).any()
    assert rz.log_partition(log_ref, rewards, jnp.asarray(0.0, dtype)).tolist() == [
        INF,
        pytest.approx(np.log(0.4)),
        -INF,
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("best", [1.0, 0.0, -1.0])
def test_derivatives_at_the_smallest_and_largest_beta_are_not_nan(dtype, best):
    info = np.finfo(dtype)
    reward, log_ref = jnp.array([best, best - 1, -INF], dtype), jnp.log(jnp.array([0.2, 0.3, 0.5], dtype))
    for beta in (info.tiny, info.tiny**0.5 / 2, info.max):
        beta = jnp.asarray(beta, dtype)
        tilted = quick_jit(jax.grad(lambda b: jnp.exp(rz.tilt(log_ref, reward, b))[0]))(beta)
        assert tilted == 0
        assert not jnp.isnan(quick_jit(jax.grad(lambda b: rz.log_partition(log_ref, reward, b)))(beta))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_barely_inside_the_range_converges_however_extreme_the_reference(dtype):
    rng = np.random.default_rng(8)
    log_ref = jax.nn.log_softmax(jnp.asarray(np.geomspace(1, 1e5, 60)[:, None] * rng.normal(size=(60, 5)), dtype))
    reward = jnp.asarray(rng.normal(size=(60, 5)), dtype)
    low, high = (jnp.exp(tilt(log_ref, reward, b)) for b in (INF, 0.0))
    low, high = (low * reward).sum(-1), (high * reward).sum(-1)
    for share in (1e-9, 0.5, 1 - 1e-9):
        got = tilt_to_reward(log_ref, reward, low + share * (high - low))
        assert got.converged.all()


def test_exact_and_normalised_oracles_differ_only_by_rounding():
    assert abs(MP.fsum(exact(LOG_REF[0])) - 1) < 1e-15
