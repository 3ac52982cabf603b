"""The fits of the forgetting law and their intervals, against enumeration, numpy and scipy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

import rlrazor as rz
from tests.oracles import quick_jit

INF = np.inf
KEY = jax.random.key(0)

FITS = [rz.quadratic_r2, rz.isotonic_r2, rz.rank_correlation]
quadratic_r2, isotonic_r2, rank_correlation = COMPILED = [quick_jit(fit) for fit in FITS]
isotonic_fit = quick_jit(rz.isotonic_fit)
EACH_FIT = pytest.mark.parametrize("fit", COMPILED, ids=lambda f: f.__name__)


def law(seed, points=40, ties=False):
    """A noisy increasing law, (x, y)."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 7, points).astype(float) if ties else rng.exponential(size=points)
    return x, x**2 + rng.normal(size=points)


def share_explained(y, fitted):
    return 1 - np.sum((y - fitted) ** 2) / np.sum((y - y.mean()) ** 2)


@pytest.mark.parametrize("points", [3, 4, 10, 200])
@pytest.mark.parametrize("seed", range(3))
def test_quadratic_r2_is_that_of_polyfit(seed, points):
    x, y = law(seed, points)
    expected = share_explained(y, np.polyval(np.polyfit(x, y, 2), x))
    np.testing.assert_allclose(quadratic_r2(jnp.asarray(x), jnp.asarray(y)), expected, atol=1e-11)


@pytest.mark.parametrize("coefficients", [(1.0, 0.0, 0.0), (-2.0, 3.0, 1e3), (0.0, -1.0, 4.0)])
def test_quadratic_r2_of_a_parabola_is_one(coefficients):
    x, _ = law(0)
    np.testing.assert_allclose(quadratic_r2(jnp.asarray(x), jnp.asarray(np.polyval(coefficients, x))), 1, rtol=1e-13)


def test_quadratic_r2_ignores_the_units_of_both_axes():
    x, y = (jnp.asarray(v) for v in law(1))
    plain = quadratic_r2(x, y)
    for scaled in ((3.0 * x - 7.0, y), (-1e-9 * x, y), (1e9 * x + 1.0, y), (x, 2.0 - 5.0 * y), (x, 1e-12 * y)):
        np.testing.assert_allclose(quadratic_r2(*scaled), plain, rtol=1e-12)


def test_quadratic_r2_keeps_its_digits_far_from_the_origin():
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.integers(0, 4096, 50) / 1024)  # exact also after the shift
    y = x**2 + jnp.asarray(rng.normal(size=50))
    np.testing.assert_allclose(quadratic_r2(x + 1e6, y), quadratic_r2(x, y), rtol=1e-12)


def test_quadratic_r2_of_noise_is_the_share_of_its_two_slopes():
    """R² of k regressors on n points of pure noise has mean k / (n - 1)."""
    x, y = np.random.default_rng(4).normal(size=(2, 2000, 50))
    r2 = np.asarray(jax.jit(jax.vmap(rz.quadratic_r2))(jnp.asarray(x), jnp.asarray(y)))
    assert r2.min() >= 0
    assert abs(r2.mean() - 2 / 49) < 4 * r2.std() / np.sqrt(r2.size)


def isotonic_by_scipy(x, y):
    """Ties of x are one point: the mean of its y, with their number for its weight."""
    _, group, count = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(group, y) / count
    return scipy.optimize.isotonic_regression(means, weights=count).x[group]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("points", [2, 5, 40, 150])
def test_isotonic_fit_and_its_r2_are_those_of_scipy(points, ties):
    for seed in range(3):
        x, y = law(seed, points, ties)
        expected = isotonic_by_scipy(x, y)
        np.testing.assert_allclose(isotonic_fit(jnp.asarray(x), jnp.asarray(y)), expected, rtol=1e-13, atol=1e-13)
        r2 = share_explained(y, expected)
        np.testing.assert_allclose(isotonic_r2(jnp.asarray(x), jnp.asarray(y)), r2, atol=1e-13)


def test_isotonic_r2_is_the_best_of_all_step_functions():
    """The best increasing function is the mean of y on consecutive blocks: try every division into blocks."""
    n, rng = 7, np.random.default_rng(5)
    for _ in range(5):
        y, best = rng.normal(size=n), -INF
        for cuts in itertools.product([False, True], repeat=n - 1):
            block = np.concatenate([[0], np.cumsum(cuts)])
            means = np.bincount(block, y) / np.bincount(block)
            if np.all(np.diff(means) >= 0):
                best = max(best, share_explained(y, means[block]))
        order = rng.permutation(n)
        np.testing.assert_allclose(isotonic_r2(jnp.asarray(order * 1.0), jnp.asarray(y[order])), best, atol=1e-14)


def test_isotonic_r2_bounds_every_increasing_parabola():
    bounded = 0
    for seed in range(20):
        x, y = law(seed)
        slope = np.polyder(np.polyfit(x, y, 2))
        if np.polyval(slope, [x.min(), x.max()]).min() > 0:
            bounded += 1
            x, y = jnp.asarray(x), jnp.asarray(y)
            assert isotonic_r2(x, y) > quadratic_r2(x, y) > 0
    assert bounded >= 5


