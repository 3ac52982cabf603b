"""Divergences against mpmath at 60 digits, their derivatives at the boundary, their theorems and their contract."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz
from tests import oracles
from tests.oracles import (
    MP,
    Contract,
    assert_derivatives_match_differences,
    assert_derivatives_match_limit,
    dirichlet_logs,
    exact,
    floats,
    kept_by,
    normalized,
    quick_jit,
    refused_by,
    relative_error,
)

INF = np.inf
NEAR = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7]
ORDERS = [0.0, 0.3, 0.5, 1 - 1e-7, 1.0, 1 + 1e-7, 2.0, 50.0, INF]
WEIGHTS = [0.0, 1e-3, 0.3, 0.5, 0.9, 1.0]


def _pairs():
    """Rows of logits in groups: extreme scales, zeros in either or both, near-equal, equal."""
    rng = np.random.default_rng(0)
    groups = {}
    for scale in (1, 30, 300):
        groups[f"scale {scale}"] = scale * rng.normal(size=(2, 5, 6))
    zeros = rng.normal(size=(2, 5, 6)) * np.array([1, 1, 3, 10, 30])[:, None]
    for name, sides in (("p", [0]), ("q", [1]), ("both", [0, 1])):
        group = zeros.copy()
        for side in sides:
            group[side, :, [1, 4]] = -INF
        groups[f"zeros in {name}"] = group
    crossed = zeros.copy()
    crossed[0, :, 0] = crossed[1, :, 5] = -INF
    groups["zeros crossed"] = crossed
    disjoint = zeros.copy()
    disjoint[0, :, :3] = disjoint[1, :, 3:] = -INF
    groups["disjoint"] = disjoint
    for scale in (1, 10):
        base = scale * rng.normal(size=(len(NEAR), 6))
        groups[f"near at scale {scale}"] = np.stack([base, base + np.array(NEAR)[:, None] * rng.normal(size=(7, 6))])
    peaked = zeros.copy()  # as tilts at small beta are
    peaked[0, :, [1, 2, 4]] = np.array([[-1e3], [-1e8], [-1e16]])
    groups["peaked p"], groups["peaked q"] = peaked, peaked[::-1]
    groups["peaked both"] = np.stack([peaked[0], peaked[0] + zeros[1]])
    groups["equal"] = np.stack([zeros[0], zeros[0]])
    rows = [name for name, group in groups.items() for _ in range(group.shape[1])]
    logits = jnp.asarray(np.concatenate(list(groups.values()), axis=1))
    log_p, log_q = quick_jit(jax.nn.log_softmax)(logits)
    return np.array(rows), log_p, log_q


ROWS, LOG_P, LOG_Q = _pairs()
EXACT = [(exact(p), exact(q)) for p, q in zip(LOG_P, LOG_Q, strict=True)]
NORMALISED = [(normalized(p), normalized(q)) for p, q in zip(LOG_P, LOG_Q, strict=True)]


def assert_matches(got, formula, pairs, rtol=1e-12, atol=1e-45):  # at p = q, 60 digits leave 1e-60 for 0
    want = oracles.floats([formula(p, q) for p, q in pairs])
    assert not np.isnan(np.asarray(got)).any()
    error = relative_error(got, want)
    with np.errstate(invalid="ignore"):
        off = (error > rtol) & ~(np.abs(np.asarray(got) - want) <= atol)
    worst = [f"{ROWS[i]}: got {got[i]:.17g}, want {want[i]:.17g}, error {error[i]:.1e}" for i in np.flatnonzero(off)]
    assert not worst, "\n".join(worst)


# Oracles. Where a divergence is of second order at p = q, rounding in the log-softmax (a row that sums to 1 + 1e-16)
# does not move it, and the oracle is the divergence of the normalised rows. Where it is of first order, or the sum is
# not a divergence, the rounding is the input's own: there the oracle takes the floats as exact.


def test_entropy_matches_mpmath():
    assert_matches(jax.jit(rz.entropy)(LOG_P), lambda p, q: oracles.entropy(p), EXACT)


def test_cross_entropy_matches_mpmath():
    assert_matches(jax.jit(rz.cross_entropy)(LOG_P, LOG_Q), oracles.cross_entropy, EXACT)


def test_total_variation_matches_mpmath():
    assert_matches(jax.jit(rz.total_variation)(LOG_P, LOG_Q), oracles.total_variation, EXACT)


def test_bhattacharyya_coefficient_matches_mpmath():
    assert_matches(jax.jit(rz.bhattacharyya_coefficient)(LOG_P, LOG_Q), oracles.bhattacharyya, EXACT)


@pytest.mark.parametrize(
    ("function", "formula"),
    [
        (rz.kl_divergence, oracles.kl),
        (rz.jeffreys_divergence, oracles.jeffreys),
        (rz.chi2_divergence, oracles.chi2),
        (rz.hellinger_distance, oracles.hellinger),
    ],
    ids=lambda f: f.__name__,
)
def test_divergence_matches_mpmath(function, formula):
    assert_matches(jax.jit(function)(LOG_P, LOG_Q), formula, NORMALISED)


def test_fisher_rao_distance_matches_mpmath():
    # At p = q, arccos(1 - 1e-60) leaves 1e-30 for 0.
    assert_matches(jax.jit(rz.fisher_rao_distance)(LOG_P, LOG_Q), oracles.fisher_rao, NORMALISED, atol=1e-28)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_jensen_shannon_divergence_matches_mpmath(weight):
    got = jax.jit(rz.jensen_shannon_divergence)(LOG_P, LOG_Q, weight)
    # m is rounded, so at p = q the divergence is (eps log p)^2 = 1e-30, far below any other of the table.
    assert_matches(got, lambda p, q: oracles.jensen_shannon(p, q, weight), NORMALISED, atol=1e-30)


@pytest.mark.parametrize("order", ORDERS)
def test_renyi_divergence_matches_mpmath(order):
    got = jax.jit(rz.renyi_divergence)(LOG_P, LOG_Q, order)
    # D_inf = max log p/q is of first order at p = q.
    assert_matches(got, lambda p, q: oracles.renyi(p, q, order), EXACT if order == INF else NORMALISED)


@pytest.mark.parametrize("order", [1e-6, 1e-3, 0.999, 1 + 1e-12])
def test_renyi_divergence_stays_accurate_close_to_its_limits(order):
    got = jax.jit(rz.renyi_divergence)(LOG_P, LOG_Q, order)
    # As a -> 0 terms of order 1 leave a divergence of order a.
    assert_matches(got, lambda p, q: oracles.renyi(p, q, order), NORMALISED, rtol=1e-12 + 1e-13 / order)


@pytest.mark.parametrize("order", [0.0, 0.5, 1.0, 2.0, INF])
def test_renyi_orders_may_differ_from_row_to_row(order):
    orders = jnp.where(jnp.arange(len(ROWS)) % 2 == 0, order, 0.3)
    got = jax.jit(rz.renyi_divergence)(LOG_P, LOG_Q, orders)
    rows = iter(orders)
    assert_matches(got, lambda p, q: oracles.renyi(p, q, float(next(rows))), NORMALISED, rtol=1e-8)


PROBABILITIES = [0.0, 1e-300, 1e-20, 1e-9, 0.1, 0.3, 0.5, 0.7, 0.999, 1 - 1e-12, 1.0]


def test_binary_kl_matches_mpmath():
    p, q = (x.ravel() for x in np.meshgrid(PROBABILITIES, PROBABILITIES))
    got = jax.jit(rz.binary_kl)(jnp.asarray(p), jnp.asarray(q))
    want = [oracles.kl(_coin(a), _coin(b)) for a, b in zip(p, q, strict=True)]
    assert relative_error(got, oracles.floats(want)).max() < 1e-12


def _coin(p):
    p = MP.mpf(float(p))
    return [p, 1 - p]


def test_binary_kl_of_near_equal_probabilities():
    p = np.repeat([1e-12, 1e-3, 0.1, 0.3, 0.5, 0.8, 1 - 1e-6], len(NEAR))
    q = p + np.tile(NEAR, 7) * np.minimum(p, 1 - p)
    got = jax.jit(rz.binary_kl)(jnp.asarray(p), jnp.asarray(q))
    want = [oracles.kl(_coin(a), _coin(b)) for a, b in zip(p, q, strict=True)]
    assert relative_error(got, oracles.floats(want)).max() < 2e-12


def test_binary_kl_takes_python_numbers_and_keeps_float32(as_installed):
    assert float(jax.jit(lambda: rz.binary_kl(1, 0.25))()) == pytest.approx(np.log(4), rel=1e-15)
    half = jnp.array([0.5], np.float32)
    assert jax.jit(rz.binary_kl)(half, half).dtype == jnp.float32
    assert jax.jit(lambda q: rz.binary_kl(0.85, q))(half).dtype == jnp.float32


@pytest.mark.parametrize("other", [0.5, np.array([0.5, 0.5])])
def test_binary_kl_refuses_integer_arrays(other, as_installed):
    other = other if isinstance(other, float) else jnp.asarray(other)
    with pytest.raises(TypeError, match="must be"):
        rz.binary_kl(jnp.array([0, 1]), other)
    with pytest.raises(TypeError, match="must be"):
        rz.binary_kl(other, jnp.array([0, 1]))


def test_binary_kl_equals_kl_of_two_outcomes():
    p, q = jnp.array([0.1, 0.0, 1.0, 0.5, 0.5]), jnp.array([0.7, 0.4, 0.4, 0.0, 1.0])
    two = jax.jit(lambda p, q: rz.kl_divergence(*(jnp.log(jnp.stack([x, 1 - x], -1)) for x in (p, q))))
    np.testing.assert_allclose(jax.jit(rz.binary_kl)(p, q), two(p, q), rtol=1e-12)


# float32


def test_small_kl_keeps_its_relative_accuracy_in_float32():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20, 64)).astype(np.float32)
    other = (logits + np.float32(1.4e-4) * rng.normal(size=logits.shape)).astype(np.float32)
    got = jax.jit(lambda a, b: rz.kl_divergence(jax.nn.log_softmax(a), jax.nn.log_softmax(b)))(logits, other)
    assert got.dtype == jnp.float32
    want = oracles.floats([oracles.kl(normalized(a), normalized(b)) for a, b in zip(logits, other, strict=True)])
    assert want.min() > 3e-9
    assert want.max() < 3e-8
    assert relative_error(got, want).max() < 1e-3


@pytest.mark.parametrize("function", [rz.jensen_shannon_divergence, rz.jeffreys_divergence, rz.chi2_divergence])
def test_small_relatives_of_kl_keep_their_relative_accuracy_in_float32(function):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20, 64)).astype(np.float32)
    other = (logits + np.float32(1.4e-4) * rng.normal(size=logits.shape)).astype(np.float32)
    got = jax.jit(lambda a, b: function(jax.nn.log_softmax(a), jax.nn.log_softmax(b)))(logits, other)
    formulas = {
        "jensen_shannon_divergence": lambda p, q: oracles.jensen_shannon(p, q, 0.5),
        "jeffreys_divergence": oracles.jeffreys,
        "chi2_divergence": oracles.chi2,
    }
    formula = formulas[function.__name__]
    want = oracles.floats([formula(normalized(a), normalized(b)) for a, b in zip(logits, other, strict=True)])
    assert relative_error(got, want).max() < 1e-3


def test_random_float32_divergences_are_neither_negative_nor_nan():
    rng = np.random.default_rng(2)
    scale = np.geomspace(1, 300, 10_000)[:, None]
    logits = jnp.asarray(scale * rng.normal(size=(2, 10_000, 8)), np.float32)
    near = logits.at[1].set(logits[0] * (1 + 1e-6))

    @jax.jit
    def all_of_them(logits):
        log_p, log_q = jax.nn.log_softmax(logits)
        return [
            rz.kl_divergence(log_p, log_q),
            rz.jensen_shannon_divergence(log_p, log_q),
            rz.jeffreys_divergence(log_p, log_q),
            rz.chi2_divergence(log_p, log_q),
            rz.total_variation(log_p, log_q),
            rz.hellinger_distance(log_p, log_q),
            rz.entropy(log_p),
            *(rz.renyi_divergence(log_p, log_q, order) for order in (0.0, 0.5, 1.0, 2.0, INF)),
        ]

    for values in (*all_of_them(logits), *all_of_them(near)):
        assert values.dtype == jnp.float32
        assert not jnp.isnan(values).any()
        assert jnp.all(values >= 0)


SUPPORT_BOUND = {
    "cross_entropy": rz.cross_entropy,
    "kl": rz.kl_divergence,
    "chi2": rz.chi2_divergence,
    "jeffreys": rz.jeffreys_divergence,
    "renyi 1": lambda p, q: rz.renyi_divergence(p, q, 1.0),
    "renyi 1+": lambda p, q: rz.renyi_divergence(p, q, 1.5),
    "renyi inf": lambda p, q: rz.renyi_divergence(p, q, INF),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SUPPORT_BOUND)
def test_infinite_exactly_where_support_is_violated(name, dtype):
    # The masses of p on the outcome that q lacks: plain, underflowing in exp, tiny, and none.
    log_p = jnp.array([[np.log(0.5), np.log(0.5)], [0.0, -1e4], [0.0, -700.0], [0.0, -INF]], dtype)
    got = quick_jit(SUPPORT_BOUND[name])(log_p, jnp.array([0.0, -INF], dtype))
    assert got.tolist() == [INF, INF, INF, 0.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kl_is_finite_where_q_is_merely_tiny(dtype):
    log_p, log_q = jnp.array([-1e6, 0.0], dtype), jnp.array([0.0, -1e6], dtype)
    assert quick_jit(rz.kl_divergence)(log_p, log_q) == pytest.approx(1e6, rel=1e-6)
    assert quick_jit(rz.jeffreys_divergence)(log_p, log_q) == pytest.approx(2e6, rel=1e-6)


# Derivatives, of a function of two rows of logits and a number


@functools.cache
def derivatives_of(function):
    def loss(logits, number):
        return function(*jax.nn.log_softmax(logits), number)

    def derivatives(logits, number):
        return loss(logits, number), jax.grad(loss)(logits, number), jax.hessian(loss)(logits, number)

    return quick_jit(derivatives)


def entropies(log_p, log_q, _):
    return rz.entropy(log_p) - 2 * rz.entropy(log_q)


def kl(log_p, log_q, _):
    return rz.kl_divergence(log_p, log_q)


def cross_entropy(log_p, log_q, _):
    return rz.cross_entropy(log_p, log_q)


def jeffreys(log_p, log_q, _):
    return rz.jeffreys_divergence(log_p, log_q)


def chi2(log_p, log_q, _):
    return rz.chi2_divergence(log_p, log_q)


def total_variation(log_p, log_q, _):
    return rz.total_variation(log_p, log_q)


def hellinger(log_p, log_q, _):
    return rz.hellinger_distance(log_p, log_q)


def bhattacharyya(log_p, log_q, _):
    return rz.bhattacharyya_coefficient(log_p, log_q)


def fisher_rao(log_p, log_q, _):
    return rz.fisher_rao_distance(log_p, log_q)


def binary(log_p, log_q, _):
    return rz.binary_kl(jnp.exp(log_p[0]), jnp.exp(log_q[0]))


_A = np.array([0.3, -INF, 1.0, -0.5, -INF])
_B = np.array([0.1, 0.7, -0.4, 0.2, -INF])
_C = np.array([-INF, 0.7, -0.4, 0.2, 1.1])
_B_LIKE_A = np.where(np.isinf(_A), -INF, _B)

P_INSIDE_Q = [(kl, 0.0), (cross_entropy, 0.0), (chi2, 0.0), *((rz.renyi_divergence, a) for a in (1.0, 2.0, INF))]
ANY_SUPPORT = [
    *((rz.jensen_shannon_divergence, w) for w in (0.5, 0.1)),
    (rz.renyi_divergence, 0.5),
    *((f, 0.0) for f in (entropies, total_variation, hellinger, bhattacharyya, fisher_rao)),
]


@pytest.mark.parametrize(("function", "number"), P_INSIDE_Q + ANY_SUPPORT)
def test_derivatives_where_q_covers_p(function, number):
    logits = jnp.asarray(np.stack([_A, _B]))
    assert_derivatives_match_limit(lambda x: derivatives_of(function)(x, number), logits)


@pytest.mark.parametrize(("function", "number"), ANY_SUPPORT)
def test_derivatives_where_neither_covers_the_other(function, number):
    logits = jnp.asarray(np.stack([_C, _A]))
    assert_derivatives_match_limit(lambda x: derivatives_of(function)(x, number), logits)


@pytest.mark.parametrize(("function", "number"), [*P_INSIDE_Q, *ANY_SUPPORT, (jeffreys, 0.0)])
def test_derivatives_where_supports_agree(function, number):
    logits = jnp.asarray(np.stack([_A, _B_LIKE_A]))
    assert_derivatives_match_limit(lambda x: derivatives_of(function)(x, number), logits)


@pytest.mark.parametrize(
    ("function", "number"),
    [*P_INSIDE_Q[:-1], *ANY_SUPPORT, (jeffreys, 0.0), (binary, 0.0), (rz.renyi_divergence, 1 + 1e-6)],
)
def test_derivatives_inside_match_finite_differences(function, number):
    logits = jnp.array([[0.3, -1.2, 1.0, 0.1, 0.4], [0.25, 0.7, -0.8, 0.4, 0.45]])
    assert_derivatives_match_differences(lambda x: derivatives_of(function)(x, number), logits)


@pytest.mark.parametrize("function", [kl, chi2, hellinger])
@pytest.mark.parametrize("edge", [0.05, 1.0, 2.0, -0.05, -1.0, -2.0])
def test_derivatives_match_finite_differences_where_branches_meet(function, edge):
    # q(0) = p(0) e^edge exactly, the rest of q uneven
    q = np.array([0.05 * np.exp(edge), 0.3, 0.2, 0.1, 0.05])
    q[1:] *= (1 - q[0]) / q[1:].sum()
    logits = jnp.log(jnp.array([[0.05, 0.2, 0.3, 0.25, 0.2], q]))
    assert_derivatives_match_differences(lambda x: derivatives_of(function)(x, 0.0), logits)


@pytest.mark.parametrize(
    ("function", "curvature"), [(kl, 1.0), (rz.jensen_shannon_divergence, 0.25), (chi2, 2.0), (jeffreys, 2.0)]
)
def test_gradient_vanishes_and_curvature_is_fisher_at_coincidence(function, curvature):
    logits = jnp.array([0.3, -1.2, 1.0, 0.1, 0.7])
    p = np.exp(logits) / np.exp(logits).sum()
    _, gradient, hessian = derivatives_of(function)(jnp.stack([logits, logits]), 0.5)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-15)
    for row in (0, 1):
        np.testing.assert_allclose(hessian[row, :, row], curvature * (np.diag(p) - np.outer(p, p)), atol=1e-14)


@pytest.mark.parametrize("function", [hellinger, fisher_rao, total_variation])
def test_gradient_is_finite_at_the_corner(function):
    logits = jnp.array([[0.3, -1.2, 1.0, 0.1, 0.7]] * 2)
    assert jnp.isfinite(derivatives_of(function)(logits, 0.0)[1]).all()


@functools.cache
def renyi_slopes():
    slope = jax.grad(rz.renyi_divergence, argnums=2)
    return quick_jit(lambda *args: (slope(*args), jax.grad(slope, argnums=2)(*args)))


@pytest.mark.parametrize("at", [0.5, 1.0, 2.0])
def test_renyi_slope_in_the_order(at):
    log_p, log_q = dirichlet_logs(np.random.default_rng(3), (2, 6))
    p, q = normalized(log_p), normalized(log_q)
    h = MP.mpf("1e-20")
    want = (oracles.renyi(p, q, at + h) - oracles.renyi(p, q, at - h)) / (2 * h)
    got, _ = renyi_slopes()(log_p, log_q, at)
    assert got == pytest.approx(float(want), rel=1e-11)


@pytest.mark.parametrize("at", [0.5, 1.0, 1.001, 2.0])
def test_renyi_curvature_in_the_order(at):
    log_p, log_q = dirichlet_logs(np.random.default_rng(3), (2, 6))
    p, q = normalized(log_p), normalized(log_q)
    h = MP.mpf("1e-12")
    left, middle, right = (oracles.renyi(p, q, at + s * h) if at + s * h != 1 else oracles.kl(p, q) for s in (-1, 0, 1))
    want = (left - 2 * middle + right) / h**2
    _, got = renyi_slopes()(log_p, log_q, at)
    assert got == pytest.approx(float(want), rel=1e-7)


@pytest.mark.parametrize("at", [0.0, 0.3, 1.0])
def test_jensen_shannon_slope_in_the_weight(at):
    log_p, log_q = dirichlet_logs(np.random.default_rng(3), (2, 6))
    got = quick_jit(jax.grad(rz.jensen_shannon_divergence, argnums=2))(log_p, log_q, at)
    p, q = normalized(log_p), normalized(log_q)
    m = [at * x + (1 - at) * y for x, y in zip(p, q, strict=True)]
    # d/dw of H(m) - w H(p) - (1-w) H(q), whose m moves by p - q
    want = oracles.kl(p, m) - oracles.kl(q, m)
    assert got == pytest.approx(float(want), rel=1e-11)


# Derivatives where a probability underflows, a ratio overflows or a weight vanishes


@functools.cache
def slopes_in_both(function, *numbers):
    def slopes(a, b):
        return jax.grad(lambda a, b: function(a, b, *numbers), argnums=(0, 1))(a, b)

    return quick_jit(slopes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("p", "q"), [(1e-30, 0.9), (0.9, 1e-30), (1e-30, 1e-30), (1e-20, 3e-20), (2e-20, 1.9e-20)])
def test_binary_kl_derivatives_of_tiny_probabilities(p, q, dtype):
    p, q = np.asarray(p, dtype), np.asarray(q, dtype)
    a, b = MP.mpf(float(p)), MP.mpf(float(q))
    want = [MP.log(a / b) - MP.log((1 - a) / (1 - b)), (b - a) / (b * (1 - b))]
    got = slopes_in_both(rz.binary_kl)(jnp.asarray(p), jnp.asarray(q))
    np.testing.assert_allclose(got, floats(want), rtol=40 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tiny", [-1000.0, -50.0])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_jensen_shannon_derivatives_vanish_with_a_weight(weight, tiny, dtype):
    rows = [jnp.array([-INF, 0.0], dtype), jnp.array([tiny, 0.0], dtype)]
    for a, b in (rows, rows[::-1]):
        assert [x.tolist() for x in slopes_in_both(rz.jensen_shannon_divergence, weight)(a, b)] == [[0.0, 0.0]] * 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", [2.0, 50.0])
def test_renyi_derivatives_where_q_underflows(order, dtype):
    log_p, log_q = jnp.log(jnp.array([0.25, 0.75], dtype)), jnp.array([-1240.0, 0.0], dtype)
    terms = [MP.exp(order * a - (order - 1) * b) for a, b in zip(map(float, log_p), map(float, log_q), strict=True)]
    shares = [x / MP.fsum(terms) for x in terms]
    by_p, by_q = slopes_in_both(rz.renyi_divergence, order)(log_p, log_q)
    np.testing.assert_allclose(by_p, floats([order / (order - 1) * x for x in shares]), rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(by_q, floats([-x for x in shares]), rtol=1e-5, atol=1e-30)
    slope = quick_jit(jax.grad(rz.renyi_divergence, argnums=2))(log_p, log_q, order)
    t, h = MP.mpf(order), MP.mpf("1e-25")
    p, q = exact(log_p), exact(log_q)
    want = (oracles.renyi(p, q, t + h) - oracles.renyi(p, q, t - h)) / (2 * h)
    assert float(slope) == pytest.approx(float(want), rel=1e-2 if dtype == np.float32 else 1e-9)


# Theorems

_RNG = np.random.default_rng(4)
RANDOM_P, RANDOM_Q = dirichlet_logs(_RNG, (2, 200, 6))

DIVERGENCES = {
    "kl": rz.kl_divergence,
    "jeffreys": rz.jeffreys_divergence,
    "jsd": rz.jensen_shannon_divergence,
    "renyi 0.5": lambda p, q: rz.renyi_divergence(p, q, 0.5),
    "renyi 2": lambda p, q: rz.renyi_divergence(p, q, 2.0),
    "renyi inf": lambda p, q: rz.renyi_divergence(p, q, INF),
    "chi2": rz.chi2_divergence,
    "tv": rz.total_variation,
    "hellinger": rz.hellinger_distance,
    "fisher_rao": rz.fisher_rao_distance,
}


@pytest.mark.parametrize("name", DIVERGENCES)
def test_positive_apart_zero_at_coincidence(name):
    divergence = quick_jit(DIVERGENCES[name])
    assert jnp.all(divergence(RANDOM_P, RANDOM_Q) > 0)
    np.testing.assert_allclose(divergence(RANDOM_P, RANDOM_P), 0.0, atol=1e-30)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_relabelling_outcomes_changes_nothing(name):
    divergence, order = quick_jit(DIVERGENCES[name]), np.array([3, 0, 5, 1, 4, 2])
    shuffled = divergence(RANDOM_P[:, order], RANDOM_Q[:, order])
    np.testing.assert_allclose(shuffled, divergence(RANDOM_P, RANDOM_Q), rtol=1e-13)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_merging_outcomes_never_separates(name):
    def merge(log_p):
        return jnp.logaddexp(log_p[:, :3], log_p[:, 3:])

    divergence = quick_jit(DIVERGENCES[name])
    merged, full = divergence(merge(RANDOM_P), merge(RANDOM_Q)), divergence(RANDOM_P, RANDOM_Q)
    assert jnp.all(merged <= full * (1 + 1e-12))
    assert jnp.all(merged < full) or name in ("tv", "renyi inf")


SYMMETRIC = ["jeffreys", "jsd", "renyi 0.5", "tv", "hellinger", "fisher_rao"]


@pytest.mark.parametrize("name", DIVERGENCES)
def test_symmetric_or_not(name):
    divergence = quick_jit(DIVERGENCES[name])
    there, back = divergence(RANDOM_P, RANDOM_Q), divergence(RANDOM_Q, RANDOM_P)
    assert np.allclose(there, back, rtol=1e-12) == (name in SYMMETRIC)


@pytest.mark.parametrize("name", ["kl", "renyi 0.5", "renyi 2", "renyi inf", "jeffreys"])
def test_additive_on_products(name):
    def product(log_a, log_b):
        return (log_a[:, :, None] + log_b[:, None, :]).reshape(100, 36)

    divergence = quick_jit(DIVERGENCES[name])
    whole = divergence(product(RANDOM_P[:100], RANDOM_P[100:]), product(RANDOM_Q[:100], RANDOM_Q[100:]))
    parts = divergence(RANDOM_P, RANDOM_Q)
    np.testing.assert_allclose(whole, parts[:100] + parts[100:], rtol=1e-12)


def test_chain_rule_of_kl():
    """KL of a joint is KL of the marginal plus the expected KL of the conditionals."""
    joint_p, joint_q = (np.asarray(x).reshape(200, 2, 3) for x in (RANDOM_P, RANDOM_Q))
    marginal_p, marginal_q = (np.logaddexp.reduce(x, axis=-1) for x in (joint_p, joint_q))
    divergence = quick_jit(rz.kl_divergence)
    inside = np.asarray(divergence(joint_p - marginal_p[..., None], joint_q - marginal_q[..., None]))
    chained = np.asarray(divergence(marginal_p, marginal_q)) + (np.exp(marginal_p) * inside).sum(-1)
    np.testing.assert_allclose(divergence(RANDOM_P, RANDOM_Q), chained, rtol=1e-12)


def test_pinsker_and_its_relatives():
    tv, kl, hellinger, chi2 = (
        quick_jit(f)(RANDOM_P, RANDOM_Q)
        for f in (rz.total_variation, rz.kl_divergence, rz.hellinger_distance, rz.chi2_divergence)
    )
    tv, kl, hellinger, chi2 = (np.asarray(x) for x in (tv, kl, hellinger, chi2))
    assert np.all(2 * tv**2 <= kl)
    assert np.all(hellinger**2 <= tv)
    assert np.all(tv <= hellinger * np.sqrt(2))
    assert np.all(kl <= np.log1p(chi2))


def test_renyi_grows_with_the_order():
    orders = jnp.concatenate([jnp.linspace(0, 3, 61), jnp.array([10.0, 50.0, 1e3, 1e6, INF])])
    curves = np.asarray(quick_jit(rz.renyi_divergence)(RANDOM_P[:, None], RANDOM_Q[:, None], orders))
    assert np.all(np.diff(curves, axis=-1) >= -1e-12 * curves[:, 1:])
    assert np.all(curves[:, 0] <= 1e-15)
    np.testing.assert_allclose(curves[:, -2], curves[:, -1], rtol=1e-4)


def test_renyi_passes_through_its_named_members():
    kl, chi2, bc = (
        quick_jit(f)(RANDOM_P, RANDOM_Q) for f in (rz.kl_divergence, rz.chi2_divergence, rz.bhattacharyya_coefficient)
    )
    renyi = quick_jit(rz.renyi_divergence)
    np.testing.assert_allclose(renyi(RANDOM_P, RANDOM_Q, 1.0), kl, rtol=1e-13)
    np.testing.assert_allclose(renyi(RANDOM_P, RANDOM_Q, 2.0), np.log1p(chi2), rtol=1e-12)
    np.testing.assert_allclose(renyi(RANDOM_P, RANDOM_Q, 0.5), -2 * np.log(bc), rtol=1e-11)


@pytest.mark.parametrize("weight", [1e-3, 1e-6, 1e-9])
def test_jensen_shannon_tends_to_kl_on_both_ends(weight):
    divergence, chi2 = (quick_jit(f) for f in (rz.jensen_shannon_divergence, rz.chi2_divergence))
    to_forward = divergence(RANDOM_P, RANDOM_Q, weight) / weight
    to_reverse = divergence(RANDOM_P, RANDOM_Q, 1 - weight) / weight
    scale = float(chi2(RANDOM_P, RANDOM_Q).max() + chi2(RANDOM_Q, RANDOM_P).max())
    # 1 - weight rounds to 1e-16, which weight magnifies
    tolerance = {"rtol": 1e-16 / weight + 1e-12, "atol": weight * scale}
    np.testing.assert_allclose(to_forward, rz.kl_divergence(RANDOM_P, RANDOM_Q), **tolerance)
    np.testing.assert_allclose(to_reverse, rz.kl_divergence(RANDOM_Q, RANDOM_P), **tolerance)


def test_jensen_shannon_is_at_most_the_entropy_of_the_coin():
    apart = jnp.array([[0.0, -INF], [-INF, 0.0]])
    divergence = quick_jit(rz.jensen_shannon_divergence)
    for weight in (0.1, 0.5, 0.8):
        coin = -weight * np.log(weight) - (1 - weight) * np.log(1 - weight)
        assert divergence(*apart, weight) == pytest.approx(coin, rel=1e-14)
        assert np.all(np.asarray(divergence(RANDOM_P, RANDOM_Q, weight)) < coin)


def test_cross_entropy_is_entropy_plus_kl():
    whole = rz.entropy(RANDOM_P) + rz.kl_divergence(RANDOM_P, RANDOM_Q)
    np.testing.assert_allclose(rz.cross_entropy(RANDOM_P, RANDOM_Q), whole, rtol=1e-13)


def test_entropy_is_between_its_bounds():
    assert rz.entropy(jnp.full(6, -np.log(6))) == pytest.approx(np.log(6), rel=1e-15)
    assert rz.entropy(jnp.array([0.0, -INF])) == 0.0
    assert jnp.all((rz.entropy(RANDOM_P) > 0) & (rz.entropy(RANDOM_P) < np.log(6)))


# Contract

PUBLIC = [
    Contract(rz.entropy, ("log_p",)),
    Contract(rz.cross_entropy, ("log_p", "log_q")),
    Contract(rz.kl_divergence, ("log_p", "log_q")),
    Contract(rz.jeffreys_divergence, ("log_p", "log_q")),
    Contract(rz.jensen_shannon_divergence, ("log_p", "log_q"), {"weight": (0.5, 0.0, 1.0)}),
    Contract(rz.renyi_divergence, ("log_p", "log_q"), {"order": (0.5, 1.0, 2.0)}),
    Contract(rz.chi2_divergence, ("log_p", "log_q")),
    Contract(rz.total_variation, ("log_p", "log_q")),
    Contract(rz.hellinger_distance, ("log_p", "log_q")),
    Contract(rz.bhattacharyya_coefficient, ("log_p", "log_q")),
]


@pytest.mark.parametrize(("keeps", "case"), kept_by(PUBLIC))
def test_contract(keeps, case):
    keeps(case)


@pytest.mark.parametrize(("refuses", "case"), refused_by(PUBLIC))
def test_refusals(refuses, case, as_installed):
    refuses(case)


@pytest.mark.parametrize("order", [-1.0, -1, float("nan")])
def test_a_negative_order_is_refused(order, as_installed):
    log_p, log_q = RANDOM_P[0], RANDOM_Q[0]
    with pytest.raises(ValueError, match="order"):
        rz.renyi_divergence(log_p, log_q, order)
    with pytest.raises(ValueError, match="order"):
        quick_jit(lambda p: rz.renyi_divergence(p, log_q, order))(log_p)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_outside_the_unit_interval_is_refused(weight, as_installed):
    log_p, log_q = RANDOM_P[0], RANDOM_Q[0]
    with pytest.raises(ValueError, match="weight"):
        rz.jensen_shannon_divergence(log_p, log_q, weight)
    with pytest.raises(ValueError, match="weight"):
        quick_jit(lambda p: rz.jensen_shannon_divergence(p, log_q, weight))(log_p)
