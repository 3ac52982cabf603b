"""The kernels beneath everything: exact values and derivatives where probabilities vanish, underflow or agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlrazor import _numerics as numerics
from tests.oracles import MP, relative_error

INF = np.inf


def test_zero_mass_counts_for_nothing():
    log_p, x = jnp.array([-INF, -INF, -INF, 0.0]), jnp.array([INF, -INF, 3.0, 2.0])
    assert numerics.mass_times(log_p, x).tolist() == [0.0, 0.0, 0.0, 2.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_underflowed_mass_still_makes_infinity(dtype):
    log_p, x = jnp.array([-1e4, -1e4, -1e30], dtype), jnp.array([INF, -INF, INF], dtype)
    assert numerics.mass_times(log_p, x).tolist() == [INF, -INF, INF]
    assert numerics.mass_times(jnp.array([-1e4], dtype), jnp.array([5.0], dtype)).tolist() == [0.0]


def test_expectation_ignores_impossible_outcomes():
    log_p = jnp.log(jnp.array([0.25, 0.75, 0.0]))
    assert numerics.expectation(log_p, jnp.array([4.0, 8.0, -INF])) == pytest.approx(7.0, rel=1e-15)


@pytest.mark.parametrize("log_p", [0.0, -3.0, -600.0])
def test_bregman_matches_mpmath_across_its_branches(log_p):
    edges = np.array([0.05, 1.0])
    x = np.concatenate([s * np.geomspace(1e-12, 60, 40) for s in (-1, 1)] + [edges, -edges, edges * (1 + 1e-15)])
    x = np.concatenate([x, edges * (1 - 1e-15), [0.0, -1e4]])
    got = jax.jit(numerics.bregman)(jnp.full(x.shape, log_p), jnp.asarray(x))
    want = [float(MP.exp(log_p) * (MP.expm1(MP.mpf(v)) - MP.mpf(v))) for v in map(float, x)]
    # At the edge |x| = 0.05 the difference expm1(x) - x cancels a factor 2 / x = 40, which magnifies an ulp to 1e-14;
    # exp(log_p + x) rounds its argument, a relative 1e-16 |log_p|.
    assert relative_error(got, want).max() < 2e-14 + 2e-16 * abs(log_p)


def test_bregman_survives_overflow_of_the_exponential():
    got = numerics.bregman(jnp.array([-900.0]), jnp.array([890.0]))
    assert got[0] == pytest.approx(np.exp(-10.0), rel=1e-12)


def test_bregman_is_never_negative():
    x = jnp.concatenate([jnp.linspace(-2, 2, 4001), jnp.geomspace(1e-30, 1e-2, 100)]).astype(np.float32)
    assert jnp.all(numerics.bregman(jnp.zeros_like(x), x) >= 0)


@pytest.mark.parametrize("x", [1e-6, 0.049, 0.051, 0.99, 1.01, 30.0, -0.049, -0.051, -30.0])
def test_bregman_derivatives(x):
    slope = jax.jit(jax.grad(numerics.bregman, argnums=(0, 1)))(-2.0, x)
    p, x = MP.exp(-2), MP.mpf(x)
    want = [float(p * (MP.expm1(x) - x)), float(p * MP.expm1(x))]
    assert relative_error(slope, want).max() < 1e-13
    curvature = jax.jit(jax.grad(jax.grad(numerics.bregman, argnums=1), argnums=1))(-2.0, float(x))
    assert curvature == pytest.approx(float(p * MP.exp(x)), rel=1e-12)


def test_kl_terms_at_the_four_corners():
    log_p, log_q = jnp.array([-INF, -INF, -1.0, -1.0]), jnp.array([-INF, -1.0, -INF, -1.0])
    assert numerics.kl_terms(log_p, log_q).tolist() == [0.0, float(jnp.exp(-1.0)), INF, 0.0]


def test_kl_terms_slopes_at_infinity():
    log_p, log_q = jnp.array([-INF, -1.0]), jnp.array([-1.0, -INF])
    by_p, by_q = jax.grad(lambda a, b: numerics.kl_terms(a, b)[:1].sum(), argnums=(0, 1))(log_p, log_q)
    assert by_p[0] == 0.0
    assert by_q[0] == pytest.approx(np.exp(-1.0), rel=1e-15)


def test_safe_sqrt_has_slope_zero_at_zero():
    slopes = jax.vmap(jax.grad(numerics.safe_sqrt))(jnp.array([0.0, 4.0]))
    assert slopes.tolist() == [0.0, 0.25]
    assert numerics.safe_sqrt(jnp.array([0.0, 4.0])).tolist() == [0.0, 2.0]


def test_log_mix_with_empty_sides():
    half = jnp.log(0.5)
    got = numerics.log_mix(half, jnp.array([-INF, 0.0, -INF]), half, jnp.array([-INF, -INF, 0.0]))
    assert got.tolist() == [-INF, float(half), float(half)]
    slope = jax.grad(lambda x: jnp.exp(numerics.log_mix(half, x, half, x)).sum())(jnp.array([-INF, 0.0]))
    np.testing.assert_allclose(slope, [0.0, 1.0], rtol=1e-14)


def test_empty_rows_of_weights_stay_empty():
    log_w = jnp.array([[-INF, -INF], [0.0, -INF], [-800.0, -800.0]])
    assert numerics.log_sum(log_w)[:2].tolist() == [-INF, 0.0]
    np.testing.assert_allclose(jnp.exp(numerics.log_normalise(log_w)), [[0.0, 0.0], [1.0, 0.0], [0.5, 0.5]], rtol=1e-14)
    slope = jax.grad(lambda x: jnp.exp(numerics.log_normalise(x))[..., 0].sum())(log_w)
    assert not jnp.isnan(slope).any()
