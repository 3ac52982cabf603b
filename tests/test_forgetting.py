"""Success rates, drifts, the accuracy-KL frontier and crossings of a level, against loops and random search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz
from tests.oracles import Contract, compiled_by, dirichlet_logs, kept_by, quick_jit, refused_by

INF = np.inf
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
    np.testing.assert_allclose(rz.forward_drift(log(policy), log(ref)), forward, rtol=1e-12)
    np.testing.assert_allclose(rz.reverse_drift(log(policy), log(ref)), reverse, rtol=1e-12)


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
        np.testing.assert_allclose(rz.forward_drift(log(policy)[None], BASE[None]), split(base, policy), rtol=1e-11)
        np.testing.assert_allclose(rz.reverse_drift(log(policy)[None], BASE[None]), split(policy, base), rtol=1e-11)


def test_one_prompt_that_loses_an_outcome_makes_the_whole_drift_infinite():
    ref, narrow = log([[0.5, 0.5], [0.5, 0.5]]), log([[0.5, 0.5], [1.0, 0.0]])
    assert rz.forward_drift(narrow, ref) == INF
    assert rz.reverse_drift(ref, narrow) == INF
    np.testing.assert_allclose(rz.forward_drift(ref, narrow), np.log(2) / 2, rtol=1e-14)
    np.testing.assert_allclose(rz.reverse_drift(narrow, ref), np.log(2) / 2, rtol=1e-14)


def test_a_policy_that_stayed_has_no_drift():
    assert rz.forward_drift(BASE[None], BASE[None]) == rz.reverse_drift(BASE[None], BASE[None]) == 0.0


@pytest.mark.parametrize("function", [rz.forward_drift, rz.reverse_drift])
def test_one_reference_serves_many_policies(function):
    rng = np.random.default_rng(2)
    ref, policies = dirichlet_logs(rng, (5, 4)), dirichlet_logs(rng, (2, 3, 5, 4))
    together = function(policies, ref)
    assert together.shape == (2, 3)
    for i in np.ndindex(2, 3):
        np.testing.assert_allclose(together[i], function(policies[i], ref), rtol=1e-14)


@pytest.mark.parametrize("function", [rz.forward_drift, rz.reverse_drift])
def test_drift_needs_a_prompt_axis(function, as_installed):
    for name, arguments in (("log_policy", (BASE, BASE[None])), ("log_ref", (BASE[None], BASE))):
        with pytest.raises(
            ValueError, match=rf"{name} needs a prompt axis, \[\.\.\., prompts, outcomes\], got shape \(10,\)"
        ):
            function(*arguments)


@jax.jit
def forward_drift(log_policy, log_ref):
    return rz.forward_drift(log_policy[..., None, :], log_ref[..., None, :])


@jax.jit
def reverse_drift(log_policy, log_ref):
    return rz.reverse_drift(log_policy[..., None, :], log_ref[..., None, :])


DRIFTS = [Contract(f, ("log_policy", "log_ref")) for f in (rz.forward_drift, rz.reverse_drift)]
ON_ONE_PROMPT = [Contract(f, ("log_policy", "log_ref")) for f in (forward_drift, reverse_drift)]


@pytest.mark.parametrize(("keeps", "case"), compiled_by(DRIFTS) + kept_by(ON_ONE_PROMPT))
def test_contract(keeps, case):
    keeps(case)


@pytest.mark.parametrize(("refuses", "case"), refused_by(DRIFTS))
def test_refusals(refuses, case, as_installed):
    refuses(case)


# Success


def test_success_rate_and_its_log_are_sums_over_the_success_set():
    rng = np.random.default_rng(4)
    policies, sets = rng.dirichlet(np.ones(6), size=(4, 3)), rng.random((3, 6)) < 0.5
    expected = np.array([[policy[inside].sum() for policy, inside in zip(row, sets, strict=True)] for row in policies])
    np.testing.assert_allclose(rz.success_rate(log(policies), jnp.asarray(sets)), expected, rtol=1e-13, atol=0)
    np.testing.assert_allclose(rz.log_success(log(policies), jnp.asarray(sets)), np.log(expected), rtol=1e-12)


def test_log_success_survives_where_the_rate_underflows():
    log_policy = jnp.array([-900.0, -900.0, 0.0])
    np.testing.assert_allclose(rz.log_success(log_policy, jnp.array([True, True, False])), np.log(2) - 900, rtol=1e-15)


def test_a_policy_that_never_succeeds_has_log_success_of_minus_infinity_and_no_slope():
    log_policy, accept = log([0.0, 1.0]), jnp.array([True, False])
    assert rz.log_success(log_policy, accept) == -INF
    np.testing.assert_array_equal(jax.grad(rz.log_success)(log_policy, accept), 0)


@pytest.mark.parametrize("function", [rz.success_rate, rz.log_success])
def test_a_success_set_is_boolean(function, as_installed):
    with pytest.raises(TypeError, match="accept"):
        function(BASE, SUCCESS)


@pytest.mark.parametrize("function", [rz.success_rate, rz.log_success])
def test_a_success_rate_has_the_slope_of_finite_differences(function):
    logits, accept, step = jnp.asarray(np.random.default_rng(5).normal(size=10)), jnp.asarray(ACCEPT), 1e-6

    def rate(logits):
        return function(jax.nn.log_softmax(logits), accept)

    slopes = [(rate(logits + step * e) - rate(logits - step * e)) / (2 * step) for e in jnp.eye(10)]
    np.testing.assert_allclose(jax.grad(rate)(logits), jnp.stack(slopes), rtol=0, atol=1e-9)


def test_the_success_frontier_is_that_of_the_base_reweighted_on_the_success_set():
    for success in (0.1, 0.5, P0, 0.99, 1.0):
        p = np.exp(BASE) * np.where(ACCEPT, success / P0, (1 - success) / (1 - P0))
        expected = rz.drifts(log(p)[None], BASE[None])
        np.testing.assert_allclose(rz.success_frontier(P0, success), expected, rtol=1e-12, atol=1e-15)


# The accuracy-KL frontier: no policy that succeeds with probability J is closer to the base than kl(p0, J), kl(J, p0)


@jax.jit
def measure(log_policy):
    """Forward and reverse drift, success and failure rate of each policy, `[4, policies]`."""
    rows = log_policy[:, None]
    return jnp.stack(
        [
            *rz.drifts(rows, BASE[None]),
            rz.success_rate(log_policy, jnp.asarray(ACCEPT)),
            rz.success_rate(log_policy, jnp.asarray(~ACCEPT)),
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


# Where a path crosses a level


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


def test_paths_of_any_leading_axes_cross_each_at_its_own_level():
    rng = np.random.default_rng(6)
    progress, values = jnp.asarray(np.sort(rng.random((2, 3, 9)))), jnp.asarray(rng.normal(size=(3, 9)))
    levels = jnp.asarray(rng.random(3))
    together = rz.value_at_crossing(progress, values, levels)
    assert together.shape == (2, 3)
    assert 0 < np.isnan(together).sum() < 6 or np.isfinite(together).all()
    for i, j in np.ndindex(2, 3):
        np.testing.assert_array_equal(together[i, j], rz.value_at_crossing(progress[i, j], values[j], levels[j]))


def test_pareto_optimal_points_are_those_that_no_loop_finds_beaten():
    new, old = np.random.default_rng(5).integers(0, 6, (2, 4, 40)) / 5  # with ties
    want = np.zeros(new.shape, bool)
    for row, i in np.ndindex(*new.shape):
        a, b = new[row], old[row]
        others = zip(a.tolist(), b.tolist(), strict=True)
        want[row, i] = not any(x >= a[i] and y >= b[i] and (x > a[i] or y > b[i]) for x, y in others)
    np.testing.assert_array_equal(rz.pareto_optimal(jnp.asarray(new), jnp.asarray(old)), want)
    assert 4 <= want.sum() < 80
