"""Metric, distance, geodesics and projections against mpmath, arc length, brute force and the Pythagorean theorem."""

import functools
import itertools

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
)

INF, NAN = np.inf, np.nan
RNG = np.random.default_rng(0)
LOG_P, LOG_Q = dirichlet_logs(RNG, (2, 6))
P, Q = normalized(LOG_P), normalized(LOG_Q)
FEATURES = jnp.asarray(np.stack([np.arange(6.0), np.array([1.0, -1.0, 0.5, 2.0, 0.0, 1.0])], axis=-1))

e_geodesic, m_geodesic = jax.jit(rz.e_geodesic), jax.jit(rz.m_geodesic)
i_projection, m_projection = quick_jit(rz.i_projection), quick_jit(rz.m_projection)
kl_divergence, distance, tilt = (quick_jit(f) for f in (rz.kl_divergence, rz.fisher_rao_distance, rz.tilt))
tilt_to_reward = quick_jit(rz.tilt_to_reward)


# Metric


def _hessian(function, at):
    """Central differences in mpmath: 60 digits leave 20 after steps of 1e-20."""
    h, n = MP.mpf("1e-20"), len(at)

    def shifted(*steps):
        x = list(at)
        for i, sign in steps:
            x[i] += sign * h
        return function(x)

    signs = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    return np.array(
        [
            [float(sum(s * t * shifted((i, s), (j, t)) for s, t in signs) / (4 * h**2)) for j in range(n)]
            for i in range(n)
        ]
    )


def _softmax(logits):
    weights = [MP.exp(x) for x in logits]
    return [w / MP.fsum(weights) for w in weights]


LOGITS = [MP.mpf(float(x)) for x in LOG_P]
POTENTIALS = {
    "log partition": oracles.log_sum,
    "kl to": lambda x: oracles.kl(P, _softmax(x)),
    "kl from": lambda x: oracles.kl(_softmax(x), P),
    "half chi2": lambda x: oracles.chi2(_softmax(x), P) / 2,
}


@pytest.mark.parametrize("name", POTENTIALS)
def test_fisher_metric_is_the_hessian_of(name):
    np.testing.assert_allclose(rz.fisher_metric(LOG_P), _hessian(POTENTIALS[name], LOGITS), rtol=1e-12, atol=1e-15)


def test_fisher_metric_is_the_covariance_of_the_score():
    p = np.exp(LOG_P)
    score = np.eye(6) - p  # d log p(y) / d logits, by rows y
    np.testing.assert_allclose(rz.fisher_metric(LOG_P), np.einsum("y,yi,yj->ij", p, score, score), rtol=1e-12)


def test_fisher_metric_is_singular_along_constants_only():
    metric = np.asarray(rz.fisher_metric(LOG_P))
    values = np.linalg.eigvalsh(metric)
    assert abs(values[0]) < 1e-16
    assert values[1] > 1e-3
    np.testing.assert_allclose(metric.sum(-1), 0.0, atol=1e-16)


def test_fisher_metric_of_batches_and_of_impossible_outcomes():
    log_p = jnp.stack([LOG_P, jax.nn.log_softmax(LOG_P.at[2].set(-INF))])
    metric = rz.fisher_metric(log_p)
    assert metric.shape == (2, 6, 6)
    np.testing.assert_array_equal(metric[0], rz.fisher_metric(LOG_P))
    assert not jnp.isnan(metric).any()
    assert jnp.all(metric[1, 2] == 0)


# Distance. That it is 2 arccos BC to 1e-12 at extreme logits is in test_divergences.


def _length(path, steps=400):
    """Length of a path of probabilities in the metric sum dp^2 / p, by the polygon of square roots."""
    roots = 2 * np.sqrt(np.asarray(path(np.linspace(0, 1, steps + 1))))
    return np.linalg.norm(np.diff(roots, axis=0), axis=1).sum()


def _great_circle(t):
    a, b = np.sqrt(floats(P)), np.sqrt(floats(Q))
    normal = b - (a @ b) * a
    normal /= np.linalg.norm(normal)
    angle = np.arctan2(normal @ b, a @ b)
    return (np.cos(t[:, None] * angle) * a + np.sin(t[:, None] * angle) * normal) ** 2


