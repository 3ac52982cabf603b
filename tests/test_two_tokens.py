"""Distillation of two tokens: whole answers by enumeration, expected losses, and where trainings end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz
from rlrazor.tasks import two_tokens
from rlrazor.tasks.two_tokens import DIRECTIONS, FORWARD, REVERSE, ROLLOUTS, STUDENT, TEACHER


@pytest.fixture(scope="module")
def world():
    make = jax.jit(two_tokens.random_world, static_argnames=("num_prompts", "vocabulary"))
    return make(jax.random.key(3), 0.3, 0.15, num_prompts=5, vocabulary=4)


@pytest.fixture(scope="module")
def student(world):
    return two_tokens.policy(world.base)


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


def test_answers_are_products_of_tokens(student):
    first, second = np.exp(student.first), np.exp(student.second)
    answers = np.exp(two_tokens.answers(student))
    for prompt, y1, y2 in np.ndindex(5, 4, 4):
        np.testing.assert_allclose(answers[prompt, 4 * y1 + y2], first[prompt, y1] * second[prompt, y1, y2], rtol=1e-12)
    np.testing.assert_allclose(answers.sum(-1), 1.0, rtol=1e-12)


def test_the_teacher_is_its_tilt_and_knows_nothing_of_the_base(world):
    answers, correct = np.exp(two_tokens.answers(world.teacher)), np.asarray(world.correct)
    np.testing.assert_allclose(answers.sum(-1), 1.0, rtol=1e-12)
    flat = answers * np.exp(-correct / 0.15)  # without the tilt: an autoregressive softmax of normal logits
    joint = (flat / flat.sum(-1)[:, None]).reshape(5, 4, 4)
    assert (answers * correct).sum(-1).min() > 0.9
    make = jax.jit(two_tokens.random_world, static_argnames=("num_prompts", "vocabulary"))
    cold = make(jax.random.key(3), 0.3, 1e6, num_prompts=5, vocabulary=4)
    np.testing.assert_allclose(np.exp(two_tokens.answers(cold.teacher)).reshape(5, 4, 4), joint, rtol=1e-4)
    np.testing.assert_array_equal(cold.base.second, world.base.second)
    assert abs(np.corrcoef(np.ravel(world.base.second), np.ravel(world.teacher.second))[0, 1]) < 0.5


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("rollouts", ROLLOUTS)
def test_the_loss_is_the_sum_of_token_kls_at_prefixes_of_the_author(world, student, direction, rollouts):
    """At quantiles on a fine grid the mean over prefixes is the expectation over the author's first token."""
    quantiles = jnp.tile((jnp.arange(20_000.0) + 0.5) / 20_000, (5, 1))
    loss = two_tokens.token_loss(student, world.teacher, direction, rollouts, quantiles)
    pair = (world.teacher, student) if direction == FORWARD else (student, world.teacher)
    (p, p_next), (q, q_next) = (map(np.exp, tokens) for tokens in pair)
    author = np.exp(student.first if rollouts == STUDENT else world.teacher.first)
    np.testing.assert_allclose(loss, kl(p, q) + (author * kl(p_next, q_next)).sum(-1), rtol=1e-3)


@pytest.mark.parametrize(("direction", "rollouts"), [(FORWARD, TEACHER), (REVERSE, STUDENT)])
def test_where_the_author_is_the_first_argument_it_is_the_kl_of_whole_answers(world, student, direction, rollouts):
    whole = [np.exp(two_tokens.answers(tokens)) for tokens in (world.teacher, student)]
    expected = kl(*whole) if direction == FORWARD else kl(*whole[::-1])
    quantiles = jnp.tile((jnp.arange(20_000.0) + 0.5) / 20_000, (5, 1))
    loss = two_tokens.token_loss(student, world.teacher, direction, rollouts, quantiles)
    np.testing.assert_allclose(loss, expected, rtol=1e-3)


@pytest.mark.parametrize(("direction", "rollouts", "agrees"), [(FORWARD, TEACHER, True), (REVERSE, STUDENT, False)])
def test_its_gradient_is_that_of_whole_answers_for_the_forward_kl_only(world, direction, rollouts, agrees):
    quantiles = jnp.tile((jnp.arange(5000.0) + 0.5) / 5000, (5, 1))
    target = two_tokens.answers(world.teacher)

    def tokens(params):
        return two_tokens.token_loss(two_tokens.policy(params), world.teacher, direction, rollouts, quantiles).sum()

    def whole(params):
        policy = two_tokens.answers(two_tokens.policy(params))
        pair = (target, policy) if direction == FORWARD else (policy, target)
        return rz.kl_divergence(*pair).sum()

    ours, theirs = jax.jit(jax.grad(tokens))(world.base), jax.jit(jax.grad(whole))(world.base)
    assert np.allclose(ours.first, theirs.first, rtol=0, atol=5e-3) == agrees
    np.testing.assert_allclose(ours.second, theirs.second, rtol=0, atol=5e-3)


def test_a_misspelt_direction_is_an_error(world, student):
    with pytest.raises(ValueError, match="forward KL, reverse KL and student, teacher"):
        two_tokens.token_loss(student, world.teacher, "forward", STUDENT, jnp.full((5, 2), 0.5))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("rollouts", ROLLOUTS)
def test_every_training_ends_near_the_teacher_and_drifts_on_the_way(world, direction, rollouts):
    lengths = {"group_size": 16, "num_steps": 400}

    @jax.jit
    def train(key):
        return two_tokens.distill(world, direction, rollouts, 0.8, 0.1, key, **lengths)

    run = train(jax.random.key(4))
    teacher = (np.exp(two_tokens.answers(world.teacher)) * world.correct).sum(-1).mean()
    np.testing.assert_allclose(run.success[-1], teacher, atol=0.02)
    base = (np.exp(two_tokens.answers(two_tokens.policy(world.base))) * world.correct).sum(-1).mean()
    np.testing.assert_allclose(run.success[0], base, rtol=1e-12)
    assert run.drift[0] < 1e-15
    after = np.argmax(run.success >= 0.8)
    assert min(run.drift[after - 1 : after + 1]) <= run.drift_at_level <= max(run.drift[after - 1 : after + 1])


def test_a_level_that_is_not_reached_gives_nan(world):
    run = two_tokens.distill(world, FORWARD, TEACHER, 0.99999, 0.1, jax.random.key(5), group_size=2, num_steps=5)
    assert np.isnan(run.drift_at_level)
    assert np.all(np.isfinite(run.drift))
