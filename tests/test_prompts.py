"""Many prompts: the world by plain probabilities, exact flows against their closed forms, trainings against flows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz
from rlrazor.methods import GRPO, REINFORCE, SFT, SIMPO
from rlrazor.tasks import prompts

SIZE = prompts.Size(prompts=6, outcomes=5, correct=2)
TIMES = rz.log_times(1.0, 1e5, 40)
make = jax.jit(prompts.many_prompts, static_argnames="size")
flows_to = jax.jit(
    lambda world, level: prompts.flows_to((GRPO, REINFORCE, SIMPO, SFT), prompts.problem_of(world, 4), level, TIMES)
)


def world_at(distance, seed=0):
    return make(jax.random.key(seed), distance, 1.5, 2.0, size=SIZE)


@pytest.fixture(scope="module")
def world():
    return world_at(1.0)


@pytest.fixture(scope="module")
def runs(world):
    return flows_to(world, 0.9)


def test_bases_and_teachers_are_distributions(world):
    accept = np.asarray(world.accept)
    np.testing.assert_array_equal(accept, np.tile([True, True, False, False, False], (6, 1)))
    for log_probs, support in (
        (world.log_ref, accept | ~accept),
        (world.log_chosen, accept),
        (world.log_rejected, ~accept),
    ):
        probabilities = np.exp(log_probs)
        np.testing.assert_allclose(probabilities.sum(-1), 1.0, rtol=1e-12)
        np.testing.assert_array_equal(probabilities > 0, support)


def test_the_teacher_moves_from_the_base_along_the_e_geodesic():
    near, middle, far = (world_at(distance) for distance in (0.0, 0.3, 1.0))
    base = np.exp(near.log_ref)
    for chosen, mask in ((near.log_chosen, near.accept), (near.log_rejected, ~near.accept)):
        own = np.where(mask, base, 0)
        np.testing.assert_allclose(np.exp(chosen), own / own.sum(-1, keepdims=True), rtol=1e-12)
    np.testing.assert_array_equal(near.log_ref, far.log_ref)
    mixed = np.exp(0.7 * near.log_chosen[:, :2] + 0.3 * far.log_chosen[:, :2])
    np.testing.assert_allclose(np.exp(middle.log_chosen[:, :2]), mixed / mixed.sum(-1, keepdims=True), rtol=1e-12)
    assert np.abs(far.log_chosen - near.log_chosen)[:, :2].max() > 0.5


def test_the_bases_have_the_ability_that_was_asked_for():
    wide = make(jax.random.key(1), 1.0, 1.5, 2.0, size=prompts.Size(4000, 5, 2))
    success = np.asarray(rz.success_rate(wide.log_ref, wide.accept))
    odds = np.log(success / (1 - success))
    assert abs(odds.mean()) < 4 * 1.5 / np.sqrt(4000)
    np.testing.assert_allclose(odds.std(), 1.5, rtol=0.05)


@pytest.mark.parametrize("correct", [0, 5])
def test_there_must_be_something_to_learn(correct):
    with pytest.raises(ValueError, match="some of the outcomes must be correct"):
        prompts.many_prompts(jax.random.key(0), 1.0, 1.5, 2.0, prompts.Size(6, 5, correct))


def test_flows_stop_at_the_level_with_the_drift_of_their_last_policy(runs):
    for run in runs.values():
        np.testing.assert_allclose(run.success[-1], 0.9, atol=1e-6)
        assert run.drift[0] < 1e-15
        assert run.drift_at_level == run.drift[-1] > 0.01


def test_a_flow_that_does_not_arrive_has_no_drift_at_the_level(world):
    early = prompts.flows_to((SFT,), prompts.problem_of(world, 4), 0.9, jnp.array([0.0, 0.1]))[SFT]
    assert np.isnan(early.drift_at_level)
    assert 0 < early.drift[-1] < 0.01


def test_sft_follows_an_euler_integration_of_its_own(world, runs):
    """Logits of every prompt move by (target - policy) / prompts."""
    target, accept, step = np.exp(world.log_chosen), np.asarray(world.accept), 0.01
    logits = start = np.asarray(world.log_ref)
    success = 0.0
    while success < 0.9:
        policy = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        success = (policy * accept).sum(-1).mean()
        logits = logits + step * (target - policy) / len(policy)
    drift = (np.exp(start) * (start - np.log(policy))).sum(-1).mean()
    np.testing.assert_allclose(runs[SFT].drift_at_level, drift, rtol=2e-3)


def test_on_a_single_prompt_policy_gradients_run_along_their_closed_form(world):
    single = prompts.one_prompt(world, 0.5)
    success = np.asarray(rz.success_rate(world.log_ref, world.accept))
    chosen = np.abs(success - 0.5).argmin()
    np.testing.assert_array_equal(single.log_ref, np.tile(world.log_ref[chosen], (6, 1)))
    np.testing.assert_array_equal(single.log_chosen, np.tile(world.log_chosen[chosen], (6, 1)))
    path = rz.success_gradient_path(world.log_ref[chosen], world.accept[chosen], jnp.linspace(0, 1, 20_001)[:-1])
    along = np.asarray(rz.success_rate(path, world.accept[chosen][None]))
    expected = np.interp(0.9, along, rz.kl_divergence(world.log_ref[chosen][None], path))
    runs = flows_to(single, 0.9)
    np.testing.assert_allclose(runs[REINFORCE].drift_at_level, expected, rtol=1e-5)
    np.testing.assert_allclose(runs[GRPO].drift_at_level, expected, rtol=1e-5)
    assert abs(runs[SFT].drift_at_level - expected) > 1e-3


def test_trainings_on_samples_follow_the_flows(world, runs):
    @jax.jit
    def train(keys):
        return jax.vmap(
            lambda key: prompts.train_to(
                (GRPO, REINFORCE, SIMPO, SFT), prompts.problem_of(world, 4), 0.9, 0.5, key, num_steps=800
            )
        )(keys)

    sampled = train(jax.random.split(jax.random.key(6), 8))
    for method in (GRPO, REINFORCE, SIMPO, SFT):
        drift = np.asarray(sampled[method].drift_at_level)
        assert np.all(np.isfinite(drift))
        error = drift.std(ddof=1) / np.sqrt(8)
        assert abs(drift.mean() - runs[method].drift_at_level) < 4 * error + 0.03
        np.testing.assert_allclose(sampled[method].success[:, 0], runs[method].success[0], rtol=1e-12)
    assert sampled[SFT].success.shape == (8, 801)