def test_distance_is_the_arc_length_of_the_great_circle():
    assert distance(LOG_P, LOG_Q) == pytest.approx(_length(_great_circle), rel=1e-5)
    np.testing.assert_allclose(_great_circle(np.array([0.0, 1.0])), [floats(P), floats(Q)], rtol=1e-12)


@pytest.mark.parametrize("geodesic", [e_geodesic, m_geodesic])
def test_no_path_is_shorter_than_the_distance(geodesic):
    length = _length(lambda t: jnp.exp(geodesic(LOG_P[None], LOG_Q[None], jnp.asarray(t))))
    assert float(distance(LOG_P, LOG_Q)) < length < 1.2 * float(distance(LOG_P, LOG_Q))


def test_distance_is_a_metric():
    a, b, c = dirichlet_logs(RNG, (3, 200, 6))
    assert jnp.all(distance(a, c) <= distance(a, b) + distance(b, c))
    np.testing.assert_allclose(distance(a, b), distance(b, a), rtol=1e-14)
    assert jnp.all(distance(a, a) == 0)
    assert jnp.all((distance(a, b) > 0) & (distance(a, b) < np.pi))


def test_distance_between_disjoint_supports_is_pi():
    log_p = jnp.log(jnp.array([0.5, 0.5, 0.0, 0.0, 0.0, 0.0]))
    log_q = jnp.log(jnp.array([0.0, 0.0, 0.25, 0.25, 0.25, 0.25]))
    assert distance(log_p, log_q) == pytest.approx(np.pi, rel=1e-15)


def test_small_distances_are_measured_by_the_metric():
    step = RNG.normal(size=6)
    for size in (1e-3, 1e-5, 1e-7):
        near = jax.nn.log_softmax(LOG_P + size * step)
        want = size * np.sqrt(step @ np.asarray(rz.fisher_metric(LOG_P)) @ step)
        assert distance(LOG_P, near) == pytest.approx(want, rel=2 * size + 1e-8)
        assert 2 * kl_divergence(LOG_P, near) == pytest.approx(want**2, rel=2 * size + 1e-8)


# Geodesics

TIMES = jnp.array([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])


@pytest.mark.parametrize("geodesic", [e_geodesic, m_geodesic])
def test_geodesics_start_and_end_where_they_should(geodesic):
    path = geodesic(LOG_P[None], LOG_Q[None], TIMES)
    np.testing.assert_allclose(path[0], LOG_P, rtol=1e-14)
    np.testing.assert_allclose(path[-1], LOG_Q, rtol=1e-14)
    np.testing.assert_allclose(jnp.exp(path).sum(-1), 1.0, rtol=1e-14)


def test_e_geodesic_matches_mpmath():
    path = e_geodesic(LOG_P[None], LOG_Q[None], TIMES)
    for log_policy, t in zip(path, TIMES, strict=True):
        t = MP.mpf(float(t))
        weights = [x ** (1 - t) * y**t for x, y in zip(P, Q, strict=True)]
        np.testing.assert_allclose(jnp.exp(log_policy), floats([w / MP.fsum(weights) for w in weights]), rtol=1e-14)


def test_e_geodesic_is_straight_in_log_odds():
    path = e_geodesic(LOG_P[None], LOG_Q[None], TIMES)
    odds = np.asarray(path - path[:, :1])
    want = np.outer(1 - TIMES, odds[0]) + np.outer(TIMES, odds[-1])
    np.testing.assert_allclose(odds, want, rtol=1e-13, atol=1e-14)


def test_m_geodesic_is_straight_in_probabilities():
    path = np.exp(m_geodesic(LOG_P[None], LOG_Q[None], TIMES))
    want = np.outer(1 - TIMES, floats(P)) + np.outer(TIMES, floats(Q))
    np.testing.assert_allclose(path, want, rtol=1e-14)


def test_e_geodesic_extrapolates():
    beyond = e_geodesic(LOG_P, LOG_Q, 2.0)
    np.testing.assert_allclose(e_geodesic(beyond, LOG_P, 0.5), LOG_Q, rtol=1e-13)
    np.testing.assert_allclose(e_geodesic(LOG_Q, LOG_P, -1.0), beyond, rtol=1e-13)


def test_e_geodesic_to_a_tilt_is_the_path_of_tilts():
    reward = jnp.asarray(RNG.normal(size=6))
    end = tilt(LOG_P, reward, 0.5)
    np.testing.assert_allclose(e_geodesic(LOG_P, end, 0.25), tilt(LOG_P, reward, 2.0), rtol=1e-13)


