"""The world of "Retaining by Doing": overlaps in closed form, gradients and recursions written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from rlrazor.tasks import two_mode
from rlrazor.tasks.two_mode import Mixture
from rlrazor.training import train

BI, UNI = two_mode.bimodal_setting(), two_mode.unimodal_setting()


def closed_form_overlap(a, m1, b, m2, s):
    """∫ min(a N(m1, s), b N(m2, s)) for m1 < m2, by the crossing point."""
    crossing = (m1 + m2) / 2 + s**2 * np.log(a / b) / (m2 - m1)
    return a * scipy.stats.norm.sf((crossing - m1) / s) + b * scipy.stats.norm.cdf((crossing - m2) / s)


@pytest.mark.parametrize(
    ("old_weight", "old_mean", "new_mean"), [(0.75, -3.5, 0.5), (0.4, -3.2, 2.0), (0.7, -4.0, 3.3)]
)
def test_overlaps_match_the_closed_form_of_two_weighted_gaussians(old_weight, old_mean, new_mean):
    params = Mixture(jnp.array([old_weight]), jnp.array([old_mean, new_mean]), jnp.array([1.0, 0.7]))
    old, new = two_mode.overlaps(params, BI)
    assert float(old) == pytest.approx(closed_form_overlap(old_weight, old_mean, 0.75, -3.0, 1.0) / 0.75, abs=2e-4)
    assert float(new) == pytest.approx(closed_form_overlap(1 - old_weight, new_mean, 0.25, 3.5, 0.7) / 0.25, abs=2e-4)


def test_published_start_has_the_published_overlaps():
    bi, uni = two_mode.overlaps(BI.init, BI), two_mode.overlaps(UNI.init, UNI)
    np.testing.assert_allclose(bi, (2 * scipy.stats.norm.cdf(-0.25), 2 * scipy.stats.norm.cdf(-3 / 1.4)), atol=1e-4)
    assert float(uni[0]) == pytest.approx(0.90032, abs=1e-4)
    assert float(uni[1]) < 2e-4


def test_gain_and_drop_start_at_zero_and_the_target_gains_all():
    np.testing.assert_array_equal(two_mode.gain_and_drop(BI.init, BI), (0.0, 0.0))
    gain, drop = two_mode.gain_and_drop(BI.target, BI)
    old, new = two_mode.overlaps(BI.init, BI)
    np.testing.assert_allclose((gain, drop), (1 - new, old - 1), atol=1e-12)


def numpy_gradients(params, target, z, beta=0.1, floor=1e-12):
    """The released updates written out in NumPy, as ascent directions: forward, then reverse."""

    def normal(x, mean, scale):
        return scipy.stats.norm.pdf(x, mean, scale)

    (weight,), (m1, m2), (s1, s2) = params
    goal_mean, goal_scale = target.means[-1], target.scales[-1]

    def score(x):
        n1, n2 = normal(x, m1, s1), normal(x, m2, s2)
        q = weight * n1 + (1 - weight) * n2
        r1, r2 = weight * n1 / q, (1 - weight) * n2 / q
        return np.stack(
            [
                (n1 - n2) / q,
                r1 * (x - m1) / s1**2,
                r2 * (x - m2) / s2**2,
                r1 * ((x - m1) ** 2 / s1**3 - 1 / s1),
                r2 * ((x - m2) ** 2 / s2**3 - 1 / s2),
            ]
        )

    forward = score(goal_mean + goal_scale * z).mean(1)
    x = m2 + s2 * z
    new = (1 - weight) * normal(x, m2, s2)
    importance = (weight * normal(x, m1, s1) + new) / new
    reward = np.log(normal(x, goal_mean, goal_scale) / (new * beta) + floor)
    return forward, (reward * importance * score(x)).mean(1)


def test_published_gradients_match_the_update_written_out_in_numpy():
    params = Mixture(jnp.array([0.6]), jnp.array([-3.3, 1.2]), jnp.array([1.1, 0.8]))
    z = np.random.default_rng(0).normal(size=300)
    forward, reverse = numpy_gradients([np.asarray(leaf) for leaf in params], BI.target, z)
    for gradient, expected in (
        (two_mode.forward_kl_gradient(params, BI, jnp.array(z)), forward),
        (two_mode.reverse_kl_gradient(params, BI, jnp.array(z)), reverse),
    ):
        np.testing.assert_allclose(-jnp.concatenate(gradient), expected, rtol=1e-10)


def test_reward_without_floor_stays_finite_where_the_density_ratio_underflows():
    far = Mixture(jnp.zeros(0), jnp.array([-60.0]), jnp.array([0.5]))
    z = jnp.linspace(-2.0, 2.0, 11)
    floored = two_mode.reverse_kl_gradient(far, UNI, z, floor=1e-12)
    exact = two_mode.reverse_kl_gradient(far, UNI, z, floor=0.0)
    assert all(np.isfinite(np.concatenate([*exact, *floored])))
    assert float(exact.means[0]) < 0
    assert abs(float(floored.means[0])) < 1e-6  # a reward that is constant at its floor teaches nothing


def test_slow_factor_scales_the_old_mode_only():
    optimizer = two_mode.published_optimizer(BI.init, learning_rate=2.0, slow_factor=0.25)
    ones = jax.tree.map(jnp.ones_like, BI.init)
    updates, _ = optimizer.update(ones, optimizer.init(BI.init))
    np.testing.assert_array_equal(updates.old_weights, [-0.5])
    np.testing.assert_array_equal(updates.means, [-0.5, -2.0])
    np.testing.assert_array_equal(updates.scales, [-0.5, -2.0])


def test_unimodal_policies_are_never_slowed_down():
    optimizer = two_mode.published_optimizer(UNI.init, learning_rate=1.0, slow_factor=0.005)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, UNI.init), optimizer.init(UNI.init))
    np.testing.assert_array_equal(updates.means, [-1.0])


def test_quadrature_has_the_moments_of_a_standard_normal():
    z, weight = two_mode.quadrature()
    moments = [(weight * z**k).sum() for k in range(7)]
    np.testing.assert_allclose(moments, [1, 0, 1, 0, 3, 0, 15], atol=1e-9)


def test_forward_recursion_ends_in_the_published_weights():
    for rate, expected in ((0.15, 0.3979), (0.01, 0.7128)):
        path = two_mode.forward_kl_recursion(BI, rate, 0.005, num_steps=200)
        assert float(path.old_weights[-1, 0]) == pytest.approx(expected, abs=1e-4)


def test_forward_closed_form_of_the_weight_satisfies_its_update_to_first_order():
    rate, slow = 0.15, 0.005
    weights = np.asarray(two_mode.forward_kl_recursion(BI, rate, slow, num_steps=200).old_weights[:, 0])
    update = -rate * slow / (1 - weights[:-1])  # separated modes: the score of the weight is -1 / (1 - w)
    np.testing.assert_allclose(np.diff(weights), update, rtol=rate * slow / (1 - weights[0]) ** 2)


def test_reverse_recursion_without_floor_is_the_closed_form():
    rate, slow, beta, steps = 0.01, 0.005, 0.1, 150
    path = two_mode.reverse_kl_recursion(BI, rate, slow, steps, beta=beta, floor=0.0)
    weight, mean, scale = 0.75, 0.5, 0.7
    for _ in range(steps):
        kl = np.log(0.7 / scale) + (scale**2 + (mean - 3.5) ** 2) / (2 * 0.49) - 0.5
        expected_reward = -kl - np.log((1 - weight) * beta)
        weight -= rate * slow * expected_reward / (1 - weight)
        mean, scale = mean + rate * (3.5 - mean) / 0.49, scale + rate * (1 / scale - scale / 0.49)
    got = path.old_weights[-1, 0], path.means[-1, 1], path.scales[-1, 1]
    np.testing.assert_allclose(got, (weight, mean, scale), rtol=1e-9)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_unimodal_recursion_is_the_limit_of_many_samples(direction):
    gradient = getattr(two_mode, f"{direction}_kl_gradient")
    rate, steps = 0.01, 60
    # Stratified normals stand in for infinitely many samples.
    z = jax.scipy.special.ndtri((jnp.arange(20000.0) + 0.5) / 20000)
    path = jax.jit(
        lambda key: train(
            lambda params, _: gradient(params, UNI, z),
            UNI.init,
            two_mode.published_optimizer(UNI.init, rate, 1.0),
            key,
            num_steps=steps,
            project=two_mode.clip,
        )
    )(jax.random.key(0))
    recursion = getattr(two_mode, f"{direction}_kl_recursion")(UNI, rate, 1.0, steps)
    np.testing.assert_allclose(path.means[-1], recursion.means[-1], atol=5e-3)
    np.testing.assert_allclose(path.scales[-1], recursion.scales[-1], atol=5e-3)


def test_clip_keeps_what_is_inside_and_moves_what_is_not():
    inside = two_mode.clip(BI.init)
    np.testing.assert_array_equal(inside.old_weights, BI.init.old_weights)
    outside = two_mode.clip(Mixture(jnp.array([-1.0]), jnp.zeros(2), jnp.array([0.0, 2.0])))
    np.testing.assert_allclose(np.concatenate([outside.old_weights, outside.scales]), [1e-3, 1e-3, 2.0])


OUTCOMES = jnp.linspace(-14.0, 14.0, 300)
TIMES = jnp.linspace(0.0, 1.0, 200)
exact_flows = jax.jit(two_mode.exact_flows)  # compiled once for all tests


def bi_runs(**changed):
    options = {"direction": "reverse KL", "learning_rate": 0.01, "slow_factor": 0.005, "num_steps": 5}
    keys = jax.random.split(jax.random.key(0), 2)
    return two_mode.sampled_runs(BI, keys, **({"num_samples": 50} | options | changed))


def test_every_number_of_the_world_is_an_argument():
    target, start = ((0.6, 0.4), (-2.0, 5.5), (0.5, 0.9)), ((0.3, 0.7), (-1.0, 1.5), (1.1, 0.4))
    setting = two_mode.bimodal_setting(*target, *start, reach=9.0, num_points=50)
    for got, (weights, means, scales) in ((setting.target, target), (setting.init, start)):
        np.testing.assert_array_equal(got.old_weights, weights[:1])
        np.testing.assert_array_equal(got.means, means)
        np.testing.assert_array_equal(got.scales, scales)
    np.testing.assert_allclose(setting.grid, np.linspace(-9, 9, 50))
    alone = two_mode.unimodal_setting(*target, -1.0, 0.4, reach=9.0, num_points=50)
    np.testing.assert_array_equal(np.concatenate(alone.init), [-1.0, 0.4])


def test_density_is_that_of_scipy():
    x = np.linspace(-6, 6, 7)
    want = 0.75 * scipy.stats.norm.pdf(x, -3.5, 1.0) + 0.25 * scipy.stats.norm.pdf(x, 0.5, 0.7)
    np.testing.assert_allclose(two_mode.density(BI.init, jnp.array(x)), want, rtol=1e-12)


def test_reward_has_its_offset_far_above_and_its_floor_far_below():
    reward = two_mode.published_reward(jnp.array([-1e4, 3.0]), 0.1, 1e-12)
    np.testing.assert_allclose(reward, [np.log(1e-12), 3.0 + np.log(10)], rtol=1e-9)


@pytest.mark.parametrize("direction", two_mode.DIRECTIONS)
def test_recursion_is_the_mean_of_sampled_runs_within_their_standard_error(direction):
    options = {"direction": direction, "learning_rate": 0.005, "slow_factor": 1.0, "num_steps": 40}
    keys = jax.random.split(jax.random.key(3), 40)
    runs = two_mode.sampled_runs(UNI, keys, num_samples=4000, **options)
    recursion = two_mode.predicted_run(UNI, **options)
    for sampled, predicted in zip(runs.path[1:], recursion.path[1:], strict=True):
        ends = np.asarray(sampled[:, -1, 0])
        error = ends.std(ddof=1) / np.sqrt(ends.size)
        assert abs(ends.mean() - float(predicted[-1, 0])) < 4 * error
        assert error < 0.01 * abs(float(predicted[-1, 0] - predicted[0, 0]))  # so that the test can fail


def test_progress_along_a_path_is_that_of_each_mixture():
    path = jax.tree.map(lambda leaf: leaf[0], bi_runs(learning_rate=0.5).path)
    got = two_mode.path_gain_and_drop(path, BI)
    want = [two_mode.gain_and_drop(jax.tree.map(lambda leaf, k=k: leaf[k], path), BI) for k in range(6)]
    np.testing.assert_allclose(got, np.array(want).T, atol=1e-15)


def test_runs_stop_at_the_first_update_with_the_gain_and_nowhere_without():
    gain = np.random.default_rng(0).normal(size=(30, 9)).cumsum(1)
    drop = np.arange(270.0).reshape(30, 9)
    stop = two_mode.first_stop(two_mode.Progress(jnp.array(gain), jnp.array(drop)), 1.5)
    for row in range(30):
        first = next((k for k in range(9) if gain[row, k] >= 1.5), None)
        want = [np.nan] * 3 if first is None else [first, gain[row, first], drop[row, first]]
        before = drop[row, first - 1] if first else np.nan
        np.testing.assert_array_equal([field[row] for field in stop], [*want, before])
    assert 0 < np.isnan(stop.drop).sum() < 30


def test_summary_keeps_the_states_that_it_names():
    runs = bi_runs(learning_rate=0.1)
    seeds = two_mode.summary(runs, 2.0, every=2, num_frames=3)  # nobody gains 2
    np.testing.assert_allclose(seeds.saved.drop, runs.progress.drop[:, ::2], rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(seeds.end.gain, runs.progress.gain[:, -1])
    np.testing.assert_array_equal(seeds.frames.means, runs.path.means[0, np.array([0, 2, 5])])
    assert np.isnan(seeds.stop.update).all()


def test_rates_and_constants_are_traced():
    bi_runs(beta=0.1, floor=1e-12)
    before = two_mode.sampled_runs._cache_size()
    bi_runs(learning_rate=0.02, slow_factor=0.1, beta=0.5, floor=1e-9)
    assert two_mode.sampled_runs._cache_size() == before


@pytest.mark.parametrize("simulate", [bi_runs, lambda **changed: two_mode.predicted_run(BI, **changed)])
def test_misspelt_direction_is_named(simulate):
    with pytest.raises(ValueError, match="forward KL, reverse KL, got 'foward KL'"):
        simulate(direction="foward KL", learning_rate=0.1, slow_factor=0.1, num_steps=2)


def test_coordinates_come_back_and_need_two_components():
    for got, want in zip(two_mode.raw_mixture(two_mode.coordinates(BI.target)), BI.target, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-14)
    with pytest.raises(ValueError, match="two components"):
        two_mode.coordinates(UNI.init)


def test_targets_are_the_new_mode_and_the_published_target_on_the_outcomes():
    targets, x = two_mode.log_targets(BI, OUTCOMES), np.asarray(OUTCOMES)
    new = scipy.stats.norm.pdf(x, 3.5, 0.7)
    both = 0.75 * scipy.stats.norm.pdf(x, -3.0, 1.0) + 0.25 * new
    for name, want in ((two_mode.NEW_MODE, new), (two_mode.TILTED, both)):
        np.testing.assert_allclose(np.exp(targets[name]), want / want.sum(), rtol=1e-9, atol=1e-15)


def numpy_flow(direction, log_target, slow_factor, times):
    """The flow by SciPy's integrator and central differences of a KL written out in NumPy."""
    x, target = np.asarray(OUTCOMES), np.exp(np.asarray(log_target))

    def loss(place):
        logit, old_mean, old_log, new_mean, new_log = place
        weight = 1 / (1 + np.exp(-logit))
        policy = weight * scipy.stats.norm.pdf(x, old_mean, np.exp(old_log))
        policy = policy + (1 - weight) * scipy.stats.norm.pdf(x, new_mean, np.exp(new_log))
        policy = policy / policy.sum()
        p, q = (target, policy) if direction == "forward KL" else (policy, target)
        return (p * np.log(np.maximum(p, 1e-300) / np.maximum(q, 1e-300))).sum()

    def descent(_, place):
        steps = 1e-5 * np.eye(5)
        slope = np.array([(loss(place + step) - loss(place - step)) / 2e-5 for step in steps])
        return -slope * np.array([slow_factor] * 3 + [1.0, 1.0])

    start = np.array([np.log(3.0), -3.5, 0.0, 0.5, np.log(0.7)])
    end = scipy.integrate.solve_ivp(descent, (0, times[-1]), start, rtol=1e-8, atol=1e-9).y[:, -1]
    weight = 1 / (1 + np.exp(-end[0]))
    return np.array([weight, end[1], end[3], np.exp(end[2]), np.exp(end[4])])


