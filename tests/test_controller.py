"""The controlled KL coefficient: a NumPy loop on the tilt path, eigenvalues of the linearised one, mirror descent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz
from rlrazor.tasks.controller import (
    AFTER,
    BEFORE,
    closed_loop,
    loop_roots,
    measured_roots,
    rest_of,
    synchronized_drift,
)
from tests.oracles import dirichlet_logs

RNG = np.random.default_rng(0)
LOG_REF, REWARD = dirichlet_logs(RNG, 6), jnp.asarray(RNG.normal(size=6))
TARGET, GAIN, G, CLIP = 0.3, 0.6, 0.4, 0.2


def kl_at(strength):
    """KL(tilt || ref) at a strength, in probabilities."""
    ref, reward = np.exp(LOG_REF), np.asarray(REWARD)
    p = ref * np.exp(strength * reward)
    p /= p.sum()
    return p @ np.log(p / ref)


@pytest.mark.parametrize("measured", [BEFORE, AFTER])
def test_the_closed_loop_is_a_recursion_of_strength_and_coefficient(measured):
    sizes = {"measured": measured, "num_samples": None, "num_updates": 40}
    start = LOG_REF, REWARD, LOG_REF, 2.0
    loop = closed_loop(*start, TARGET, GAIN, G, CLIP, jax.random.key(0), **sizes)
    strength, beta = 0.0, 2.0
    for k in range(41):
        np.testing.assert_allclose([loop.beta[k], loop.kl[k]], [beta, kl_at(strength)], rtol=1e-9, atol=1e-12)
        following = strength + G * (1 / beta - strength)
        seen = kl_at(following if measured == AFTER else strength)
        strength, beta = following, beta * (1 + GAIN * np.clip(seen / TARGET - 1, -CLIP, CLIP))


def test_the_rest_is_where_the_target_is_met_and_its_sensitivity_that_of_the_kl():
    rest = rest_of(LOG_REF, REWARD, TARGET)
    strength, h = 1 / float(rest.beta), 1e-5
    np.testing.assert_allclose(kl_at(strength), TARGET, rtol=1e-10)
    slope = (kl_at(strength * (1 + h)) - kl_at(strength * (1 - h))) / (2 * h)  # d KL / d log strength
    np.testing.assert_allclose(rest.sensitivity, slope / TARGET, rtol=1e-7)
    assert abs(rest_of(LOG_REF, REWARD, 1e-6).sensitivity - 2) < 1e-2


def test_a_loop_at_rest_stays():
    rest = rest_of(LOG_REF, REWARD, TARGET)
    sizes = {"measured": BEFORE, "num_samples": None, "num_updates": 5}
    loop = closed_loop(LOG_REF, REWARD, rest.log_policy, rest.beta, TARGET, GAIN, G, CLIP, jax.random.key(0), **sizes)
    np.testing.assert_allclose(loop.beta, rest.beta, rtol=1e-10)


def test_the_kl_of_samples_leads_the_loop_to_the_target_in_the_mean():
    sizes = {"measured": BEFORE, "num_samples": 400, "num_updates": 600}
    loop = closed_loop(LOG_REF, REWARD, LOG_REF, 1.0, TARGET, 0.1, G, CLIP, jax.random.key(0), **sizes)
    late = np.asarray(loop.kl)[200:]
    assert abs(late.mean() / TARGET - 1) < 0.05
    assert late.std() > 1e-3


@pytest.mark.parametrize("measured", [BEFORE, AFTER])
@pytest.mark.parametrize(("kappa", "g"), [(0.05, 0.4), (0.7, 0.3), (1.3, 1.0), (30.0, 0.1)])
def test_loop_roots_are_the_eigenvalues_of_the_linearised_loop(measured, kappa, g):
    before = np.array([[1 - g, -g], [kappa, 1.0]])
    after = np.array([[1 - g, -g], [kappa * (1 - g), 1 - kappa * g]])
    want = np.linalg.eigvals(before if measured == BEFORE else after).astype(complex)
    got = np.asarray(loop_roots(kappa, g, measured))
    np.testing.assert_allclose(np.sort_complex(got), np.sort_complex(want), atol=1e-9)


def test_the_borders_of_stability_are_those_of_the_docstring():
    for g in (0.05, 0.3, 1.0):
        for measured, border in ((BEFORE, 1.0), (AFTER, 2 * (2 - g) / g)):
            inside, outside = (np.abs(loop_roots(border * s, g, measured)).max() for s in (0.999, 1.001))
            assert inside < 1 < outside
    assert np.abs(np.imag(loop_roots(0.0749, 0.3, BEFORE))).max() == 0.0
    assert np.abs(np.imag(loop_roots(0.0751, 0.3, BEFORE))).max() > 0.0


def test_measured_roots_are_those_of_the_recursion_that_made_the_series():
    for first, second in ((0.9, 0.5), (-0.8, 0.3), (0.6 + 0.5j, 0.6 - 0.5j), (1.1, 0.2)):
        series = np.real(first ** np.arange(12.0) + second ** np.arange(12.0))
        got = np.asarray(measured_roots(jnp.asarray(series)))
        np.testing.assert_allclose(np.sort_complex(got), np.sort_complex(np.array([first, second], complex)), atol=1e-8)


def test_next_to_its_rest_the_loop_has_the_predicted_roots():
    rest, shift = rest_of(LOG_REF, REWARD, TARGET), 1e-6

    def roots(gain, measured):
        sizes = {"measured": measured, "num_samples": None, "num_updates": 12}
        start = LOG_REF, REWARD, rest.log_policy, rest.beta * (1 + shift)
        loop = closed_loop(*start, TARGET, gain, G, CLIP, jax.random.key(0), **sizes)
        return measured_roots(jnp.log(loop.beta / rest.beta))

    for measured in (BEFORE, AFTER):
        got = roots(0.4, measured)
        want = loop_roots(0.4 * rest.sensitivity, G, measured)
        np.testing.assert_allclose(np.sort_complex(got), np.sort_complex(want), atol=1e-4)


def test_synchronised_references_move_along_the_tilt_path():
    for share in (0.0, 0.25, 1.0):
        drift = synchronized_drift(LOG_REF, REWARD, 3.0, share, 8)
        want = [kl_at((1 + share * j) / 3.0) for j in range(9)]
        np.testing.assert_allclose(drift, want, rtol=1e-9)
    hard = rz.mirror_descent(LOG_REF, LOG_REF, REWARD, beta=0.0, step=1 / 3.0, num_steps=9)
    np.testing.assert_allclose(drift[-1], rz.kl_divergence(hard, LOG_REF), rtol=1e-9)


def test_an_unknown_time_of_measurement_is_named(as_installed):
    with pytest.raises(
        ValueError, match="unknown time of measurement 'now'; there are before the step, after the step"
    ):
        loop_roots(0.5, 0.3, "now")
