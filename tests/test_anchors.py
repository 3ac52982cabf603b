"""Anchors: expected gradients of samples, closed forms of the penalised optima, and the controller's fixed point."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz
from tests.oracles import Contract, dirichlet_logs, kept_by, quick_jit, refused_by

RNG = np.random.default_rng(0)
LOG_POLICY, LOG_REF, LOG_PRETRAIN = dirichlet_logs(RNG, (3, 4))
REWARD = jnp.asarray(RNG.normal(size=4))
GROUPS = np.array(list(itertools.product(range(4), repeat=2)))
BETA, GAMMA, TAU = 0.3, 0.7, 0.4


def expected(loss):
    """The gradient of the mean loss of all pairs of samples, whose probabilities are held fixed."""
    masses = np.exp(LOG_POLICY)[GROUPS].prod(-1)
    return quick_jit(jax.grad(lambda z: masses @ loss(jax.nn.log_softmax(z))))(LOG_POLICY)


def exact(loss):
    return quick_jit(jax.grad(lambda z: loss(jax.nn.log_softmax(z))))(LOG_POLICY)


def test_reinforce_on_the_penalised_reward_descends_the_regularised_objective():
    def sampled(log_policy):
        log_prob, reward = log_policy[GROUPS], REWARD[GROUPS]
        return rz.reinforce_loss(log_prob, rz.penalized_reward(log_prob, LOG_REF[GROUPS], reward, BETA))

    want = exact(lambda log_policy: -rz.regularized_reward(log_policy, LOG_REF, REWARD, BETA))
    assert np.abs(want).max() > 1e-2
    np.testing.assert_allclose(expected(sampled), want, atol=1e-12)
    without = expected(lambda log_policy: rz.reinforce_loss(log_policy[GROUPS], REWARD[GROUPS]))
    assert np.abs(without - want).max() > 1e-2


def test_the_entropy_bonus_climbs_the_entropy_and_the_mean_surprise_climbs_nothing():
    want = exact(lambda log_policy: -rz.entropy(log_policy))
    np.testing.assert_allclose(expected(lambda lp: rz.entropy_bonus_loss(lp[GROUPS])), want, atol=1e-12)
    np.testing.assert_allclose(expected(lambda lp: lp[GROUPS].mean(-1)), 0.0, atol=1e-12)


def test_the_entropy_bonus_is_the_kl_penalty_to_a_uniform_reference():
    uniform = jnp.full(4, -jnp.log(4.0))
    got = rz.entropy_regularized_reward(LOG_POLICY, REWARD, TAU)
    want = rz.regularized_reward(LOG_POLICY, uniform, REWARD, TAU) + TAU * np.log(4)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    optimum = jax.nn.log_softmax(REWARD / TAU)
    slope = jax.grad(lambda z: rz.entropy_regularized_reward(jax.nn.log_softmax(z), REWARD, TAU))(optimum)
    np.testing.assert_allclose(slope, 0.0, atol=1e-12)
    assert rz.entropy_regularized_reward(LOG_POLICY, REWARD, 0.0) == rz.expected_reward(LOG_POLICY, REWARD)


def test_the_ptx_loss_descends_the_ptx_objective():
    def sampled(log_policy):
        log_prob = log_policy[GROUPS]
        advantage = rz.penalized_reward(log_prob, LOG_REF[GROUPS], REWARD[GROUPS], BETA)
        data = jnp.arange(4)[None] + 0 * GROUPS[:, :1]  # every outcome once a row, weighted below
        weights = 4 * jnp.exp(LOG_PRETRAIN)
        anchor = -(weights[data] * log_policy[data]).mean(-1)
        return rz.reinforce_loss(log_prob, advantage) + GAMMA * anchor

    want = exact(lambda lp: -rz.ppo_ptx_objective(lp, LOG_REF, LOG_PRETRAIN, REWARD, BETA, GAMMA))
    np.testing.assert_allclose(expected(sampled), want, atol=1e-12)
    one_data = rz.ppo_ptx_loss(LOG_POLICY[GROUPS], LOG_POLICY[None, 1:2], REWARD[GROUPS], GAMMA)
    by_hand = -(REWARD[GROUPS] * LOG_POLICY[GROUPS]).mean(-1) - GAMMA * LOG_POLICY[1]
    np.testing.assert_allclose(one_data, by_hand, rtol=1e-12)


def test_the_ptx_objective_is_minus_infinity_where_data_are_impossible_unless_they_weigh_nothing():
    log_policy = rz.condition(LOG_POLICY, jnp.arange(4) < 2)
    values = [rz.ppo_ptx_objective(log_policy, LOG_REF, LOG_PRETRAIN, REWARD, BETA, g) for g in (0.0, 0.1)]
    assert values == [rz.regularized_reward(log_policy, LOG_REF, REWARD, BETA), -jnp.inf]


# The controller


def test_the_controller_is_its_formula_and_rests_where_the_target_is_met():
    for kl, factor in ((6.0, 1.0), (6.6, 1 + 0.1 * 0.1), (60.0, 1.02), (0.0, 0.98), (5.4, 1 - 0.01)):
        np.testing.assert_allclose(rz.adapted_beta(0.2, kl, 6.0, 0.1), 0.2 * factor, rtol=1e-12)
    np.testing.assert_allclose(rz.adapted_beta(0.2, 60.0, 6.0, 0.1, clip=jnp.inf), 0.2 * (1 + 0.9), rtol=1e-12)
    assert rz.adapted_beta(0.2, 60.0, 6.0, 0.0) == 0.2


@pytest.mark.parametrize("gain", [0.2, 0.8])
def test_a_controlled_optimum_ends_at_the_target(gain):
    target = 0.2

    def update(_, beta):
        kl = rz.kl_divergence(rz.tilt(LOG_REF, REWARD, beta), LOG_REF)
        return rz.adapted_beta(beta, kl, target, gain)

    beta = quick_jit(lambda: jax.lax.fori_loop(0, 300, update, jnp.array(3.0)))()
    np.testing.assert_allclose(beta, rz.tilt_to_kl(LOG_REF, REWARD, target).beta, rtol=1e-8)


def test_the_controller_keeps_dtype_and_broadcasts():
    got = rz.adapted_beta(jnp.array([0.1, 0.2], np.float32), 6.6, jnp.array([6.0, 3.0], np.float32), 0.1)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [0.101, 0.204], rtol=1e-6)


# Contract and errors


def penalized_reward(log_prob, log_prob_ref, reward):
    return rz.penalized_reward(log_prob, log_prob_ref, reward, 0.3)


def ppo_ptx_objective(log_policy, log_ref, log_pretrain, reward, beta, gamma):
    return rz.ppo_ptx_objective(log_policy, log_ref, log_pretrain, reward, beta, gamma)


CASES = [
    Contract(rz.entropy_regularized_reward, ("log_policy", "reward"), {"tau": (0.5, 0.0, 2.0)}),
    Contract(
        ppo_ptx_objective,
        ("log_policy", "log_ref", "log_pretrain", "reward"),
        {"beta": (0.5, 0.0, 2.0), "gamma": (0.5, 0.0, 2.0)},
    ),
]
SAMPLED = [
    Contract(penalized_reward, ("log_prob", "log_prob_ref", "reward")),
    Contract(rz.entropy_bonus_loss, ("log_prob",)),
]


@pytest.mark.parametrize(("keeps", "case"), kept_by(CASES + SAMPLED))
def test_contract(keeps, case):
    keeps(case)


@pytest.mark.parametrize(("refuses", "case"), refused_by(CASES))
def test_refusals(refuses, case, as_installed):
    refuses(case)


def test_bad_numbers_are_named(as_installed):
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"beta must be above 0, got {bad}"):
            rz.adapted_beta(bad, 1.0, 1.0, 0.1)
        with pytest.raises(ValueError, match=f"target must be above 0, got {bad}"):
            rz.adapted_beta(0.1, 1.0, bad, 0.1)
    for name, call in {
        "gain": lambda x: rz.adapted_beta(0.1, 1.0, 1.0, x),
        "clip": lambda x: rz.adapted_beta(0.1, 1.0, 1.0, 0.1, x),
        "beta": lambda x: rz.penalized_reward(LOG_POLICY, LOG_REF, REWARD, x),
        "tau": lambda x: rz.entropy_regularized_reward(LOG_POLICY, REWARD, x),
        "gamma": lambda x: rz.ppo_ptx_objective(LOG_POLICY, LOG_REF, LOG_PRETRAIN, REWARD, 0.1, x),
    }.items():
        with pytest.raises(ValueError, match=f"{name} must be at least 0, got -0.5"):
            call(-0.5)
    with pytest.raises(ValueError, match="gamma must be at least 0"):
        rz.ppo_ptx_loss(LOG_POLICY, LOG_POLICY, 1, -1.0)
