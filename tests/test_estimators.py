"""What sampled losses are in expectation: against exact objectives, brute force, Monte Carlo and mpmath."""

import itertools
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import rlrazor as rz
from rlrazor import estimators as es

LOG_POLICY, LOG_REF, LOG_OLD = jax.nn.log_softmax(jax.random.normal(jax.random.key(3), (3, 4)))
REWARD = jnp.array([1.0, 0.0, 0.0, 1.0])
K1, K2, K3 = (lambda log_prob, ref, k=k: k(log_prob, ref).mean() for k in (es.k1, es.k2, es.k3))


def slope(objective):
    """The gradient in the logits at the policy."""
    return jax.grad(lambda logits: objective(jax.nn.log_softmax(logits)))(LOG_POLICY)


def kl(log_policy):
    return rz.kl_divergence(log_policy, LOG_REF)


def reverse(log_policy):
    return rz.kl_divergence(LOG_REF, log_policy)


def chi2(log_policy):
    return rz.chi2_divergence(log_policy, LOG_REF)


def in_reward(k):
    return lambda log_prob, ref: rz.reinforce_loss(log_prob, -k(log_prob, ref))


def ratio(log_prob, old):
    return jnp.exp(log_prob - old)


held = jax.lax.stop_gradient
IDENTITIES = {
    "k1 as a loss: nothing": (K1, (LOG_REF,), None, lambda log_policy: 0 * kl(log_policy)),
    "k2 as a loss": (K2, (LOG_REF,), None, kl),
    "k3 as a loss": (K3, (LOG_REF,), None, reverse),
    "inverted k3 as a loss": (lambda x, ref: K3(ref, x), (LOG_REF,), None, lambda x: chi2(x) / 2),
    "k1 in the reward": (in_reward(es.k1), (LOG_REF,), None, kl),
    "ratio times k1": (lambda x, ref, old: (ratio(x, old) * es.k1(x, ref)).mean(), (LOG_REF, LOG_OLD), LOG_OLD, kl),
    "ratio times k3": (lambda x, ref, old: (ratio(x, old) * es.k3(x, ref)).mean(), (LOG_REF, LOG_OLD), LOG_OLD, kl),
    "held ratio times k2": (
        lambda x, ref, old: (held(ratio(x, old)) * es.k2(x, ref)).mean(),
        (LOG_REF, LOG_OLD),
        LOG_OLD,
        kl,
    ),
    "held ratio times k3": (
        lambda x, ref, old: (held(ratio(x, old)) * es.k3(x, ref)).mean(),
        (LOG_REF, LOG_OLD),
        LOG_OLD,
        reverse,
    ),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_each_placement_of_an_estimator_descends_what_is_said_of_it(name):
    loss, data, behavior, exact = IDENTITIES[name]
    got = slope(es.expected_loss(loss, *data, behavior=behavior))
    np.testing.assert_allclose(got, slope(exact), rtol=0, atol=1e-14)
    if behavior is None:
        np.testing.assert_allclose(es.gradient_moments(loss, LOG_POLICY, *data).mean, got, rtol=0, atol=1e-14)
    else:  # and without its ratio, on another's samples, it does not
        plain = es.expected_loss(K2, LOG_REF, behavior=behavior)
        assert np.abs(slope(plain) - got).max() > 1e-2


def test_k3_in_the_reward_is_biased():
    """It is that of the mean of k3 as if k3 were a given penalty, which misses what k3 does as the policy moves."""
    got = slope(es.expected_loss(in_reward(es.k3), LOG_REF))
    policy, weights = np.exp(LOG_POLICY), np.asarray(es.k3(LOG_POLICY, LOG_REF))
    np.testing.assert_allclose(got, policy * (weights - policy @ weights), rtol=0, atol=1e-14)
    assert np.abs(got - slope(kl)).max() > 0.05


def test_moments_are_the_closed_forms():
    difference, jeffreys = LOG_POLICY - LOG_REF, rz.jeffreys_divergence(LOG_POLICY, LOG_REF)
    spread, chi2_back = es.moments(LOG_POLICY, difference).variance, rz.chi2_divergence(LOG_REF, LOG_POLICY)
    k1, k2, k3 = (es.moments(LOG_POLICY, k(LOG_POLICY, LOG_REF)) for k in (es.k1, es.k2, es.k3))
    np.testing.assert_allclose([k1.mean, k3.mean], kl(LOG_POLICY), rtol=1e-13)
    np.testing.assert_allclose(k2.mean, (spread + kl(LOG_POLICY) ** 2) / 2, rtol=1e-13)
    np.testing.assert_allclose(k3.variance, chi2_back + spread - 2 * jeffreys, rtol=1e-12)
    control = jnp.exp(LOG_REF - LOG_POLICY) - 1
    best = es.best_control_variate(LOG_POLICY, difference, control)
    np.testing.assert_allclose(best.coefficient, -jeffreys / chi2_back, rtol=1e-12)
    np.testing.assert_allclose(best.variance, spread - jeffreys**2 / chi2_back, rtol=1e-12)
    for c in (best.coefficient - 0.1, best.coefficient + 0.1):
        assert es.moments(LOG_POLICY, difference - c * control).variance > best.variance + 1e-3
    np.testing.assert_allclose(es.covariance(LOG_POLICY, control, difference), -jeffreys, rtol=1e-12)


def test_moments_agree_with_a_million_samples():
    drawn = jax.random.categorical(jax.random.key(0), LOG_POLICY, shape=(1_000_000,))
    for k in (es.k1, es.k2, es.k3):
        values = np.asarray(k(LOG_POLICY[drawn], LOG_REF[drawn]))
        mean, variance = es.moments(LOG_POLICY, k(LOG_POLICY, LOG_REF))
        assert abs(values.mean() - mean) < 4 * values.std() / 1e3
        fourth = ((values - values.mean()) ** 2).std() / 1e3
        assert abs(values.var() - variance) < 4 * fourth


def test_k3_misses_the_mass_that_the_policy_excludes():
    log_policy, log_ref = jnp.log(jnp.array([[0.4, 0.6, 0.0], [0.3, 0.5, 0.2]]))
    mean = es.moments(log_policy, es.k3(log_policy, log_ref)).mean
    np.testing.assert_allclose(mean, rz.kl_divergence(log_policy, log_ref) - 0.2, rtol=1e-13)


def test_estimates_where_the_reference_has_no_mass_are_infinite():
    log_policy, log_ref = jnp.log(jnp.array([[0.4, 0.6], [0.0, 1.0]]))
    for k in (es.k1, es.k2, es.k3):
        assert es.moments(log_policy, k(log_policy, log_ref)) == (np.inf, np.inf)
    back = es.moments(log_ref, es.k1(log_ref, log_policy))
    np.testing.assert_allclose(back, [-math.log(0.6), 0.0], atol=1e-15)


@pytest.mark.parametrize("difference", [1e-9, -1e-5, 0.7, -300.0, 300.0])
def test_k3_to_the_last_bits(difference):
    with mpmath.workdps(60):
        want = float(mpmath.expm1(mpmath.mpf(-difference)) + mpmath.mpf(difference))
    np.testing.assert_allclose(es.k3(jnp.array([difference]), jnp.array([0.0])), want, rtol=1e-13)
    got = jax.grad(lambda x: es.k3(x, jnp.array([0.0])).sum())(jnp.array([difference]))
    np.testing.assert_allclose(got, -math.expm1(-difference), rtol=1e-13)


# Groups


def brute_force(loss, log_policy, behavior, *data, size):
    """Mean and covariance of the gradient over ordered groups, one at a time, by the chain rule on the logits."""
    policy, mean, square = np.exp(log_policy), 0.0, 0.0
    in_log_prob = jax.jit(jax.grad(loss))
    for group in itertools.product(range(len(policy)), repeat=size):
        y = jnp.array(group)
        inner = np.asarray(in_log_prob(log_policy[y], *(x[y] for x in data)))
        gradient = sum(g * (np.eye(len(policy))[k] - policy) for g, k in zip(inner, group, strict=True))
        chance = np.exp(behavior)[list(group)].prod()
        mean, square = mean + chance * gradient, square + chance * np.outer(gradient, gradient)
    return mean, square - np.outer(mean, mean)


def grpo(log_prob, reward):
    return rz.reinforce_loss(log_prob, rz.grpo_advantage(reward))


@pytest.mark.parametrize("behavior", [None, LOG_OLD], ids=["own", "other"])
def test_groups_agree_with_brute_force(behavior):
    want = brute_force(grpo, LOG_POLICY, LOG_POLICY if behavior is None else behavior, REWARD, size=3)
    found = es.gradient_moments(grpo, LOG_POLICY, REWARD, behavior=behavior, group_size=3)
    np.testing.assert_allclose(found.mean, want[0], rtol=0, atol=1e-13)
    np.testing.assert_allclose(found.covariance, want[1], rtol=0, atol=1e-13)
    objective = es.expected_loss(grpo, REWARD, behavior=behavior, group_size=3)
    np.testing.assert_allclose(slope(objective), want[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [2, 5])
def test_group_advantages_descend_their_objectives(size):
    def of(advantage):
        return slope(es.expected_loss(lambda x, r: rz.reinforce_loss(x, advantage(r)), REWARD, group_size=size))

    plain = slope(lambda log_policy: -rz.expected_reward(log_policy, REWARD))
    np.testing.assert_allclose(of(rz.rloo_advantage), plain, rtol=0, atol=1e-13)
    np.testing.assert_allclose(of(rz.dr_grpo_advantage), plain * (size - 1) / size, rtol=0, atol=1e-13)
    success = rz.expected_reward(LOG_POLICY, REWARD)
    np.testing.assert_allclose(of(rz.grpo_advantage), rz.grpo_coefficient(success, size) * plain, rtol=0, atol=1e-13)


def test_the_share_of_groups_that_dynamic_sampling_drops():
    """A group whose rewards all agree has no GRPO advantage: p^G + (1 - p)^G of them."""
    alike = es.expected_loss(lambda _, reward: (reward == reward[0]).all().astype(float), REWARD, group_size=6)
    p = rz.expected_reward(LOG_POLICY, REWARD)
    np.testing.assert_allclose(alike(LOG_POLICY), p**6 + (1 - p) ** 6, rtol=1e-13)


def test_noise_agrees_with_sampled_groups():
    found = es.gradient_moments(grpo, LOG_POLICY, REWARD, group_size=4)
    drawn = jax.random.categorical(jax.random.key(1), LOG_POLICY, shape=(200_000, 4))
    one = jax.grad(lambda logits, y: grpo(jax.nn.log_softmax(logits)[y], REWARD[y]))
    gradients = np.asarray(jax.jit(jax.vmap(one, (None, 0)))(LOG_POLICY, drawn))
    error = gradients.std(0) / math.sqrt(len(gradients))
    assert (np.abs(gradients.mean(0) - found.mean) < 4 * error).all()
    centred = gradients - gradients.mean(0)
    products = centred[:, :, None] * centred[:, None, :]
    error = products.std(0) / math.sqrt(len(gradients))
    assert (np.abs(products.mean(0) - found.covariance) < 4 * error).all()


def test_what_cannot_be_drawn_leaves_no_trace():
    log_policy = jnp.append(LOG_POLICY, -jnp.inf)
    log_ref, reward = jnp.append(LOG_REF, -jnp.inf), jnp.append(REWARD, jnp.nan)
    for loss, size, data in ((K3, 1, (log_ref,)), (grpo, 3, (reward,))):
        found = es.gradient_moments(loss, log_policy, *data, group_size=size)
        want = es.gradient_moments(loss, LOG_POLICY, *(x[:-1] for x in data), group_size=size)
        np.testing.assert_allclose(found.mean, jnp.append(want.mean, 0.0), rtol=0, atol=1e-14)
        np.testing.assert_allclose(found.covariance[:-1, :-1], want.covariance, rtol=0, atol=1e-14)
        assert not found.covariance[-1].any()
        objective = es.expected_loss(loss, *data, group_size=size)
        gradient = jax.grad(lambda x, of=objective: of(jax.nn.log_softmax(x)))(log_policy)
        np.testing.assert_allclose(gradient, found.mean, rtol=0, atol=1e-14)


def test_the_flow_of_a_pasted_loss_ends_where_it_says():
    """k2 leads to the reference; RLOO with k1 in the reward leads to the tilt."""
    beta, times = 0.5, jnp.array([1000.0])

    def loss(log_prob, ref, reward):
        return rz.reinforce_loss(log_prob, reward - beta * es.k1(log_prob, ref))

    objective = es.expected_loss(loss, LOG_REF, REWARD)
    end = rz.gradient_flow(objective, LOG_POLICY, times).log_policy[-1]
    np.testing.assert_allclose(jnp.exp(end), jnp.exp(rz.tilt(LOG_REF, REWARD, beta)), atol=1e-7)


def test_compiled_batched_and_in_float32():
    policies = jnp.stack([LOG_POLICY, LOG_REF])
    objective = es.expected_loss(grpo, REWARD, group_size=3)
    got = jax.jit(jax.vmap(jax.grad(objective)))(policies)
    np.testing.assert_allclose(got[0], jax.grad(objective)(LOG_POLICY), rtol=1e-12)
    found = es.gradient_moments(K3, LOG_POLICY.astype(np.float32), LOG_REF.astype(np.float32))
    assert found.mean.dtype == found.covariance.dtype == np.float32
    np.testing.assert_allclose(found.mean, slope(reverse), atol=1e-6)


# Which objective


POLICIES = jax.nn.log_softmax(jax.random.normal(jax.random.key(5), (5, 4)))
KNOWN = es.known_objectives(LOG_REF, REWARD)


@pytest.mark.parametrize(
    ("loss", "data", "says"),
    [
        (K1, (LOG_REF,), "no gradient: descends nothing"),
        (K2, (LOG_REF,), "descends KL(policy || ref)"),
        (K3, (LOG_REF,), "descends KL(ref || policy)"),
        (lambda x, ref: K3(ref, x), (LOG_REF,), "descends chi2(policy || ref)"),
        (lambda x, ref: -K2(x, ref), (LOG_REF,), "climbs KL(policy || ref)"),
        (lambda x, r: rz.reinforce_loss(x, r), (REWARD,), "descends -E[reward]"),
        (lambda x, ref: rz.reinforce_loss(x, es.k3(x, ref)), (LOG_REF,), "descends none of"),
    ],
)
def test_a_loss_is_recognised_by_its_gradient(loss, data, says):
    match = es.best_match(es.expected_loss(loss, *data), KNOWN, POLICIES)
    assert str(match).startswith(says)
    assert set(match.cosines) == set(KNOWN)


def test_whole_rewards_count_as_floating_ones():
    whole, floating = (es.known_objectives(LOG_REF, reward)["-E[reward]"] for reward in (REWARD > 0, REWARD))
    np.testing.assert_array_equal(slope(whole), slope(floating))


def test_a_match_at_one_policy_that_is_none_at_another_is_none():
    def sometimes(log_policy):
        return jnp.sign(log_policy[0] - POLICIES[0, 0] + 1e-9) * rz.kl_divergence(log_policy, LOG_REF)

    both = jnp.stack([POLICIES[0], jax.nn.log_softmax(POLICIES[0] - 2 * jnp.arange(4.0)[::-1])])
    assert es.best_match(sometimes, KNOWN, both[:1]).cosine > 1 - 1e-9
    assert abs(es.best_match(sometimes, KNOWN, both).cosine) < 0.99


# Bad input


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: es.k1(jnp.zeros(3), jnp.zeros(2)), ValueError, "log_prob_ref has 2 samples"),
        (lambda: es.moments(LOG_POLICY, jnp.zeros(3)), ValueError, "values has 3 outcomes"),
        (lambda: es.covariance(LOG_POLICY, REWARD, jnp.zeros(3)), ValueError, "b has 3 outcomes"),
        (lambda: es.expected_loss(K2, LOG_REF, group_size=0)(LOG_POLICY), ValueError, "group_size must be at least 1"),
        (lambda: es.expected_loss(K2, LOG_REF, group_size=300)(LOG_POLICY), ValueError, "above a million"),
        (lambda: es.expected_loss(K2, LOG_REF)(POLICIES), ValueError, r"must be \[outcomes\], got \(5, 4\)"),
        (lambda: es.gradient_moments(K2, LOG_POLICY, LOG_REF, behavior=LOG_REF[:3]), ValueError, "behavior has 3"),
        (lambda: es.best_match(kl, {}, POLICIES), ValueError, "at least one objective"),
    ],
)
def test_bad_input_is_named(as_installed, call, error, words):
    with pytest.raises(error, match=words):
        call()
