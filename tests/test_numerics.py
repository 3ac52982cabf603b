"""The kernels beneath everything: exact values and derivatives where probabilities vanish, underflow or agree."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlrazor import _numerics as numerics
from tests.oracles import MP, floats, quick_jit, relative_error

INF = np.inf
mass_times, bregman = quick_jit(numerics.mass_times), quick_jit(numerics.bregman)


def test_zero_mass_counts_for_nothing():
    log_p, x = jnp.array([-INF, -INF, -INF, 0.0]), jnp.array([INF, -INF, 3.0, 2.0])
    assert mass_times(log_p, x).tolist() == [0.0, 0.0, 0.0, 2.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_underflowed_mass_still_makes_infinity(dtype):
    log_p, x = jnp.array([-1e4, -1e4, -1e30], dtype), jnp.array([INF, -INF, INF], dtype)
    assert mass_times(log_p, x).tolist() == [INF, -INF, INF]
    assert mass_times(jnp.array([-1e4], dtype), jnp.array([5.0], dtype)).tolist() == [0.0]


def test_expectation_ignores_impossible_outcomes():
    log_p = jnp.log(jnp.array([0.25, 0.75, 0.0]))
    assert numerics.expectation(log_p, jnp.array([4.0, 8.0, -INF])) == pytest.approx(7.0, rel=1e-15)


def _around(*edges):
    """Points over the whole range, on both sides of every edge, and zero."""
    edges = np.array(edges)
    half = np.concatenate([np.geomspace(1e-12, 60, 40), edges, edges * (1 + 1e-15), edges * (1 - 1e-15)])
    return np.concatenate([half, -half, [0.0, -1e4, -1e16]])


@pytest.mark.parametrize("log_p", [0.0, -3.0, -600.0])
def test_bregman_matches_mpmath_across_its_branches(log_p):
    x = _around(0.05, 1.0)
    p = MP.mpf(float(np.exp(log_p)))
    q = jnp.array(floats([p * MP.exp(MP.mpf(v)) for v in map(float, x)]))
    want = floats([p * (MP.expm1(MP.mpf(v)) - MP.mpf(v)) for v in map(float, x)])
    got = jax.jit(numerics.bregman)(jnp.full(x.shape, np.exp(log_p)), q, jnp.asarray(x))
    assert relative_error(got, want).max() < 2e-15


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bregman_of_underflowed_mass_and_infinite_ratios(dtype):
    p, q, x = jnp.array([[0.0, 0.0, 0.5], [0.25, 0.0, 0.0], [900.0, -INF, -INF]], dtype)
    assert bregman(p, q, x).tolist() == [0.25, INF, INF]


def test_bregman_is_never_negative():
    x = jnp.concatenate([jnp.linspace(-2, 2, 4001), jnp.geomspace(1e-30, 1e-2, 100)]).astype(np.float32)
    assert np.all(np.asarray(bregman(jnp.ones_like(x), jnp.exp(x), x)) >= 0)


@functools.cache
def slopes_of_bregman():
    def gap(log_p, x):
        return numerics.bregman(jnp.exp(log_p), jnp.exp(log_p + x), x)

    curvature = jax.grad(jax.grad(gap, argnums=1), argnums=1)
    return quick_jit(lambda *args: (*jax.grad(gap, argnums=(0, 1))(*args), curvature(*args)))


@pytest.mark.parametrize("x", [1e-6, 0.049, 0.051, 0.99, 1.01, 30.0, -0.049, -0.99, -1.01, -30.0])
def test_bregman_derivatives(x):
    *slope, curvature = slopes_of_bregman()(-2.0, x)
    p, x = MP.exp(-2), MP.mpf(x)
    assert relative_error(slope, [float(p * (MP.expm1(x) - x)), float(p * MP.expm1(x))]).max() < 1e-13
    assert curvature == pytest.approx(float(p * MP.exp(x)), rel=1e-12)


@pytest.mark.parametrize("t", [0.0, 1e-9, -1e-3, 0.5, -1.0, 3.0])
def test_expm1_ratio_matches_mpmath(t):
    x = _around(1.0)[:-3]
    want = [MP.expm1(t * MP.mpf(v)) / t if t else MP.mpf(v) for v in map(float, x)]
    q = jnp.asarray(np.exp(t * x))
    got = jax.jit(numerics.expm1_ratio)(jnp.ones(x.shape), q, jnp.asarray(x), jnp.array([t]))
    # Beyond |t x| = 1, exp(t x) rounds t x by a relative 1e-16.
    assert (relative_error(got, floats(want)) / (2e-15 + 1.2e-16 * np.abs(t * x))).max() < 1


def test_ratios_are_smooth_where_they_are_continued():
    def at(function, x):
        slope = jax.grad(function)
        return [float(quick_jit(f)(x)) for f in (function, slope, jax.grad(slope))]

    np.testing.assert_allclose(at(numerics.log1p_ratio, 0.0), [1.0, -1 / 2, 2 / 3], rtol=1e-15)
    got = at(lambda t: numerics.expm1_ratio(jnp.array(0.5), 0.5 * jnp.exp(t * 0.3), jnp.array(0.3), t), 0.0)
    np.testing.assert_allclose(got, [0.5 * 0.3, 0.5 * 0.3**2 / 2, 0.5 * 0.3**3 / 3], rtol=1e-14)


def test_kl_terms_at_the_four_corners():
    log_p, log_q = jnp.array([-INF, -INF, -1.0, -1.0]), jnp.array([-INF, -1.0, -INF, -1.0])
    assert quick_jit(numerics.kl_terms)(log_p, log_q).tolist() == [0.0, float(jnp.exp(-1.0)), INF, 0.0]


def test_kl_terms_slopes_at_infinity():
    log_p, log_q = jnp.array([-INF, -1.0]), jnp.array([-1.0, -INF])
    slopes = quick_jit(jax.grad(lambda a, b: numerics.kl_terms(a, b)[:1].sum(), argnums=(0, 1)))
    by_p, by_q = slopes(log_p, log_q)
    assert by_p[0] == 0.0
    assert by_q[0] == pytest.approx(np.exp(-1.0), rel=1e-15)


def test_safe_sqrt_has_slope_zero_at_zero():
    slopes = quick_jit(jax.vmap(jax.grad(numerics.safe_sqrt)))(jnp.array([0.0, 4.0]))
    assert slopes.tolist() == [0.0, 0.25]
    assert numerics.safe_sqrt(jnp.array([0.0, 4.0])).tolist() == [0.0, 2.0]


def test_log_mix_with_empty_sides():
    half = jnp.log(0.5)
    got = numerics.log_mix(half, jnp.array([-INF, 0.0, -INF]), half, jnp.array([-INF, -INF, 0.0]))
    assert got.tolist() == [-INF, float(half), float(half)]
    slope = quick_jit(jax.grad(lambda x: jnp.exp(numerics.log_mix(half, x, half, x)).sum()))(jnp.array([-INF, 0.0]))
    np.testing.assert_allclose(slope, [0.0, 1.0], rtol=1e-14)


def test_empty_rows_of_weights_stay_empty():
    log_w = jnp.array([[-INF, -INF], [0.0, -INF], [-800.0, -800.0]])
    assert quick_jit(numerics.log_sum)(log_w)[:2].tolist() == [-INF, 0.0]
    np.testing.assert_allclose(
        np.exp(quick_jit(numerics.log_normalize)(log_w)), [[0.0, 0.0], [1.0, 0.0], [0.5, 0.5]], rtol=1e-14
    )
    slope = quick_jit(jax.grad(lambda x: jnp.exp(numerics.log_normalize(x))[..., 0].sum()))(log_w)
    assert not jnp.isnan(slope).any()


@pytest.mark.parametrize("log_p", [-INF, -2.0])
def test_a_log_p_has_the_limits_of_the_product(log_p):
    a = jnp.array([-3.0, 0.0, 2.0])
    want = [INF, 0.0, -INF] if log_p == -INF else [6.0, 0.0, -4.0]
    assert quick_jit(numerics.times_log)(a, jnp.full(3, log_p)).tolist() == want


def test_a_log_p_has_derivatives_where_p_vanishes():
    def total(a, log_p):
        return jnp.where(log_p > -INF, numerics.times_log(a, log_p), 0.0).sum()

    slopes = quick_jit(jax.grad(total, argnums=(0, 1)))(jnp.array([0.0, 2.0, 3.0]), jnp.array([-INF, -INF, -1.5]))
    assert [x.tolist() for x in slopes] == [[0.0, 0.0, -1.5], [0.0, 0.0, 3.0]]


def test_empty_mixtures_have_slope_zero_and_stay_empty():
    def slope(log_a, log_p):
        return jax.grad(lambda *x: jnp.exp(numerics.log_mix(*x, jnp.log(0.5), jnp.array([-INF, 0.0]))).sum(), (0, 1))(
            log_a, log_p
        )

    by_weight, by_log = quick_jit(slope)(jnp.log(jnp.array([0.5, 0.5])), jnp.array([-INF, -1.0]))
    np.testing.assert_allclose(by_weight, [0.0, 0.5 * np.exp(-1.0)], rtol=1e-15)
    np.testing.assert_allclose(by_log, [0.0, 0.5 * np.exp(-1.0)], rtol=1e-15)
    assert numerics.log_mix(jnp.log(0.0), jnp.array([-INF]), jnp.log(1.0), jnp.array([-INF])).tolist() == [-INF]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reciprocal_over_the_whole_range(dtype):
    info = np.finfo(dtype)
    x = np.array([0.0, info.tiny, 1e-20, 0.25, 3.0, 1 / info.tiny, INF], dtype)
    got, slope = quick_jit(jax.vmap(jax.value_and_grad(numerics.reciprocal)))(jnp.asarray(x))
    np.testing.assert_allclose(got, [INF, 1 / info.tiny, 1e20, 4.0, 1 / 3, info.tiny, 0.0], rtol=2 * info.eps)
    steep = [0.0, 0.0, 0.0 if dtype == np.float32 else -1e40, -16.0, -1 / 9, 0.0, 0.0]
    np.testing.assert_allclose(slope, steep, rtol=4 * info.eps)


@pytest.mark.parametrize("x", [1e-300, 1e-9, 9.9e-3, 1.01e-2, 3.0, 1e300])
def test_log1p_ratio_matches_mpmath(x):
    x = MP.mpf(x)
    got = [quick_jit(f)(float(x)) for f in (numerics.log1p_ratio, jax.grad(numerics.log1p_ratio))]
    want = [MP.log1p(x) / x, (x / (1 + x) - MP.log1p(x)) / x**2 if x > 1e-20 else -MP.mpf(1) / 2]
    np.testing.assert_allclose(got, floats(want), rtol=1e-13)


def test_log1p_ratio_ends_at_zero():
    assert float(numerics.log1p_ratio(jnp.array(INF))) == pytest.approx(0.0, abs=1e-300)


@pytest.mark.parametrize("name", ["uniform", "normal"])
def test_numbers_that_are_drawn_along_one_axis_are_those_of_jax(name):
    key, shape = jax.random.key(5), (3, 4, 5)
    np.testing.assert_array_equal(getattr(numerics, name)(key, shape), getattr(jax.random, name)(key, shape))


@pytest.mark.parametrize(("dtype", "x64"), [(np.float32, True), (np.float32, False), (np.float64, True)])
def test_ascending_is_a_stable_argsort(dtype, x64):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 500)).astype(dtype)
    rows[1] = np.round(rows[1])  # ties
    rows[1][rows[1] == 0] = 0.0  # none of them below 0
    rows[2] = rows[2] * 10.0 ** rng.integers(-7, 5, 500)
    rows[2, ::50], rows[2, 1::50] = -INF, INF
    rows[2, 7::100] = 1 + np.finfo(dtype).eps * np.arange(5)  # numbers that differ in the last bit
    with jax.enable_x64(x64):
        found = jax.jit(jax.vmap(numerics.ascending))(rows)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, np.argsort(rows, axis=-1, kind="stable"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_cumulative_sum_matches_mpmath_however_small_the_weights(dtype):
    log_w = np.array([-INF, -1e4, -1e4 + 1, -INF, -300.0, -0.5, -2.0, -700.0, 1.0], dtype)
    got = quick_jit(numerics.log_cumulative_sum)(log_w)
    sums = [MP.fsum(MP.exp(MP.mpf(float(x))) for x in log_w[: i + 1] if x > -INF) for i in range(len(log_w))]
    np.testing.assert_allclose(got[1:], floats([MP.log(s) for s in sums[1:]]), rtol=4 * np.finfo(dtype).eps)
    assert got[0] < -1e30
    slopes = quick_jit(jax.jacobian(numerics.log_cumulative_sum))(log_w)
    assert not np.isnan(slopes).any()
    shares = [floats([MP.exp(MP.mpf(float(x))) / s if x > -INF else 0 for x in log_w]) for s in sums[1:]]
    rtol = 2e3 * np.finfo(dtype).eps  # shares are exponentials of numbers up to 1e3
    np.testing.assert_allclose(slopes[1:], np.tril(np.array(shares), 1), rtol=rtol, atol=np.finfo(dtype).tiny)


def test_what_is_faster_keeps_its_derivatives_of_every_order_and_in_every_mode():
    cube = numerics.with_derivatives_of(lambda x, y: x**3 * y)(lambda x, y: jax.lax.stop_gradient(x * x * x * y))
    x, y = jnp.array(1.5), jnp.array(INF)
    assert quick_jit(cube)(x, jnp.array(2.0)) == 6.75
    assert quick_jit(jax.grad(jax.grad(cube)))(x, jnp.array(2.0)) == 18.0
    assert quick_jit(jax.jacfwd(cube, argnums=1))(x, jnp.array(2.0)) == 3.375
    assert quick_jit(jax.grad(cube))(jnp.array(0.5), y) == INF  # what does not move has no slope, 0 times which is NaN


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mass_gap_matches_mpmath_near_and_far_and_its_slopes_are_the_masses(dtype):
    log_p = jnp.array([-1.0, -1.0, -1.0, -1.0, -80.0, -INF, -1.0, -INF], dtype)
    log_q = jnp.array([-1.0, -1.0 + 1e-4, -1.9, -30.0, -0.1, -2.0, -INF, -INF], dtype)
    got = quick_jit(numerics.mass_gap)(log_p, log_q)
    pairs = [
        [MP.exp(MP.mpf(float(x))) if x > -INF else MP.mpf(0) for x in pair] for pair in zip(log_p, log_q, strict=True)
    ]
    np.testing.assert_allclose(got, floats([q - p for p, q in pairs]), rtol=8 * np.finfo(dtype).eps)
    by_p, by_q = quick_jit(jax.grad(lambda a, b: numerics.mass_gap(a, b).sum(), argnums=(0, 1)))(log_p, log_q)
    np.testing.assert_array_equal(by_p, -jnp.exp(log_p))
    np.testing.assert_array_equal(by_q, jnp.exp(log_q))


def test_the_tail_of_the_exponential_is_as_exact_in_three_terms_less():
    x = np.linspace(-1, 1, 2001, dtype=np.float32)
    want = floats([2 * (MP.expm1(MP.mpf(v)) - MP.mpf(v)) / MP.mpf(v) ** 2 if v else MP.mpf(1) for v in map(float, x)])
    for tail in (numerics.expm1_tail, numerics.expm1_series):
        assert relative_error(quick_jit(tail)(x), want).max() < 4 * np.finfo(np.float32).eps