@pytest.mark.parametrize("slow_factor", [0.0, 0.3])
@pytest.mark.parametrize("target", two_mode.TARGETS)
def test_exact_flow_is_scipys_gradient_flow_with_the_old_mode_slowed_down(target, slow_factor):
    log_target = two_mode.log_targets(BI, OUTCOMES)[target]
    flows = exact_flows(BI, log_target, OUTCOMES, TIMES, slow_factor=slow_factor, gain=2.0)
    for direction in two_mode.DIRECTIONS:
        end = np.concatenate([leaf[-1] for leaf in flows[direction].path])
        np.testing.assert_allclose(end, numpy_flow(direction, log_target, slow_factor, TIMES), atol=2e-5)
        assert not flows[direction].arrived
        assert np.isnan([flows[direction].drop, flows[direction].time]).all()
        if slow_factor == 0:
            np.testing.assert_allclose(flows[direction].progress.drop, 0.0, atol=1e-12)


def test_exact_flow_is_the_small_step_limit_of_the_recursion_of_sft():
    """Far modes, a frozen old one, and the new one's scale in place: both have d mean / dt = (goal - mean) / scale²."""
    setting = two_mode.bimodal_setting(init_means=(-7.0, 3.49), target_means=(-7.0, 3.5))
    log_target = two_mode.log_targets(setting, OUTCOMES)[two_mode.NEW_MODE]
    flow = exact_flows(setting, log_target, OUTCOMES, TIMES, slow_factor=0.0, gain=2.0)["forward KL"]
    run = two_mode.predicted_run(setting, direction="forward KL", learning_rate=1e-3, slow_factor=0.0, num_steps=1000)
    miss_of_flow, miss_of_run = 3.5 - flow.path.means[-1, 1], 3.5 - run.path.means[-1, 1]
    assert float(miss_of_flow) == pytest.approx(float(miss_of_run), rel=5e-3)
    assert float(miss_of_run) == pytest.approx(0.01 * np.exp(-1 / 0.49), rel=5e-3)


def test_exact_flow_stops_at_the_gain_and_its_frames_are_at_equal_gains():
    log_target = two_mode.log_targets(BI, OUTCOMES)[two_mode.NEW_MODE]
    times = 20 * TIMES
    flow = exact_flows(BI, log_target, OUTCOMES, times, slow_factor=1.0, gain=0.6)["forward KL"]
    assert bool(flow.arrived)
    assert float(flow.progress.gain[-1]) == pytest.approx(0.6, abs=1e-6)
    assert float(flow.drop) == float(flow.progress.drop[-1])
    frames = two_mode.at_gains(flow, jnp.array([0.0, 0.25, 0.5, 0.9]))
    np.testing.assert_allclose(frames.progress.gain, [0.0, 0.25, 0.5, flow.progress.gain[-1]])
    for row in range(4):
        params = jax.tree.map(lambda leaf, row=row: leaf[row], frames.params)
        at_frame = two_mode.gain_and_drop(params, BI)
        np.testing.assert_allclose(at_frame, [field[row] for field in frames.progress], atol=5e-3)