_LEFT = jnp.log(jnp.array([0.5, 0.25, 0.25, 0.0, 0.0, 0.0]))
_RIGHT = jnp.log(jnp.array([0.0, 0.0, 0.5, 0.25, 0.25, 0.0]))


def test_supports_along_the_geodesics():
    e_path = e_geodesic(_LEFT[None], _RIGHT[None], TIMES)
    m_path = m_geodesic(_LEFT[None], _RIGHT[None], TIMES)
    for path in (e_path, m_path):
        np.testing.assert_allclose(path[0], _LEFT, rtol=1e-15)
        np.testing.assert_allclose(path[-1], _RIGHT, rtol=1e-15)
    np.testing.assert_array_equal(jnp.exp(e_path[1:-1]), np.tile([0.0, 0.0, 1.0, 0.0, 0.0, 0.0], (4, 1)))
    np.testing.assert_array_equal(jnp.isfinite(m_path[1:-1]), np.tile([True] * 5 + [False], (4, 1)))


def test_e_geodesic_between_disjoint_supports_is_empty_inside():
    right = jnp.log(jnp.array([0.0, 0.0, 0.0, 0.5, 0.5, 0.0]))
    path = e_geodesic(_LEFT[None], right[None], TIMES)
    assert jnp.all(path[1:-1] == -INF)
    np.testing.assert_allclose(path[-1], right, rtol=1e-15)


@pytest.mark.parametrize("gap", [1e3, 1e6])
def test_e_geodesic_between_far_apart_ends_stays_normalised(gap):
    log_p, log_q = (jax.nn.log_softmax(x) for x in gap * jnp.asarray(RNG.normal(size=(2, 6))))
    path = e_geodesic(log_p[None], log_q[None], TIMES)
    np.testing.assert_allclose(jnp.exp(path).sum(-1), 1.0, rtol=1e-14)


@functools.cache
def derivatives_of(function):
    weights = jnp.array([0.3, -1.0, 0.7, 0.2, 0.4])

    def loss(logits, t):
        return jnp.exp(function(*jax.nn.log_softmax(logits), t)) @ weights

    def derivatives(logits, t):
        return loss(logits, t), jax.grad(loss)(logits, t), jax.hessian(loss)(logits, t), jax.grad(loss, 1)(logits, t)

    return quick_jit(derivatives)


INSIDE = jnp.array([[0.3, -1.2, 1.0, 0.1, 0.7], [0.25, 0.7, -0.8, 0.4, 0.5]])
GEODESICS = [rz.e_geodesic, rz.m_geodesic]


@pytest.mark.parametrize("t", [0.3, 1.0])
@pytest.mark.parametrize("geodesic", GEODESICS)
def test_geodesic_derivatives_match_finite_differences(geodesic, t):
    assert_derivatives_match_differences(lambda x: derivatives_of(geodesic)(x, t)[:3], INSIDE)


@pytest.mark.parametrize("geodesic", GEODESICS)
def test_geodesic_derivatives_at_the_boundary(geodesic):
    x = INSIDE.at[0, jnp.array([1, 3])].set(-INF).at[1, jnp.array([0, 3])].set(-INF)
    assert_derivatives_match_limit(lambda x: derivatives_of(geodesic)(x, 0.3)[:3], x)


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("geodesic", GEODESICS)
def test_geodesic_velocity_matches_mpmath(geodesic, t):
    p, q = normalized(jax.nn.log_softmax(INSIDE[0])), normalized(jax.nn.log_softmax(INSIDE[1]))
    h, t_exact = MP.mpf("1e-20"), MP.mpf(t)

    def value(t):
        if geodesic is rz.e_geodesic:
            weights = [x ** (1 - t) * y**t for x, y in zip(p, q, strict=True)]
        else:
            weights = [(1 - t) * x + t * y for x, y in zip(p, q, strict=True)]
        return oracles.expectation(weights, [0.3, -1.0, 0.7, 0.2, 0.4]) / MP.fsum(weights)

    want = float((value(t_exact + h) - value(t_exact - h)) / (2 * h))
    assert derivatives_of(geodesic)(INSIDE, t)[3] == pytest.approx(want, rel=1e-12)


# I-projection

DIE = jnp.log(jnp.full(6, 1 / 6))
FACES = jnp.arange(1.0, 7.0)[:, None]


