"""Discrete steps: against loops written by hand, sampled gradients in the mean, and the small-step limit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlrazor as rz
from rlrazor.training import chosen_optimizer, log_steps, newton_minimum, train, train_at

REWARD = jnp.array([0.0, 1.0, -0.5, 2.0])
LOGITS = jnp.array([0.3, -0.2, 0.1, -1.0])
KEY = jax.random.key(0)


def exact_gradient(logits, key):
    return jax.grad(lambda x: -rz.expected_reward(rz.softmax_policy(x), REWARD))(logits)


def reinforce(logits, key):
    """The descent gradient of one sampled outcome, without a baseline."""
    log_policy = rz.softmax_policy(logits)
    outcome = jax.random.categorical(key, log_policy)
    return -REWARD[outcome] * jax.grad(lambda x: rz.softmax_policy(x)[outcome])(logits)


def numpy_gradient(logits):
    p = np.exp(logits - logits.max())
    p /= p.sum()
    reward = np.asarray(REWARD)
    return -p * (reward - p @ reward)


def test_the_path_starts_at_the_initial_parameters_and_has_a_row_for_every_step():
    params = {"a": jnp.ones((2, 3)), "b": (jnp.zeros(4),)}
    path = train(lambda p, key: p, params, optax.sgd(0.1), KEY, num_steps=7)
    assert path["a"].shape == (8, 2, 3)
    assert path["b"][0].shape == (8, 4)
    np.testing.assert_array_equal(path["a"][0], params["a"])
    np.testing.assert_allclose(path["a"][-1], 0.9**7, rtol=1e-13)


def test_gradient_descent_equals_a_loop_in_numpy():
    path = train(exact_gradient, LOGITS, optax.sgd(0.4), KEY, num_steps=30)
    logits = np.asarray(LOGITS)
    for row in path:
        np.testing.assert_allclose(row, logits, atol=1e-13)
        logits = logits - 0.4 * numpy_gradient(logits)


def test_the_optimizer_state_is_carried_from_step_to_step():
    path = train(exact_gradient, LOGITS, optax.sgd(0.1, momentum=0.9), KEY, num_steps=30)
    logits, velocity = np.asarray(LOGITS), np.zeros(4)
    for row in path:
        np.testing.assert_allclose(row, logits, atol=1e-13)
        velocity = 0.9 * velocity + numpy_gradient(logits)
        logits = logits - 0.1 * velocity


@pytest.fixture
def standard_promotion():
    """Optax's counters mix integers and floats, which the strict mode of these tests forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_the_optimizer_sees_the_current_parameters(standard_promotion):
    path = train(
        lambda p, key: jnp.zeros_like(p), jnp.array([2.0]), optax.adamw(0.1, weight_decay=0.5), KEY, num_steps=3
    )
    np.testing.assert_allclose(path[:, 0], 2.0 * 0.95 ** np.arange(4), rtol=1e-12)


def test_schedules_count_the_steps(standard_promotion):
    steps = optax.piecewise_constant_schedule(1.0, {2: 0.5})
    path = train(lambda p, key: jnp.ones_like(p), jnp.array(0.0), optax.sgd(steps), KEY, num_steps=4)
    np.testing.assert_allclose(path, [0.0, -1.0, -2.0, -2.5, -3.0], rtol=1e-14)


def test_project_is_applied_after_every_update():
    def onto_the_floor(params):
        return jnp.maximum(params, 0.0)

    path = train(
        lambda p, key: jnp.ones_like(p), jnp.array(0.25), optax.sgd(0.1), KEY, num_steps=5, project=onto_the_floor
    )
    np.testing.assert_allclose(path, [0.25, 0.15, 0.05, 0.0, 0.0, 0.0], atol=1e-15)


def test_the_projected_parameters_are_the_ones_that_the_next_gradient_sees():
    path = train(
        lambda p, key: -p, jnp.array(1.0), optax.sgd(1.0), KEY, num_steps=4, project=lambda p: jnp.minimum(p, 3.0)
    )
    assert path.tolist() == [1.0, 2.0, 3.0, 3.0, 3.0]


def test_what_is_recorded_is_a_function_of_the_path():
    path = train(exact_gradient, LOGITS, optax.sgd(0.4), KEY, num_steps=6)
    kept = train(
        exact_gradient, LOGITS, optax.sgd(0.4), KEY, num_steps=6, record=lambda x: {"top": x[3], "count": jnp.array(1)}
    )
    np.testing.assert_allclose(kept["top"], path[:, 3], rtol=1e-14)
    assert kept["count"].tolist() == [1] * 7


def test_every_step_draws_its_own_randomness():
    path = train(lambda p, key: jax.random.normal(key, p.shape), jnp.zeros(()), optax.sgd(1.0), KEY, num_steps=50)
    assert len(set(np.diff(path).round(12).tolist())) == 50


def test_the_same_key_gives_the_same_path_and_another_key_another():
    one, again = (train(reinforce, LOGITS, optax.sgd(0.5), KEY, num_steps=10) for _ in range(2))
    other = train(reinforce, LOGITS, optax.sgd(0.5), jax.random.key(1), num_steps=10)
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_sampled_steps_follow_the_exact_step_in_the_mean():
    keys = jax.random.split(jax.random.key(3), 40_000)
    paths = jax.jit(jax.vmap(lambda key: train(reinforce, LOGITS, optax.sgd(0.5), key, num_steps=1)))(keys)
    steps = np.asarray(paths[:, 1] - paths[:, 0])
    exact = -0.5 * numpy_gradient(np.asarray(LOGITS))
    standard_error = steps.std(0, ddof=1) / np.sqrt(len(keys))
    assert np.all(np.abs(steps.mean(0) - exact) < 4 * standard_error)
    assert np.all(np.abs(exact) > 4 * standard_error)  # else the test could not tell them from zero


