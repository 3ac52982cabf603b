"""The laws of policy gradient on the success rate: against an integrator of SciPy, and a direct minimization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

from rlrazor.tasks.success_flow import laws_of_success

BASE = np.array([0.25, 0.30, 0.15, 0.20, 0.10])
ACCEPT = np.array([True, True, True, False, False])
TIMES = np.array([0.0, 1.0, 10.0, 100.0])


def policy(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def logits():
    def gradient(_, theta):
        p = policy(theta)
        return p * (ACCEPT - p[ACCEPT].sum())

    return solve_ivp(gradient, (0, TIMES[-1]), np.log(BASE), t_eval=TIMES, rtol=1e-11, atol=1e-12).y.T


@pytest.fixture(scope="module")
def laws(logits):
    arrays = (jnp.log(BASE), jnp.asarray(ACCEPT), jnp.asarray(logits), jnp.asarray(TIMES))
    return jax.jit(laws_of_success)(*arrays, jnp.array(1), jnp.array([0, 2]))


def test_the_euclidean_flow_conserves_and_the_natural_one_does_not(laws, logits):
    np.testing.assert_allclose(laws.euclidean.conserved, np.tile(1 / 0.30 - 1 / BASE[[0, 2]], (4, 1)), rtol=1e-8)
    assert np.ptp(laws.natural.conserved, axis=0).min() > 0.5
    assert laws.euclidean.error < 1e-8
    np.testing.assert_allclose(np.exp(laws.log_policy), policy(logits), rtol=0, atol=1e-8)


def test_the_natural_flow_keeps_ratios_and_the_sum_of_the_logits(laws):
    """In closed form: exp(-θ_i) is that of base exp(t 1_S), with θ centered on the base's mean."""
    theta = np.log(BASE) + TIMES[:, None] * ACCEPT
    theta += np.log(BASE).mean() - theta.mean(-1, keepdims=True)
    np.testing.assert_allclose(laws.natural.conserved, (np.exp(-theta[:, [1]]) - np.exp(-theta[:, [0, 2]])), rtol=1e-10)


def test_the_limits_are_the_likeliest_answer_and_the_conditional(laws):
    np.testing.assert_allclose([laws.euclidean.limit, laws.natural.limit], -np.log([0.30, 0.70]), rtol=1e-12)


@pytest.mark.parametrize("row", [1, 2, 3])
def test_the_flow_has_the_least_itakura_saito_divergence_with_its_totals(laws, logits, row):
    weights = np.exp(logits[row])
    right, wrong = weights[ACCEPT].sum(), weights[~ACCEPT].sum()

    def divergence(x):
        ratio = np.exp(x) / BASE
        return (ratio - np.log(ratio) - 1).sum()

    totals = [
        {"type": "eq", "fun": lambda x: np.exp(x[ACCEPT]).sum() / right - 1},
        {"type": "eq", "fun": lambda x: np.exp(x[~ACCEPT]).sum() / wrong - 1},
    ]
    same_ratios = np.log(np.where(ACCEPT, BASE * right / 0.70, BASE * wrong / 0.30))
    found = minimize(divergence, same_ratios, method="SLSQP", constraints=totals, options={"ftol": 1e-14})
    np.testing.assert_allclose(laws.euclidean.itakura_saito[row], found.fun, rtol=1e-6)
    np.testing.assert_allclose(laws.natural.itakura_saito[row], divergence(same_ratios), rtol=1e-10)
    assert laws.natural.itakura_saito[row] > 1.001 * found.fun