def _moments(policy):
    return np.exp(policy) @ np.asarray(FEATURES)


def test_the_die_of_jaynes():
    die = i_projection(DIE, FACES, jnp.array([4.5]))
    # The root of sum (k - 4.5) x^k = 0 in x = exp(multiplier).
    x = MP.findroot(lambda x: MP.fsum((k - MP.mpf("4.5")) * x**k for k in range(1, 7)), 1.45)
    assert float(die.multipliers[0]) == pytest.approx(0.37105, abs=5e-6)
    assert float(die.multipliers[0]) == pytest.approx(float(MP.log(x)), rel=1e-13)
    want = floats([x**k / MP.fsum(x**j for j in range(1, 7)) for k in range(1, 7)])
    np.testing.assert_allclose(jnp.exp(die.log_policy), want, rtol=1e-13)
    np.testing.assert_allclose(want, [0.05435, 0.07877, 0.11416, 0.16545, 0.23977, 0.34749], atol=6e-6)
    assert die.converged
    assert die.kl == pytest.approx(float(oracles.kl(exact(jnp.log(want)), [MP.mpf(1) / 6] * 6)), rel=1e-12)


@pytest.mark.parametrize("mean", [1.0001, 1.1, 2.0, 3.5, 5.0, 5.9, 5.9999])
def test_one_moment_agrees_with_the_tilt_of_that_reward(mean):
    got = i_projection(DIE, FACES, jnp.array([mean]))
    sign = 1.0 if mean >= 3.5 else -1.0  # below the mean of the reference the tilt is of the negative reward
    want = tilt_to_reward(DIE, sign * FACES[:, 0], sign * mean)
    assert got.converged
    np.testing.assert_allclose(jnp.exp(got.log_policy), jnp.exp(want.log_policy), atol=1e-12)
    assert got.multipliers[0] == pytest.approx(float(sign / want.beta), rel=1e-8, abs=1e-12)


@functools.cache
def _projection():
    return i_projection(LOG_P, FEATURES, jnp.array([2.7, 0.9]))


def _linear_family(count):
    """Random policies with the moments (2.7, 0.9): the projection plus null directions of the constraints."""
    rng = np.random.default_rng(7)
    centre = np.exp(_projection().log_policy)
    constraints = np.concatenate([np.ones((1, 6)), np.asarray(FEATURES).T])
    null = np.linalg.svd(constraints)[2][3:]
    directions = rng.normal(size=(count, 3)) @ null
    room = np.min(np.where(directions < 0, -centre / np.where(directions < 0, directions, -1.0), INF), axis=-1)
    return centre + (rng.uniform(0, 1, size=count) * room)[:, None] * directions


def test_i_projection_is_a_tilt_that_meets_the_moments():
    got = _projection()
    assert got.converged
    np.testing.assert_allclose(_moments(got.log_policy), [2.7, 0.9], rtol=1e-13)
    weights = [
        p * MP.exp(MP.fsum(MP.mpf(float(a)) * MP.mpf(float(b)) for a, b in zip(got.multipliers, row, strict=True)))
        for p, row in zip(P, FEATURES, strict=True)
    ]
    policy = [w / MP.fsum(weights) for w in weights]
    np.testing.assert_allclose(jnp.exp(got.log_policy), floats(policy), rtol=1e-13)
    assert got.kl == pytest.approx(float(oracles.kl(policy, P)), rel=1e-12)


def test_i_projection_obeys_pythagoras():
    got = _projection()
    for member in _linear_family(40):
        pi = [MP.mpf(x) for x in member]
        sides = oracles.kl(pi, normalized(got.log_policy)) + MP.mpf(float(got.kl))
        assert abs(float(oracles.kl(pi, P) - sides)) < 1e-12


def test_no_feasible_policy_is_closer_than_the_i_projection():
    members = _linear_family(400)
    assert members.min() >= 0
    np.testing.assert_allclose(members @ np.asarray(FEATURES), np.tile([2.7, 0.9], (400, 1)), rtol=1e-12)
    kl = kl_divergence(jnp.log(jnp.maximum(members, 0.0)), jnp.broadcast_to(LOG_P, (400, 6)))
    assert jnp.all(kl > _projection().kl)


def test_moments_of_the_reference_project_to_itself():
    got = i_projection(LOG_P, FEATURES, jnp.asarray(_moments(LOG_P)))
    assert got.converged
    np.testing.assert_allclose(got.log_policy, LOG_P, rtol=1e-12)
    np.testing.assert_allclose(got.multipliers, 0.0, atol=1e-12)
    assert 0 <= got.kl < 1e-25