def test_isotonic_r2_of_an_increasing_law_is_one_and_of_a_decreasing_one_zero():
    x = jnp.asarray(law(0)[0])
    np.testing.assert_allclose(isotonic_r2(x, jnp.floor(4 * x)), 1, rtol=1e-14)
    np.testing.assert_allclose(isotonic_r2(x, -x), 0, atol=1e-14)
    np.testing.assert_allclose(isotonic_r2(jnp.ones(5), x[:5]), 0, atol=1e-14)


@pytest.mark.parametrize("fit", [isotonic_r2, rank_correlation], ids=lambda f: f.__name__)
@pytest.mark.parametrize("ties", [False, True])
def test_only_the_order_of_x_counts(fit, ties):
    x, y = (jnp.asarray(v) for v in law(2, ties=ties))
    for increasing in (jnp.exp, lambda v: v**3, lambda v: 1e6 + v / 1024):
        np.testing.assert_allclose(fit(increasing(x), y), fit(x, y), rtol=1e-14)


@EACH_FIT
@pytest.mark.parametrize("ties", [False, True])
def test_the_order_of_the_points_does_not_count(fit, ties):
    x, y = law(3, ties=ties)
    order = np.random.default_rng(0).permutation(x.size)
    shuffled = fit(jnp.asarray(x[order]), jnp.asarray(y[order]))
    np.testing.assert_allclose(shuffled, fit(jnp.asarray(x), jnp.asarray(y)), rtol=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("points", [3, 10, 200])
def test_rank_correlation_is_that_of_scipy(points, ties):
    for seed in range(3):
        x, y = law(seed, points, ties)
        y = np.round(y) if ties else y
        expected = scipy.stats.spearmanr(x, y).statistic
        np.testing.assert_allclose(rank_correlation(jnp.asarray(x), jnp.asarray(y)), expected, atol=1e-14)


def test_rank_correlation_of_a_monotone_law_is_one_of_its_sign():
    x = jnp.asarray(law(0)[0])
    np.testing.assert_allclose(rank_correlation(x, jnp.exp(x)), 1, rtol=1e-14)
    np.testing.assert_allclose(rank_correlation(x, -(x**3)), -1, rtol=1e-14)


@EACH_FIT
@pytest.mark.parametrize("points", [3, 10, 49])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.7])
def test_a_constant_forgetting_leaves_nothing_to_explain(fit, points, value):
    assert jnp.isnan(fit(jnp.arange(1.0, points + 1), jnp.full(points, value)))


@pytest.mark.parametrize("points", [3, 10, 49])
def test_a_constant_drift_has_no_rank_correlation_and_explains_nothing(points):
    x, y = jnp.full(points, 0.1), jnp.asarray(law(0, points)[1])
    assert jnp.isnan(rank_correlation(x, y))
    np.testing.assert_allclose([quadratic_r2(x, y), isotonic_r2(x, y)], 0, atol=1e-13)


@pytest.mark.parametrize("fit", FITS, ids=lambda f: f.__name__)
def test_fits_run_under_jit_and_vmap_and_keep_float32(fit):
    xs, ys = (jnp.asarray(v) for v in np.swapaxes([law(seed) for seed in range(3)], 0, 1))
    mapped = quick_jit(jax.vmap(fit))(xs, ys)
    compiled = quick_jit(fit)
    np.testing.assert_allclose(mapped, [compiled(x, y) for x, y in zip(xs, ys, strict=True)], rtol=1e-12)
    np.testing.assert_allclose(mapped[0], fit(xs[0], ys[0]), rtol=1e-12)
    single = compiled(xs[0].astype(jnp.float32), ys[0].astype(jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, mapped[0], rtol=1e-5)


@pytest.mark.parametrize("fit", FITS, ids=lambda f: f.__name__)
def test_fits_refuse_other_numbers_of_points_and_integers(fit, as_installed):
    with pytest.raises(ValueError, match="y has 4 samples"):
        fit(jnp.zeros(5), jnp.zeros(4))
    with pytest.raises(TypeError, match="y must be a floating array, got int64"):
        fit(jnp.zeros(5), jnp.arange(5))


# The bootstrap

interval_of_mean = quick_jit(lambda key, x: rz.bootstrap(jnp.mean, key, x))


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_the_interval_ends_at_the_quantiles_of_all_resamples(level):
    sample = np.array([0.1, 0.9, 1.5, 3.7, 9.2])
    every = np.mean(list(itertools.product(sample, repeat=5)), axis=1)
    found = rz.bootstrap(jnp.mean, KEY, jnp.asarray(sample), num_resamples=20_000, level=level)
    np.testing.assert_allclose(found.value, sample.mean(), rtol=1e-14)
    for end, rank in ((float(found.low), (1 - level) / 2), (float(found.high), (1 + level) / 2)):
        error = 4 * np.sqrt(rank * (1 - rank) / 20_000)
        assert np.mean(every < end - 1e-9) < rank + error
        assert np.mean(every <= end + 1e-9) > rank - error


def test_the_interval_is_that_of_scipy():
    sample = np.random.default_rng(0).exponential(size=50)
    found = rz.bootstrap(jnp.median, KEY, jnp.asarray(sample), num_resamples=10_000, level=0.9)
    theirs = scipy.stats.bootstrap(
        (sample,),
        np.median,
        n_resamples=10_000,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(1),
    )
    draws = theirs.bootstrap_distribution
    for end, rank in ((found.low, 0.05), (found.high, 0.95)):
        low, high = np.quantile(draws, [rank - 0.015, rank + 0.015])  # five standard errors of a difference of ranks
        assert low <= end <= high


def test_intervals_of_the_mean_cover_it_at_their_level_under_vmap():
    samples = 3.0 + jax.random.normal(jax.random.key(1), (500, 100))
    keys = jax.random.split(KEY, 500)
    found = jax.jit(jax.vmap(lambda key, x: rz.bootstrap(jnp.mean, key, x, num_resamples=400)))(keys, samples)
    covered = np.mean((np.asarray(found.low) < 3.0) & (np.asarray(found.high) > 3.0))
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 500)
    np.testing.assert_allclose(np.mean(found.high - found.low), 2 * 1.96 / np.sqrt(100), rtol=0.03)
    np.testing.assert_allclose(found.value, samples.mean(1), rtol=1e-13)


