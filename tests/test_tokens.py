"""Answers made of tokens: what a sample is, which samples count, and what a loss on tokens misses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz

LOG_PROB, OTHER = jnp.log(jax.random.uniform(jax.random.key(0), (2, 3, 5)))
ADVANTAGE = jax.random.normal(jax.random.key(1), (3, 5))
MASK = jnp.array([[True, False, True, True, False], [True] * 5, [False] * 5])
LOSSES = {
    "reinforce_loss": lambda x, mask=None: rz.reinforce_loss(x, ADVANTAGE[: len(x), : x.shape[-1]], mask=mask),
    "ppo_clip_loss": lambda x, mask=None: rz.ppo_clip_loss(
        x, OTHER[: len(x), : x.shape[-1]], ADVANTAGE[: len(x), : x.shape[-1]], 0.2, mask=mask
    ),
    "kl_penalty_loss": lambda x, mask=None: rz.kl_penalty_loss(x, OTHER[: len(x), : x.shape[-1]], mask=mask),
}
EVERY_LOSS = pytest.mark.parametrize("name", LOSSES)


@EVERY_LOSS
def test_a_mask_counts_what_it_says(name):
    counted = {"reinforce_loss": (ADVANTAGE,), "ppo_clip_loss": (OTHER, ADVANTAGE), "kl_penalty_loss": (OTHER,)}[name]
    extra = (0.2,) if name == "ppo_clip_loss" else ()
    got = LOSSES[name](LOG_PROB, MASK)
    rows = [getattr(rz, name)(LOG_PROB[i][MASK[i]], *(x[i][MASK[i]] for x in counted), *extra) for i in range(2)]
    np.testing.assert_allclose(got[:2], rows, rtol=1e-13)
    assert got[2] == 0.0
    np.testing.assert_allclose(LOSSES[name](LOG_PROB, jnp.ones_like(MASK)), LOSSES[name](LOG_PROB), rtol=1e-14)


@EVERY_LOSS
@pytest.mark.parametrize("padding", [-jnp.inf, jnp.nan, 0.0])
def test_what_does_not_count_has_no_gradient_whatever_it_is(name, padding):
    padded = jnp.where(MASK, LOG_PROB, padding)
    gradient = jax.jit(jax.grad(lambda x: LOSSES[name](x, MASK).sum()))(padded)
    assert not gradient[~MASK].any()
    want = jax.grad(lambda x: LOSSES[name](x, MASK).sum())(LOG_PROB)
    np.testing.assert_allclose(gradient[MASK], want[MASK], rtol=1e-13)
    assert np.abs(want[MASK]).max() > 0.1


def test_one_mask_for_every_row_and_one_advantage_for_every_token():
    """An advantage for each answer and a mask over its tokens: GRPO's mean over the tokens of each answer."""
    got = rz.reinforce_loss(LOG_PROB, ADVANTAGE[:, :1], mask=MASK[0])
    want = -ADVANTAGE[:, 0] * LOG_PROB[:, [0, 2, 3]].mean(-1)
    np.testing.assert_allclose(got, want, rtol=1e-13)


def test_answers_of_unequal_length_are_summed_over_their_own_tokens():
    sums = rz.sequence_log_prob(jnp.where(MASK, LOG_PROB, jnp.nan), MASK)
    np.testing.assert_allclose(sums, [LOG_PROB[0, [0, 2, 3]].sum(), LOG_PROB[1].sum(), 0.0], rtol=1e-14)
    gradient = jax.grad(lambda x: rz.sequence_log_prob(x, MASK).sum())(jnp.where(MASK, LOG_PROB, jnp.nan))
    np.testing.assert_array_equal(gradient, MASK.astype(float))


