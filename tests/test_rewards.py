"""0/1 rewards as people have them: booleans and integers, wherever a public function takes a reward."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz

P, Q = jax.nn.log_softmax(jnp.asarray(np.random.default_rng(0).normal(size=(2, 5))))
SUCCESS = jnp.array([True, False, False, True, False])
LOG_PROB = jnp.log(jnp.array([0.5, 0.2, 0.1, 0.4, 0.3]))
ARGUMENTS = {
    "log_policy": P,
    "log_init": P,
    "log_ref": Q,
    "log_prob": LOG_PROB,
    "log_prob_ref": Q,
    "log_pretrain": Q,
    "log_answers": Q,
    "gamma": 0.2,
    "tau": 0.3,
    "beta": 0.5,
    "betas": jnp.array([0.5, 2.0]),
    "value": 0.8,
    "budget": 0.1,
    "n": 3,
    "time": 0.7,
    "step": 0.3,
    "num_steps": 4,
    "gold": Q,
    "strengths": jnp.array([0.5, 2.0]),
}
STATIC = {"group_size": 4}
TAKERS = {
    name: function
    for name, function in vars(rz).items()
    if inspect.isfunction(function) and "reward" in inspect.signature(function).parameters
    if name not in ("tilt_tokens", "known_objectives")  # in the tests of their modules
}


def with_reward(function):
    """The function of its reward alone; a new parameter needs an entry in the table above."""
    needed = [name for name, p in inspect.signature(function).parameters.items() if p.default is p.empty]
    known = ARGUMENTS | STATIC
    return lambda reward: function(**{name: reward if name == "reward" else known[name] for name in needed})


@pytest.mark.parametrize("dtype", [bool, np.int32, np.uint8])
@pytest.mark.parametrize("name", TAKERS)
def test_whole_rewards_count_as_floating_ones(name, dtype):
    function = with_reward(TAKERS[name])
    compiled = function if name == "check_reward" else jax.jit(function)
    want = function(SUCCESS.astype(float))
    for got in (function(SUCCESS.astype(dtype)), compiled(SUCCESS.astype(dtype))):
        chex.assert_trees_all_equal_dtypes(got, want)
        chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)


def test_the_search_finds_the_takers_of_every_floor():
    assert {"check_reward", "tilt", "expected_reward", "grpo_advantage", "mirror_descent"} <= set(TAKERS)


ADVANTAGE_TAKERS = {
    "reinforce_loss": functools.partial(rz.reinforce_loss, LOG_PROB),
    "ppo_clip_loss": lambda advantage: rz.ppo_clip_loss(LOG_PROB, P, advantage, 0.2),
    "ppo_clip_objective": lambda advantage: rz.ppo_clip_objective(P, Q, advantage, 0.2),
}


@pytest.mark.parametrize("dtype", [bool, np.int32])
@pytest.mark.parametrize("loss", ADVANTAGE_TAKERS.values(), ids=ADVANTAGE_TAKERS)
def test_whole_advantages_count_as_floating_ones(loss, dtype):
    for f in (loss, jax.jit(loss)):
        np.testing.assert_allclose(f(SUCCESS.astype(dtype)), loss(SUCCESS.astype(float)), rtol=1e-12)


def test_a_whole_reward_takes_the_dtype_of_the_policy_beside_it():
    assert rz.expected_reward(P.astype(np.float32), SUCCESS).dtype == np.float32
    assert rz.reinforce_loss(LOG_PROB.astype(np.float32), SUCCESS.astype(int)).dtype == np.float32
    assert rz.grpo_advantage(SUCCESS).dtype == np.float64


def test_whole_log_probabilities_are_refused_beside_a_whole_reward(as_installed):
    for f in (rz.expected_reward, rz.reinforce_loss):
        with pytest.raises(TypeError, match=r"log_prob|log_policy"):
            f(jnp.arange(5), SUCCESS)


def test_complex_rewards_are_refused(as_installed):
    with pytest.raises(TypeError, match="reward must be a floating array, got complex"):
        rz.expected_reward(P, P.astype(complex))


@pytest.mark.parametrize("loss", [rz.reinforce_loss, lambda x, a: rz.ppo_clip_loss(x, 0 * x - 1, a, 0.2)])
def test_one_advantage_for_all_samples_is_that_advantage_for_each(loss):
    log_prob, shared = jnp.stack([LOG_PROB[:3], P[:3]]), jnp.array([[2.0], [-1.0]])
    np.testing.assert_allclose(loss(log_prob, shared), loss(log_prob, jnp.repeat(shared, 3, axis=1)), rtol=1e-14)
    for one in (1, True, 1.0, jnp.ones((1,))):
        np.testing.assert_allclose(loss(log_prob, one), loss(log_prob, jnp.ones((2, 3))), rtol=1e-14)


def test_sft_loss_of_token_ids_says_what_to_call_and_both_ways_agree(as_installed):
    log_policy, ids = jnp.stack([P, Q]), jnp.array([3, 0])
    with pytest.raises(TypeError, match=r"log_target .* reinforce_loss\(log_prob, 1\) .* point_mass\(ids"):
        rz.sft_loss(log_policy, ids)
    taken = jnp.take_along_axis(log_policy, ids[:, None], axis=-1)
    want = [-P[3], -Q[0]]
    np.testing.assert_allclose(rz.reinforce_loss(taken, 1), want, rtol=1e-14)
    np.testing.assert_allclose(rz.sft_loss(log_policy, rz.point_mass(ids, 5)), want, rtol=1e-14)


def test_grpo_advantage_is_flat_where_all_rewards_are_equal_and_has_its_slope_elsewhere():
    slopes = jax.jacobian(rz.grpo_advantage)(jnp.array([[0.1, 0.1, 0.1], [1.0, 0.0, 0.5]]))
    assert not slopes[0].any()
    h, base = 1e-6, jnp.array([1.0, 0.0, 0.5])
    for j in range(3):
        up, down = (rz.grpo_advantage(base.at[j].add(s * h)) for s in (1, -1))
        np.testing.assert_allclose(slopes[1, :, 1, j], (up - down) / (2 * h), atol=1e-8)
    assert np.isnan(rz.grpo_advantage(jnp.array([jnp.nan, 1.0]))).all()


@pytest.mark.parametrize(
    ("loss", "numbers"),
    [
        (lambda clip: rz.ppo_clip_loss(LOG_PROB, P, jnp.ones(5), clip), ((0.1, 0.2, 0.3),)),
        (lambda beta, margin: rz.simpo_loss(LOG_PROB, P, beta, margin), ((1.0, 2.0, 2.5), (0.0, 0.5, 1.0))),
    ],
)
def test_a_sweep_over_clip_or_beta_traces_once(loss, numbers):
    chex.clear_trace_counter()
    compiled = jax.jit(chex.assert_max_traces(loss, n=1))
    for row in zip(*numbers, strict=True):
        np.testing.assert_allclose(compiled(*row), loss(*row), rtol=1e-12)


def test_clip_beta_and_margin_may_differ_from_row_to_row():
    log_prob, rows = jnp.stack([LOG_PROB, P]), jnp.array([0.1, 0.6])
    ppo = rz.ppo_clip_loss(log_prob, Q, jnp.ones(5), rows)
    simpo = rz.simpo_loss(log_prob, Q, rows, rows)
    for i, number in enumerate((0.1, 0.6)):
        np.testing.assert_allclose(ppo[i], rz.ppo_clip_loss(log_prob[i], Q, jnp.ones(5), number), rtol=1e-14)
        np.testing.assert_allclose(simpo[i], rz.simpo_loss(log_prob[i], Q, number, number), rtol=1e-14)
