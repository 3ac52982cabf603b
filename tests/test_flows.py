"""Flows: closed forms against the differential equations that they solve, the integrator against everything else.

The natural gradient is rebuilt here from scratch: numpy finite differences for the gradient in logits, and the
pseudo-inverse of diag(p) - p pᵀ for the metric. Euclidean paths come from scipy's integrator.
"""

import re

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

import rlrazor as rz

K = 5
INF = jnp.inf


def log(p):
    with np.errstate(divide="ignore"):
        return jnp.asarray(np.log(np.asarray(p, dtype=float)))


def problem(seed=0, outcomes=K):
    """(init, target, ref, reward) in numpy: three distributions and a reward."""
    rng = np.random.default_rng(seed)
    return (*rng.dirichlet(np.full(outcomes, 1.5), size=3), rng.normal(size=outcomes))


def softmax(logits):
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


def slope(f, x, h=1e-4):
    """Derivative by the five-point stencil, exact to fourth order."""
    return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h)


# The closed forms, with the loss that each descends. beta = 0.7 in the third.

BETA = 0.7


def forward_case(init, target, ref, reward):
    return lambda t: rz.forward_kl_flow(log(init), log(target), t), lambda p: kl(target, p)


def reverse_case(init, target, ref, reward):
    return lambda t: rz.reverse_kl_flow(log(init), log(target), t), lambda p: kl(p, target)


def reward_case(init, target, ref, reward):
    return lambda t: rz.reward_flow(log(init), jnp.asarray(reward), t), lambda p: -(p @ reward)


def regularized_case(init, target, ref, reward):
    return (
        lambda t: rz.regularized_reward_flow(log(init), log(ref), jnp.asarray(reward), BETA, t),
        lambda p: -(p @ reward) + BETA * kl(p, ref),
    )


CASES = {"forward": forward_case, "reverse": reverse_case, "reward": reward_case, "regularized": regularized_case}
EACH_FLOW = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def natural_velocity(loss, p):
    """D log p / dt of the natural-gradient descent of `loss`, in logits."""
    logits = np.log(p)
    gradient = np.array([slope(lambda x, i=i: loss(softmax(logits + x * np.eye(K)[i])), 0.0) for i in range(K)])
    step = -np.linalg.pinv(np.diag(p) - np.outer(p, p), rcond=1e-12, hermitian=True) @ gradient
    return step - p @ step


@EACH_FLOW
@pytest.mark.parametrize("seed", range(4))
def test_closed_form_solves_the_natural_gradient_equation(case, seed):
    flow, loss = case(*problem(seed))
    times = np.array([0.01, 0.3, 1.0, 3.0])
    velocity = slope(lambda t: np.asarray(flow(jnp.asarray(t))), times)
    exact = [natural_velocity(loss, p) for p in np.exp(flow(jnp.asarray(times)))]
    np.testing.assert_allclose(velocity, exact, atol=1e-8)


@EACH_FLOW
def test_closed_form_starts_at_the_initial_policy(case):
    init = problem()[0]
    flow, _ = case(*problem())
    np.testing.assert_allclose(flow(0.0), np.log(init), rtol=0, atol=1e-15)


@EACH_FLOW
def test_velocity_at_time_zero_is_the_natural_gradient_also_by_automatic_differentiation(case):
    flow, loss = case(*problem())
    velocity = jax.jacfwd(flow)(jnp.array(0.0))
    np.testing.assert_allclose(velocity, natural_velocity(loss, problem()[0]), atol=1e-8)


@EACH_FLOW
def test_velocity_by_automatic_differentiation_matches_finite_differences(case):
    flow, _ = case(*problem())
    np.testing.assert_allclose(jax.jacfwd(flow)(jnp.array(0.8)), slope(lambda t: np.asarray(flow(t)), 0.8), atol=1e-9)


@EACH_FLOW
def test_times_broadcast_as_a_batch_and_stay_normalised(case):
    flow, _ = case(*problem())
    times = np.linspace(0, 5, 7)
    path = flow(jnp.asarray(times))
    assert path.shape == (7, K)
    np.testing.assert_allclose(np.exp(path).sum(-1), 1.0, rtol=1e-14)
    for time, row in zip(times, path, strict=True):
        np.testing.assert_allclose(row, flow(float(time)), rtol=1e-14)


def test_flows_end_exactly_at_their_limits():
    init, target, ref, reward = problem(1)
    reward = jnp.asarray(reward).at[0].set(reward[1])  # a tie, though not for the best
    best = np.argmax(reward)
    tie = reward.at[(best + 1) % K].set(reward[best])
    tied = np.asarray(tie == tie.max())
    np.testing.assert_array_equal(rz.forward_kl_flow(log(init), log(target), INF), log(target))
    np.testing.assert_allclose(rz.reverse_kl_flow(log(init), log(target), INF), np.log(target), atol=1e-15)
    np.testing.assert_allclose(
        np.exp(rz.reward_flow(log(init), tie, INF)), np.where(tied, init, 0) / init[tied].sum(), rtol=1e-14
    )
    optimum = ref * np.exp(reward / BETA)
    limit = rz.regularized_reward_flow(log(init), log(ref), reward, BETA, INF)
    np.testing.assert_allclose(np.exp(limit), optimum / optimum.sum(), rtol=1e-13)
    free = rz.regularized_reward_flow(log(init), log(ref), tie, 0.0, INF)
    np.testing.assert_allclose(np.exp(free), np.where(tied, init, 0) / init[tied].sum(), rtol=1e-14)