def test_points_that_repeat_their_unit_do_not_narrow_the_interval():
    units = np.random.default_rng(1).normal(size=60)
    points = jnp.asarray(np.repeat(units[:, None], 16, axis=1))
    by_unit, one_each, flat = (interval_of_mean(KEY, x) for x in (points, jnp.asarray(units), points.ravel()))
    np.testing.assert_allclose(by_unit, one_each, rtol=1e-12)
    np.testing.assert_allclose((by_unit.high - by_unit.low) / (flat.high - flat.low), 4, rtol=0.2)


def test_all_arrays_are_resampled_alike():
    x = jnp.asarray(law(0)[0])
    together = rz.bootstrap(lambda a, b: jnp.mean(b[:, 0] - a), KEY, x, jnp.stack([x + 1, x], axis=1))
    np.testing.assert_allclose(together, 1.0, rtol=1e-12)


def test_the_same_key_gives_the_same_interval_and_another_key_another():
    x = jnp.asarray(law(0)[0])
    one, again, other = (interval_of_mean(key, x) for key in (KEY, KEY, jax.random.key(7)))
    assert one == again
    assert one.value == other.value
    assert one.low != other.low
    np.testing.assert_allclose(rz.bootstrap(jnp.mean, KEY, x), one, rtol=1e-13)


def test_a_bootstrap_keeps_float32():
    found = rz.bootstrap(jnp.mean, KEY, jnp.arange(5, dtype=jnp.float32), num_resamples=10)
    assert {leaf.dtype for leaf in found} == {jnp.dtype("float32")}


def test_a_bootstrap_takes_numpy_arrays(as_installed):
    x = law(0)[0]
    np.testing.assert_allclose(rz.bootstrap(jnp.mean, KEY, x), interval_of_mean(KEY, jnp.asarray(x)), rtol=1e-13)


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((3,), ()), ((),), ()])
def test_samples_must_share_their_units(shapes, as_installed):
    with pytest.raises(ValueError, match="samples must share their leading axis, got shapes"):
        rz.bootstrap(lambda *arrays: jnp.zeros(()), KEY, *(jnp.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("level", [0, 1, -0.1, 95, float("nan")])
def test_a_level_outside_the_unit_interval_is_refused(level, as_installed):
    with pytest.raises(ValueError, match=rf"level must lie in \(0, 1\), got {level}"):
        rz.bootstrap(jnp.mean, KEY, jnp.zeros(3), level=level)


@pytest.mark.parametrize("statistic", [rz.quadratic_r2, rz.isotonic_r2, rz.rank_correlation])
def test_a_law_is_fitted_to_vectors(statistic, as_installed):
    with pytest.raises(ValueError, match=r"vectors.*\(2, 3\)"):
        statistic(jnp.zeros((2, 3)), jnp.zeros((2, 3)))


def test_the_interval_of_a_mean_covers_as_often_as_it_says():
    """Over 400 samples of 30 normal numbers, the 90% interval of the mean; the bootstrap is a little short of it."""
    samples = jax.random.normal(jax.random.key(0), (400, 30))
    found = jax.lax.map(lambda x: rz.mean_interval(x, jax.random.key(1), num_resamples=200, level=0.9), samples)
    covered = float(((found.low < 0) & (found.high > 0)).mean())
    assert 0.83 < covered < 0.94
    np.testing.assert_allclose(found.value, samples.mean(1), rtol=1e-12)