def test_redundant_features_change_nothing():
    redundant = jnp.concatenate([FEATURES, FEATURES @ jnp.array([[2.0], [-1.0]]), jnp.ones((6, 1))], axis=-1)
    got = i_projection(LOG_P, redundant, jnp.array([2.7, 0.9, 4.5, 1.0]))
    assert got.converged
    np.testing.assert_allclose(got.log_policy, _projection().log_policy, rtol=1e-11)
    assert got.kl == pytest.approx(float(_projection().kl), rel=1e-11)
    assert jnp.isfinite(got.multipliers).all()
    slope = quick_jit(jax.grad(lambda m: rz.i_projection(LOG_P, redundant, m).kl))(jnp.array([2.7, 0.9, 4.5, 1.0]))
    assert jnp.isfinite(slope).all()


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_of_the_features_do_not_matter(scale):
    units = jnp.array([scale, 1.0])
    got = i_projection(LOG_P, FEATURES * units[None], jnp.array([2.7, 0.9]) * units)
    assert got.converged
    np.testing.assert_allclose(got.log_policy, _projection().log_policy, rtol=1e-11)
    np.testing.assert_allclose(got.multipliers * units, _projection().multipliers, rtol=1e-10)


INFEASIBLE = [[5.5, 0.9], [-1.0, 0.0], [2.7, 3.0], [1e6, -1e6], [6.0, 6.0], [NAN, 0.9]]


@pytest.mark.parametrize("moments", INFEASIBLE)
def test_infeasible_moments_do_not_converge(moments):
    got = i_projection(LOG_P, FEATURES, jnp.array(moments))
    assert not got.converged


@pytest.mark.parametrize("moments", INFEASIBLE[:-1])
def test_infeasible_moments_give_no_nan(moments):
    got = i_projection(LOG_P, FEATURES, jnp.array(moments))
    assert not any(np.isnan(np.asarray(leaf)).any() for leaf in got)
    np.testing.assert_allclose(jnp.exp(got.log_policy).sum(), 1.0, rtol=1e-12)


@pytest.mark.parametrize("mean", [1 - 1e-6, 6 + 1e-6])
def test_barely_infeasible_moments_do_not_converge(mean):
    assert not i_projection(DIE, FACES, jnp.array([mean])).converged


@pytest.mark.parametrize("corner", [1.0, 6.0])
def test_a_moment_on_the_edge_gives_no_nan_and_approaches_it(corner):
    got = i_projection(DIE, FACES, jnp.array([corner]))
    assert not any(np.isnan(np.asarray(leaf)).any() for leaf in got)
    assert np.exp(got.log_policy) @ np.asarray(FACES[:, 0]) == pytest.approx(corner, abs=1e-3)


def test_impossible_outcomes_stay_impossible():
    log_ref = jax.nn.log_softmax(LOG_P.at[jnp.array([1, 4])].set(-INF))
    got = i_projection(log_ref, FEATURES, jnp.array([2.7, 0.9]))
    assert got.converged
    assert jnp.all(got.log_policy[jnp.array([1, 4])] == -INF)
    np.testing.assert_allclose(_moments(got.log_policy), [2.7, 0.9], rtol=1e-12)


@pytest.mark.parametrize("mean", [1 - 1e-11, 6 + 1e-11])
def test_moments_outside_by_little_more_than_rounding_do_not_converge(mean):
    assert not i_projection(DIE, FACES, jnp.array([mean])).converged


def test_the_moments_of_a_policy_of_moderate_logits_are_met():
    rng = np.random.default_rng(11)
    log_ref, policy = (jax.nn.log_softmax(jnp.asarray(3 * rng.normal(size=(200, 6)))) for _ in range(2))
    got = i_projection(log_ref, FEATURES, jnp.asarray(_moments(policy)))
    assert got.converged.all()