def test_vmap_over_learning_rates_and_keys_equals_the_single_runs():
    rates, keys = jnp.array([0.1, 1.0]), jax.random.split(KEY, 3)

    def run(rate, key):
        return train(reinforce, LOGITS, optax.sgd(rate), key, num_steps=6)

    paths = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(rates, keys)
    assert paths.shape == (2, 3, 7, 4)
    for i, j in ((0, 0), (0, 2), (1, 1)):
        np.testing.assert_allclose(paths[i, j], run(rates[i], keys[j]), atol=1e-13)


def test_no_steps_return_the_initial_parameters_alone(standard_promotion):
    path = train(exact_gradient, LOGITS, optax.adam(0.1), KEY, num_steps=0)
    np.testing.assert_array_equal(path, LOGITS[None])


def test_a_negative_number_of_steps_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="num_steps must be at least 0, got -1"):
        train(exact_gradient, LOGITS, optax.sgd(0.1), KEY, num_steps=-1)


def test_float32_parameters_stay_float32(standard_promotion):
    path = train(lambda p, key: p, jnp.ones(3, jnp.float32), optax.adam(0.1), KEY, num_steps=2)
    assert path.dtype == jnp.float32


def test_small_steps_converge_to_the_gradient_flow_at_first_order():
    end = 2.0

    def objective(log_policy):
        return -rz.expected_reward(log_policy, REWARD)

    flow = jax.jit(lambda x: rz.gradient_flow(objective, x, jnp.array([end]), tolerance=1e-11))(LOGITS)
    errors = []
    for num_steps in (100, 200, 400):
        path = train(exact_gradient, LOGITS, optax.sgd(end / num_steps), KEY, num_steps=num_steps)
        errors.append(float(jnp.abs(path[-1] - flow.params[-1]).max()))
    assert 1e-5 < errors[-1] < errors[0] < 1e-2
    np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 2.0, rtol=0.03)


def test_train_at_is_train_at_its_steps():
    """Exact gradients know no key, so both take the same path."""
    optimizer, steps = optax.sgd(0.3, momentum=0.9), jnp.array([0, 1, 5, 12])
    path = train(exact_gradient, LOGITS, optimizer, KEY, num_steps=12)
    some = train_at(lambda x, key, _: exact_gradient(x, key), LOGITS, optimizer, KEY, steps)
    np.testing.assert_allclose(some, path[steps], rtol=1e-12, atol=1e-15)


def test_train_at_knows_the_step_and_has_its_own_key_for_it():
    optimizer = optax.sgd(1.0)
    steps = jnp.array([1, 3])
    by_step = train_at(lambda x, key, step: -step.astype(float), jnp.array(0.0), optimizer, KEY, steps)
    assert by_step.tolist() == [0.0, 0.0 + 1 + 2]
    drawn = train_at(lambda x, key, _: -jax.random.uniform(key), jnp.array(0.0), optimizer, KEY, jnp.array([1, 2, 3]))
    want = np.cumsum([float(jax.random.uniform(jax.random.fold_in(KEY, i))) for i in range(3)])
    np.testing.assert_allclose(drawn, want, rtol=1e-12)


def test_train_at_records_what_is_asked():
    found = train_at(
        lambda x, key, _: x, jnp.ones(3), optax.sgd(0.5), KEY, jnp.array([0, 2]), record=lambda x: {"sum": x.sum()}
    )
    assert found["sum"].tolist() == [3.0, 0.75]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_chosen_optimizer_is_that_optimizer(index):
    optimizers = (optax.sgd(0.3), optax.sgd(0.3, momentum=0.9), optax.adam(0.1))
    steps = jnp.array([0, 1, 2, 10])

    @jax.jit
    def path(index):
        chosen = chosen_optimizer(index, optimizers)
        return train_at(lambda x, key, _: exact_gradient(x, key), LOGITS, chosen, KEY, steps)

    want = train_at(lambda x, key, _: exact_gradient(x, key), LOGITS, optimizers[index], KEY, steps)
    np.testing.assert_allclose(path(jnp.array(index)), want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("last", "num"), [(1, 1), (7, 7), (8, 5), (1600, 16), (10_000, 9)])
def test_log_steps_increase_to_the_last(last, num):
    steps = log_steps(last, num)
    assert len(steps) == num + 1
    assert (steps[0], steps[-1]) == (0, last)
    assert (np.diff(steps) > 0).all()
    late = steps[steps > 20]
    if len(late) > 2:
        assert np.ptp(np.diff(np.log(late))) < 0.1  # evenly spaced where whole numbers allow


@pytest.mark.parametrize(("last", "num"), [(3, 4), (3, 0)])
def test_too_many_log_steps_are_an_error(as_installed, last, num):
    with pytest.raises(ValueError, match=f"num must be from 1 to last 3, got {num}"):
        log_steps(last, num)


@pytest.mark.parametrize("start", [0.0, 3.0])
def test_newtons_minimum_is_where_the_gradient_vanishes_with_the_mean_of_the_start(start):
    target, x = jnp.array([0.9, 0.09, 0.01]), jnp.array([0.0, start, -start]) + 1.0
    end = newton_minimum(lambda x: -target @ jax.nn.log_softmax(x), x, num_steps=40)
    np.testing.assert_allclose(jax.nn.softmax(end), target, rtol=1e-10)
    np.testing.assert_allclose(end.mean(), 1.0, rtol=1e-10)
