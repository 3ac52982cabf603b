"""Preference losses: independent formulas at log-ratios of 300 nats, optima over all pairs, and displacement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz
from tests.oracles import MP, Contract, assert_outcome_axes_must_match, dirichlet_logs, kept_by, quick_jit, refused_by

RNG = np.random.default_rng(0)
LOG_REF, LOG_ANSWERS = dirichlet_logs(RNG, (2, 4))
REWARD = jnp.asarray(RNG.normal(size=4))
WILD = jnp.asarray(RNG.uniform(-300, 300, size=(2, 64)))  # log-ratios of chosen and rejected answers
BETA, LENGTH = 0.7, RNG.integers(1, 9, size=64)


def softplus(x):
    return MP.log1p(MP.exp(x))


def alpha_score(a):
    return lambda x: (MP.exp((a - 1) * x) - 1) / (a - 1)


F_DPO = {
    "reverse_kl": (rz.REVERSE_KL, lambda x: x),
    "forward_kl": (rz.FORWARD_KL, lambda x: -MP.exp(-x)),
    "js_divergence": (rz.JENSEN_SHANNON, lambda x: -softplus(-x)),
    "alpha_divergence": (rz.alpha_divergence(0.5), alpha_score(MP.mpf("0.5"))),
    "chi2": (rz.CHI2, lambda x: 2 * MP.exp(x)),
}


def f_dpo(divergence):
    return lambda chosen, rejected, weights=None: rz.f_dpo_loss(chosen, rejected, BETA, divergence, weights)


# The loss, and the loss of one pair as the literature writes it.
LOSSES = {
    "dpo": (lambda w, r, weights=None: rz.dpo_loss(w, r, BETA, weights), lambda w, r: softplus(-BETA * (w - r))),
    "ipo": (lambda w, r, weights=None: rz.ipo_loss(w, r, BETA, weights), lambda w, r: (w - r - 1 / (2 * BETA)) ** 2),
    "hinge": (lambda w, r, weights=None: rz.hinge_loss(w, r, BETA, weights), lambda w, r: max(0, 1 - BETA * (w - r))),
    "simpo": (
        lambda w, r, weights=None: rz.simpo_loss(w, r, BETA, 0.4, weights),
        lambda w, r: softplus(-(BETA * (w - r) - 0.4)),
    ),
    "bradley_terry": (
        lambda w, r, weights=None: rz.bradley_terry_loss(w, r, 0.4, weights),
        lambda w, r: softplus(-(w - r - 0.4)),
    ),
    **{
        name: (f_dpo(divergence), lambda w, r, score=score: softplus(-BETA * (score(w) - score(r))))
        for name, (divergence, score) in F_DPO.items()
    },
}
EACH = pytest.mark.parametrize(("loss", "formula"), LOSSES.values(), ids=LOSSES)


@EACH
def test_each_loss_is_its_formula_at_log_ratios_of_hundreds_of_nats_and_its_gradient_is_finite(loss, formula):
    terms = [formula(MP.mpf(float(w)), MP.mpf(float(r))) for w, r in WILD.T]
    with jax.numpy_rank_promotion("allow"):
        got = jax.vmap(lambda w, r: loss(w[None], r[None]))(*WILD)
    for x, want in zip(got, terms, strict=True):
        assert abs(MP.mpf(float(x)) - want) <= abs(want) * MP.mpf("1e-11") + MP.mpf("1e-300")
    for slopes in quick_jit(jax.grad(loss, argnums=(0, 1)))(*WILD):
        assert np.isfinite(slopes).all()
    for slopes in quick_jit(jax.grad(loss, argnums=(0, 1)))(*WILD.astype(np.float32)):
        assert np.isfinite(slopes).all()
        assert slopes.dtype == np.float32


@EACH
def test_the_gradient_of_each_loss_is_that_of_its_formula(loss, formula):
    mild = WILD[:, :3] / 200
    slopes = quick_jit(jax.grad(loss, argnums=(0, 1)))(*mild)
    for i, (w, r) in enumerate(mild.T):
        want = MP.diff(lambda x, r=r: formula(x, MP.mpf(float(r))), float(w)) / 3  # the mean over three pairs
        np.testing.assert_allclose(slopes[0][i], float(want), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(slopes[1][i], -float(want) * ratio_of_slopes(loss, mild, i), rtol=1e-9, atol=1e-12)


def ratio_of_slopes(loss, pairs, i):
    """-∂loss/∂rejected over ∂loss/∂chosen by central differences: 1 where only the gap counts."""
    h = 1e-5
    moved = [[pairs[side].at[i].add(s * h) for s in (1, -1)] for side in (0, 1)]
    chosen = (loss(moved[0][0], pairs[1]) - loss(moved[0][1], pairs[1])) / (2 * h)
    rejected = (loss(pairs[0], moved[1][0]) - loss(pairs[0], moved[1][1])) / (2 * h)
    return 1.0 if abs(chosen) < 1e-9 else float(-rejected / chosen)


@EACH
def test_weights_make_a_weighted_mean_and_what_weighs_nothing_does_not_count(loss, formula):
    chosen, rejected = WILD[:, :4] / 100
    weights = jnp.array([3.0, 0.0, 1.0, 0.5])
    one_by_one = jnp.stack([loss(chosen[i : i + 1], rejected[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(loss(chosen, rejected, weights), weights @ one_by_one / 4.5, rtol=1e-12)
    np.testing.assert_allclose(loss(chosen, rejected), one_by_one.mean(), rtol=1e-12)
    impossible = chosen.at[1].set(-jnp.inf)
    value, slope = quick_jit(jax.value_and_grad(loss))(impossible, rejected, weights)
    np.testing.assert_allclose(value, weights @ one_by_one / 4.5, rtol=1e-12)
    assert slope[1] == 0.0
    assert np.isfinite(slope).all()
    assert loss(impossible, rejected) == jnp.inf


@pytest.mark.parametrize("name", ["dpo", "hinge", "simpo", "bradley_terry", *F_DPO])
def test_an_impossible_rejected_answer_costs_nothing(name):
    value, slopes = quick_jit(jax.value_and_grad(LOSSES[name][0], argnums=(0, 1)))(jnp.zeros(1), jnp.full(1, -jnp.inf))
    assert value == 0.0
    assert np.isfinite(slopes).all()


# All pairs of outcomes


def test_bradley_terry_pairs_are_what_annotators_say_of_two_different_answers():
    pairs = rz.bradley_terry_pairs(LOG_ANSWERS, REWARD)
    q, r = np.exp(LOG_ANSWERS), np.asarray(REWARD)
    total = 1 - (q**2).sum()
    for w, other, weight in zip(pairs.chosen, pairs.rejected, pairs.weights, strict=True):
        np.testing.assert_allclose(weight, 2 * q[w] * q[other] / total / (1 + np.exp(r[other] - r[w])), rtol=1e-12)
    np.testing.assert_allclose(pairs.weights.sum(), 1.0, rtol=1e-12)
    draws = RNG.choice(4, p=q, size=(200_000, 2))
    draws = draws[draws[:, 0] != draws[:, 1]]
    first = RNG.random(len(draws)) < 1 / (1 + np.exp(r[draws[:, 1]] - r[draws[:, 0]]))
    chosen = np.where(first, *draws.T)
    share = np.asarray(pairs.weights)[pairs.chosen == 2].sum()
    assert abs((chosen == 2).mean() - share) < 4 * np.sqrt(share * (1 - share) / len(draws))


def newton(loss, x, steps=60):
    """The minimiser over log-ratios up to a shift; no step of more than one nat."""
    slope, curvature = quick_jit(jax.grad(loss)), quick_jit(jax.hessian(loss))
    for _ in range(steps):
        step = np.linalg.lstsq(curvature(x), -slope(x), rcond=1e-12)[0]
        x = x + jnp.asarray(step * min(1.0, 1.0 / np.abs(step).max()))
    np.testing.assert_allclose(slope(x), 0.0, atol=1e-12)
    return x


def all_pairs_loss(loss, reward=REWARD):
    pairs = rz.bradley_terry_pairs(LOG_ANSWERS, reward)
    return lambda log_ratio: loss(log_ratio[pairs.chosen], log_ratio[pairs.rejected], pairs.weights)


def test_the_dpo_optimum_over_all_pairs_is_the_tilt_whatever_answers_were_compared():
    log_ratio = newton(all_pairs_loss(LOSSES["dpo"][0]), jnp.zeros(4))
    got = jax.nn.log_softmax(LOG_REF + log_ratio)
    np.testing.assert_allclose(got, rz.tilt(LOG_REF, REWARD, BETA), atol=1e-8)
    shuffled = newton(all_pairs_loss(LOSSES["dpo"][0], REWARD[::-1]), jnp.zeros(4))
    assert np.abs(jax.nn.log_softmax(LOG_REF + shuffled) - got).max() > 0.1


@pytest.mark.parametrize("name", ["forward_kl", "js_divergence", "alpha_divergence", "chi2"])
def test_the_f_dpo_optimum_over_all_pairs_is_the_regularized_optimum(name):
    divergence, beta, loss = F_DPO[name][0], 2.0, rz.f_dpo_loss
    pairs = rz.bradley_terry_pairs(LOG_ANSWERS, REWARD)
    optimum = rz.regularized_optimum(LOG_REF, REWARD, beta, divergence)
    assert optimum.min() > -jnp.inf

    def of_policy(logits):
        log_ratio = jax.nn.log_softmax(logits) - LOG_REF
        return loss(log_ratio[pairs.chosen], log_ratio[pairs.rejected], beta, divergence, pairs.weights)

    slope = quick_jit(jax.grad(of_policy))
    np.testing.assert_allclose(slope(optimum), 0.0, atol=1e-10)
    assert np.abs(slope(rz.tilt(LOG_REF, REWARD, beta))).max() > 1e-4
    assert np.linalg.eigvalsh(quick_jit(jax.hessian(of_policy))(optimum))[1] > 1e-6  # a minimum, but for the shift


def test_the_ipo_optimum_over_all_pairs_is_the_tilt_by_the_win_rate():
    log_ratio = newton(all_pairs_loss(LOSSES["ipo"][0]), jnp.zeros(4))
    win_rate = jax.nn.sigmoid(REWARD[:, None] - REWARD[None]) @ jnp.exp(LOG_ANSWERS)
    got, want = jax.nn.log_softmax(LOG_REF + log_ratio), rz.tilt(LOG_REF, win_rate, BETA)
    np.testing.assert_allclose(got, want, atol=1e-8)
    assert np.abs(got - rz.tilt(LOG_REF, REWARD, BETA)).max() > 0.1


def test_ipo_on_means_over_tokens_ends_at_a_gap_that_grows_with_the_length():
    def gap(length):
        lengths = jnp.full(1, length)
        slope = jax.grad(
            lambda g: rz.ipo_loss(rz.per_token(g[None], lengths), rz.per_token(jnp.zeros(1), lengths), 0.1)
        )
        return -slope(0.0) / (slope(1.0) - slope(0.0))  # the root of a linear function

    for length in (1, 4, 50):
        np.testing.assert_allclose(gap(length), length * rz.ipo_gap(1.0, 0.1), rtol=1e-10)


# The NLL anchor


def test_dpo_with_an_anchor_is_dpo_and_the_negative_log_likelihood_per_token():
    log_prob = -jnp.abs(WILD[0])
    got = rz.dpo_nll_loss(*WILD, log_prob, jnp.asarray(LENGTH), BETA, 0.3)
    want = np.mean(np.logaddexp(0, -BETA * np.asarray(WILD[0] - WILD[1])) + 0.3 * -np.asarray(log_prob) / LENGTH)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_allclose(
        rz.dpo_nll_loss(*WILD, log_prob, jnp.asarray(LENGTH), BETA, 0.0), rz.dpo_loss(*WILD, BETA), rtol=1e-14
    )
    impossible = log_prob.at[0].set(-jnp.inf)
    assert rz.dpo_nll_loss(*WILD, impossible, jnp.asarray(LENGTH), BETA, 0.3) == jnp.inf
    np.testing.assert_allclose(
        rz.dpo_nll_loss(*WILD, impossible, jnp.asarray(LENGTH), BETA, 0), rz.dpo_loss(*WILD, BETA), rtol=1e-14
    )


def test_the_gradient_of_dpo_with_an_anchor_in_a_table_is_two_pushes():
    logits, log_ref, alpha, length = LOG_ANSWERS, LOG_REF, 0.6, 3

    def loss(z):
        log_policy = jax.nn.log_softmax(z)
        ratio = log_policy - log_ref
        return rz.dpo_nll_loss(ratio[:1], ratio[2:3], log_policy[:1], jnp.array([length]), BETA, alpha)

    policy, unit = np.exp(LOG_ANSWERS), np.eye(4)
    gap = LOG_ANSWERS[0] - LOG_REF[0] - LOG_ANSWERS[2] + LOG_REF[2]
    want = -BETA / (1 + np.exp(BETA * gap)) * (unit[0] - unit[2]) - alpha / length * (unit[0] - policy)
    np.testing.assert_allclose(jax.grad(loss)(logits), want, atol=1e-10)


# Displacement: the rate of the chosen answer against what a small step of gradient descent does


def a_model(name, rng):
    """Parameters and the logits that they make."""
    h, u = jnp.asarray(rng.normal(size=3)), jnp.asarray(rng.normal(size=(5, 3)))
    models = {
        "table": ({"logits": u @ h}, lambda p: p["logits"]),
        "features": ({"h": h}, lambda p: u @ p["h"]),
        "both": ({"h": h, "u": u}, lambda p: p["u"] @ p["h"]),
    }
    return models[name]


@pytest.mark.parametrize("name", ["table", "features", "both"])
def test_displacement_is_the_rate_at_which_a_step_moves_the_chosen_answer(name):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        params, logits = a_model(name, rng)
        log_ref, alpha, length = jax.nn.log_softmax(logits(params)) - 0.1, 0.4, 2.0

        def loss(p, logits=logits, log_ref=log_ref, alpha=alpha, length=length):
            log_policy = jax.nn.log_softmax(logits(p))
            ratio = log_policy - log_ref
            return rz.dpo_nll_loss(ratio[:1], ratio[1:2], log_policy[:1], jnp.array([length]), BETA, alpha)

        slope = jax.grad(loss)(params)
        log_policy = jax.nn.log_softmax(logits(params))
        moved = [
            jax.nn.log_softmax(logits(jax.tree.map(lambda x, g, s=s: x - s * 1e-6 * g, params, slope)))[0]
            for s in (1, -1)
        ]
        jacobian = jax.tree.leaves(jax.jacobian(logits)(params))
        kernel = sum(j.reshape(5, -1) @ j.reshape(5, -1).T for j in jacobian)
        found = rz.displacement(log_policy, kernel, 0, 1)
        push = BETA / 2  # at a gap of zero
        want = push * found.preference + alpha / length * found.nll
        np.testing.assert_allclose((moved[0] - moved[1]) / 2e-6, want, rtol=1e-6, atol=1e-9)
        enough = found.sufficient_alpha(push)
        assert enough >= 0
        assert push * found.preference + enough * found.nll >= -1e-12


def test_a_table_never_displaces_and_shared_features_do_iff_the_rejected_answer_lies_further_along():
    rng, seen = np.random.default_rng(3), set()
    for _ in range(200):
        log_policy, u = dirichlet_logs(rng, 5), jnp.asarray(rng.normal(size=(5, 3)))
        table = rz.displacement(log_policy, jnp.eye(5), 0, 1)
        np.testing.assert_allclose(table.preference, 1 - np.exp(log_policy[0]) + np.exp(log_policy[1]), rtol=1e-12)
        assert table.sufficient_alpha(0.3) == 0.0
        shared = rz.displacement(log_policy, u @ u.T, 0, 1)
        mean = np.exp(log_policy) @ u
        further = (u[0] - mean) @ (u[1] - u[0]) > 0
        assert (shared.preference < 0) == further
        assert (shared.sufficient_alpha(0.3) > 0) == further
        np.testing.assert_allclose(shared.nll, ((u[0] - mean) ** 2).sum(), rtol=1e-12)
        seen.add(bool(further))
    assert seen == {True, False}


# Contract and errors


def dpo_loss(log_ratio_chosen, log_ratio_rejected):
    return rz.dpo_loss(log_ratio_chosen, log_ratio_rejected, 0.3)


def f_dpo_loss(log_ratio_chosen, log_ratio_rejected):
    return rz.f_dpo_loss(log_ratio_chosen, log_ratio_rejected, 0.3, rz.FORWARD_KL)


def bradley_terry_loss(reward_chosen, reward_rejected):
    return rz.bradley_terry_loss(reward_chosen, reward_rejected, 0.3)


def weights_of_pairs(log_answers, reward):
    return rz.bradley_terry_pairs(log_answers, reward).weights


SAMPLED = [
    Contract(dpo_loss, ("log_ratio_chosen", "log_ratio_rejected")),
    Contract(f_dpo_loss, ("log_ratio_chosen", "log_ratio_rejected")),
    Contract(bradley_terry_loss, ("reward_chosen", "reward_rejected")),
]
REFUSALS = [case for case in refused_by(SAMPLED) if case.values[0] is not assert_outcome_axes_must_match]
REFUSALS += refused_by([Contract(weights_of_pairs, ("log_answers", "reward"))])


@pytest.mark.parametrize(("keeps", "case"), kept_by(SAMPLED))
def test_contract(keeps, case):
    keeps(case)


@pytest.mark.parametrize(("refuses", "case"), REFUSALS)
def test_refusals(refuses, case, as_installed):
    refuses(case)


ZERO = jnp.zeros(2)
LOSSES_OF_BETA = [rz.dpo_loss, rz.ipo_loss, rz.hinge_loss, lambda w, r, beta: rz.simpo_loss(w, r, beta, 0.0)]


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), 0])
def test_a_beta_that_is_not_above_zero_is_named(bad, as_installed):
    for loss in LOSSES_OF_BETA:
        with pytest.raises(ValueError, match=f"beta must be above 0, got {bad}"):
            loss(ZERO, ZERO, bad)
    with pytest.raises(ValueError, match=f"beta must be above 0, got {bad}"):
        rz.f_dpo_loss(ZERO, ZERO, bad, rz.CHI2)


def test_bad_margins_lengths_and_empty_data_are_named(as_installed):
    for margin in (float("nan"), float("inf"), jnp.array([1.0, jnp.nan])):
        with pytest.raises(ValueError, match=r"margin must be finite, got (nan|inf)"):
            rz.bradley_terry_loss(ZERO, ZERO, margin)
    with pytest.raises(ValueError, match="margin must be finite, got nan"):
        rz.simpo_loss(ZERO, ZERO, 1.0, float("nan"))
    with pytest.raises(ValueError, match="length_chosen must be above 0, got 0"):
        rz.nll_loss(ZERO, jnp.array([3, 0]))
    with pytest.raises(ValueError, match="length must be above 0, got -1"):
        rz.per_token(ZERO, jnp.array([3, -1]))
    with pytest.raises(ValueError, match="alpha must be at least 0, got -1"):
        rz.dpo_nll_loss(ZERO, ZERO, ZERO, jnp.array([1, 1]), 1.0, -1.0)
    empty = jnp.zeros(0)
    for loss in LOSSES_OF_BETA:
        with pytest.raises(ValueError, match=r"(log_ratio|log_prob)_chosen needs a non-empty pair axis, got shape"):
            loss(empty, empty, 1.0)
    with pytest.raises(ValueError, match="reward_chosen needs a non-empty pair axis"):
        rz.bradley_terry_loss(empty, empty)
    with pytest.raises(ValueError, match="log_answers must have at least 2 outcomes to make a pair"):
        rz.bradley_terry_pairs(jnp.zeros(1), jnp.zeros(1))
    with pytest.raises(ValueError, match="weights has 3 pairs"):
        rz.dpo_loss(ZERO, ZERO, 1.0, jnp.ones(3))


def test_bad_kernels_and_answers_are_named(as_installed):
    with pytest.raises(ValueError, match=r"kernel must be \[..., 4, 4\], got shape \(3, 3\)"):
        rz.displacement(LOG_REF, jnp.eye(3), 0, 1)
    for answers in ((0, 0), (0, 4), (-1, 2)):
        with pytest.raises(ValueError, match="chosen and rejected must be two of 4 outcomes"):
            rz.displacement(LOG_REF, jnp.eye(4), *answers)
    with pytest.raises(TypeError, match="kernel must be a floating array"):
        rz.displacement(LOG_REF, jnp.eye(4, dtype=int), 0, 1)