def test_a_projection_in_extreme_logits_converges_exactly_where_it_meets_the_moments():
    rng = np.random.default_rng(12)
    log_ref, policy = (jax.nn.log_softmax(jnp.asarray(30 * rng.normal(size=(300, 6)))) for _ in range(2))
    moments = _moments(policy)
    got = i_projection(log_ref, FEATURES, jnp.asarray(moments))
    ranges = np.abs(np.asarray(FEATURES)[None] - moments[:, None]).max(1)
    miss = np.abs((_moments(got.log_policy) - moments) / ranges).max(-1)
    allowed = 1000 * np.finfo(float).eps
    clear = np.abs(np.log(np.maximum(miss, 1e-300) / allowed)) > 0.3  # the miss is rounded otherwise than inside
    assert np.any(clear & (miss > allowed) & (miss < 100 * allowed))
    assert 10 < got.converged.sum() < 290
    np.testing.assert_array_equal(np.asarray(got.converged)[clear], (miss <= allowed)[clear])


def test_where_every_outcome_is_impossible_nothing_converges():
    got = i_projection(jnp.full_like(LOG_P, -INF), FEATURES, jnp.array([2.7, 0.9]))
    assert not got.converged
    assert jnp.all(got.log_policy == -INF)


def test_the_multipliers_are_the_price_of_the_moments():
    moments = jnp.array([2.7, 0.9])
    slope = quick_jit(jax.grad(lambda m: rz.i_projection(LOG_P, FEATURES, m).kl))(moments)
    np.testing.assert_allclose(slope, _projection().multipliers, rtol=1e-10)
    for i in range(2):
        up, down = (float(i_projection(LOG_P, FEATURES, moments.at[i].add(s * 1e-5)).kl) for s in (1, -1))
        assert _projection().multipliers[i] == pytest.approx((up - down) / 2e-5, rel=1e-7)


def test_i_projection_gradients_match_finite_differences():
    weights = jnp.array([0.3, -1.0, 0.7, 0.2, 0.4, -0.6])

    def loss(x):
        got = rz.i_projection(jax.nn.log_softmax(x[:6]), x[6:18].reshape(6, 2), x[18:])
        return got.log_policy @ weights + got.multipliers @ jnp.array([1.0, -2.0]) + 3 * got.kl

    x = jnp.concatenate([LOG_P, FEATURES.ravel(), jnp.array([2.7, 0.9])])
    value, slope = quick_jit(loss), quick_jit(jax.grad(loss))(x)
    differences = [(value(x.at[i].add(1e-5)) - value(x.at[i].add(-1e-5))) / 2e-5 for i in range(20)]
    np.testing.assert_allclose(slope, differences, rtol=1e-5, atol=1e-7)


def test_i_projections_of_a_batch_are_those_of_its_rows():
    log_ref = jnp.stack([LOG_P, LOG_Q])[:, None]
    moments = jnp.array([[2.7, 0.9], [2.0, 0.5], [3.5, 0.7]])
    got = i_projection(log_ref, FEATURES, moments[None])
    assert got.log_policy.shape == (2, 3, 6)
    assert got.multipliers.shape == (2, 3, 2)
    assert got.kl.shape == got.converged.shape == (2, 3)
    assert got.converged.all()
    for i, j in itertools.product(range(2), range(3)):
        one = i_projection(log_ref[i, 0], FEATURES, moments[j])
        np.testing.assert_allclose(got.log_policy[i, j], one.log_policy, rtol=1e-11)


def test_i_projection_in_float32():
    got = i_projection(LOG_P.astype(np.float32), FEATURES.astype(np.float32), jnp.array([2.7, 0.9], np.float32))
    assert got.log_policy.dtype == got.multipliers.dtype == got.kl.dtype == jnp.float32
    assert got.converged
    np.testing.assert_allclose(got.log_policy, _projection().log_policy, atol=2e-5)


# m-projection


@functools.cache
def _fit():
    return m_projection(LOG_P, LOG_Q, FEATURES)


