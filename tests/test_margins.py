"""Rewards fitted with margins: SciPy's minimiser, the flow of agreement by an integrator, and shares of labels."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
import scipy.optimize

import rlrazor as rz
from rlrazor.tasks.margins import fitted_reward, labelled, margins_of, separable_gap, separable_path

REWARD = jnp.array([1.2, 0.1, -0.4, -0.9])
PAIRS = rz.bradley_terry_pairs(jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1])), REWARD)
EDGES, TABLE = jnp.array([0.6, 1.4]), jnp.array([0.0, 0.5, 2.0])


def test_margins_follow_the_size_of_the_gap_in_both_orders():
    margins = np.asarray(margins_of(PAIRS, REWARD, EDGES, TABLE))
    for chosen, rejected, margin in zip(PAIRS.chosen, PAIRS.rejected, margins, strict=True):
        gap = abs(float(REWARD[chosen] - REWARD[rejected]))
        assert margin == (0.0 if gap < 0.6 else 0.5 if gap < 1.4 else 2.0)
    assert set(margins) == {0.0, 0.5, 2.0}


def test_without_margins_the_fit_is_the_reward_and_with_them_what_an_optimizer_finds():
    calibrated = fitted_reward(PAIRS, jnp.zeros(12), 4)
    np.testing.assert_allclose(calibrated, REWARD - REWARD.mean(), atol=1e-10)
    margins = margins_of(PAIRS, REWARD, EDGES, TABLE)
    got = fitted_reward(PAIRS, margins, 4)
    w, c, r, m = (np.asarray(x) for x in (PAIRS.weights, PAIRS.chosen, PAIRS.rejected, margins))
    found = scipy.optimize.minimize(
        lambda x: w @ np.logaddexp(0, m - x[c] + x[r]), np.zeros(4), options={"gtol": 1e-10}
    )
    np.testing.assert_allclose(got, found.x - found.x.mean(), atol=1e-5)
    assert np.abs(got - calibrated).max() > 0.3


def test_large_margins_are_fitted_too():
    two = rz.PreferencePairs(np.array([0, 1]), np.array([1, 0]), jnp.array([0.8, 0.2]))
    first, second = fitted_reward(two, jnp.full(2, 9.0), 2)
    np.testing.assert_allclose(first - second, rz.margin_gap(0.8, 9.0), rtol=1e-9)


def test_labels_are_drawn_with_the_weights_of_their_pairs():
    drawn = labelled(PAIRS, 100_000, jax.random.key(0)).weights
    error = np.sqrt(PAIRS.weights * (1 - PAIRS.weights) / 100_000)
    assert np.all(np.abs(drawn - PAIRS.weights) < 4 * error)
    np.testing.assert_allclose(drawn.sum(), 1.0, rtol=1e-12)


def test_the_gap_of_agreeing_annotators_is_what_an_integrator_finds():
    times = np.array([0.0, 0.3, 2.0, 40.0, 3000.0])
    for margin in (0.0, 1.5):
        flow = scipy.integrate.solve_ivp(
            lambda t, gap, margin=margin: 2 / (1 + np.exp(gap - margin)),
            (0, 3000),
            [0.0],
            "LSODA",
            times,
            rtol=1e-10,
            atol=1e-12,
        )
        np.testing.assert_allclose(separable_gap(margin, jnp.asarray(times)), flow.y[0], atol=1e-7)


def test_training_follows_that_gap_and_centring_bounds_three_answers_but_not_two():
    steps = jnp.array([0, 1000, 4000, 40_000])
    plain, centred, three = (
        separable_path(answers, 1.0, coefficient, 0.02, steps)
        for answers, coefficient in ((2, 0.0), (2, 0.1), (3, 0.1))
    )
    np.testing.assert_allclose(plain, separable_gap(1.0, 0.02 * steps.astype(float)), atol=0.02)
    np.testing.assert_allclose(centred, plain, atol=1e-12)
    assert three[3] - three[2] < 0.05 < plain[3] - plain[2]