def test_log_prob_takes_one_outcome_of_each_policy():
    log_policy = jax.nn.log_softmax(LOG_PROB)
    index = jnp.array([4, 0, 2])
    np.testing.assert_array_equal(rz.log_prob(log_policy, index), log_policy[jnp.arange(3), index])
    several = rz.log_prob(log_policy[:, None], jnp.array([[0, 1], [2, 3], [4, 0]]))
    np.testing.assert_array_equal(several, np.take_along_axis(log_policy, np.array([[0, 1], [2, 3], [4, 0]]), -1))
    assert np.isnan(rz.log_prob(log_policy[0], jnp.array([-1, 5]))).all()
    gradient = jax.grad(lambda x: jnp.nansum(rz.log_prob(x, jnp.array([1, 7, 2]))))(log_policy)
    np.testing.assert_array_equal(gradient.sum(-1), [1.0, 0.0, 1.0])


# Two tokens, enumerated: the first decides which distribution the second has


def two_tokens(logits):
    """Log-probabilities of the tokens of all four answers, `[answers, tokens]`, from three logits."""
    first, *second = (jax.nn.log_softmax(jnp.stack([logit, jnp.zeros_like(logit)])) for logit in logits)
    return jnp.stack([jnp.stack([first[i], second[i][j]]) for i in range(2) for j in range(2)])


LOGITS, LOG_REF = jnp.array([0.4, -0.8, 1.3]), two_tokens(jnp.array([-0.5, 0.9, 0.2]))


def test_the_kl_penalty_is_exact_on_answers_and_another_loss_on_tokens():
    chance = jnp.exp(two_tokens(LOGITS).sum(-1))

    def gradient(loss):
        return np.asarray(jax.grad(lambda logits: chance @ loss(two_tokens(logits)))(LOGITS))

    exact = jax.grad(lambda x: rz.kl_divergence(two_tokens(x).sum(-1), LOG_REF.sum(-1)))(LOGITS)
    ones = jnp.ones((4, 2), bool)
    answers = gradient(lambda x: rz.kl_penalty_loss(rz.sequence_log_prob(x, ones)[:, None], LOG_REF.sum(-1)[:, None]))
    np.testing.assert_allclose(answers, exact, rtol=0, atol=1e-14)
    tokens = gradient(lambda x: 2 * rz.kl_penalty_loss(x, LOG_REF, mask=ones))
    np.testing.assert_allclose(tokens[1:], exact[1:], rtol=0, atol=1e-14)  # nothing follows the second token
    assert abs(tokens[0] - exact[0]) > 0.05


def test_the_policy_gradient_is_the_same_on_tokens_up_to_their_number():
    advantage = jnp.array([[1.0], [0.0], [-2.0], [0.5]])
    tokens = rz.reinforce_loss(two_tokens(LOGITS), advantage)
    answers = rz.reinforce_loss(two_tokens(LOGITS).sum(-1)[:, None], advantage)
    np.testing.assert_allclose(2 * tokens, answers, rtol=1e-14)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: rz.kl_penalty_loss(LOG_PROB, OTHER, mask=MASK.astype(float)), TypeError, "mask must be a boolean"),
        (lambda: rz.reinforce_loss(LOG_PROB, 1, mask=MASK[:, :4]), ValueError, "mask has 4 samples"),
        (lambda: rz.ppo_clip_loss(LOG_PROB, OTHER, 1, 0.2, mask=MASK[:2]), ValueError, r"mask \(2,\)"),
        (lambda: rz.sequence_log_prob(LOG_PROB, MASK[:, :4]), ValueError, r"log_prob \(3, 5\) and mask \(3, 4\)"),
        (lambda: rz.sequence_log_prob(LOG_PROB, MASK.astype(int)), TypeError, "mask must be a boolean"),
        (lambda: rz.log_prob(LOG_PROB, jnp.zeros(3)), TypeError, "outcome must be an integer array, got float64"),
        (lambda: rz.log_prob(LOG_PROB, jnp.zeros(4, int)), ValueError, r"log_policy \(3,\), outcome \(4,\)"),
    ],
)
def test_bad_input_is_named(as_installed, call, error, words):
    with pytest.raises(error, match=words):
        call()
