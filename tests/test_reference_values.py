"""The theory of "RL's Razor" (arXiv:2509.04259) in numbers, each reached by an exact recursion, flow or enumeration.

EM here alternates the two projections of the theory: condition the policy on success, then fit the family to that. The
tests compute where it ends, and what becomes of a policy under resampling, with one label, and at inputs of its own.
"""

import itertools

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


# Lemmas A.1 and A.2


def test_kl_of_a_successful_policy_is_its_kl_to_the_conditional_plus_the_price_of_success():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(10), size=100)
    accept = np.arange(10) < rng.integers(1, 10, size=(100, 1))
    q = rng.dirichlet(np.ones(10), size=100) * accept
    q /= q.sum(-1, keepdims=True)
    conditional, price = rz.condition(log(p), jnp.asarray(accept)), -np.log((p * accept).sum(-1))
    np.testing.assert_allclose(rz.kl_divergence(log(q), log(p)), kl(q, p), rtol=1e-12)
    np.testing.assert_allclose(kl(q, p), rz.kl_divergence(log(q), conditional) + price, rtol=1e-12)
    np.testing.assert_allclose(rz.kl_divergence(conditional, log(p)), price, rtol=1e-12)


@pytest.mark.parametrize("kind", ["binary", "nonnegative"])
def test_fitting_the_policy_weighted_by_its_reward_follows_the_policy_gradient(kind):
    rng = np.random.default_rng(1)
    theta, statistics = jnp.asarray(rng.normal(size=(50, 3))), jnp.asarray(rng.normal(size=(3, 7)))
    reward = (rng.random((50, 7)) < 0.6) * (rng.gamma(1.0, size=(50, 7)) if kind == "nonnegative" else 1.0)
    reward[:, 0] = 1.0

    def policy(theta):
        return rz.softmax_policy(theta @ statistics)

    p = np.exp(policy(theta))
    success = (p * reward).sum(-1, keepdims=True)
    target = rz.tilt(policy(theta), log(reward), 1.0)
    np.testing.assert_allclose(np.exp(target), p * reward / success, rtol=1e-12)
    fit, climb = quick_jit(
        lambda theta: (
            jax.grad(lambda x: rz.kl_divergence(target, policy(x)).sum())(theta),
            jax.grad(lambda x: rz.expected_reward(policy(x), jnp.asarray(reward)).sum())(theta),
        )
    )(theta)
    np.testing.assert_allclose(climb, p * (reward - success) @ np.asarray(statistics).T, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(fit, -climb / success, rtol=1e-10, atol=1e-13)
    assert np.abs(fit).max() > 0.1


# EM, where the family's closure contains the conditional, and where the family has full support

ONE_STEP_FAMILIES = {
    "all distributions": np.eye(10),
    "failure": ~ACCEPT[:, None],
    "failure and the label": np.stack([~ACCEPT, np.arange(10) / 9], axis=-1),
}


@pytest.mark.parametrize("statistics", ONE_STEP_FAMILIES.values(), ids=ONE_STEP_FAMILIES)
def test_one_em_step_lands_on_the_conditional_where_the_closure_contains_it(statistics):
    conditional = np.where(ACCEPT, BASE, 0) / 0.85
    target = rz.condition(log(BASE), jnp.asarray(ACCEPT))
    np.testing.assert_allclose(np.exp(target), conditional, rtol=1e-13)
    step = rz.m_projection(target, log(BASE), jnp.asarray(statistics, float))
    np.testing.assert_allclose(np.exp(step.log_policy), conditional, rtol=0, atol=1e-7)
    np.testing.assert_allclose(step.kl, -np.log(0.85), rtol=0, atol=1e-6)
    np.testing.assert_allclose(step.kl, 0.1625, rtol=0, atol=5e-5)
    assert not step.converged  # the end of the family is no member


def test_one_em_step_misses_the_conditional_where_the_closure_does_not_contain_it():
    target = rz.condition(log(BASE), jnp.asarray(ACCEPT))
    step = rz.m_projection(target, log(BASE), jnp.arange(10.0)[:, None])
    assert step.converged
    assert np.abs(np.exp(step.log_policy) - np.exp(target)).max() > 0.01


def test_towards_the_end_of_the_failure_family_the_fit_only_improves_and_becomes_perfect():
    strength = np.linspace(-40, 5, 1000)[:, None]
    weights = BASE * np.exp(strength * ~ACCEPT)
    misfit = rz.kl_divergence(
        rz.condition(log(BASE), jnp.asarray(ACCEPT))[None], log(weights / weights.sum(-1)[:, None])
    )
    np.testing.assert_allclose(misfit, np.log1p(0.15 / 0.85 * np.exp(strength[:, 0])), rtol=1e-6, atol=1e-14)
    assert np.all(np.diff(misfit[200:]) > 0)
    assert misfit[0] < 1e-14


def test_a_full_support_family_gets_ever_more_success_but_never_only_success():
    rng = np.random.default_rng(3)
    base, statistics = log(rng.dirichlet(np.full(10, 3.0), size=20)), jnp.asarray(rng.normal(size=(20, 10, 2)))
    accept = jnp.asarray(ACCEPT)[None]
    log_policy, failures = base, []
    for _ in range(15):
        step = rz.m_projection(rz.condition(log_policy, accept), base, statistics)
        assert np.all(step.converged)
        log_policy = step.log_policy
        failures.append(np.exp(log_policy)[:, ~ACCEPT].sum(-1))
    assert np.min(failures) > 1e-6
    assert np.all(np.diff(failures, axis=0) < 0)


# Exact EM in a one-parameter exponential family that ends at the wrong one of its two successful ends

LINE_BASE = jnp.array([0.15, 0.50, 0.15, 0.20])
LINE_ACCEPT = jnp.array([True, True, False, True])
LINE = jnp.arange(4.0)


def line_policy(strength):
    return jax.nn.log_softmax(jnp.log(LINE_BASE) + strength * LINE)


def line_step(strength):
    """The strength whose mean is that of the successes, by Newton's iteration from the last one."""
    mean = jnp.exp(rz.condition(line_policy(strength), LINE_ACCEPT)) @ LINE

    def newton(_, x):
        p = jnp.exp(line_policy(x))
        return x + (mean - p @ LINE) / (p @ (LINE - p @ LINE) ** 2)

    return jax.lax.fori_loop(0, 6, newton, strength)


@pytest.fixture(scope="module")
def line_em():
    """Strengths after 0 to 100 steps, and after 10^5 and 10^6."""
    start = jnp.zeros(())
    first = jax.jit(lambda x: jax.lax.scan(lambda x, _: (line_step(x), x), x, None, length=101)[1])(start)
    many = jax.jit(lambda n, x: jax.lax.fori_loop(0, n, lambda _, x: line_step(x), x))
    late = many(100_000, start)
    return np.asarray(first), {100_000: late, 1_000_000: many(900_000, late)}


def test_the_recursion_is_the_m_projection_of_the_conditional(line_em):
    strengths, _ = line_em
    log_base = log_policy = jnp.log(LINE_BASE)
    for strength in strengths[1:21]:
        step = rz.m_projection(rz.condition(log_policy, LINE_ACCEPT), log_base, LINE[:, None])
        assert step.converged
        log_policy = step.log_policy
        np.testing.assert_allclose(step.multipliers, [strength], rtol=1e-9)
        np.testing.assert_allclose(log_policy, line_policy(strength), rtol=0, atol=1e-9)


def test_the_recursion_is_the_alternation_of_the_package(line_em):
    def project(log_target, _):
        return rz.m_projection(log_target, jnp.log(LINE_BASE), LINE[:, None]).multipliers

    em = jax.jit(lambda x: rz.alternate(project, x, LINE_ACCEPT, 100, policy=lambda x: line_policy(x[0])))(jnp.zeros(1))
    np.testing.assert_allclose(em.params[:, 0], line_em[0], rtol=1e-8, atol=1e-12)
    found = quick_jit(lambda x: exponential_family(x, LINE_ACCEPT, jnp.zeros(1), 100))(jnp.log(LINE_BASE))
    np.testing.assert_allclose(1 - found.em.success, np.exp([line_policy(x)[2] for x in line_em[0]]), rtol=1e-7)


@pytest.mark.parametrize(
    ("steps", "printed"), [(0, 0.850), (1, 0.861), (2, 0.874), (5, 0.923), (10, 0.974), (100, 0.99974)]
)
def test_printed_success_rates_of_em_on_the_line(line_em, steps, printed):
    failure = np.exp(line_policy(line_em[0][steps])[2])
    np.testing.assert_allclose(1 - failure, printed, rtol=0, atol=5e-6 if steps == 100 else 5e-4)


def test_em_on_the_line_creeps_to_the_farther_success(line_em):
    """With u = exp(strength), the failure 2 adds 2 u² base(2) / base(0) to the mean, whose slope is base(1) / base(0).

    So a step takes 2 · 0.15 / 0.50 u² = 0.6 u² off u, and 1 / u grows by 0.6.
    """
    strengths = line_em[1]
    for steps, precision in ((100_000, 2e-3), (1_000_000, 2e-4)):
        log_policy = line_policy(strengths[steps])
        np.testing.assert_allclose(np.exp(-strengths[steps]) / steps, 0.6, atol=precision)
        assert np.exp(log_policy[0]) > 1 - 1e-4
    drift = rz.kl_divergence(log_policy, jnp.log(LINE_BASE))
    np.testing.assert_allclose(drift, kl(np.exp(log_policy), LINE_BASE), rtol=1e-9)
    np.testing.assert_allclose(drift, 1.897, rtol=0, atol=5e-4)
    np.testing.assert_allclose(drift, -np.log(0.15), rtol=0, atol=5e-4)


def test_the_line_holds_a_success_that_is_closer_than_the_one_where_em_ends():
    strengths = np.linspace(-40, 40, 800_001)[:, None]
    with np.errstate(under="ignore"):
        weights = np.asarray(LINE_BASE) * np.exp(strengths * np.arange(4) - np.maximum(3 * strengths, 0))
        policies = weights / weights.sum(-1, keepdims=True)
    distance = kl(policies, np.asarray(LINE_BASE))
    np.testing.assert_allclose(distance[[0, -1]], [1.897, 1.609], rtol=0, atol=5e-4)
    np.testing.assert_allclose(distance[[0, -1]], [-np.log(0.15), -np.log(0.20)], rtol=1e-12)
    near = policies[:, 2] <= 1e-4
    assert near[0]
    assert near[-1]
    assert not near[400_000]
    assert -np.log(0.20) - 2e-3 < distance[near].min() <= -np.log(0.20)
    assert strengths[near][distance[near].argmin()] > 0


# Exact EM over mixture weights, a convex family

MIXED_BASE = np.array([0.05, 0.15, 0.80])
COMPONENTS = np.array([[0.80, 0.15, 0.05, 0.0], [0.05, 0.05, 0.90, 0.0], [0.05, 0.60, 0.05, 0.30]])
SYMMETRIC = np.array([[0.90, 0.05, 0.05, 0.0], *COMPONENTS[1:]])
MIXED_ACCEPT = jnp.array([True, True, True, False])


@quick_jit
def mixture_step(weights, components):
    """(the successes' distribution, the weights that fit it best), by the multiplicative update until it stands."""
    target = jnp.exp(rz.condition(jnp.log(weights @ components), MIXED_ACCEPT))

    def update(state):
        w, _ = state
        new = w * (components @ (target / (w @ components)))
        return new, jnp.abs(new - w).max()

    return target, jax.lax.while_loop(lambda state: state[1] > 1e-15, update, (weights, jnp.ones(())))[0]


@pytest.fixture(scope="module")
def mixture_em():
    """The targets `[30, 4]` and the weights `[31, 3]` of 30 steps, for both sets of components."""

    def run(components):
        targets, path = [], [MIXED_BASE]
        for _ in range(30):
            target, weights = mixture_step(jnp.asarray(path[-1]), jnp.asarray(components))
            targets.append(np.asarray(target))
            path.append(np.asarray(weights))
        return np.array(targets), np.array(path)

    return {"skewed": run(COMPONENTS), "symmetric": run(SYMMETRIC)}


def test_each_step_is_the_least_kl_to_a_mixture_by_its_optimality_conditions(mixture_em):
    targets, path = mixture_em["skewed"]
    gain = (targets[:, None] * COMPONENTS / (path[1:] @ COMPONENTS)[:, None]).sum(-1)
    assert gain.max() < 1 + 1e-10  # the slope of -KL(target || mixture) in each weight
    np.testing.assert_allclose((gain - 1) * path[1:], 0.0, atol=1e-12)
    np.testing.assert_allclose(path.sum(-1), 1.0, rtol=1e-12)
    assert np.abs(np.diff(path[:6], axis=0)).max(-1).min() > 0.05


@pytest.mark.parametrize("step", [0, 3, 5, 6])
def test_each_step_is_the_least_kl_to_a_mixture_by_a_direct_search(mixture_em, step):
    targets, path = mixture_em["skewed"]
    found = minimize(
        lambda w: kl(targets[step], w @ COMPONENTS),
        np.full(3, 1 / 3),
        method="SLSQP",
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    np.testing.assert_allclose(found.x, path[step + 1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(kl(targets[step], path[step + 1] @ COMPONENTS), found.fun, rtol=0, atol=1e-10)


def least_kl_of_a_successful_mixture(components):
    """(first weight, KL) of the best mixture of the two components that only succeed."""
    base = MIXED_BASE @ components
    best = minimize_scalar(
        lambda w: kl(np.array([w, 1 - w, 0.0]) @ components, base),
        bounds=(0, 1),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return best.x, best.fun


def kl_of_the_end(weights, components):
    return rz.kl_divergence(log(weights @ components), log(MIXED_BASE @ components))


def test_em_over_mixtures_is_that_of_the_package(mixture_em):
    for name, components in (("skewed", COMPONENTS), ("symmetric", SYMMETRIC)):
        found = quick_jit(lambda x: mixtures(x, log(MIXED_BASE), jnp.linspace(0.0, 1.0, 10_001), 40, 500))(
            log(components)
        )
        end = mixture_em[name][1][-1]
        np.testing.assert_allclose(found.em_share, end[0], rtol=1e-6)
        np.testing.assert_allclose(found.em_drift, kl_of_the_end(end, components), rtol=0, atol=1e-9)
        weight, least = least_kl_of_a_successful_mixture(components)
        np.testing.assert_allclose(found.closest_share, weight, rtol=0, atol=1e-4)
        np.testing.assert_allclose(found.least_drift, least, rtol=0, atol=1e-8)


def test_em_over_mixtures_ends_beside_the_closest_successful_mixture(mixture_em):
    path = mixture_em["skewed"][1]
    assert path[-1, 2] < 1e-12
    np.testing.assert_allclose(path[-1], path[10], rtol=0, atol=1e-9)
    reached = kl_of_the_end(path[-1], COMPONENTS)
    np.testing.assert_allclose(path[-1, 0], 0.4627, rtol=0, atol=5e-5)
    np.testing.assert_allclose(reached, 0.97432, rtol=0, atol=5e-6)
    weight, least = least_kl_of_a_successful_mixture(COMPONENTS)
    np.testing.assert_allclose(weight, 0.4360, rtol=0, atol=5e-5)
    np.testing.assert_allclose(least, 0.97327, rtol=0, atol=5e-6)
    edge = np.linspace(0, 1, 100_001)[:, None] * (COMPONENTS[0] - COMPONENTS[1]) + COMPONENTS[1]
    np.testing.assert_allclose(kl(edge, MIXED_BASE @ COMPONENTS).min(), least, rtol=0, atol=1e-9)
    assert reached - least > 1e-3


def test_em_over_mixtures_ends_at_the_closest_one_if_the_components_are_symmetric(mixture_em):
    end = mixture_em["symmetric"][1][-1]
    weight, least = least_kl_of_a_successful_mixture(SYMMETRIC)
    assert end[2] < 1e-12
    np.testing.assert_allclose(end[0], weight, rtol=0, atol=1e-6)
    np.testing.assert_allclose(kl_of_the_end(end, SYMMETRIC), least, rtol=0, atol=1e-12)


# A KL penalty against advantages divided by their standard deviation: logit J = logit base + c_G(J) / beta

LOGIT_BASE = np.log(0.85 / 0.15)
LOGITS = np.linspace(-40, 40, 800_001)


def missing_logit(beta):
    """What logit J lacks to be logit base + 1 / (beta √(J (1 - J))), the balance of large groups, along `LOGITS`."""
    return LOGIT_BASE + 2 * np.cosh(LOGITS / 2) / beta - LOGITS


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0, 3.30])
def test_a_weak_kl_penalty_never_balances_the_advantages_of_large_groups(beta):
    assert missing_logit(beta).min() > 0


@pytest.mark.parametrize("beta", [3.32, 5.0, 10.0])
def test_a_strong_kl_penalty_balances_the_advantages_of_large_groups(beta):
    missing = missing_logit(beta)
    assert (np.diff(np.sign(missing)) != 0).sum() == 2
    assert LOGITS[missing < 0].min() > LOGIT_BASE


def test_the_balance_is_the_slope_of_the_penalised_objective():
    success = jnp.linspace(0.001, 0.999, 999)
    price = quick_jit(jax.vmap(jax.grad(lambda rate: rz.binary_kl(rate, 0.85))))(success)
    odds = np.log(success / (1 - success))
    gain = 1 / np.sqrt(success * (1 - success))
    np.testing.assert_allclose(price, odds - LOGIT_BASE, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.interp(odds, LOGITS, missing_logit(3.0)), gain / 3 - price, rtol=1e-6, atol=1e-6)
    some = np.array([100, 500, 900])
    coefficient = quick_jit(lambda rate: rz.grpo_coefficient(rate, 512))(success[some])
    np.testing.assert_allclose(coefficient, gain[some], rtol=0.01)


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_even_a_weak_kl_penalty_balances_the_advantages_of_groups_of_eight(beta):
    coefficient = quick_jit(lambda rate: rz.grpo_coefficient(rate, 8))

    def missing(logit):
        return LOGIT_BASE + float(coefficient(jax.nn.sigmoid(-jnp.asarray(logit)))) / beta - logit

    balance = brentq(missing, LOGIT_BASE, 60)
    assert LOGIT_BASE + 1 / beta <= balance <= LOGIT_BASE + np.sqrt(7) / beta


# Refitting to N own correct samples: neutral Wright-Fisher drift

SHARES = np.exp(np.asarray(rz.condition(log(BASE), jnp.asarray(ACCEPT)))[:5])


def heterozygosity(shares):
    return 1 - (shares**2).sum(-1)


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_over_all_possible_samples_refits_keep_the_shares_and_lose_one_nth_of_the_heterozygosity(samples):
    draws = np.array(list(itertools.product(range(5), repeat=samples)))
    counts = (draws[..., None] == np.arange(5)).sum(1)
    states, index = np.unique(counts, axis=0, return_inverse=True)

    def after_a_round(shares):
        """The probability of every state, `[..., states]`."""
        chances = (shares[..., None, :] ** counts).prod(-1)
        return chances @ np.eye(len(states))[index.ravel()]

    onwards, probability = after_a_round(states / samples), after_a_round(SHARES)
    for rounds in range(1, 9):
        np.testing.assert_allclose(probability @ states / samples, SHARES, rtol=1e-12)
        mean = probability @ heterozygosity(states / samples)
        np.testing.assert_allclose(mean, heterozygosity(SHARES) * (1 - 1 / samples) ** rounds, rtol=1e-12, atol=1e-15)
        probability = probability @ onwards


@pytest.mark.parametrize(("samples", "printed"), [(50, 0.0982), (200, 0.4486)])
def test_a_hundred_refits_lose_the_printed_heterozygosity(samples, printed):
    np.testing.assert_allclose(heterozygosity(SHARES), 0.7405, rtol=0, atol=5e-5)
    predicted = heterozygosity(SHARES) * (1 - 1 / samples) ** 100
    np.testing.assert_allclose(predicted, printed, rtol=0, atol=5e-5)
    rng = np.random.default_rng(samples)
    shares = np.tile(SHARES, (2000, 1))
    for _ in range(100):
        shares = rng.multinomial(samples, shares) / samples
    left = heterozygosity(shares)
    error, share_errors = (x.std(0, ddof=1) / np.sqrt(2000) for x in (left, shares))
    assert error < 0.005
    assert abs(left.mean() - predicted) < 4 * error
    assert share_errors.max() < 0.011
    assert np.all(np.abs(shares.mean(0) - SHARES) < 4 * share_errors)


# SFT on one label

LABEL = log(np.eye(10)[0])


def test_sft_on_one_label_drifts_without_bound_forward_and_saturates_in_reverse():
    times = jnp.concatenate([jnp.zeros(1), jnp.geomspace(1.0, 1e8, 33)])
    flow = jax.jit(lambda x: rz.gradient_flow(lambda log_policy: rz.sft_loss(log_policy, LABEL), x, times))(log(BASE))
    assert flow.converged
    forward = rz.kl_divergence(log(BASE)[None], flow.log_policy)
    reverse = rz.kl_divergence(flow.log_policy, log(BASE)[None])
    assert np.all(np.diff(forward) > 0)
    assert np.all(np.diff(reverse) > 0)
    assert forward[-1] > 10
    assert np.all(reverse < -np.log(0.30))
    np.testing.assert_allclose(reverse[-1], -np.log(0.30), rtol=0, atol=1e-5)

    # exp(-logit) of all other labels rises by one shift s, and the logits keep their sum
    weights = np.exp(np.asarray(flow.params)[:, 1:])
    shift = 1 / weights[:, :1] - 1 / BASE[1]
    assert shift[-1] > 100
    curve = np.concatenate([0.30 * (1 + shift * BASE[1:]).prod(-1, keepdims=True), 1 / (1 / BASE[1:] + shift)], axis=-1)
    np.testing.assert_allclose(flow.log_policy, np.log(curve / curve.sum(-1, keepdims=True)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("bound", [3.0, 30.0, 300.0])
def test_the_natural_flow_to_one_label_passes_any_forward_bound_at_a_linear_rate(bound):
    time = (bound - 0.30 * np.log(0.30)) / 0.70
    log_policy, left = rz.forward_kl_flow(log(BASE), LABEL, time), 0.70 * np.exp(-time)
    forward, reverse = rz.kl_divergence(log(BASE), log_policy), rz.kl_divergence(log_policy, log(BASE))
    np.testing.assert_allclose(forward, bound - 0.30 * np.log1p(-left), rtol=1e-12)
    np.testing.assert_allclose(reverse, (1 - left) * np.log((1 - left) / 0.30) - left * time, rtol=1e-12)
    assert reverse < -np.log(0.30) + 1e-14


# Two inputs, old and new, with features of a given overlap; only the new one is trained

NEW_BASE = BASE[[1, 0, *range(2, 10)]]
OVERLAPS = [0.0, 0.3, 0.6]
OBJECTIVES = {
    "SFT on one label": lambda log_policy: rz.sft_loss(log_policy, LABEL),
    "policy gradient": lambda log_policy: -rz.expected_reward(log_policy, jnp.asarray(ACCEPT, float)),
    "reverse KL": lambda log_policy: rz.kl_divergence(log_policy, log(BASE[::-1])),
}


@pytest.fixture(scope="module", params=OBJECTIVES.values(), ids=OBJECTIVES)
def trained_on_the_new_input(request):
    """(old, new) log-policies `[overlap, time, 10]`, at time 0 and at times 1 to 10^4."""
    times = jnp.concatenate([jnp.zeros(1), jnp.geomspace(1.0, 1e4, 5)])

    def train(features):
        weights = jnp.linalg.solve(features, log([BASE, NEW_BASE]))
        return rz.gradient_flow(
            lambda table: request.param(table[1]),
            weights,
            times,
            policy=lambda weights: rz.linear_softmax_policy(weights, features),
        )

    features = jnp.array([[[1.0, 0.0], [c, np.sqrt(1 - c**2)]] for c in OVERLAPS])
    flows = jax.jit(lambda features: jax.lax.map(train, features))(features)
    assert np.all(flows.converged)
    np.testing.assert_allclose(flows.log_policy[:, 0], np.tile(log([BASE, NEW_BASE]), (3, 1, 1)), rtol=1e-12)
    return flows.log_policy[:, :, 0], flows.log_policy[:, :, 1]


def test_inputs_that_share_no_parameters_forget_nothing_at_any_drift(trained_on_the_new_input):
    (old, *_), (new, *_) = trained_on_the_new_input
    drift = rz.forward_drift(new[:, None], new[:1, None])
    assert np.all(np.diff(drift) > 0)
    assert drift[-1] > 1
    np.testing.assert_array_equal(old, np.tile(old[:1], (6, 1)))


def test_inputs_that_share_parameters_forget_the_more_the_more_they_share(trained_on_the_new_input):
    old, _ = trained_on_the_new_input
    lost = rz.forward_drift(old[:, -1:], old[:, :1])
    assert lost[0] == 0
    assert lost[1] > 0.01
    assert lost[2] > 2 * lost[1]