def _exponential_family(count):
    """Random members ref exp(multipliers . features) / Z."""
    multipliers = np.random.default_rng(8).normal(size=(count, 2))
    multipliers[: count // 2] = np.asarray(_fit().multipliers) + 1e-3 * multipliers[: count // 2]
    return jax.nn.log_softmax(LOG_Q[None] + jnp.asarray(multipliers) @ FEATURES.T)


def test_m_projection_matches_the_moments():
    assert _fit().converged
    np.testing.assert_allclose(_moments(_fit().log_policy), _moments(LOG_P), rtol=1e-13)
    assert _fit().kl == pytest.approx(float(oracles.kl(normalized(_fit().log_policy), Q)), rel=1e-12)


def test_m_projection_lies_in_the_family():
    log_ratio = np.asarray(_fit().log_policy - LOG_Q)
    design = np.concatenate([np.ones((6, 1)), np.asarray(FEATURES)], axis=-1)
    found = np.linalg.lstsq(design, log_ratio, rcond=None)[0]
    np.testing.assert_allclose(design @ found, log_ratio, atol=1e-13)
    np.testing.assert_allclose(found[1:], _fit().multipliers, atol=1e-13)


def test_m_projection_obeys_pythagoras_and_is_minimal():
    least = oracles.kl(P, normalized(_fit().log_policy))
    for member in _exponential_family(40):
        q = normalized(member)
        assert abs(float(oracles.kl(P, q) - least - oracles.kl(normalized(_fit().log_policy), q))) < 1e-12
    members = _exponential_family(400)
    assert jnp.all(kl_divergence(jnp.broadcast_to(LOG_P, members.shape), members) > float(least))


def test_m_projection_of_a_member_is_itself():
    member = _exponential_family(2)[1]
    np.testing.assert_allclose(m_projection(member, LOG_Q, FEATURES).log_policy, member, rtol=1e-12)


def test_projections_are_dual():
    """The family member with the moments of p is both projections' answer."""
    got = i_projection(LOG_Q, FEATURES, jnp.asarray(_moments(LOG_P)))
    np.testing.assert_allclose(got.log_policy, _fit().log_policy, rtol=1e-12)


def test_m_projections_of_a_batch_are_those_of_its_rows():
    log_p = jnp.stack([LOG_P, LOG_Q, DIE])
    got = m_projection(log_p, jnp.broadcast_to(LOG_Q, (3, 6)), FEATURES)
    assert got.log_policy.shape == (3, 6)
    assert got.converged.all()
    np.testing.assert_allclose(got.log_policy[0], _fit().log_policy, rtol=1e-12)
    np.testing.assert_allclose(got.log_policy[1], LOG_Q, rtol=1e-12)


def test_m_projection_of_a_corner_has_no_finite_multipliers():
    log_p = jnp.log(jnp.eye(6)[3])
    got = m_projection(log_p, LOG_Q, FEATURES)  # (3, 2) is a vertex of the hull
    assert not any(np.isnan(np.asarray(leaf)).any() for leaf in got)
    assert jnp.exp(got.log_policy)[3] > 0.999


# Contract

PUBLIC = [
    Contract(rz.fisher_metric, ("log_p",)),
    Contract(rz.fisher_rao_distance, ("log_p", "log_q")),
    Contract(rz.e_geodesic, ("log_p", "log_q"), {"t": (0.3, 0.0, 1.0)}),
    Contract(rz.m_geodesic, ("log_p", "log_q"), {"t": (0.3, 0.0, 1.0)}),
    Contract(rz.i_projection, ("log_ref", "features", "moments")),
    Contract(rz.m_projection, ("log_p", "log_ref", "features")),
]


@pytest.mark.parametrize(("keeps", "case"), kept_by(PUBLIC))
def test_contract(keeps, case):
    keeps(case)


@pytest.mark.parametrize(("refuses", "case"), refused_by(PUBLIC))
def test_refusals(refuses, case, as_installed):
    refuses(case)


@pytest.mark.parametrize("shape", [(5, 2), (6, 3), (6,)])
def test_features_must_fit(shape, as_installed):
    with pytest.raises(ValueError, match="features"):
        rz.i_projection(LOG_P, jnp.ones(shape), jnp.array([2.7, 0.9]))
    with pytest.raises(ValueError, match="features"):
        jax.jit(rz.i_projection)(LOG_P, jnp.ones(shape), jnp.array([2.7, 0.9]))


@pytest.mark.parametrize("shape", [(5, 2), (6,)])
def test_features_must_fit_the_m_projection(shape, as_installed):
    with pytest.raises(ValueError, match="features"):
        rz.m_projection(LOG_P, LOG_Q, jnp.ones(shape))


@pytest.mark.parametrize("t", [-0.1, 1.1, NAN])
def test_a_mixture_beyond_its_ends_is_refused(t, as_installed):
    with pytest.raises(ValueError, match="t must"):
        rz.m_geodesic(LOG_P, LOG_Q, t)
    with pytest.raises(ValueError, match="t must"):
        jax.jit(lambda log_p: rz.m_geodesic(log_p, LOG_Q, t))(LOG_P)
