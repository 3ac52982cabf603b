"""EM on the success rate against plain loops, direct searches and the closed form of policy gradient."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq, minimize, minimize_scalar

import rlrazor as rz
from rlrazor.tasks.em_families import exponential_family, mixtures
from tests.oracles import quick_jit

BASE = np.array([0.30, 0.25, 0.15, 0.10, 0.05, 0.05, 0.03, 0.04, 0.02, 0.01])
ACCEPT = np.arange(10) < 5


def log(p):
    with np.errstate(divide="ignore"):
        return jnp.asarray(np.log(np.asarray(p, dtype=float)))


def kl(p, q):
    """KL(p || q) by the plain sum over the support of p."""
    p, q = np.broadcast_arrays(p, q)
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0) / np.where(p > 0, q, 1.0)), 0.0).sum(-1)


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


# The alternation


def test_among_all_distributions_one_step_ends_at_the_conditional_and_stays():
    em = rz.alternate(lambda log_target, _: log_target, log(BASE), jnp.asarray(ACCEPT), 3)
    np.testing.assert_allclose(np.exp(em.log_policy[0]), BASE, rtol=1e-14)
    np.testing.assert_allclose(np.exp(em.log_policy[1:]), np.tile(ACCEPT * BASE / 0.85, (3, 1)), rtol=1e-13)
    assert em.params.shape == (4, 10)


def test_in_an_exponential_family_every_step_matches_the_mean_of_the_successes():
    base, y = np.array([0.15, 0.50, 0.15, 0.20]), np.arange(4)
    accept = jnp.array([True, True, False, True])
    found = quick_jit(lambda log_ref: exponential_family(log_ref, accept, jnp.array([-1.0, 2.0]), 30))(log(base))
    strength, success, drift = 0.0, [], []

    def strength_of(mean):
        return brentq(lambda x: softmax(np.log(base) + x * y) @ y - mean, -30, 30, xtol=1e-14)

    for _ in range(31):
        p = softmax(np.log(base) + strength * y)
        success.append(1 - p[2])
        drift.append(kl(p, base))
        strength = strength_of(np.where(y != 2, p, 0) @ y / (1 - p[2]))
    np.testing.assert_allclose(found.em.success, success, rtol=1e-9)
    np.testing.assert_allclose(found.em.drift, drift, rtol=0, atol=1e-9)
    for row, x in enumerate((-1.0, 2.0)):
        p = softmax(np.log(base) + x * y)
        np.testing.assert_allclose(found.family.success[row], 1 - p[2], rtol=1e-12)
        np.testing.assert_allclose(found.family.drift[row], kl(p, base), rtol=1e-12)
    np.testing.assert_allclose([found.low_end, found.high_end], -np.log([0.15, 0.20]), rtol=1e-14)


def test_success_never_falls_and_the_target_is_its_price_away():
    rng = np.random.default_rng(0)
    log_ref, features = log(rng.dirichlet(np.ones(8))), jnp.asarray(rng.normal(size=(8, 2)))
    accept = jnp.asarray(rng.permutation(8) < 3)

    def project(log_target, _):
        return rz.m_projection(log_target, log_ref, features).multipliers

    def policy(multipliers):
        return rz.softmax_policy(log_ref + features @ multipliers)

    em = jax.jit(lambda x: rz.alternate(project, x, accept, 5, policy=policy))(jnp.zeros(2))
    success = np.where(accept, np.exp(em.log_policy), 0).sum(-1)
    assert np.all(np.diff(success) > 0)
    assert success[-1] - success[0] > 0.1
    target = np.where(accept, np.exp(em.log_policy), 0) / success[:, None]
    np.testing.assert_allclose(kl(target, np.exp(em.log_policy)), -np.log(success), rtol=1e-10)


def test_params_may_be_any_tree():
    em = rz.alternate(lambda log_target, _: {"logits": log_target}, {"logits": log(BASE)}, jnp.asarray(ACCEPT), 2,
                      policy=lambda params: rz.softmax_policy(params["logits"]))  # fmt: skip
    assert em.params["logits"].shape == (3, 10)
    np.testing.assert_allclose(np.exp(em.log_policy[-1, :5]), BASE[:5] / 0.85, rtol=1e-13)


# M-steps that stop early


def plain_loop(count, rate, total):
    logits, path = np.log(BASE), [BASE]
    for step in range(total):
        p = softmax(logits)
        if step % count == 0:
            target = ACCEPT * p / p[ACCEPT].sum()
        logits = logits + rate * (target - p)
        path.append(softmax(logits))
    return np.array(path)


@pytest.mark.parametrize("count", [1, 7, 100])
def test_partial_m_steps_are_the_plain_loop(count):
    em = rz.partial_m_steps(log(BASE), jnp.asarray(ACCEPT), 0.3, count, 60)
    np.testing.assert_allclose(np.exp(em.log_policy), plain_loop(count, 0.3, 60), rtol=1e-11)
    np.testing.assert_allclose(np.exp(rz.softmax_policy(em.params)), np.exp(em.log_policy), rtol=1e-12)


def test_single_small_steps_follow_the_closed_form_of_policy_gradient():
    errors = []
    for rate in (0.1, 0.05):
        logits = rz.partial_m_steps(log(BASE), jnp.asarray(ACCEPT), rate, 1, round(20 / rate)).params
        progress = -jnp.expm1(log(BASE)[0] - logits[:, 0])
        path = rz.success_gradient_path(log(BASE), jnp.asarray(ACCEPT), progress)
        errors.append(np.abs(np.exp(path) - np.exp(rz.softmax_policy(logits))).max())
    assert errors[0] < 0.01
    np.testing.assert_allclose(errors[0] / errors[1], 2, rtol=0.1)  # of first order in the rate


def test_one_long_m_step_is_exact_em():
    em = rz.partial_m_steps(log(BASE), jnp.asarray(ACCEPT), 1.0, 20_000, 20_000)
    np.testing.assert_allclose(np.exp(em.log_policy[-1]), ACCEPT * BASE / 0.85, rtol=0, atol=1e-4)


def test_lengths_and_rates_are_traced_and_mapped_over():
    accept = jnp.asarray(ACCEPT)

    @jax.jit
    @chex.assert_max_traces(1)
    def end(rate, count):
        return rz.partial_m_steps(log(BASE), accept, rate, count, 30).log_policy[-1]

    ends = [end(rate, count) for rate, count in ((0.1, 1), (0.2, 3), (0.3, 30))]
    mapped = jax.vmap(lambda rate, count: rz.partial_m_steps(log(BASE), accept, rate, count, 30).log_policy[-1])(
        jnp.array([0.1, 0.2, 0.3]), jnp.array([1, 3, 30])
    )
    np.testing.assert_allclose(mapped, ends, rtol=1e-12)


def test_float32_stays_float32():
    single, accept = log(BASE).astype(jnp.float32), jnp.asarray(ACCEPT)
    for em in (
        rz.partial_m_steps(single, accept, 0.1, 2, 5),
        rz.alternate(lambda log_target, _: log_target, single, accept, 2),
    ):
        assert {leaf.dtype for leaf in jax.tree.leaves(em)} == {jnp.dtype("float32")}


# Mixtures

COMPONENTS = np.array([[0.80, 0.15, 0.05, 0.0], [0.05, 0.05, 0.90, 0.0], [0.05, 0.60, 0.05, 0.30]])
WEIGHTS = np.array([0.05, 0.15, 0.80])


def test_a_mixture_is_the_weighted_sum():
    weights = np.random.default_rng(0).dirichlet(np.ones(3), size=5)
    weights[0] = [0.4, 0.6, 0.0]
    np.testing.assert_allclose(np.exp(rz.mixture(log(weights), log(COMPONENTS))), weights @ COMPONENTS, rtol=1e-13)


def test_a_fit_is_the_least_kl_by_a_direct_search_and_each_update_lowers_it():
    rng = np.random.default_rng(1)
    components, target, start = rng.dirichlet(np.ones(6), size=3), rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(3))
    fits = [np.exp(rz.fit_mixture(log(target), log(start), log(components), steps)) for steps in (0, 1, 2, 5, 5000)]
    np.testing.assert_allclose(fits[0], start, rtol=1e-13)
    np.testing.assert_allclose(fits[1], start * (components @ (target / (start @ components))), rtol=1e-12)
    assert np.all(np.diff([kl(target, w @ components) for w in fits]) < 0)
    found = minimize(
        lambda w: kl(target, w @ components), np.full(3, 1 / 3), method="SLSQP", bounds=[(1e-9, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options={"ftol": 1e-15, "maxiter": 500},
    )  # fmt: skip
    np.testing.assert_allclose(fits[-1], found.x, rtol=0, atol=1e-4)
    np.testing.assert_allclose(kl(target, fits[-1] @ components), found.fun, rtol=0, atol=1e-9)


def test_weights_of_zero_and_impossible_outcomes_stay_so():
    target = log([0.5, 0.2, 0.3, 0.0])
    fitted = rz.fit_mixture(target, log([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]), log(COMPONENTS), 50)
    assert fitted.shape == (2, 3)
    assert np.isneginf(fitted[0, 2])
    np.testing.assert_allclose(np.exp(fitted).sum(-1), 1, rtol=1e-12)
    assert not np.isnan(fitted).any()


@pytest.mark.parametrize("first", [0.80, 0.90])
def test_em_over_mixtures_is_the_plain_loop_and_misses_unless_its_components_are_symmetric(first):
    components = np.array([[first, 0.95 - first, 0.05, 0.0], *COMPONENTS[1:]])
    shares = jnp.linspace(0.0, 1.0, 2001)
    found = quick_jit(lambda c: mixtures(c, log(WEIGHTS), shares, 30, 300))(log(components))
    w = WEIGHTS
    for _ in range(30):
        target = (w @ components) * [1, 1, 1, 0]
        target /= target.sum()
        for _ in range(300):
            mixed = w @ components
            w = w * (components @ (target / np.where(mixed > 0, mixed, 1.0)))  # the third weight underflows
    np.testing.assert_allclose(found.em_share, w[0], rtol=1e-9)
    np.testing.assert_allclose(found.em_drift, kl(w @ components, WEIGHTS @ components), rtol=1e-9)
    np.testing.assert_allclose(found.em_success, 1, rtol=1e-12)
    best = minimize_scalar(lambda x: kl(np.array([x, 1 - x, 0]) @ components, WEIGHTS @ components),
                           bounds=(0, 1), method="bounded", options={"xatol": 1e-9})  # fmt: skip
    np.testing.assert_allclose(found.least_drift, best.fun, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.closest_share, best.x, rtol=0, atol=5e-4)
    np.testing.assert_allclose(found.drift[500], kl(np.array([0.25, 0.75, 0]) @ components, WEIGHTS @ components))
    missed = found.em_drift - best.fun
    assert missed > 1e-3 if first == 0.80 else abs(missed) < 1e-6


def test_negative_steps_are_refused(as_installed):
    with pytest.raises(ValueError, match="num_steps must be at least 0, got -1"):
        rz.alternate(lambda log_target, _: log_target, log(BASE), jnp.asarray(ACCEPT), -1)
    with pytest.raises(ValueError, match="num_steps must be at least 0, got -1"):
        rz.partial_m_steps(log(BASE), jnp.asarray(ACCEPT), 0.1, 1, -1)
    with pytest.raises(ValueError, match="num_steps must be at least 0, got -2"):
        rz.fit_mixture(log(BASE[:4]), log(WEIGHTS), log(COMPONENTS), -2)


def test_component_counts_must_match(as_installed):
    with pytest.raises(ValueError, match="log_weights has 2 components, but log_components has 3"):
        rz.mixture(log([0.5, 0.5]), log(COMPONENTS))
