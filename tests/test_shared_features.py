"""The world of shared features: steps written out by hand, finite differences, flows, and what overlap decides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlrazor.divergences import kl_divergence
from rlrazor.flows import gradient_flows
from rlrazor.forgetting import success_rate
from rlrazor.methods import GRPO, ORACLE_SFT, REINFORCE, SFT_1, demonstrator, exact_loss, exact_losses
from rlrazor.policies import linear_softmax_policy
from rlrazor.tasks.shared_features import METHODS, evaluate, fine_tune, first_prompts, make_world, new_task

SIZES = {"num_prompts": 6, "num_features": 4, "num_outcomes": 5, "num_correct": 2}
EVERYONE = first_prompts(6.0, 6)


def world_at(overlap, seed=0):
    return make_world(jax.random.key(seed), overlap, scale=1.5, teacher_scale=2.0, **SIZES)


def numpy_policy(weights, inputs):
    logits = np.asarray(inputs) @ np.asarray(weights)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


@pytest.mark.parametrize("overlap", [0.0, 0.3, 1.0])
def test_inputs_have_length_one_and_the_overlap_in_the_old_features(overlap):
    world = world_at(overlap)
    old, new = np.asarray(world.old), np.asarray(world.new)
    np.testing.assert_allclose(np.linalg.norm(old, axis=1), 1)
    np.testing.assert_allclose(np.linalg.norm(new, axis=1), 1)
    np.testing.assert_allclose((new[:, :4] ** 2).sum(1), overlap, atol=1e-15)
    assert not old[:, 4:].any()
    np.testing.assert_array_equal(np.asarray(world.accept).sum(1), 2)


def test_the_teacher_is_always_correct_and_sft_1_imitates_its_likeliest_answer():
    world = world_at(0.5)
    np.testing.assert_allclose(success_rate(world.log_teacher, world.accept), 1)
    label = np.exp(demonstrator(SFT_1, new_task(world)))
    np.testing.assert_array_equal(label.argmax(-1), np.asarray(world.log_teacher).argmax(-1))
    np.testing.assert_array_equal(label.max(-1), 1)


@pytest.mark.parametrize("method", METHODS)
def test_one_update_is_the_finite_difference_of_the_loss(method):
    world = world_at(0.4)
    loss = exact_loss(method, new_task(world))
    prompts = first_prompts(3.0, 6)
    direction = jax.random.normal(jax.random.key(1), world.weights.shape)

    def mean_loss(weights):
        return float(prompts @ loss(linear_softmax_policy(weights, world.new)))

    step = 1e-5
    slope = (mean_loss(world.weights + step * direction) - mean_loss(world.weights - step * direction)) / (2 * step)
    gradient = jax.grad(lambda w: prompts @ loss(linear_softmax_policy(w, world.new)))(world.weights)
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-9)
    after = world.weights - 0.7 * gradient
    checkpoint = fine_tune(world, {method: loss}, prompts, 0.7, jnp.array([1]))[method]
    np.testing.assert_allclose(checkpoint.old_success, evaluate(world, after, prompts).old_success, rtol=1e-12)


def test_a_step_moves_old_logits_by_the_products_of_the_inputs():
    world, rate = world_at(0.6), 2.0
    p = numpy_policy(world.weights, world.new)
    accept = np.asarray(world.accept, float)
    ascent = p * (accept - (p * accept).sum(-1, keepdims=True)) / 6  # of the mean success rate, in the logits
    moved = np.asarray(world.old) @ np.asarray(world.weights) + rate * np.asarray(world.old @ world.new.T) @ ascent
    moved = np.exp(moved) / np.exp(moved).sum(-1, keepdims=True)
    before = numpy_policy(world.weights, world.old)
    end = fine_tune(world, exact_prompt_losses(world, REINFORCE), EVERYONE, rate, jnp.array([1]))[REINFORCE]
    right = before.argmax(-1)
    rows = np.arange(6)
    assert float(end.forgetting[0]) == pytest.approx((before[rows, right] - moved[rows, right]).mean(), rel=1e-10)
    assert float(end.old_drift.forward[0]) == pytest.approx((before * np.log(before / moved)).sum(-1).mean(), rel=1e-9)
    assert float(end.old_drift.reverse[0]) == pytest.approx((moved * np.log(moved / before)).sum(-1).mean(), rel=1e-9)


def exact_prompt_losses(world, *methods):
    task = new_task(world)
    return {method: exact_loss(method, task) for method in methods}


def test_without_overlap_nothing_is_forgotten_and_the_new_task_is_learned():
    world = world_at(0.0)
    trained = fine_tune(world, exact_prompt_losses(world, *METHODS), EVERYONE, 5.0, jnp.array([0, 20, 200]))
    for method in METHODS:
        np.testing.assert_array_equal(trained[method].forgetting, 0)
        np.testing.assert_array_equal(trained[method].old_drift.forward, 0)
        assert trained[method].success[-1] > trained[method].success[0] + 0.1
        assert trained[method].drift.forward[-1] > 0.01


def test_at_full_overlap_the_same_inputs_forget_exactly_what_they_learn():
    """Where old and new inputs are one and the same, both drifts and success rates are, too."""
    world = world_at(1.0)
    same = world._replace(
        old=world.new,
        accept=linear_softmax_policy(world.weights, world.new)
        < linear_softmax_policy(world.weights, world.new).max(-1, keepdims=True),
    )
    for method, end in fine_tune(
        same, exact_prompt_losses(same, REINFORCE, ORACLE_SFT), EVERYONE, 3.0, jnp.array([1, 9])
    ).items():
        np.testing.assert_allclose(end.old_drift, end.drift, rtol=1e-12, err_msg=method)
        np.testing.assert_allclose(end.old_success, 1 - end.success, rtol=1e-12, err_msg=method)
        assert (end.forgetting > 0.01).all()


def test_small_steps_follow_the_flow():
    world, time = world_at(0.5), 3.0
    task, methods = new_task(world), (SFT_1, GRPO)

    def policy(weights):
        return linear_softmax_policy(weights, world.new)

    flows = gradient_flows(exact_losses(methods, task), world.weights, jnp.array([0.0, time]), policy=policy)
    errors = []
    for steps in (100, 200):
        ends = fine_tune(world, exact_prompt_losses(world, *methods), EVERYONE, time / steps, jnp.array([steps]))
        exact = {m: evaluate(world, flows[m].params[-1], EVERYONE) for m in methods}
        errors.append([abs(float(ends[m].old_success[0] - exact[m].old_success)) for m in methods])
        assert max(errors[-1]) < 0.01
    np.testing.assert_allclose(np.divide(*errors), 2, rtol=0.2)  # Euler's method is of first order


def test_what_is_evaluated_are_the_prompts_that_are_trained_on():
    world = world_at(0.5)
    weights = world.weights + jax.random.normal(jax.random.key(3), world.weights.shape)
    found = evaluate(world, weights, first_prompts(2.0, 6))
    new, base = (linear_softmax_policy(w, world.new[:2]) for w in (weights, world.weights))
    assert float(found.success) == pytest.approx(float(success_rate(new, world.accept[:2]).mean()))
    assert float(found.drift.forward) == pytest.approx(float(kl_divergence(base, new).mean()))
    assert float(found.drift.reverse) == pytest.approx(float(kl_divergence(new, base).mean()))


def test_lengths_rates_and_overlaps_are_traced():
    traces = []

    @jax.jit
    def forgotten(overlap, rate, steps):
        traces.append(0)
        world = world_at(overlap)
        return fine_tune(world, exact_prompt_losses(world, REINFORCE), EVERYONE, rate, steps)[REINFORCE].forgetting

    for overlap, rate, steps in ((0.1, 1.0, (1, 2)), (0.9, 3.0, (5, 50))):
        assert forgotten(jnp.array(overlap), jnp.array(rate), jnp.array(steps)).shape == (2,)
    assert len(traces) == 1


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"num_correct must lie in 1, .* 4, got 5"):
        make_world(jax.random.key(0), 0.5, scale=1.0, teacher_scale=1.0, **SIZES | {"num_correct": 5})
    with pytest.raises(ValueError, match="losses must hold at least one"):
        fine_tune(world_at(0.5), {}, EVERYONE, 1.0, jnp.array([1]))
