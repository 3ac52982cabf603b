"""Exact optima: stationarity by autodiff, minimisers found by SciPy, roots at 60 digits, and the limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

import rlrazor as rz
from rlrazor._numerics import log_wright_omega
from tests.oracles import MP, Contract, dirichlet_logs, kept_by, quick_jit, refused_by, to_float

RNG = np.random.default_rng(0)
LOG_REF, LOG_PRETRAIN = dirichlet_logs(RNG, (2, 6)) * 1.0
REWARD = jnp.asarray(RNG.normal(size=6))
BETAS = jnp.array([0.03, 0.3, 1.0, 20.0])


def alpha_f(a):
    return lambda t: (t**a - a * t + a - 1) / (a * (a - 1))


# The generators as the literature writes them, which share nothing with the code.
GENERATORS = {
    "reverse KL": (rz.REVERSE_KL, lambda t: t * jnp.log(t) - t + 1),
    "forward KL": (rz.FORWARD_KL, lambda t: t - 1 - jnp.log(t)),
    "chi2": (rz.CHI2, lambda t: (t - 1) ** 2),
    "Jensen-Shannon": (rz.JENSEN_SHANNON, lambda t: t * jnp.log(t) - (t + 1) * jnp.log((t + 1) / 2)),
    "alpha 0.5": (rz.alpha_divergence(0.5), alpha_f(0.5)),
    "alpha 3": (rz.alpha_divergence(3.0), alpha_f(3.0)),
}
EACH = pytest.mark.parametrize(("divergence", "f"), GENERATORS.values(), ids=GENERATORS)


@EACH
def test_score_is_the_derivative_of_the_generator_and_lowered_its_inverse(divergence, f):
    x = jnp.linspace(-3.0, 3.0, 25)
    score = divergence.score(x)
    np.testing.assert_allclose(score, jax.vmap(jax.grad(f))(jnp.exp(x)), rtol=1e-10, atol=1e-12)
    for cost in (0.0, 1e-9, 0.3, 2.0):
        low = divergence.lowered(x, jnp.full_like(x, cost))
        kept = low > -jnp.inf
        np.testing.assert_allclose(divergence.score(low[kept]), (score - cost)[kept], rtol=1e-9, atol=1e-11)
        assert np.all(~kept <= (score - cost <= divergence.score(jnp.array(-700.0)) + 1e-9))


@EACH
def test_the_regularized_optimum_is_stationary_and_no_outcome_that_it_drops_would_pay(divergence, f):
    ref = jnp.exp(LOG_REF)

    def objective(p, beta):
        return p @ REWARD - beta * (ref @ f(p / ref))

    for beta in BETAS:
        p = jnp.exp(rz.regularized_optimum(LOG_REF, REWARD, beta, divergence))
        np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-12)
        slope, kept = jax.grad(objective)(jnp.maximum(p, 1e-300), beta), p > 1e-200
        np.testing.assert_allclose(slope[kept] / beta, slope[kept][0] / beta, rtol=1e-10, atol=1e-10)
        if np.any(~kept & np.isfinite(slope)):
            assert np.nanmax(slope[~kept]) <= slope[kept][0] + 1e-10


@EACH
def test_the_regularized_optimum_is_what_an_optimizer_finds(divergence, f):
    ref, beta = jnp.exp(LOG_REF), 3.0  # so large that χ² drops nothing, which no softmax reaches

    def loss(z):
        p = jax.nn.softmax(z)
        return beta * (ref @ f(p / ref)) - p @ REWARD

    run = quick_jit(jax.value_and_grad(loss))
    found = scipy.optimize.minimize(run, np.asarray(LOG_REF), jac=True, method="BFGS", options={"gtol": 1e-11})
    want = rz.regularized_optimum(LOG_REF, REWARD, beta, divergence)
    np.testing.assert_allclose(jax.nn.softmax(jnp.asarray(found.x)), jnp.exp(want), atol=1e-8)


def test_the_reverse_kl_is_the_tilt_at_every_beta():
    for beta in (0.0, 0.01, 1.0, 1e6, jnp.inf):
        got, want = rz.regularized_optimum(LOG_REF, REWARD, beta), rz.tilt(LOG_REF, REWARD, beta)
        np.testing.assert_allclose(got, want, rtol=1e-12)


@EACH
def test_the_limits_of_beta_are_the_reference_and_its_best_outcomes(divergence, f):
    tied = REWARD.at[0].set(REWARD.max())
    best = rz.condition(LOG_REF, tied == tied.max())
    for beta, want in ((0.0, best), (1e-12, best), (1e12, LOG_REF), (jnp.inf, LOG_REF)):
        got = rz.regularized_optimum(LOG_REF, tied, beta, divergence)
        np.testing.assert_allclose(jnp.exp(got), jnp.exp(want), atol=1e-6)
    flat = rz.regularized_optimum(LOG_REF, jnp.zeros(6), 0.1, divergence)
    np.testing.assert_allclose(flat, LOG_REF, rtol=1e-12)


def test_a_forbidden_outcome_leaves_the_condition_and_nothing_allowed_leaves_nothing():
    accept = jnp.array([True, True, False, True, False, False])
    reward = jnp.where(accept, REWARD, -jnp.inf)
    for divergence, _ in GENERATORS.values():
        got = rz.regularized_optimum(LOG_REF, reward, 0.5, divergence)
        want = rz.regularized_optimum(rz.condition(LOG_REF, accept), jnp.where(accept, REWARD, -9.0), 0.5, divergence)
        np.testing.assert_allclose(jnp.exp(got), jnp.exp(want), rtol=1e-12)
    assert np.all(rz.regularized_optimum(LOG_REF, jnp.full(6, -jnp.inf), 0.5) == -jnp.inf)


def test_the_forward_kl_has_the_published_form_at_sixty_digits():
    ref, reward = [MP.exp(MP.mpf(float(x))) for x in LOG_REF], [MP.mpf(float(r)) for r in REWARD]
    beta, total = MP.mpf("0.05"), sum(ref)
    low = max(reward)
    level = MP.findroot(
        lambda level: sum(beta * p / total / (level - r) for p, r in zip(ref, reward, strict=True)) - 1,
        (low + beta / 100, low + beta),
        solver="ridder",
    )
    want = [to_float(MP.log(beta * p / total / (level - r))) for p, r in zip(ref, reward, strict=True)]
    got = rz.regularized_optimum(LOG_REF, REWARD, 0.05, rz.FORWARD_KL)
    np.testing.assert_allclose(got, want, rtol=1e-11)


@EACH
def test_the_regularized_optimum_has_the_derivatives_of_differences(divergence, f):
    def optimum(x):
        return rz.regularized_optimum(jax.nn.log_softmax(x[:6]), x[6:12], jnp.exp(x[12]), divergence)

    x, h = jnp.concatenate([LOG_REF, REWARD, jnp.log(jnp.array([1.5]))]), 1e-6
    slopes, shifted = quick_jit(jax.jacobian(optimum))(x), quick_jit(jax.vmap(optimum))
    moves = h * jnp.eye(13)
    differences = (shifted(x[None] + moves) - shifted(x[None] - moves)).T / (2 * h)
    kept = optimum(x) > -jnp.inf
    np.testing.assert_allclose(slopes[kept], differences[kept], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["reverse KL", "forward KL", "Jensen-Shannon", "alpha 0.5"])
def test_a_best_answer_next_to_impossible_is_found_in_float32_too(name):
    log_ref = np.array([-95.0, np.log(0.4), np.log(0.6)])  # the best answer has 5e-42, below float32
    reward, divergence = np.array([1.0, 0.2, 0.0]), GENERATORS[name][0]
    want = rz.regularized_optimum(jnp.asarray(log_ref), jnp.asarray(reward), 0.01, divergence)
    got = rz.regularized_optimum(jnp.asarray(log_ref, np.float32), jnp.asarray(reward, np.float32), 0.01, divergence)
    np.testing.assert_allclose(np.exp(got), np.exp(want), rtol=2e-3, atol=1e-30)
    assert np.isfinite(want).all()


def test_alpha_is_traced_and_continuous_at_one():
    optimum = jax.jit(lambda a: rz.regularized_optimum(LOG_REF, REWARD, 0.7, rz.alpha_divergence(a)))
    near = [optimum(a) for a in (1 - 1e-7, 1.0, 1 + 1e-7)]
    np.testing.assert_allclose(near[0], near[1], atol=1e-5)
    np.testing.assert_allclose(near[2], near[1], atol=1e-5)
    np.testing.assert_allclose(optimum(0.0), rz.regularized_optimum(LOG_REF, REWARD, 0.7, rz.FORWARD_KL), rtol=1e-11)


# Pretraining gradients


def test_log_wright_omega_is_scipys_over_the_whole_line():
    z = np.concatenate([np.linspace(-50, 50, 401), 10.0 ** np.arange(2, 300, 30), [-600.0]])
    want = np.log(scipy.special.wrightomega(z))
    np.testing.assert_allclose(log_wright_omega(jnp.asarray(z)), want, rtol=2e-15, atol=2e-15)
    slope, curvature = (quick_jit(jax.vmap(d))(jnp.array([-2.0, 0.5, 9.0])) for d in derivatives_of(log_wright_omega))
    omega = scipy.special.wrightomega(np.array([-2.0, 0.5, 9.0]))
    np.testing.assert_allclose(slope, 1 / (1 + omega), rtol=1e-14)
    np.testing.assert_allclose(curvature, -omega / (1 + omega) ** 3, rtol=1e-13)


def derivatives_of(f):
    return jax.grad(f), jax.grad(jax.grad(f))


STRENGTHS = [(0.1, 1e-3), (0.1, 0.1), (0.1, 30.0), (1e-3, 0.2), (1e-9, 1.0), (50.0, 0.3), (1e-3, 1e-8), (0.02, 27.8)]


@pytest.mark.parametrize(("beta", "gamma"), STRENGTHS)
def test_the_pretraining_optimum_is_stationary(beta, gamma):
    def objective(log_weights):
        log_policy = jax.nn.log_softmax(log_weights)
        return rz.ppo_ptx_objective(log_policy, LOG_REF, LOG_PRETRAIN, REWARD, beta, gamma)

    optimum = rz.ppo_ptx_optimum(LOG_REF, LOG_PRETRAIN, REWARD, beta, gamma)
    np.testing.assert_allclose(jnp.exp(optimum).sum(), 1.0, rtol=1e-12)
    slope = jax.grad(objective)(optimum)
    np.testing.assert_allclose(slope / (1 + beta + gamma), 0.0, atol=1e-10)


def test_the_pretraining_optimum_is_what_an_optimizer_finds_and_has_lambert_s_form():
    beta, gamma = 0.3, 0.2

    def loss(z):
        return -rz.ppo_ptx_objective(jax.nn.log_softmax(z), LOG_REF, LOG_PRETRAIN, REWARD, beta, gamma)

    run = quick_jit(jax.value_and_grad(loss))
    found = scipy.optimize.minimize(run, np.asarray(LOG_REF), jac=True, method="BFGS", options={"gtol": 1e-12})
    optimum = rz.ppo_ptx_optimum(LOG_REF, LOG_PRETRAIN, REWARD, beta, gamma)
    np.testing.assert_allclose(jax.nn.softmax(jnp.asarray(found.x)), jnp.exp(optimum), atol=1e-8)
    c = np.exp(LOG_PRETRAIN) * gamma / beta
    level = scipy.optimize.brentq(
        lambda level: (c / scipy.special.lambertw(c * np.exp(-(REWARD - level) / beta - LOG_REF)).real).sum() - 1, -9, 9
    )
    want = c / scipy.special.lambertw(c * np.exp(-(REWARD - level) / beta - LOG_REF)).real
    np.testing.assert_allclose(jnp.exp(optimum), want, rtol=1e-9)


def test_the_limits_of_pretraining_gradients():
    def probabilities(beta, gamma):
        return jnp.exp(rz.ppo_ptx_optimum(LOG_REF, LOG_PRETRAIN, REWARD, beta, gamma))

    for gamma in (0.0, 1e-12):
        np.testing.assert_allclose(probabilities(0.2, gamma), jnp.exp(rz.tilt(LOG_REF, REWARD, 0.2)), atol=1e-9)
    np.testing.assert_allclose(probabilities(0.2, 1e12), jnp.exp(LOG_PRETRAIN), atol=1e-9)
    for beta in (1e13, jnp.inf):
        np.testing.assert_allclose(probabilities(beta, 0.5), jnp.exp(LOG_REF), atol=1e-9)
    level = scipy.optimize.brentq(
        lambda level: (0.5 * np.exp(LOG_PRETRAIN) / (level - REWARD)).sum() - 1, REWARD.max() + 1e-9, REWARD.max() + 9
    )
    np.testing.assert_allclose(probabilities(1e-10, 0.5), 0.5 * np.exp(LOG_PRETRAIN) / (level - REWARD), atol=1e-8)


def test_a_pretraining_optimum_holds_where_data_or_reference_lack_an_outcome():
    log_pretrain = rz.condition(LOG_PRETRAIN, jnp.arange(6) < 3)
    log_ref = rz.condition(LOG_REF, jnp.arange(6) < 5)
    p = jnp.exp(rz.ppo_ptx_optimum(log_ref, log_pretrain, REWARD, 0.3, 0.2))
    inner = jnp.exp(rz.ppo_ptx_optimum(log_ref[:5], log_pretrain[:5], REWARD[:5], 0.3, 0.2))
    np.testing.assert_allclose(p, [*inner, 0.0], rtol=1e-12)
    assert np.all(rz.ppo_ptx_optimum(log_pretrain, log_ref, REWARD, 0.3, 0.2) == -jnp.inf)
    assert np.all(rz.ppo_ptx_optimum(log_ref, log_pretrain, REWARD.at[0].set(-jnp.inf), 0.3, 0.2) == -jnp.inf)
    assert np.isfinite(rz.ppo_ptx_optimum(log_pretrain, log_ref, REWARD, 0.3, 0.0)[:3]).all()


def test_the_pretraining_optimum_has_the_derivatives_of_differences():
    def optimum(x):
        logits = jax.nn.log_softmax(x[:12].reshape(2, 6))
        return rz.ppo_ptx_optimum(*logits, x[12:18], jnp.exp(x[18]), jnp.exp(x[19]))

    x, h = jnp.concatenate([LOG_REF, LOG_PRETRAIN, REWARD, jnp.log(jnp.array([0.4, 0.3]))]), 1e-6
    slopes, shifted = quick_jit(jax.jacobian(optimum))(x), quick_jit(jax.vmap(optimum))
    moves = h * jnp.eye(20)
    np.testing.assert_allclose(
        slopes, (shifted(x[None] + moves) - shifted(x[None] - moves)).T / (2 * h), rtol=1e-6, atol=1e-8
    )


# One pair of answers


@pytest.mark.parametrize("margin", [0.0, 0.5, 3.0, -0.7])
def test_the_margin_gap_minimises_the_loss_of_a_pair(margin):
    for p in (0.02, 0.3, 0.5, 0.9, 0.9999):
        weights = jnp.array([p, 1 - p])

        def slope(gap, weights=weights):
            gaps = jnp.stack([gap, -gap])
            return jax.grad(lambda g: rz.bradley_terry_loss(g, jnp.zeros(2), margin, weights))(gaps) @ jnp.array(
                [1, -1.0]
            )

        found = scipy.optimize.brentq(lambda g: float(slope(jnp.array(g))), -40, 40, xtol=1e-13)
        np.testing.assert_allclose(rz.margin_gap(p, margin), found, atol=1e-9)


def test_the_margin_gap_adds_the_margin_for_those_who_agree_and_nothing_for_those_who_toss_coins():
    g = jnp.array([8.0, 15.0, 30.0])
    np.testing.assert_allclose(rz.margin_gap(jax.nn.sigmoid(g[:2]), 2.0), g[:2] + 2.0, atol=1e-3)
    np.testing.assert_allclose(rz.margin_gap(jax.nn.sigmoid(g), 0.0), g, rtol=1e-4)
    assert rz.margin_gap(0.5, 5.0) == 0.0
    np.testing.assert_allclose(rz.margin_gap(0.7, 300.0) - rz.margin_gap(0.7, 299.0), 1.0, rtol=1e-12)
    assert abs(float(rz.margin_gap(0.7, 1.0)) - (1.0 + np.log(7 / 3))) > 0.4  # the textbook's m + logit p is not it
    slope = jax.grad(rz.margin_gap, argnums=(0, 1))(0.5, 1.0)
    np.testing.assert_allclose(slope, [2 * (1 + np.e), 0.0], rtol=1e-12)


def test_a_margin_that_belongs_to_the_pair_adds_itself_exactly():
    p, margin = 0.7, 1.3
    gap = scipy.optimize.minimize_scalar(
        lambda g: float(
            rz.bradley_terry_loss(jnp.array([g, -g]), jnp.zeros(2), jnp.array([margin, -margin]), jnp.array([p, 1 - p]))
        ),
        bracket=(0.0, 3.0),
        tol=1e-12,
    ).x
    np.testing.assert_allclose(gap, margin + np.log(p / (1 - p)), atol=1e-6)


def test_the_ipo_gap_minimises_the_loss_of_a_pair():
    for p in (0.0, 0.3, 1.0):
        slope = jax.grad(lambda g, p=p: rz.ipo_loss(jnp.stack([g, -g]), jnp.zeros(2), 0.1, jnp.array([p, 1 - p])))
        np.testing.assert_allclose(slope(rz.ipo_gap(p, 0.1)), 0.0, atol=1e-12)
        assert abs(slope(rz.ipo_gap(p, 0.1) + 0.1)) > 0.1


# The peak of gold


@pytest.mark.parametrize("seed", range(6))
def test_gold_peaks_where_a_search_finds_it(seed):
    rng = np.random.default_rng(seed)
    proxy, gold = rng.normal(size=(2, 30))
    gold = gold + proxy
    log_ref = dirichlet_logs(rng, (30,))

    def gain(s):
        p = scipy.special.softmax(np.asarray(log_ref) + s * proxy)
        return p @ gold

    grid = np.linspace(0, 12, 1201)
    falls = np.flatnonzero(np.diff([gain(s) for s in grid]) < 0)
    found = rz.peak_strength(log_ref, jnp.asarray(proxy), jnp.asarray(gold), jnp.asarray(grid[1:]))
    if falls.size == 0:
        assert np.isnan(found)
        return
    first = grid[falls[0]]
    want = scipy.optimize.minimize_scalar(
        lambda s: -gain(s), bounds=(first - 0.011, first + 0.011), method="bounded", options={"xatol": 1e-10}
    ).x
    assert found == pytest.approx(max(want, 0.0), abs=1e-6)


def test_a_search_finds_peaks_and_their_absence():
    kinds = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        proxy, gold = jnp.asarray(rng.normal(size=(2, 30)))
        kinds.append(np.isnan(rz.peak_strength(dirichlet_logs(rng, (30,)), proxy, gold + proxy, jnp.linspace(0.1, 12))))
    assert any(kinds)
    assert not all(kinds)


def test_gold_that_is_the_proxy_has_no_peak_and_its_opposite_falls_from_the_start():
    strengths = jnp.array([0.5, 1.0, 3.0])
    assert np.isnan(rz.peak_strength(LOG_REF, REWARD, REWARD, strengths))
    assert rz.peak_strength(LOG_REF, REWARD, -REWARD, strengths) == 0.0
    assert np.isnan(rz.peak_strength(LOG_REF, REWARD.at[0].set(jnp.nan), -REWARD, strengths))
    forbidden = LOG_REF.at[0].set(-jnp.inf)
    assert rz.peak_strength(forbidden, REWARD.at[0].set(jnp.nan), -REWARD, strengths) == 0.0


def test_the_peak_lies_on_the_geodesic_of_a_teacher_and_moves_as_differences_do():
    log_ref, teacher = jnp.log(jnp.array([0.5, 0.4, 0.1])), jnp.log(jnp.array([0.2, 0.4, 0.4]))

    def place(gold):
        return rz.peak_strength(log_ref, teacher - log_ref, gold, jnp.linspace(0.1, 5.0, 50))

    gold, h = jnp.array([0.0, 1.0, 0.3]), 1e-5

    def along(t):
        return jnp.exp(rz.e_geodesic(log_ref, teacher, t)) @ gold

    assert jax.grad(along)(place(gold)) == pytest.approx(0.0, abs=1e-14)
    moves = h * jnp.eye(3)
    differences = [(place(gold + move) - place(gold - move)) / (2 * h) for move in moves]
    np.testing.assert_allclose(jax.grad(place)(gold), differences, rtol=1e-6)


def test_strengths_are_an_axis(as_installed):
    for bad in (jnp.array(1.0), jnp.zeros(0)):
        with pytest.raises(ValueError, match="strengths"):
            rz.peak_strength(LOG_REF, REWARD, REWARD, bad)


# Contract and errors


def chi2_optimum(log_ref, reward, beta):
    return rz.regularized_optimum(log_ref, reward, beta, rz.FORWARD_KL)


def peak(log_ref, reward, gold):
    return rz.peak_strength(log_ref, reward, gold, jnp.array([0.5, 1.0, 2.0, 4.0], log_ref.dtype))


CASES = [
    Contract(peak, ("log_ref", "reward", "gold")),
    Contract(chi2_optimum, ("log_ref", "reward"), {"beta": (0.5, 2.0, 0.1)}),
    Contract(
        rz.ppo_ptx_optimum, ("log_ref", "log_pretrain", "reward"), {"beta": (0.5, 2.0, 0.1), "gamma": (0.1, 0.0, 3.0)}
    ),
]


@pytest.mark.parametrize(("keeps", "case"), kept_by(CASES))
def test_contract(keeps, case):
    keeps(case)


@pytest.mark.parametrize(("refuses", "case"), refused_by(CASES))
def test_refusals(refuses, case, as_installed):
    refuses(case)


def test_bad_numbers_are_named(as_installed):
    for bad in (0.0, -1.0, float("nan"), jnp.array([0.5, 0.0])):
        with pytest.raises(ValueError, match=r"beta must be above 0, got (0.0|-1.0|nan)"):
            rz.ppo_ptx_optimum(LOG_REF, LOG_PRETRAIN, REWARD, bad, 1.0)
        with pytest.raises(ValueError, match="beta must be above 0"):
            rz.ipo_gap(0.7, bad)
    with pytest.raises(ValueError, match="gamma must be at least 0, got -1"):
        rz.ppo_ptx_optimum(LOG_REF, LOG_PRETRAIN, REWARD, 1.0, -1.0)
    with pytest.raises(ValueError, match="beta must be at least 0, got nan"):
        rz.regularized_optimum(LOG_REF, REWARD, float("nan"))
    with pytest.raises(ValueError, match="margin must be finite, got nan"):
        rz.margin_gap(0.7, float("nan"))
    with pytest.raises(TypeError, match="preference must be a floating array"):
        rz.margin_gap(jnp.array([1, 0]), 1.0)


def test_rewards_that_are_made_in_the_same_program_have_a_best_one():
    """XLA may compute them twice, once for the maximum, with other roundings; then none seems to be the best."""

    @jax.jit
    def optimum(key):
        log_ref = jax.nn.log_softmax(-jnp.log(jnp.arange(1.0, 9.0)))[None]
        betas = 1 / jnp.geomspace(0.05, 2.0, 12)
        return rz.regularized_optimum(log_ref, jax.random.normal(key, (1, 8)), betas, divergence=rz.FORWARD_KL)

    np.testing.assert_allclose(jnp.exp(optimum(jax.random.key(0))).sum(-1), 1.0, rtol=1e-12)
