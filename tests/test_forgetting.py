"""Drift, the accuracy-KL frontier and the fits of the forgetting law, against loops, enumeration, numpy and scipy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

import rlrazor as rz
from tests.oracles import Contract, dirichlet_logs, kept_by, quick_jit, refused_by

INF = np.inf
KEY = jax.random.key(0)
P0 = 0.85
BASE = jnp.log(jnp.array([0.30, 0.25, 0.15, 0.10, 0.05, 0.05, 0.03, 0.04, 0.02, 0.01]))
ACCEPT = np.arange(10) < 5
SUCCESS = jnp.asarray(ACCEPT, float)


def log(p):
    with np.errstate(divide="ignore"):
        return jnp.asarray(np.log(np.asarray(p, dtype=float)))


def kl(p, q):
    return sum(a * (np.log(a) - np.log(b)) for a, b in zip(p, q, strict=True))


# Drift


def test_drift_is_the_mean_over_prompts_of_the_divergence_of_each():
    rng = np.random.default_rng(0)
    ref, policy = rng.dirichlet(np.ones(4), size=(2, 3, 5))
    forward, reverse = np.zeros(3), np.zeros(3)
    for i, j in np.ndindex(3, 5):
        forward[i] += kl(ref[i, j], policy[i, j]) / 5
        reverse[i] += kl(policy[i, j], ref[i, j]) / 5
    np.testing.assert_allclose(rz.drift(log(ref), log(policy)), forward, rtol=1e-12)
    np.testing.assert_allclose(rz.reverse_drift(log(ref), log(policy)), reverse, rtol=1e-12)


def test_drift_splits_into_what_success_costs_and_what_each_side_of_it_adds():
    """Chain rule for the event S: KL(p || q) = kl(p(S), q(S)) + p(S) KL(p_S || q_S) + (1 - p(S)) KL(p_F || q_F)."""
    rng = np.random.default_rng(1)
    base = np.exp(BASE)

    def split(p, q):
        inside, outside = p[ACCEPT].sum(), p[~ACCEPT].sum()
        halves = [
            kl(x[side] / x[side].sum(), y[side] / y[side].sum()) for x, y, side in ((p, q, ACCEPT), (p, q, ~ACCEPT))
        ]
        return kl([inside, outside], [q[ACCEPT].sum(), q[~ACCEPT].sum()]) + inside * halves[0] + outside * halves[1]

    for policy in rng.dirichlet(np.ones(10), size=20):
        np.testing.assert_allclose(rz.drift(BASE[None], log(policy)[None]), split(base, policy), rtol=1e-11)
        np.testing.assert_allclose(rz.reverse_drift(BASE[None], log(policy)[None]), split(policy, base), rtol=1e-11)


def test_one_prompt_that_loses_an_outcome_makes_the_whole_drift_infinite():
    ref, narrow = log([[0.5, 0.5], [0.5, 0.5]]), log([[0.5, 0.5], [1.0, 0.0]])
    assert rz.drift(ref, narrow) == INF
    assert rz.reverse_drift(narrow, ref) == INF
    np.testing.assert_allclose(rz.drift(narrow, ref), np.log(2) / 2, rtol=1e-14)
    np.testing.assert_allclose(rz.reverse_drift(ref, narrow), np.log(2) / 2, rtol=1e-14)


def test_a_policy_that_stayed_has_no_drift():
    assert rz.drift(BASE[None], BASE[None]) == rz.reverse_drift(BASE[None], BASE[None]) == 0.0


@pytest.mark.parametrize("function", [rz.drift, rz.reverse_drift])
def test_one_reference_serves_many_policies(function):
    rng = np.random.default_rng(2)
    ref, policies = dirichlet_logs(rng, (5, 4)), dirichlet_logs(rng, (2, 3, 5, 4))
    together = function(ref, policies)
    assert together.shape == (2, 3)
    for i in np.ndindex(2, 3):
        np.testing.assert_allclose(together[i], function(ref, policies[i]), rtol=1e-14)


@pytest.mark.parametrize("function", [rz.drift, rz.reverse_drift])
def test_drift_needs_a_prompt_axis(function, as_installed):
    with pytest.raises(ValueError, match=r"log_ref and log_policy need a prompt axis: \[\.\.\., prompts, outcomes\]"):
        function(BASE, BASE)


def drift(log_ref, log_policy):
    return rz.drift(log_ref[..., None, :], log_policy[..., None, :])


def reverse_drift(log_ref, log_policy):
    return rz.reverse_drift(log_ref[..., None, :], log_policy[..., None, :])


@pytest.mark.parametrize(
    ("keeps", "case"), kept_by([Contract(f, ("log_ref", "log_policy")) for f in (drift, reverse_drift)])
)
def test_contract(keeps, case):
    keeps(case)


@pytest.mark.parametrize(
    ("refuses", "case"), refused_by([Contract(f, ("log_ref", "log_policy")) for f in (rz.drift, rz.reverse_drift)])
)
def test_refusals(refuses, case, as_installed):
    refuses(case)


# The accuracy-KL frontier: no policy that succeeds with probability J is closer to the base than kl(p0, J), kl(J, p0)


@jax.jit
def measure(log_policy):
    """Forward and reverse drift, success and failure rate of each policy, `[4, policies]`."""
    rows = log_policy[:, None]
    return jnp.stack(
        [
            rz.drift(BASE[None], rows),
            rz.reverse_drift(BASE[None], rows),
            rz.expected_reward(log_policy, SUCCESS),
            rz.expected_reward(log_policy, 1 - SUCCESS),
        ]
    )


@jax.jit
def least_drift(success, failure, p0):
    """kl(p0, J) and kl(J, p0), `[2, policies]`, from the smaller of J and 1 - J, which carries the smaller rounding."""
    rare, of_base = jnp.minimum(success, failure), jnp.where(success < failure, p0, 1 - p0)
    return jnp.stack([rz.binary_kl(of_base, rare), rz.binary_kl(rare, of_base)])


@pytest.fixture(scope="module")
def random_policies():
    """Measures of 50,000 policies from all over the simplex and of 50,000 about the frontier."""
    rng = np.random.default_rng(0)
    with np.errstate(divide="ignore"):
        wide = np.log(rng.standard_gamma(10 ** rng.uniform(-1.3, 1.5, size=(50_000, 1)), size=(50_000, 10)))
    tilts = np.asarray(BASE) + rng.uniform(-3, 25, size=(50_000, 1)) * ACCEPT
    close = tilts + 10 ** rng.uniform(-7, 0, size=(50_000, 1)) * rng.normal(size=(50_000, 10))
    return np.asarray(measure(jax.nn.log_softmax(jnp.concatenate([jnp.asarray(wide), close]))))


def test_none_of_100000_random_policies_lies_below_the_frontier(random_policies):
    drifts, rates = random_policies[:2], random_policies[2:]
    assert drifts.shape == (2, 100_000)
    assert not np.isnan(random_policies).any()
    above = drifts - least_drift(*rates, P0)
    assert above.min() > -1e-12
    assert np.all((above[:, 50_000:] < 1e-9).mean(1) > 0.2)  # many are tight
    assert np.all((above[:, :50_000] > 1e-3).mean(1) > 0.9)
    low, high = np.quantile(rates[0], [0.05, 0.95])
    assert low < 0.3 < 0.999 < high


@pytest.mark.parametrize(("factor", "p0"), [(1.01, 0.85), (1 + 1e-6, 0.85), (1.0, 0.84), (1.0, 0.86)])
def test_the_search_finds_policies_below_any_other_frontier(random_policies, factor, p0):
    above = random_policies[:2] - factor * np.asarray(least_drift(*random_policies[2:], p0))
    assert np.all((above < -1e-12).sum(1) > 100)


@pytest.mark.parametrize(
    "path",
    [
        lambda: rz.reward_flow(BASE, SUCCESS, jnp.linspace(0.0, 27.0, 200)),
        lambda: rz.tilt(BASE, SUCCESS, jnp.geomspace(1 / 27, 1e3, 200)),
        lambda: rz.m_geodesic(BASE, rz.condition(BASE, jnp.asarray(ACCEPT)), 1 - jnp.geomspace(1e-11, 1.0, 200)),
        lambda: rz.m_geodesic(BASE, rz.condition(BASE, jnp.asarray(ACCEPT)), jnp.array([0.0, 1.0])),
    ],
    ids=["reward_flow", "tilt", "m_geodesic", "ends"],
)
def test_tilts_of_the_base_lie_on_the_frontier(path):
    drifts, rates = jnp.split(measure(quick_jit(path)()), 2)
    assert rates[1].min() < 1e-10
    np.testing.assert_allclose(rates[1].max(), 1 - P0, rtol=2e-2)
    np.testing.assert_allclose(drifts, least_drift(*rates, P0), rtol=0, atol=1e-9)


# Fits of the forgetting law

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


def test_the_value_at_a_crossing_is_that_of_the_first_one():
    progress, values = np.array([0.1, 0.3, 0.7, 0.2, 0.9]), np.array([5.0, 4.0, 1.0, 8.0, 2.0])
    for level in (0.15, 0.3, 0.55, 0.7):
        expected = np.interp(level, progress[:3], values[:3])
        np.testing.assert_allclose(rz.value_at_crossing(jnp.array(progress), jnp.array(values), level), expected)
    np.testing.assert_allclose(rz.value_at_crossing(jnp.array(progress), jnp.array(values), 0.8), 8 - 6 * 6 / 7)


def test_a_path_that_never_gets_there_has_no_value_and_one_that_starts_there_its_first():
    progress, values = jnp.array([0.5, 0.6]), jnp.array([3.0, 4.0])
    assert np.isnan(rz.value_at_crossing(progress, values, 0.7))
    assert rz.value_at_crossing(progress, values, 0.5) == 3
    assert rz.value_at_crossing(progress, values, 0.2) == 3
