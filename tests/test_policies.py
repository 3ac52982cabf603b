"""Parameters to log-policy: against scipy's densities, moments on a grid, and a numerical m-projection."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from scipy.optimize import minimize

import rlrazor as rz
from rlrazor.policies import gaussian_log_density, mixture_log_density

WEIGHTS = np.array([0.3, 0.6, 0.1])
MEANS = np.array([-2.0, 1.0, 4.0])
SCALES = np.array([0.5, 1.2, 0.2])
MIXTURE = rz.GaussianMixture(jnp.log(WEIGHTS) + 5.0, jnp.asarray(MEANS), jnp.log(SCALES))  # weights unnormalised


def scipy_density(x):
    return sum(w * stats.norm.pdf(x, m, s) for w, m, s in zip(WEIGHTS, MEANS, SCALES, strict=True))


def test_softmax_policy_is_exponential_over_its_sum():
    logits = np.random.default_rng(0).normal(size=(3, 4))
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(jnp.exp(rz.softmax_policy(jnp.asarray(logits))), expected, rtol=1e-13)


def test_softmax_policy_survives_huge_logits_and_ignores_a_shift():
    policy = rz.softmax_policy(jnp.array([1e4, 1e4 - 1.0, -1e4]))
    np.testing.assert_allclose(policy[:2], [-np.log1p(np.exp(-1)), -1 - np.log1p(np.exp(-1))], rtol=1e-12)
    np.testing.assert_allclose(policy[2], -2e4, rtol=1e-4)


def test_softmax_policy_excludes_minus_infinity_and_stays_differentiable_there():
    logits = jnp.array([0.0, -jnp.inf, jnp.log(3.0)])
    np.testing.assert_allclose(jnp.exp(rz.softmax_policy(logits)), [0.25, 0.0, 0.75], rtol=1e-14)
    assert rz.softmax_policy(logits)[1] == -jnp.inf
    np.testing.assert_allclose(jax.jacfwd(rz.softmax_policy)(logits)[0], [0.75, 0.0, -0.75], rtol=1e-14)
    np.testing.assert_allclose(jax.grad(lambda x: rz.softmax_policy(x)[0])(logits), [0.75, 0.0, -0.75], rtol=1e-14)


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (-3.0, 0.01), (2.0, 50.0)])
def test_gaussian_log_density_matches_scipy(mean, scale):
    x = np.linspace(-5, 5, 41)
    measured = gaussian_log_density(jnp.asarray(x), jnp.full(41, mean), jnp.full(41, scale))
    np.testing.assert_allclose(measured, stats.norm.logpdf(x, mean, scale), rtol=1e-12)


def test_mixture_log_density_matches_scipy():
    x = np.linspace(-6, 8, 57)
    np.testing.assert_allclose(mixture_log_density(MIXTURE, jnp.asarray(x)), np.log(scipy_density(x)), rtol=1e-12)


def test_mixture_log_density_stays_finite_where_the_density_underflows():
    far = mixture_log_density(MIXTURE, jnp.array([500.0]))[0]
    by_hand = np.log(WEIGHTS[1]) + stats.norm.logpdf(500.0, MEANS[1], SCALES[1])  # the widest component alone
    np.testing.assert_allclose(far, by_hand, rtol=1e-12)


def test_mixture_density_integrates_to_one():
    total, _ = integrate.quad(
        lambda x: float(jnp.exp(mixture_log_density(MIXTURE, jnp.array([x])))[0]), -12, 14, points=[-2, 1, 4]
    )
    assert abs(total - 1) < 1e-8


def test_mixture_policy_is_the_density_normalised_over_the_grid_points():
    grid = np.linspace(-10, 12, 333)
    policy = jnp.exp(rz.mixture_policy(MIXTURE, jnp.asarray(grid)))
    density = scipy_density(grid)
    assert abs(policy.sum() - 1) < 1e-13
    np.testing.assert_allclose(policy, density / density.sum(), rtol=1e-11)


def test_mixture_policy_has_the_moments_of_the_mixture_on_a_wide_fine_grid():
    grid = np.linspace(-12, 14, 2601)
    policy = np.exp(rz.mixture_policy(MIXTURE, jnp.asarray(grid)))
    mean = WEIGHTS @ MEANS
    np.testing.assert_allclose(policy @ grid, mean, rtol=1e-9)
    np.testing.assert_allclose(policy @ (grid - mean) ** 2, WEIGHTS @ (SCALES**2 + (MEANS - mean) ** 2), rtol=1e-9)


def test_the_gaussian_of_least_forward_kl_matches_mean_and_variance_even_on_a_coarse_grid():
    """The m-projection of a two-mode policy on the Gaussian family, found by a direct search in (mean, log scale)."""
    grid = np.linspace(-4, 6, 9)
    target = np.exp(rz.mixture_policy(MIXTURE, jnp.asarray(grid)))

    def one(theta):
        return rz.GaussianMixture(jnp.zeros(1), theta[:1], theta[1:])

    @jax.jit
    def loss(theta):
        return -jnp.asarray(target) @ rz.mixture_policy(one(theta), jnp.asarray(grid))

    found = minimize(
        lambda x: tuple(np.asarray(v) for v in jax.value_and_grad(loss)(jnp.asarray(x))),
        np.zeros(2),
        jac=True,
        method="BFGS",
        options={"gtol": 1e-10},
    ).x
    fit = np.exp(rz.mixture_policy(one(jnp.asarray(found)), jnp.asarray(grid)))
    for power in (1, 2):
        np.testing.assert_allclose(fit @ grid**power, target @ grid**power, rtol=1e-7)
    features = jnp.stack([jnp.asarray(grid), jnp.asarray(grid) ** 2], axis=-1)
    uniform = jnp.full(9, -jnp.log(9.0))
    projection = rz.m_projection(jnp.log(target), uniform, features)
    np.testing.assert_allclose(jnp.exp(projection.log_policy), fit, atol=1e-7)


def test_mixture_policy_is_differentiable_in_every_parameter():
    grid = jnp.linspace(-5.0, 6.0, 23)
    reward = jnp.sin(grid)

    @jax.jit
    def value(params):
        return jnp.exp(rz.mixture_policy(params, grid)) @ reward

    gradient = jax.grad(value)(MIXTURE)
    for field in rz.GaussianMixture._fields:
        for k in range(3):
            up, down = (
                value(MIXTURE._replace(**{field: getattr(MIXTURE, field).at[k].add(sign * 1e-6)})) for sign in (1, -1)
            )
            np.testing.assert_allclose(getattr(gradient, field)[k], (up - down) / 2e-6, atol=1e-8)


def test_policies_keep_float32():
    params = jax.tree.map(lambda x: x.astype(jnp.float32), MIXTURE)
    assert rz.mixture_policy(params, jnp.linspace(-5.0, 6.0, 23, dtype=jnp.float32)).dtype == jnp.float32
    assert rz.softmax_policy(jnp.zeros(3, jnp.float32)).dtype == jnp.float32


def test_integer_logits_and_grids_are_rejected_by_name(as_installed):
    with pytest.raises(TypeError, match=r"logits must be a floating array, got int64 of shape \(3,\)"):
        rz.softmax_policy(jnp.arange(3))
    with pytest.raises(TypeError, match=r"grid must be a floating array"):
        rz.mixture_policy(MIXTURE, jnp.arange(3))


def test_linear_softmax_policy_is_the_exponential_of_weighted_features_over_its_sum():
    rng = np.random.default_rng(0)
    weights, features = rng.normal(size=(3, 4)), rng.normal(size=(2, 5, 3))
    measured = np.exp(rz.linear_softmax_policy(jnp.asarray(weights), jnp.asarray(features)))
    assert measured.shape == (2, 5, 4)
    for i, j in np.ndindex(2, 5):
        scores = [np.exp(sum(features[i, j, k] * weights[k, y] for k in range(3))) for y in range(4)]
        np.testing.assert_allclose(measured[i, j], scores / np.sum(scores), rtol=1e-12)


def test_linear_softmax_policy_of_one_prompt_has_no_prompt_axis():
    measured = rz.linear_softmax_policy(jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(measured, rz.softmax_policy(jnp.array([0.0, 2.0])), rtol=1e-14)


def moves_of_other_prompts(features, rate):
    """What a gradient step for outcome 0 at the first prompt changes in every log-policy, over `rate`."""
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(features.shape[1], 4)))
    gradient = jax.grad(lambda w: rz.linear_softmax_policy(w, features)[0, 0])(weights)
    before, after = (rz.linear_softmax_policy(w, features) for w in (weights, weights + rate * gradient))
    return np.asarray(after - before) / rate, np.exp(before)


def test_orthogonal_features_make_every_prompt_a_softmax_table_of_its_own():
    moves, _ = moves_of_other_prompts(jnp.array([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [0.0, 0.0, 3.0]]), 0.5)
    assert np.abs(moves[0]).min() > 0.01
    np.testing.assert_allclose(moves[1:], 0, atol=1e-14)


def test_shared_features_move_other_prompts_by_their_inner_product_at_first_order():
    """The step adds rate x features(x0) (e_0 - pi(x0)) to the weights: logits at x move by their inner product."""
    features = np.random.default_rng(2).normal(size=(5, 3))
    moves, policy = moves_of_other_prompts(jnp.asarray(features), 1e-6)
    pull = np.eye(4)[0] - policy[0]
    for x in range(5):
        overlap = sum(features[0, k] * features[x, k] for k in range(3))
        np.testing.assert_allclose(moves[x], overlap * (pull - policy[x] @ pull), atol=1e-4)
        assert np.abs(moves[x]).max() > 1e-2


def test_linear_softmax_policy_keeps_float32_and_runs_under_jit():
    weights, features = jnp.ones((2, 3), jnp.float32), jnp.ones((4, 2), jnp.float32)
    measured = jax.jit(rz.linear_softmax_policy)(weights, features)
    assert measured.dtype == jnp.float32
    np.testing.assert_allclose(measured, -np.log(3), rtol=1e-6)


@pytest.mark.parametrize(("weights", "features"), [((2, 3), (3,)), ((2, 3), (4, 3)), ((2,), (2,)), ((2, 3), ())])
def test_features_that_do_not_fit_the_weights_are_an_error_that_shows_both_shapes(weights, features, as_installed):
    text = re.escape(f"weights {weights} must be [features, outcomes] for features {features}")
    with pytest.raises(ValueError, match=text):
        rz.linear_softmax_policy(jnp.zeros(weights), jnp.zeros(features))


def test_integer_weights_and_features_are_rejected_by_name(as_installed):
    with pytest.raises(TypeError, match="weights must be a floating array, got int64"):
        rz.linear_softmax_policy(jnp.ones((2, 3), int), jnp.ones(2))
    with pytest.raises(TypeError, match="features must be a floating array, got int64"):
        rz.linear_softmax_policy(jnp.ones((2, 3)), jnp.ones(2, int))


def test_point_mass_is_the_logarithm_of_an_indicator():
    got = rz.point_mass(jnp.array([[2, 0], [1, 1]]), 3, np.float32)
    assert got.dtype == np.float32
    assert np.exp(got).tolist() == [[[0, 0, 1], [1, 0, 0]], [[0, 1, 0], [0, 1, 0]]]
    assert np.exp(jax.jit(rz.point_mass, static_argnums=1)(1, 2)).tolist() == [0, 1]
    assert rz.point_mass(jnp.array(3), 3).tolist() == [-np.inf] * 3


def test_point_mass_of_probabilities_is_refused(as_installed):
    with pytest.raises(TypeError, match=r"outcome must be an integer array, got float64 of shape \(2,\)"):
        rz.point_mass(jnp.array([0.5, 0.5]), 3)


def test_inverse_cdf_is_a_search_in_the_cumulative_probabilities():
    rng = np.random.default_rng(3)
    policy, quantiles = rng.dirichlet(np.ones(6), size=4), rng.uniform(size=(4, 50))
    got = rz.inverse_cdf(jnp.log(policy), jnp.asarray(quantiles))
    for row, q, answers in zip(policy, quantiles, got, strict=True):
        assert answers.tolist() == np.searchsorted(np.cumsum(row)[:-1], q, side="right").tolist()


def test_inverse_cdf_of_uniform_quantiles_samples_the_policy():
    policy = np.array([0.5, 0.0, 0.2, 0.3])
    with np.errstate(divide="ignore"):
        log_policy = jnp.asarray(np.log(policy))
    samples = np.asarray(rz.inverse_cdf(log_policy, jax.random.uniform(jax.random.key(0), (40_000,))))
    counts = np.bincount(samples, minlength=4)
    assert counts[1] == 0
    assert np.all(np.abs(counts / 40_000 - policy) <= 4 * np.sqrt(policy * (1 - policy) / 40_000))


def test_inverse_cdf_never_leaves_the_outcomes_where_rounding_loses_mass():
    log_policy = jax.nn.log_softmax(jnp.zeros(10, jnp.float32))
    assert rz.inverse_cdf(log_policy, jnp.array([np.float32(1) - np.finfo(np.float32).eps])).tolist() == [9]
