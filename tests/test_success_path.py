"""The curve of softmax policy gradient on the success rate: the flow itself, what it conserves, and printed numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

import rlrazor as rz
from tests.oracles import Contract, kept_by, quick_jit, refused_by

INF = np.inf
SKEWED = jnp.log(jnp.array([0.30, 0.25, 0.15, 0.10, 0.05, 0.05, 0.03, 0.04, 0.02, 0.01]))
UNIFORM = jnp.log(jnp.array([0.17] * 5 + [0.03] * 5))
ACCEPT = jnp.arange(10) < 5
SUCCESS = ACCEPT.astype(float)

path = quick_jit(rz.success_gradient_path)


def log(p):
    with np.errstate(divide="ignore"):
        return jnp.asarray(np.log(np.asarray(p, dtype=float)))


def success_rate(log_policy, accept=ACCEPT):
    return (np.exp(log_policy) * np.asarray(accept)).sum(-1)


def problems():
    """(log_init, accept), `[6, 10]`: the two bases, and random ones with three successes."""
    rng = np.random.default_rng(0)
    inits = [np.exp(SKEWED), np.exp(UNIFORM), *rng.dirichlet(np.ones(10), size=4)]
    accepts = [ACCEPT, ACCEPT, *(rng.permutation(10) < 3 for _ in range(4))]
    return log(inits), jnp.asarray(np.array(accepts))


LOG_INIT, ACCEPTS = problems()


def likeliest_success(log_init, accept):
    return np.where(accept, log_init, -INF).argmax(-1, keepdims=True)


# The curve


def test_gradient_flow_of_the_success_rate_runs_along_the_path():
    times = jnp.concatenate([jnp.zeros(1), jnp.geomspace(0.1, 1e4, 30)])

    def flow(problem):
        log_init, success = problem
        return rz.gradient_flow(
            lambda log_policy: -rz.expected_reward(log_policy, success), log_init, times, tolerance=1e-11
        )

    flows = jax.jit(lambda p: jax.lax.map(flow, p))((LOG_INIT, ACCEPTS.astype(float)))
    assert np.all(flows.converged)
    top = likeliest_success(LOG_INIT, ACCEPTS)
    first = np.take_along_axis(np.asarray(LOG_INIT), top, -1)
    logit = np.take_along_axis(np.asarray(flows.params), top[:, None], -1)[..., 0]
    progress = -np.expm1(first - logit)  # top (exp(-logit_0) - exp(-logit)), with top = exp(logit_0)
    assert progress[:, -1].min() > 0.95
    measured = path(LOG_INIT[:, None], ACCEPTS[:, None], jnp.asarray(progress))
    np.testing.assert_allclose(measured, flows.log_policy, rtol=0, atol=1e-7)


def test_the_path_conserves_differences_of_inverse_weights_inside_and_outside_success():
    """With the logits theta that keep their sum, exp(-theta) moves by one shift for S and by one for the rest."""
    progress = jnp.array([0.01, 0.3, 0.9, 0.999])
    log_policy = np.asarray(path(LOG_INIT[:, None], ACCEPTS[:, None], progress))
    log_init, accept = np.asarray(LOG_INIT)[:, None], np.asarray(ACCEPTS)
    theta = log_policy + (log_init - log_policy).mean(-1, keepdims=True)
    shift = np.exp(-theta) - np.exp(-log_init)
    for k, inside in enumerate(accept):
        scale = np.exp(-theta[k]).max(-1)
        assert np.all(np.ptp(shift[k][:, inside], axis=-1) < 1e-12 * scale)
        assert np.all(np.ptp(shift[k][:, ~inside], axis=-1) < 1e-12 * scale)
        moved = -shift[k][:, inside].mean(-1) * np.exp(log_init[k, 0, inside].max())
        np.testing.assert_allclose(moved, progress, rtol=1e-9)
        assert np.all(shift[k][:, ~inside] > 0)


def test_success_and_the_share_of_the_likeliest_success_only_grow():
    progress = jnp.concatenate([jnp.linspace(0.0, 0.99, 100), 1 - jnp.geomspace(1e-3, 1e-8, 6), jnp.ones(1)])
    log_policy = path(LOG_INIT[:, None], ACCEPTS[:, None], progress)
    inside, outside = (success_rate(log_policy, side[:, None]) for side in (ACCEPTS, ~ACCEPTS))
    assert np.all(np.diff(outside) < 0)
    np.testing.assert_array_equal(outside[:, -1], 0)
    top = likeliest_success(LOG_INIT, ACCEPTS)[:, None]
    share = np.take_along_axis(np.exp(log_policy), top, -1)[..., 0] / inside
    assert np.all(np.diff(share) > -1e-15)
    assert np.all((share[:, -1] - share[:, 0])[np.arange(6) != 1] > 0.1)  # the uniform base has no likeliest


def test_equally_likely_successes_stay_on_the_frontier():
    log_policy = np.asarray(path(UNIFORM[None], ACCEPT[None], jnp.array([0.0, 0.1, 0.5, 0.9, 0.999])))
    for side in (slice(0, 5), slice(5, 10)):
        np.testing.assert_allclose(np.ptp(log_policy[:, side], axis=-1), 0, atol=1e-14)
    rate = jnp.asarray(success_rate(log_policy))
    np.testing.assert_allclose(rz.kl_divergence(jnp.asarray(log_policy), UNIFORM), rz.binary_kl(rate, 0.85), atol=1e-14)
    np.testing.assert_allclose(rz.kl_divergence(UNIFORM, jnp.asarray(log_policy)), rz.binary_kl(0.85, rate), atol=1e-12)


# Its ends


def test_the_path_starts_at_the_initial_policy():
    np.testing.assert_allclose(path(LOG_INIT, ACCEPTS, 0.0), LOG_INIT, rtol=0, atol=1e-15)


def test_the_path_ends_at_the_likeliest_success_alone_and_pays_more_than_conditioning():
    end = path(SKEWED, ACCEPT, 1.0)
    assert end.tolist() == [0.0] + [-INF] * 9
    np.testing.assert_allclose(rz.reverse_drift(end[None], SKEWED[None]), -np.log(0.30), rtol=1e-13)
    conditioned = rz.condition(SKEWED, ACCEPT)
    np.testing.assert_allclose(rz.reverse_drift(conditioned[None], SKEWED[None]), -np.log(0.85), rtol=1e-13)


def test_the_path_ends_at_all_of_several_likeliest_successes():
    log_init = log([0.1, 0.2, 0.2, 0.05, 0.45])
    end = path(log_init, jnp.array([True, True, True, True, False]), 1.0)
    np.testing.assert_allclose(np.exp(end), [0, 0.5, 0.5, 0, 0], rtol=1e-15)


def test_the_path_is_continuous_at_both_ends():
    near_start, near_end = path(LOG_INIT[:, None], ACCEPTS[:, None], jnp.array([1e-12, 1 - 1e-12])).swapaxes(0, 1)
    assert np.all(np.isfinite(near_start) & np.isfinite(near_end))
    np.testing.assert_allclose(near_start, LOG_INIT, rtol=0, atol=1e-10)
    np.testing.assert_allclose(np.exp(near_end), np.exp(path(LOG_INIT, ACCEPTS, 1.0)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("rate", [-200.0, -800.0, -5000.0])
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_successes_and_failures_too_rare_for_a_float_still_count(rate, dtype):
    log_init = jax.nn.log_softmax(jnp.array([rate, rate - 1, 0.0, -1.0], dtype))
    rare, common = jnp.array([True, True, False, False]), jnp.array([False, False, True, True])
    for accept, top in ((rare, 0), (common, 2)):
        np.testing.assert_array_equal(np.exp(path(log_init, accept, 1.0)), np.eye(4)[top])
    halfway = path(log_init, rare, 0.5)  # where weights inside S have grown by 1 / (1 - 0.5 init / top)
    gained = np.log((1 - 0.5 / np.e) / (1 - 0.5))
    np.testing.assert_allclose(halfway[0] - halfway[1], 1 + gained, rtol=4 * -rate * jnp.finfo(dtype).eps)


# Derivatives


def slope(f, x, h=1e-4):
    """Derivative by the five-point stencil, exact to fourth order."""
    return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h)


derivative = quick_jit(jax.jacfwd(lambda a, log_init, accept: rz.success_gradient_path(log_init, accept, a)))


@pytest.mark.parametrize("progress", [0.01, 0.5, 0.95])
def test_derivative_in_progress_matches_finite_differences(progress):
    for log_init, accept in zip(LOG_INIT, ACCEPTS, strict=True):
        differences = slope(lambda a, x=log_init, s=accept: np.asarray(path(x, s, a)), progress, h=2e-4)
        np.testing.assert_allclose(derivative(progress, log_init, accept), differences, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("progress", [0.0, 1e-300, 1e-12])
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_the_path_sets_off_along_the_gradient(progress, dtype):
    """From d logits / dt = p (1_S - J) and d progress / dt = top (1 - J)."""
    p = np.exp(SKEWED)
    step = p * (np.asarray(ACCEPT) - 0.85)
    expected = (step - p @ step) / (0.30 * 0.15)
    measured = derivative(jnp.asarray(progress, dtype), SKEWED.astype(dtype), ACCEPT)
    np.testing.assert_allclose(measured, expected, rtol=1e-4 if dtype == jnp.float32 else 1e-9)


def test_derivative_in_the_initial_policy_matches_finite_differences_in_both_modes():
    def at(logits):
        return rz.success_gradient_path(rz.softmax_policy(logits), ACCEPT, 0.7)

    at_once = quick_jit(at)
    directions = np.eye(10)[[0, 2, 7]]
    differences = [slope(lambda h, e=e: np.asarray(at_once(SKEWED + h * e)), 0.0) for e in directions]
    forward, backward = quick_jit(lambda x: (jax.jacfwd(at)(x), jax.jacrev(at)(x)))(SKEWED)
    np.testing.assert_allclose(forward @ directions.T, np.transpose(differences), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(backward, forward, rtol=1e-10, atol=1e-12)


# The boundary


@pytest.mark.parametrize("progress", [0.0, 1e-12, 0.5, 1 - 1e-12, 1.0])
def test_impossible_outcomes_stay_impossible_and_change_nothing(progress):
    log_init, accept = log([0.3, 0.2, 0.0, 0.4, 0.1, 0.0]), jnp.array([True, True, True, False, False, False])
    kept = np.array([0, 1, 3, 4])

    def value_and_slopes(log_init, accept):
        value, pull = jax.vjp(lambda x, a: rz.success_gradient_path(x, accept, a), log_init, jnp.asarray(progress))
        return value, *pull(jnp.where(log_init > -INF, jnp.arange(1.0, log_init.size + 1), 0.0))

    value, by_init, by_progress = quick_jit(value_and_slopes)(log_init, accept)
    assert np.all(np.isneginf(value[np.array([2, 5])]))
    np.testing.assert_allclose(value[kept], path(log_init[kept], accept[kept], progress), rtol=1e-13, atol=1e-15)
    assert np.isfinite(by_progress)
    assert np.all(np.isfinite(by_init))
    assert np.all(by_init[np.array([2, 5])] == 0)


@pytest.mark.parametrize("accept", [[True] * 3 + [False], [False] * 3 + [True], [False] * 4, [True] * 4])
def test_a_policy_that_always_or_never_succeeds_stays(accept):
    log_init = log([0.2, 0.5, 0.3, 0.0])
    progress = jnp.array([0.0, 0.5, 1.0])
    stayed = path(log_init[None], jnp.array(accept)[None], progress)
    np.testing.assert_array_equal(stayed, np.tile(log_init, (3, 1)))
    slopes = quick_jit(jax.jacfwd(lambda a: rz.success_gradient_path(log_init, jnp.array(accept), a)))(progress[1])
    np.testing.assert_array_equal(slopes, 0)


def test_float32_stays_float32_and_accurate():
    progress = jnp.array([0.0, 1e-9, 0.3, 0.99, 1.0], jnp.float32)
    single = path(SKEWED[None].astype(jnp.float32), ACCEPT[None], progress)
    assert single.dtype == jnp.float32
    double = path(SKEWED[None], ACCEPT[None], progress.astype(float))
    np.testing.assert_allclose(single, double, rtol=1e-5, atol=1e-6)


PUBLIC = [Contract(rz.success_gradient_path, ("log_init", "accept"), {"progress": (0.3, 0.0, 1.0)})]


@pytest.mark.parametrize(("keeps", "case"), kept_by(PUBLIC))
def test_contract(keeps, case):
    keeps(case)


@pytest.mark.parametrize(("refuses", "case"), refused_by(PUBLIC))
def test_refusals(refuses, case, as_installed):
    refuses(case)


def test_progress_accept_and_initial_policies_broadcast():
    progress = jnp.array([0.2, 0.9])
    grid = path(LOG_INIT[:3, None, None], ACCEPTS[3:, None], progress)
    assert grid.shape == (3, 3, 2, 10)
    for i, j, k in ((0, 0, 0), (0, 2, 1), (2, 1, 1)):
        np.testing.assert_allclose(grid[i, j, k], path(LOG_INIT[i], ACCEPTS[3 + j], progress[k]), rtol=1e-12)


def test_accept_must_be_boolean_and_progress_no_negative_number(as_installed):
    with pytest.raises(TypeError, match=r"accept must be a boolean array, got float64 of shape \(10,\)"):
        rz.success_gradient_path(SKEWED, SUCCESS, 0.5)
    for progress in (-0.1, float("nan")):
        with pytest.raises(ValueError, match=f"progress must be at least 0, got {progress}"):
            rz.success_gradient_path(SKEWED, ACCEPT, progress)


# Reference values: where each method stands when it first succeeds with probability J

TWO_LABELS, ONE_LABEL = log([0.5, 0, 0.5] + [0] * 7), log([1.0] + [0] * 9)
FRONTIER = {0.90: (0.012, 0.011), 0.95: (0.071, 0.051), 0.99: (0.2766, 0.1239)}


@pytest.fixture(scope="module")
def stopped():
    """(base, method, J) -> policy: `sft_loss` to a target, or policy gradient where there is none."""
    cases = {}
    for name, base in (("skewed", SKEWED), ("uniform", UNIFORM)):
        cases |= {(name, "policy gradient", rate): (base, base, 1.0) for rate in FRONTIER}
        targets = {"oracle": rz.condition(base, ACCEPT), "two labels": TWO_LABELS, "one label": ONE_LABEL}
        cases |= {(name, method, 0.99): (base, target, 0.0) for method, target in targets.items()}

    def flow(case):
        (base, target, rewarded), rate = case
        return rz.gradient_flow(
            lambda log_policy: (
                (1 - rewarded) * rz.sft_loss(log_policy, target) - rewarded * rz.expected_reward(log_policy, SUCCESS)
            ),
            base,
            jnp.array([1e4]),
            stop=lambda logits: rz.expected_reward(rz.softmax_policy(logits), SUCCESS) - rate,
        )

    arguments = tuple(jnp.stack([jnp.asarray(x) for x in column]) for column in zip(*cases.values(), strict=True))
    rates = jnp.array([rate for *_, rate in cases])
    flows = jax.jit(lambda *given: jax.lax.map(flow, given))(arguments, rates)
    assert np.all(flows.stopped)
    np.testing.assert_allclose(success_rate(flows.log_policy[:, -1]), rates, atol=1e-12)
    return dict(zip(cases, flows.log_policy[:, -1], strict=True))


def both_drifts(base, log_policy):
    return [float(d) for d in rz.drifts(log_policy[None], base[None])]


@pytest.mark.parametrize(("rate", "printed"), FRONTIER.items())
def test_printed_minima(rate, printed):
    digits = 1e-4 if rate == 0.99 else 1e-3
    np.testing.assert_allclose([rz.binary_kl(0.85, rate), rz.binary_kl(rate, 0.85)], printed, atol=digits)


@pytest.mark.parametrize(
    ("base", "method", "rate", "printed", "digits"),
    [
        ("skewed", "oracle", 0.99, (0.2853, 0.1245), 1e-4),
        ("skewed", "policy gradient", 0.99, (0.5526, 0.3910), 1e-4),
        ("skewed", "two labels", 0.99, (1.5546, 0.7526), 1e-4),
        ("skewed", "one label", 0.99, (1.8603, 1.0398), 1e-4),
        ("skewed", "policy gradient", 0.90, (0.017, 0.015), 1e-3),
        ("skewed", "policy gradient", 0.95, (0.106, 0.086), 1e-3),
        ("uniform", "policy gradient", 0.99, (0.2766, 0.1239), 1e-4),
        ("uniform", "oracle", 0.99, (0.2766, 0.1239), 1e-4),
        ("uniform", "two labels", 0.99, (1.936, 0.959), 5e-3),
        ("uniform", "one label", 0.99, (2.373, 1.569), 5e-3),
    ],
)
def test_printed_drifts(stopped, base, method, rate, printed, digits):
    start = {"skewed": SKEWED, "uniform": UNIFORM}[base]
    np.testing.assert_allclose(both_drifts(start, stopped[base, method, rate]), printed, rtol=0, atol=digits)


@pytest.mark.parametrize("rate", FRONTIER)
def test_policy_gradient_stops_where_the_path_has_the_same_success(stopped, rate):
    progress = brentq(lambda a: success_rate(path(SKEWED, ACCEPT, a)) - rate, 0, 1, xtol=1e-14)
    np.testing.assert_allclose(path(SKEWED, ACCEPT, progress), stopped["skewed", "policy gradient", rate], atol=1e-7)


@pytest.mark.parametrize(("rate", "printed"), [(0.85, 0.353), (0.90, 0.387), (0.95, 0.458), (0.99, 0.69)])
def test_printed_shares_of_the_likeliest_success(stopped, rate, printed):
    log_policy = SKEWED if rate == 0.85 else stopped["skewed", "policy gradient", rate]
    share = np.exp(log_policy[0]) / success_rate(log_policy)
    np.testing.assert_allclose(share, printed, rtol=0, atol=5e-4 if rate < 0.99 else 5e-3)


def test_a_kl_penalty_ends_at_the_tilt_which_keeps_the_conditional_of_the_base():
    fixed_point = rz.tilt(SKEWED, SUCCESS, 0.1)
    np.testing.assert_allclose(1 - success_rate(fixed_point), 8.0e-6, atol=5e-8)
    np.testing.assert_allclose(
        np.exp(fixed_point[:5]) / success_rate(fixed_point), np.exp(SKEWED[:5]) / 0.85, rtol=1e-13
    )

    def flow(natural, end):
        def objective(log_policy):
            return -rz.regularized_reward(log_policy, SKEWED, SUCCESS, 0.1)

        return jax.jit(lambda x: rz.gradient_flow(objective, x, jnp.array([end]), natural=natural))(SKEWED)

    natural, euclidean = flow(True, 400.0), flow(False, 1e6)
    assert natural.converged
    assert euclidean.converged
    np.testing.assert_allclose(natural.log_policy[-1], fixed_point, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.exp(euclidean.log_policy[-1]), np.exp(fixed_point), rtol=0, atol=1e-5)
    conditional = np.exp(euclidean.log_policy[-1, :5]) / success_rate(euclidean.log_policy[-1])
    np.testing.assert_allclose(conditional, np.exp(SKEWED[:5]) / 0.85, rtol=1e-4)
