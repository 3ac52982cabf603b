"""The world of "Retaining by Doing": overlaps in closed form, gradients and recursions written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rlrazor.tasks import two_mode
from rlrazor.tasks.two_mode import Mixture
from rlrazor.training import train

BI, UNI = two_mode.bimodal_setting(), two_mode.unimodal_setting()


def closed_form_overlap(a, m1, b, m2, s):
    """∫ min(a N(m1, s), b N(m2, s)) for m1 < m2, by the crossing point."""
    crossing = (m1 + m2) / 2 + s**2 * np.log(a / b) / (m2 - m1)
    return a * scipy.stats.norm.sf((crossing - m1) / s) + b * scipy.stats.norm.cdf((crossing - m2) / s)


@pytest.mark.parametrize(
    ("old_weight", "old_mean", "new_mean"), [(0.75, -3.5, 0.5), (0.4, -3.2, 2.0), (0.7, -4.0, 3.3)]
)
def test_overlaps_match_the_closed_form_of_two_weighted_gaussians(old_weight, old_mean, new_mean):
    params = Mixture(jnp.array([old_weight]), jnp.array([old_mean, new_mean]), jnp.array([1.0, 0.7]))
    old, new = two_mode.overlaps(params, BI)
    assert float(old) == pytest.approx(closed_form_overlap(old_weight, old_mean, 0.75, -3.0, 1.0) / 0.75, abs=2e-4)
    assert float(new) == pytest.approx(closed_form_overlap(1 - old_weight, new_mean, 0.25, 3.5, 0.7) / 0.25, abs=2e-4)


def test_published_start_has_the_published_overlaps():
    bi, uni = two_mode.overlaps(BI.init, BI), two_mode.overlaps(UNI.init, UNI)
    np.testing.assert_allclose(bi, (2 * scipy.stats.norm.cdf(-0.25), 2 * scipy.stats.norm.cdf(-3 / 1.4)), atol=1e-4)
    assert float(uni[0]) == pytest.approx(0.90032, abs=1e-4)
    assert float(uni[1]) < 2e-4


def test_gain_and_drop_start_at_zero_and_the_target_gains_all():
    np.testing.assert_array_equal(two_mode.gain_and_drop(BI.init, BI), (0.0, 0.0))
    gain, drop = two_mode.gain_and_drop(BI.target, BI)
    old, new = two_mode.overlaps(BI.init, BI)
    np.testing.assert_allclose((gain, drop), (1 - new, old - 1), atol=1e-12)


def numpy_gradients(params, target, z, beta=0.1, floor=1e-12):
    """The released updates written out in NumPy, as ascent directions: forward, then reverse."""

    def normal(x, mean, scale):
        return scipy.stats.norm.pdf(x, mean, scale)

    (weight,), (m1, m2), (s1, s2) = params
    goal_mean, goal_scale = target.means[-1], target.scales[-1]

    def score(x):
        n1, n2 = normal(x, m1, s1), normal(x, m2, s2)
        q = weight * n1 + (1 - weight) * n2
        r1, r2 = weight * n1 / q, (1 - weight) * n2 / q
        return np.stack(
            [
                (n1 - n2) / q,
                r1 * (x - m1) / s1**2,
                r2 * (x - m2) / s2**2,
                r1 * ((x - m1) ** 2 / s1**3 - 1 / s1),
                r2 * ((x - m2) ** 2 / s2**3 - 1 / s2),
            ]
        )

    forward = score(goal_mean + goal_scale * z).mean(1)
    x = m2 + s2 * z
    new = (1 - weight) * normal(x, m2, s2)
    importance = (weight * normal(x, m1, s1) + new) / new
    reward = np.log(normal(x, goal_mean, goal_scale) / (new * beta) + floor)
    return forward, (reward * importance * score(x)).mean(1)


def test_published_gradients_match_the_update_written_out_in_numpy():
    params = Mixture(jnp.array([0.6]), jnp.array([-3.3, 1.2]), jnp.array([1.1, 0.8]))
    z = np.random.default_rng(0).normal(size=300)
    forward, reverse = numpy_gradients([np.asarray(leaf) for leaf in params], BI.target, z)
    for gradient, expected in (
        (two_mode.forward_kl_gradient(params, BI, jnp.array(z)), forward),
        (two_mode.reverse_kl_gradient(params, BI, jnp.array(z)), reverse),
    ):
        np.testing.assert_allclose(-jnp.concatenate(gradient), expected, rtol=1e-10)


def test_reward_without_floor_stays_finite_where_the_density_ratio_underflows():
    far = Mixture(jnp.zeros(0), jnp.array([-60.0]), jnp.array([0.5]))
    z = jnp.linspace(-2.0, 2.0, 11)
    floored = two_mode.reverse_kl_gradient(far, UNI, z, floor=1e-12)
    exact = two_mode.reverse_kl_gradient(far, UNI, z, floor=0.0)
    assert all(np.isfinite(np.concatenate([*exact, *floored])))
    assert float(exact.means[0]) < 0
    assert abs(float(floored.means[0])) < 1e-6  # a reward that is constant at its floor teaches nothing


def test_slow_factor_scales_the_old_mode_only():
    optimizer = two_mode.published_optimizer(BI.init, learning_rate=2.0, slow_factor=0.25)
    ones = jax.tree.map(jnp.ones_like, BI.init)
    updates, _ = optimizer.update(ones, optimizer.init(BI.init))
    np.testing.assert_array_equal(updates.old_weights, [-0.5])
    np.testing.assert_array_equal(updates.means, [-0.5, -2.0])
    np.testing.assert_array_equal(updates.scales, [-0.5, -2.0])


def test_unimodal_policies_are_never_slowed_down():
    optimizer = two_mode.published_optimizer(UNI.init, learning_rate=1.0, slow_factor=0.005)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, UNI.init), optimizer.init(UNI.init))
    np.testing.assert_array_equal(updates.means, [-1.0])


def test_quadrature_has_the_moments_of_a_standard_normal():
    z, weight = two_mode.quadrature()
    moments = [(weight * z**k).sum() for k in range(7)]
    np.testing.assert_allclose(moments, [1, 0, 1, 0, 3, 0, 15], atol=1e-9)


def test_forward_recursion_ends_in_the_published_weights():
    for rate, expected in ((0.15, 0.3979), (0.01, 0.7128)):
        path = two_mode.forward_kl_recursion(BI, rate, 0.005, num_steps=200)
        assert float(path.old_weights[-1, 0]) == pytest.approx(expected, abs=1e-4)


def test_forward_closed_form_of_the_weight_satisfies_its_update_to_first_order():
    rate, slow = 0.15, 0.005
    weights = np.asarray(two_mode.forward_kl_recursion(BI, rate, slow, num_steps=200).old_weights[:, 0])
    update = -rate * slow / (1 - weights[:-1])  # separated modes: the score of the weight is -1 / (1 - w)
    np.testing.assert_allclose(np.diff(weights), update, rtol=rate * slow / (1 - weights[0]) ** 2)


def test_reverse_recursion_without_floor_is_the_closed_form():
    rate, slow, beta, steps = 0.01, 0.005, 0.1, 150
    path = two_mode.reverse_kl_recursion(BI, rate, slow, steps, beta=beta, floor=0.0)
    weight, mean, scale = 0.75, 0.5, 0.7
    for _ in range(steps):
        kl = np.log(0.7 / scale) + (scale**2 + (mean - 3.5) ** 2) / (2 * 0.49) - 0.5
        expected_reward = -kl - np.log((1 - weight) * beta)
        weight -= rate * slow * expected_reward / (1 - weight)
        mean, scale = mean + rate * (3.5 - mean) / 0.49, scale + rate * (1 / scale - scale / 0.49)
    got = path.old_weights[-1, 0], path.means[-1, 1], path.scales[-1, 1]
    np.testing.assert_allclose(got, (weight, mean, scale), rtol=1e-9)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_unimodal_recursion_is_the_limit_of_many_samples(direction):
    gradient = getattr(two_mode, f"{direction}_kl_gradient")
    rate, steps = 0.01, 60
    # Stratified normals stand in for infinitely many samples.
    z = jax.scipy.special.ndtri((jnp.arange(20000.0) + 0.5) / 20000)
    path = jax.jit(
        lambda key: train(
            lambda params, _: gradient(params, UNI, z),
            UNI.init,
            two_mode.published_optimizer(UNI.init, rate, 1.0),
            key,
            num_steps=steps,
            project=two_mode.clip,
        )
    )(jax.random.key(0))
    recursion = getattr(two_mode, f"{direction}_kl_recursion")(UNI, rate, 1.0, steps)
    np.testing.assert_allclose(path.means[-1], recursion.means[-1], atol=2e-3)
    np.testing.assert_allclose(path.scales[-1], recursion.scales[-1], atol=5e-3)


def test_clip_keeps_what_is_inside_and_moves_what_is_not():
    inside = two_mode.clip(BI.init)
    np.testing.assert_array_equal(inside.old_weights, BI.init.old_weights)
    outside = two_mode.clip(Mixture(jnp.array([-1.0]), jnp.zeros(2), jnp.array([0.0, 2.0])))
    np.testing.assert_allclose(np.concatenate([outside.old_weights, outside.scales]), [1e-3, 1e-3, 2.0])