def test_forward_flow_runs_along_the_m_geodesic_and_reverse_flow_along_the_e_geodesic():
    init, target, _, _ = problem(2)
    times = np.array([0.0, 0.1, 1.0, 5.0, 30.0])
    for flow, geodesic in ((rz.forward_kl_flow, rz.m_geodesic), (rz.reverse_kl_flow, rz.e_geodesic)):
        at = geodesic(log(init), log(target), jnp.asarray(1 - np.exp(-times)))
        np.testing.assert_allclose(flow(log(init), log(target), jnp.asarray(times)), at, atol=1e-13)


@pytest.mark.parametrize("seed", range(4))
def test_forward_kl_falls_at_the_rate_of_chi_squared(seed):
    init, target, _, _ = problem(seed)

    def policy(t):
        return np.exp(rz.forward_kl_flow(log(init), log(target), jnp.asarray(t)))

    times = np.array([0.01, 0.5, 2.0])
    p = policy(times)
    chi2 = ((target - p) ** 2 / p).sum(-1)
    np.testing.assert_allclose(slope(lambda t: kl(target, policy(t)), times), -chi2, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(rz.chi2_divergence(log(target)[None], log(p)), chi2, rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_reverse_kl_falls_at_the_rate_of_the_variance_of_the_log_ratio(seed):
    init, target, _, _ = problem(seed)

    def policy(t):
        return np.exp(rz.reverse_kl_flow(log(init), log(target), jnp.asarray(t)))

    times = np.array([0.01, 0.5, 2.0])
    p = policy(times)
    log_ratio = np.log(p / target)
    variance = (p * log_ratio**2).sum(-1) - (p * log_ratio).sum(-1) ** 2
    np.testing.assert_allclose(slope(lambda t: kl(policy(t), target), times), -variance, rtol=1e-7, atol=1e-10)


def test_reward_flow_is_the_tilt_at_beta_one_over_time():
    init, _, _, reward = problem(3)
    times = np.array([0.1, 1.0, 7.0, 40.0])
    weights = init * np.exp(times[:, None] * reward)
    measured = rz.reward_flow(log(init), jnp.asarray(reward), jnp.asarray(times))
    np.testing.assert_allclose(np.exp(measured), weights / weights.sum(-1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(measured, rz.tilt(log(init), jnp.asarray(reward), jnp.asarray(1 / times)), rtol=1e-13)


def test_regularized_flow_reaches_the_reward_flow_as_beta_vanishes():
    init, _, ref, reward = problem(4)
    times = jnp.array([0.0, 0.5, 3.0, 30.0])
    free = rz.reward_flow(log(init), jnp.asarray(reward), times)

    def flow(beta):
        return rz.regularized_reward_flow(log(init), log(ref), jnp.asarray(reward), beta, times)

    np.testing.assert_allclose(flow(0.0), free, rtol=1e-14, atol=1e-15)
    for beta in (1e-300, 1e-15, 1e-12):
        np.testing.assert_allclose(flow(beta), free, atol=1e-9)
    np.testing.assert_allclose(flow(1e-6) - free, 2 * (flow(5e-7) - free), rtol=1e-4, atol=1e-12)  # at first order


@pytest.mark.parametrize("beta", [1e-12, 1e-7, 4e-4, 1e-2])
def test_small_beta_keeps_full_accuracy(beta):
    init, _, ref, reward = problem(4)
    time, step, num_steps = 2.0, 0.2, 10
    args = log(init), log(ref), jnp.asarray(reward), beta
    with mpmath.workdps(60):
        b = mpmath.mpf(beta)
        for measured, keep in (
            (rz.regularized_reward_flow(*args, time), mpmath.exp(-b * time)),
            (rz.mirror_descent(*args, step, num_steps), (1 + b * mpmath.mpf(step)) ** -num_steps),
        ):
            weights = [
                mpmath.mpf(i) ** keep * (mpmath.mpf(f) * mpmath.exp(mpmath.mpf(r) / b)) ** (1 - keep)
                for i, f, r in zip(init.tolist(), ref.tolist(), reward.tolist(), strict=True)
            ]
            exact = [float(mpmath.log(w / mpmath.fsum(weights))) for w in weights]
            np.testing.assert_allclose(measured, exact, rtol=1e-13)


@pytest.mark.parametrize("beta", [0.0, 1e-9, 0.3])
def test_derivative_in_beta_matches_finite_differences_from_zero_on(beta):
    init, _, ref, reward = problem(4)

    def flow(b):
        return rz.regularized_reward_flow(log(init), log(ref), jnp.asarray(reward), b, 2.0)

    h = 1e-5
    one_sided = (-3 * flow(beta) + 4 * flow(beta + h) - flow(beta + 2 * h)) / (2 * h)
    np.testing.assert_allclose(jax.jacfwd(flow)(jnp.array(beta)), one_sided, atol=1e-7)


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_mirror_descent_derivative_in_beta_matches_finite_differences_from_zero_on(beta):
    init, _, ref, reward = problem(4)

    def policy(b):
        return rz.mirror_descent(log(init), log(ref), jnp.asarray(reward), b, 0.2, 10)

    h = 1e-5
    one_sided = (-3 * policy(beta) + 4 * policy(beta + h) - policy(beta + 2 * h)) / (2 * h)
    np.testing.assert_allclose(jax.jacfwd(policy)(jnp.array(beta)), one_sided, atol=1e-7)


@pytest.mark.parametrize(("beta", "step"), [(0.0, 0.5), (0.4, 0.25), (0.4, 20.0), (5.0, 1.0)])
def test_mirror_descent_is_its_steps_taken_one_by_one(beta, step):
    """Each argmax of E[r] - beta KL(pi||ref) - KL(pi||pi_k)/step is (ref^beta pi_k^(1/step) e^r)^(1/(beta+1/step))."""
    init, _, ref, reward = problem(5)
    policy = init
    for k in range(13):
        measured = rz.mirror_descent(log(init), log(ref), jnp.asarray(reward), beta, step, k)
        np.testing.assert_allclose(np.exp(measured), policy, rtol=1e-12)
        policy = softmax((beta * np.log(ref) + np.log(policy) / step + reward) / (beta + 1 / step))


def test_a_mirror_descent_step_maximises_its_proximal_objective():
    init, _, ref, reward = problem(6)
    beta, step = 0.4, 0.8
    policy = np.exp(rz.mirror_descent(log(init), log(ref), jnp.asarray(reward), beta, step, 1))

    def objective(p):
        return p @ reward - beta * kl(p, ref) - kl(p, init) / step

    rng = np.random.default_rng(0)
    size = 10 ** rng.uniform(-3, 0, size=(2000, 1))
    others = (1 - size) * policy + size * rng.dirichlet(np.full(K, 0.5), size=2000)
    assert all(objective(other) < objective(policy) for other in others)


def test_mirror_descent_reaches_the_flow_at_first_order_in_the_step():
    init, _, ref, reward = problem(7)
    args = log(init), log(ref), jnp.asarray(reward), BETA
    steps = 2.0 / np.array([100, 200, 400])
    path = rz.mirror_descent(*args, jnp.asarray(steps), jnp.array([100, 200, 400]))
    errors = np.abs(path - rz.regularized_reward_flow(*args, jnp.array([2.0]))).max(-1)
    assert 1e-5 < errors[-1] < errors[0] < 2e-2
    np.testing.assert_allclose(errors[:-1] / errors[1:], 2.0, rtol=0.02)


# The boundary of the simplex


def test_forward_flow_gives_mass_to_new_outcomes_and_drains_old_ones_exponentially():
    path = rz.forward_kl_flow(log([0.5, 0.5, 0.0, 0.0]), log([0.0, 0.2, 0.8, 0.0]), jnp.array([0.0, 1.0, 60.0, INF]))
    fade = np.exp([0.0, -1.0, -60.0, -np.inf])
    exact = np.stack([0.5 * fade, 0.2 + 0.3 * fade, 0.8 * (1 - fade), 0 * fade], axis=-1)
    np.testing.assert_allclose(np.exp(path), exact, rtol=1e-13)
    assert np.all(np.isneginf(path[:, 3]))


@pytest.mark.parametrize("time", [1e-12, 1.0, 30.0, 60.0, 700.0])
def test_flows_inside_the_support_never_bring_an_outcome_back_in_finite_time(time):
    init, full, reward = log([0.5, 0.5, 0.0]), log([0.2, 0.3, 0.5]), jnp.array([0.0, 1.0, 2.0])
    assert rz.reverse_kl_flow(init, full, time)[2] == -INF
    assert rz.reward_flow(init, reward, time)[2] == -INF
    assert rz.regularized_reward_flow(init, full, reward, 1.0, time)[2] == -INF


@pytest.mark.parametrize("time", [60.0, 95.0, 200.0])
def test_reverse_flow_never_brings_an_outcome_back_in_float32(time):
    init, full = (log(p).astype(jnp.float32) for p in ([0.5, 0.5, 0.0], [0.2, 0.3, 0.5]))
    assert rz.reverse_kl_flow(init, full, time)[2] == -INF


@pytest.mark.parametrize("num_steps", [1, 20, 60, 500])
def test_mirror_descent_never_brings_an_outcome_back(num_steps):
    init, full, reward = log([0.5, 0.5, 0.0]), log([0.2, 0.3, 0.5]), jnp.array([0.0, 1.0, 2.0])
    assert rz.mirror_descent(init, full, reward, 1.0, 1.0, num_steps)[2] == -INF


def test_a_target_that_forbids_an_outcome_removes_it_from_the_start_on():
    init, target = log([0.25, 0.25, 0.5]), log([0.5, 0.5, 0.0])
    path = rz.reverse_kl_flow(init, target, jnp.array([0.0, 1e-9, 1.0]))
    np.testing.assert_array_equal(path[0], init)
    np.testing.assert_allclose(np.exp(path[1:]), [[0.5, 0.5, 0.0]] * 2, rtol=1e-14)


def test_a_forbidding_reward_removes_its_outcome_from_the_start_on():
    init, reward = log([0.25, 0.25, 0.5]), jnp.array([0.0, 1.0, -INF])
    times = jnp.array([1e-9, 1.0])
    for path in (
        rz.reward_flow(init, reward, times),
        rz.regularized_reward_flow(init, init, reward, BETA, times),
        rz.mirror_descent(init, init, reward, BETA, times, 1),
    ):
        assert np.all(np.isneginf(path[:, 2]))
        np.testing.assert_allclose(np.exp(path[:, :2]).sum(-1), 1.0, rtol=1e-14)
        np.testing.assert_allclose(np.exp(path[0]), [0.5, 0.5, 0.0], rtol=1e-8)


def test_a_policy_that_has_not_moved_is_the_initial_one_even_if_the_reward_forbids_an_outcome():
    init, reward = log([0.25, 0.25, 0.5]), jnp.array([0.0, 1.0, -INF])
    np.testing.assert_allclose(rz.regularized_reward_flow(init, init, reward, BETA, 0.0), init, atol=1e-15)
    np.testing.assert_allclose(rz.mirror_descent(init, init, reward, BETA, 0.5, 0), init, atol=1e-15)


@pytest.mark.parametrize("time", [20.0, 60.0, 150.0])
def test_tiny_probabilities_keep_their_relative_accuracy_at_large_times(time):
    init, target, ref, reward = problem(8)
    target[0] = 0.0
    target /= target.sum()
    target[0] = 1e-300
    measured = [
        rz.forward_kl_flow(log(init), log(target), time),
        rz.reverse_kl_flow(log(init), log(target), time),
        rz.reward_flow(log(init), jnp.asarray(reward), time),
        rz.regularized_reward_flow(log(init), log(ref), jnp.asarray(reward), 0.01, time),
        rz.mirror_descent(log(init), log(ref), jnp.asarray(reward), 0.01, 0.5, 2 * int(time)),
    ]
    with mpmath.workdps(60):
        t, b = mpmath.mpf(time), mpmath.mpf(0.01)
        i, g, f, r = ([mpmath.mpf(float(x)) for x in row] for row in (init, target, ref, reward))
        s, rho = mpmath.exp(-t), 1 / (1 + b * mpmath.mpf(0.5)) ** (2 * int(time))

        def pool(keep):
            return [x**keep * (y * mpmath.exp(z / b)) ** (1 - keep) for x, y, z in zip(i, f, r, strict=True)]

        weights = [
            [y + s * (x - y) for x, y in zip(i, g, strict=True)],
            [x**s * y ** (1 - s) for x, y in zip(i, g, strict=True)],
            [x * mpmath.exp(t * z) for x, z in zip(i, r, strict=True)],
            pool(mpmath.exp(-b * t)),
            pool(rho),
        ]
        exact = [[float(mpmath.log(w / mpmath.fsum(row))) for w in row] for row in weights]
    np.testing.assert_allclose(measured, exact, rtol=1e-13, atol=1e-13)


# gradient_flow: one generic objective, a KL(target||pi) + b KL(pi||target) - c E[r] + d KL(pi||ref)

MIXES = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, BETA]])
TIMES = np.array([0.0, 0.2, 1.0, 4.0])


def generic_flow(mix, init, target, ref, reward, **options):
    def objective(log_policy):
        return (
            mix[0] * rz.kl_divergence(jnp.log(target), log_policy)
            + mix[1] * rz.kl_divergence(log_policy, jnp.log(target))
            - mix[2] * rz.expected_reward(log_policy, reward)
            + mix[3] * rz.kl_divergence(log_policy, jnp.log(ref))
        )

    return rz.gradient_flow(objective, jnp.log(init), jnp.asarray(TIMES), **options)


SUCCESS = np.array([1.0, 1.0, 0.0, 0.0, 0.0])


@pytest.fixture(scope="module")
def batch():
    """Each of the four mixes on four worlds, then a pure reward of one for success and zero for failure."""
    worlds = [problem(seed) for seed in range(4) for _ in MIXES] + [(*problem(4)[:3], SUCCESS)]
    mixes = np.concatenate([np.tile(MIXES, (4, 1)), MIXES[2:3]])
    return mixes, *(np.stack(x) for x in zip(*worlds, strict=True))


def run_batch(batch, **options):
    return jax.jit(jax.vmap(lambda *args: generic_flow(*args, **options)))(*(jnp.asarray(x) for x in batch))


def test_natural_flow_of_the_softmax_table_agrees_with_every_closed_form(batch):
    flows = run_batch(batch, natural=True)
    assert flows.log_policy.shape == (17, len(TIMES), K)
    for i in range(16):
        case = list(CASES.values())[i % 4]
        closed, loss = case(*(x[i] for x in batch[1:]))
        np.testing.assert_allclose(flows.log_policy[i], closed(jnp.asarray(TIMES)), atol=1e-6)
        losses = [loss(np.exp(row)) for row in np.asarray(flows.log_policy[i])]
        np.testing.assert_allclose(flows.loss[i], losses, rtol=1e-9, atol=1e-12)
    assert np.all(flows.converged)
    assert not np.any(flows.stopped)
    np.testing.assert_array_equal(flows.time, np.tile(TIMES, (17, 1)))
    np.testing.assert_array_equal(flows.stop_time, 4.0)


@pytest.fixture(scope="module")
def euclidean_flows(batch):
    """The Euclidean flows of the batch, to a tight tolerance."""
    return run_batch(batch, tolerance=1e-11)


def test_euclidean_flow_agrees_with_scipy(batch, euclidean_flows):
    for i, (mix, init, target, ref, reward) in enumerate(zip(*batch, strict=True)):

        def velocity(t, logits, mix=mix, target=target, ref=ref, reward=reward):
            p = softmax(logits)
            score = mix[1] * np.log(p / target) - mix[2] * reward + mix[3] * np.log(p / ref)
            return -mix[0] * (p - target) - p * (score - p @ score)

        exact = solve_ivp(velocity, (0, TIMES[-1]), np.log(init), "DOP853", TIMES, rtol=1e-12, atol=1e-12).y.T
        np.testing.assert_allclose(euclidean_flows.params[i], exact, atol=1e-8)


def test_euclidean_flow_conserves_the_sum_of_logits(euclidean_flows):
    total = euclidean_flows.params.sum(-1)
    np.testing.assert_allclose(total, np.repeat(total[:, :1], len(TIMES), axis=1), atol=1e-8)


def test_euclidean_reward_flow_conserves_differences_of_inverse_weights(euclidean_flows):
    """With r = 1[success], exp(-θ_i) - exp(-θ_j) is constant for two successes and for two failures, not across."""
    inverse = np.exp(-euclidean_flows.params[-1])
    for i, j in ((0, 1), (2, 3), (3, 4)):
        kept = inverse[:, i] - inverse[:, j]
        np.testing.assert_allclose(kept, np.repeat(kept[:1], len(TIMES)), atol=1e-8)
    assert np.ptp(inverse[:, 1] - inverse[:, 2]) > 0.1


# The two-armed bandit, and where a flow stops

GAP, START = 0.8, -0.6


def two_arm_clock(phi):
    """The time at which the two-armed bandit's logit difference is φ: dφ/dt = 2Δσ(φ)σ(-φ) = 2Δ/(e^φ + 2 + e^-φ)."""

    def integral(x):
        return np.exp(x) + 2 * x - np.exp(-x)

    return (integral(phi) - integral(START)) / (2 * GAP)


def two_arm_flow(threshold, **options):
    reward = jnp.array([1.0 + GAP, 1.0])
    return rz.gradient_flow(
        lambda log_policy: -rz.expected_reward(log_policy, reward),
        jnp.array([START, 0.0]),
        jnp.array([0.0, 1.0, 3.0, 10.0, 1e4]),
        stop=lambda logits: jnp.exp(rz.softmax_policy(logits))[0] - threshold,
        **options,
    )


@pytest.fixture(scope="module")
def two_arm():
    """The bandit stopped at four success rates, the last of them never reached."""
    return jax.jit(jax.vmap(two_arm_flow))(jnp.array([0.5, 0.9, 0.99, 2.0]))


def test_two_armed_bandit_follows_its_closed_form(two_arm):
    phi = np.asarray(two_arm.params[3, :, 0] - two_arm.params[3, :, 1])
    np.testing.assert_allclose(two_arm_clock(phi), two_arm.time[3], rtol=1e-6, atol=1e-7)


def test_two_armed_bandit_loses_one_half_over_time(two_arm):
    regret = (1 + GAP) + np.asarray(two_arm.loss[3, -1])
    assert abs(regret * 1e4 - 0.5) < 1e-3


def test_flow_stops_exactly_where_the_criterion_crosses_zero(two_arm):
    success = np.array([0.5, 0.9, 0.99])
    exact = two_arm_clock(np.log(success / (1 - success)))
    np.testing.assert_allclose(two_arm.stop_time[:3], exact, rtol=1e-6)
    np.testing.assert_allclose(np.exp(two_arm.log_policy[:3, -1, 0]), success, atol=1e-6)


def test_stopped_is_true_only_where_the_criterion_was_reached(two_arm):
    assert two_arm.stopped.tolist() == [True, True, True, False]
    assert two_arm.converged.tolist() == [True] * 4
    assert two_arm.stop_time[3] == 1e4


def test_rows_after_the_stop_hold_the_stopped_state(two_arm):
    requested = np.array([0.0, 1.0, 3.0, 10.0, 1e4])
    for i in range(4):
        np.testing.assert_array_equal(two_arm.time[i], np.minimum(requested, two_arm.stop_time[i]))
        after = requested > float(two_arm.stop_time[i])
        assert after.sum() == [3, 2, 1, 0][i]
        for field in (two_arm.params, two_arm.log_policy, two_arm.loss):
            held = np.asarray(field[i])[after]
            assert np.all(np.isfinite(field[i]))
            np.testing.assert_array_equal(held, np.broadcast_to(np.asarray(field[i])[-1:], held.shape))
        phi = np.asarray(two_arm.params[i, :, 0] - two_arm.params[i, :, 1])
        np.testing.assert_allclose(two_arm_clock(phi), two_arm.time[i], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("x64", [True, False])
def test_float32_flow_stops_where_its_drift_reaches_the_budget(x64):
    budgets = np.array([0.01, 0.1, 0.3, 1.0], np.float32)
    reward = np.array([1.0 + GAP, 1.0], np.float32)
    start = np.array([START, 0.0], np.float32)

    def run(budget):
        log_init = rz.softmax_policy(jnp.asarray(start))
        return rz.gradient_flow(
            lambda log_policy: -rz.expected_reward(log_policy, jnp.asarray(reward)),
            jnp.asarray(start),
            jnp.array([0.0, 100.0], jnp.float32),
            stop=lambda logits: rz.kl_divergence(log_init, rz.softmax_policy(logits)) - budget,
        )

    def drift(phi):
        return kl(softmax(start.astype(float)), softmax(np.array([phi, 0.0])))

    with jax.enable_x64(x64):
        flow = jax.jit(jax.vmap(run))(jnp.asarray(budgets))
    crossing = np.array([brentq(lambda phi, b=b: drift(phi) - b, START, 9.0) for b in budgets])
    np.testing.assert_allclose(flow.stop_time, two_arm_clock(crossing), rtol=1e-4)
    np.testing.assert_allclose(flow.params[:, -1, 0] - flow.params[:, -1, 1], crossing, rtol=1e-4)
    assert flow.stopped.tolist() == [True] * 4
    assert flow.converged.tolist() == [True] * 4
    assert {flow.log_policy.dtype, flow.time.dtype, flow.stop_time.dtype} == {jnp.dtype("float32")}


def test_a_flow_that_starts_past_the_event_stops_at_once():
    flow = jax.jit(two_arm_flow)(jnp.exp(rz.softmax_policy(jnp.array([START, 0.0])))[0] - 0.1)
    assert (bool(flow.stopped), bool(flow.converged), float(flow.stop_time)) == (True, True, 0.0)
    assert flow.time.tolist() == [0.0] * 5
    np.testing.assert_array_equal(flow.params, np.tile([START, 0.0], (5, 1)))


# Numbers next to the ends of their dtype

NEXT_TO_THE_ENDS = {
    "forward, time": lambda x, i, r, n: rz.forward_kl_flow(i, r, n),
    "reverse, time": lambda x, i, r, n: rz.reverse_kl_flow(i, r, n),
    "reward, time": lambda x, i, r, n: rz.reward_flow(i, x, n),
    "success, progress": lambda x, i, r, n: rz.success_gradient_path(i, x > 0.7, jnp.minimum(n, 1)),
    "regularized, time": lambda x, i, r, n: rz.regularized_reward_flow(i, r, x, 0.7, n),
    "unregularized, time": lambda x, i, r, n: rz.regularized_reward_flow(i, r, x, 0.0, n),
    "regularized, beta": lambda x, i, r, n: rz.regularized_reward_flow(i, r, x, n, 2.0),
    "mirror, step": lambda x, i, r, n: rz.mirror_descent(i, r, x, 0.7, n, 2),
    "mirror, free step": lambda x, i, r, n: rz.mirror_descent(i, r, x, 0.0, n, 2),
    "mirror, steps": lambda x, i, r, n: rz.mirror_descent(i, r, x, 0.7, 0.5, n),
    "mirror, beta": lambda x, i, r, n: rz.mirror_descent(i, r, x, n, 0.5, 2),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", NEXT_TO_THE_ENDS)
def test_numbers_next_to_the_ends_are_at_their_limits(name, compiled, dtype):
    info, flow = jnp.finfo(dtype), NEXT_TO_THE_ENDS[name]
    flow = jax.jit(flow) if compiled else flow
    init, ref = (log(p).astype(dtype) for p in ([0.6, 0.3, 0.1], [0.2, 0.3, 0.5]))
    large = float(info.max) / 4
    for reward in (jnp.array([1.0, 0.5, 0.0], dtype), jnp.array([1.0, 0.5, -INF], dtype)):

        def at(number, reward=reward):
            return np.asarray(flow(reward, init, ref, jnp.asarray(number, dtype)))

        for subnormal in (float(info.tiny) / 2, float(info.smallest_subnormal)):
            np.testing.assert_array_equal(at(subnormal), at(0.0))
        got = np.exp(at(large))
        assert not np.isnan(got).any()
        np.testing.assert_allclose(got, np.exp(at(1e30)), atol=1e-6)
        if "time" in name or "progress" in name:
            np.testing.assert_allclose(got, np.exp(at(INF)), atol=1e-6)


def test_a_reward_that_forbids_has_acted_at_any_beta_however_large():
    init, reward = log([0.25, 0.25, 0.5]).astype(jnp.float32), jnp.array([0.0, 1.0, -INF], jnp.float32)
    for beta in (1.0, 1e37, 3e38):
        assert rz.regularized_reward_flow(init, init, reward, beta, 1.0)[2] == -INF


def test_too_few_steps_come_back_unconverged_and_finite():
    flow = rz.gradient_flow(
        lambda log_policy: -rz.expected_reward(log_policy, jnp.array([0.0, 1.0, 2.0])),
        jnp.zeros(3),
        jnp.array([0.0, 0.1, 100.0]),
        max_steps=3,
    )
    assert (bool(flow.converged), bool(flow.stopped)) == (False, False)
    assert flow.stop_time < 100
    assert all(np.all(np.isfinite(x)) for x in (flow.params, flow.log_policy, flow.loss, flow.time))


# Other parameters, other policies

GRID = np.linspace(-3.0, 3.0, 13)
MIXTURE = rz.GaussianMixture(jnp.array([0.2, -0.2]), jnp.array([-1.0, 0.6]), jnp.array([-0.3, 0.1]))
MIXTURE_TARGET = rz.GaussianMixture(jnp.array([-0.5, 0.5]), jnp.array([-0.7, 1.0]), jnp.array([0.0, 0.0]))
MIXTURE_TIMES = np.array([0.0, 0.3, 1.5])


def mixture_loss(log_policy):
    return rz.kl_divergence(log_policy, rz.mixture_policy(MIXTURE_TARGET, jnp.asarray(GRID)))


@pytest.fixture(scope="module")
def mixture_flows():
    """The natural flow of a two-component mixture in coordinates u with params = A u; the first A is the identity."""
    mixing = np.random.default_rng(0).normal(size=(2, 6, 6)) + 2 * np.eye(6)

    def run(a):
        def policy(u):
            flat = a @ u
            return rz.mixture_policy(rz.GaussianMixture(flat[:2], flat[2:4], flat[4:]), jnp.asarray(GRID))

        start = jnp.linalg.solve(a, jnp.concatenate(MIXTURE))
        return rz.gradient_flow(mixture_loss, start, jnp.asarray(MIXTURE_TIMES), policy=policy, natural=True)

    return jax.jit(jax.vmap(run))(jnp.asarray(np.stack([np.eye(6), *mixing])))


def numpy_mixture(flat):
    weights, means, scales = softmax(flat[:2]), flat[2:4], np.exp(flat[4:])
    density = (weights / scales * np.exp(-0.5 * ((GRID[:, None] - means) / scales) ** 2)).sum(-1)
    return np.log(density / density.sum())


def test_natural_flow_of_a_mixture_agrees_with_scipy_and_a_pseudo_inverse_metric(mixture_flows):
    target = numpy_mixture(np.concatenate(MIXTURE_TARGET))

    def velocity(t, flat):
        log_p = numpy_mixture(flat)
        p = np.exp(log_p)
        jacobian = np.stack([slope(lambda x, e=e: numpy_mixture(flat + x * e), 0.0) for e in np.eye(6)], axis=-1)
        metric = jacobian.T @ (p[:, None] * jacobian)
        return -np.linalg.pinv(metric, rcond=1e-9, hermitian=True) @ (jacobian.T @ (p * (log_p - target)))

    start = np.concatenate(MIXTURE)
    exact = solve_ivp(velocity, (0, 1.5), start, "DOP853", MIXTURE_TIMES, rtol=1e-9, atol=1e-9).y.T
    np.testing.assert_allclose(mixture_flows.params[0], exact, atol=1e-6)
    np.testing.assert_allclose(mixture_flows.log_policy[0], [numpy_mixture(flat) for flat in exact], atol=1e-6)
    assert np.abs(mixture_flows.log_policy[0, -1] - mixture_flows.log_policy[0, 0]).max() > 0.1


def test_natural_flow_does_not_depend_on_the_parametrisation(mixture_flows):
    for i in (1, 2):
        assert np.abs(mixture_flows.params[i] - mixture_flows.params[0]).max() > 0.1
        np.testing.assert_allclose(mixture_flows.log_policy[i], mixture_flows.log_policy[0], atol=1e-6)


def test_natural_flow_of_several_prompts_is_the_flow_of_each_and_leaves_redundant_parameters_alone():
    worlds = [problem(seed) for seed in range(3)]
    init, _, _, reward = (np.stack(x) for x in zip(*worlds, strict=True))
    params = {"table": log(init) + 2.0, "shift": jnp.array([1.0, -2.0, 0.5])}

    def objective(log_policy):
        return -rz.expected_reward(log_policy, jnp.asarray(reward)).mean()

    def policy(p):
        return rz.softmax_policy(p["table"] + p["shift"][:, None])

    flow = jax.jit(lambda p: rz.gradient_flow(objective, p, jnp.asarray(TIMES), policy=policy, natural=True))(params)
    assert flow.log_policy.shape == (len(TIMES), 3, K)
    assert flow.params["table"].shape == (len(TIMES), 3, K)
    for x in range(3):
        alone = rz.reward_flow(log(init[x]), jnp.asarray(reward[x]), jnp.asarray(TIMES))
        np.testing.assert_allclose(flow.log_policy[:, x], alone, atol=1e-6)
    np.testing.assert_allclose(flow.params["shift"], np.tile(params["shift"], (len(TIMES), 1)), atol=1e-9)
    np.testing.assert_allclose(flow.params["table"].sum(-1), np.tile(params["table"].sum(-1), (4, 1)), atol=1e-9)


def test_float32_natural_flow_stays_float32_and_inside_the_support():
    init, target = (log(p).astype(jnp.float32) for p in ([0.5, 0.3, 0.2, 0.0], [0.2, 0.2, 0.6, 0.0]))
    times = jnp.asarray(TIMES, jnp.float32)
    flow = jax.jit(
        lambda x: rz.gradient_flow(lambda log_policy: rz.kl_divergence(target, log_policy), x, times, natural=True)
    )(init)
    dtypes = {x.dtype for x in (flow.time, flow.params, flow.log_policy, flow.loss, flow.stop_time)}
    assert dtypes == {jnp.dtype("float32")}
    assert flow.converged
    assert np.all(np.isneginf(flow.log_policy[:, 3]))
    np.testing.assert_allclose(np.exp(flow.log_policy), np.exp(rz.forward_kl_flow(init, target, times)), atol=2e-6)


@pytest.mark.parametrize("times", [jnp.array(1.0), jnp.zeros((2, 2)), jnp.zeros(0)])
def test_times_that_are_no_vector_are_an_error_that_says_so(times, as_installed):
    with pytest.raises(ValueError, match=re.escape(f"times must be a non-empty vector, got shape {times.shape}")):
        rz.gradient_flow(lambda log_policy: log_policy.sum(), jnp.zeros(2), times)


# The contract of every closed form and objective: (names of the arrays, numbers)

CONTRACT = {
    rz.forward_kl_flow: (("log_init", "log_target"), {"time": 0.7}),
    rz.reverse_kl_flow: (("log_init", "log_target"), {"time": 0.7}),
    rz.reward_flow: (("log_init", "reward"), {"time": 0.7}),
    rz.regularized_reward_flow: (("log_init", "log_ref", "reward"), {"beta": 0.3, "time": 0.7}),
    rz.mirror_descent: (("log_init", "log_ref", "reward"), {"beta": 0.3, "step": 0.5, "num_steps": 4}),
    rz.sft_loss: (("log_policy", "log_target"), {}),
    rz.expected_reward: (("log_policy", "reward"), {}),
    rz.regularized_reward: (("log_policy", "log_ref", "reward"), {"beta": 0.3}),
}
EACH_FUNCTION = pytest.mark.parametrize("function", CONTRACT, ids=lambda f: f.__name__)
ARRAYS = [(f, name) for f, (names, _) in CONTRACT.items() for name in names]
LOG_PROBS = [(f, name) for f, name in ARRAYS if name != "reward"]  # a whole reward is welcome: test_rewards
NUMBERS = [(f, name) for f, (_, numbers) in CONTRACT.items() for name in numbers]


def arguments(function, batch=(), dtype=jnp.float64):
    """Random arrays by name, `[*batch, K]`, and the numbers."""
    rng = np.random.default_rng(0)
    names, numbers = CONTRACT[function]
    drawn = {name: rng.normal(size=(*batch, K)) for name in names}
    logs = {n: x if n == "reward" else x - np.log(np.exp(x).sum(-1, keepdims=True)) for n, x in drawn.items()}
    return {name: jnp.asarray(x, dtype) for name, x in logs.items()}, numbers


@EACH_FUNCTION
def test_vmap_and_a_batch_equal_a_loop(function):
    arrays, numbers = arguments(function, batch=(3,))
    call = jax.jit(lambda a: function(**a, **numbers))
    rows = [call({n: x[i] for n, x in arrays.items()}) for i in range(3)]
    np.testing.assert_allclose(jax.jit(jax.vmap(call))(arrays), rows, rtol=1e-13)
    np.testing.assert_allclose(call(arrays), rows, rtol=1e-13)
    grid = call({name: x if i else x[:, None] for i, (name, x) in enumerate(arrays.items())})
    assert grid.shape[:2] == (3, 3)
    for i in range(3):
        np.testing.assert_allclose(grid[i, i], rows[i], rtol=1e-13)


@EACH_FUNCTION
def test_float32_in_is_float32_out_and_accurate(function):
    arrays, numbers = arguments(function, dtype=jnp.float32)
    single = function(**arrays, **numbers)
    assert single.dtype == jnp.float32
    double = function(**{n: x.astype(jnp.float64) for n, x in arrays.items()}, **numbers)
    np.testing.assert_allclose(single, double, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("function", "name"), LOG_PROBS)
def test_integer_array_is_a_type_error_that_names_it(function, name, as_installed):
    arrays, numbers = arguments(function)
    arrays[name] = jnp.arange(K)
    wanted = "(be a floating array|hold log-probabilities over the outcomes)"
    with pytest.raises(TypeError, match=rf"^{name} must {wanted}, got int64 of shape \({K},\)"):
        function(**arrays, **numbers)


@pytest.mark.parametrize(("function", "name"), ARRAYS)
@pytest.mark.parametrize("outcomes", [1, K + 1])
def test_other_outcome_count_is_a_value_error_that_names_it(function, name, outcomes, as_installed):
    arrays, numbers = arguments(function)
    arrays[name] = jnp.zeros(outcomes)
    with pytest.raises(ValueError, match=rf"\b{name} has {outcomes}\b.*outcome axes must match exactly") as eager:
        function(**arrays, **numbers)
    with pytest.raises(ValueError, match=r"outcome axes must match exactly") as traced:
        jax.jit(function)(**arrays, **numbers)
    assert str(traced.value) == str(eager.value)


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_scalar_in_place_of_an_array_is_a_value_error_that_names_it(function, name, as_installed):
    arrays, numbers = arguments(function)
    arrays[name] = jnp.array(0.0)
    with pytest.raises(ValueError, match=rf"^{name} needs a non-empty outcome axis, got shape \(\)"):
        function(**arrays, **numbers)


@pytest.mark.parametrize(("function", "name"), NUMBERS)
@pytest.mark.parametrize("value", [-1, -0.5, float("nan")])
def test_negative_or_nan_number_is_a_value_error_also_under_jit(function, name, value, as_installed):
    arrays, numbers = arguments(function)
    numbers = numbers | {name: value}
    with pytest.raises(ValueError, match=rf"^{name} must be at least 0, got {value}"):
        function(**arrays, **numbers)
    with pytest.raises(ValueError, match=rf"^{name} must be at least 0, got {value}"):
        jax.jit(lambda a: function(**a, **numbers))(arrays)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (jnp.arange(3), TypeError, "params must hold floating arrays, got int"),
        ({}, ValueError, "params must hold at least one array"),
    ],
)
def test_params_that_cannot_flow_are_refused(as_installed, params, error, message):
    with pytest.raises(error, match=message):
        rz.gradient_flow(lambda log_policy: log_policy[0], params, jnp.array([0.0, 1.0]))
