"""Distillation into answers of two tokens: who rolls out the prefixes, in which direction of KL, at which rate.

Autoregressive policies are the smallest in which the loss of a token and the prefix that it is taken at are two
things: the loss is a KL between teacher and student, exact over the vocabulary, at prefixes that the student writes
(on-policy) or the teacher does. Piskorz et al., arXiv:2609.35259, ask which of them decides what is forgotten.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from rlrazor._numerics import normal, uniform
from rlrazor._types import Number, PerRow
from rlrazor.divergences import kl_divergence
from rlrazor.forgetting import forward_drift, value_at_crossing
from rlrazor.objectives import expected_reward
from rlrazor.policies import inverse_cdf, softmax_policy
from rlrazor.tilting import tilt
from rlrazor.training import train

FORWARD, REVERSE = "forward KL", "reverse KL"
STUDENT, TEACHER = "student", "teacher"
DIRECTIONS, ROLLOUTS = (FORWARD, REVERSE), (STUDENT, TEACHER)


class Tokens(NamedTuple):
    """A policy over two tokens, or its logits.

    Attributes:
        first: of the first token, `[prompts, vocabulary]`.
        second: of the second token after each first one, `[prompts, vocabulary, vocabulary]`.
    """

    first: Float[Array, "prompts vocabulary"]
    second: Float[Array, "prompts vocabulary vocabulary"]


class World(NamedTuple):
    """Who learns from whom, and what is correct.

    Attributes:
        base: logits of the student before training.
        teacher: log-probabilities of the teacher.
        correct: 1 for the correct answers and 0 for others, `[prompts, vocabulary²]`.
    """

    base: Tokens
    teacher: Tokens
    correct: Float[Array, "prompts answers"]


class Run(NamedTuple):
    """How far the student drifted while it learned.

    Attributes:
        success: mean success rate over prompts, `[times]`.
        drift: forward drift from the base in nats, `[times]`.
        drift_at_level: the drift where the success rate first reached the level, NaN where it never did, a scalar.
    """

    success: Float[Array, "*batch times"]
    drift: Float[Array, "*batch times"]
    drift_at_level: Float[Array, "*batch"]


def random_world(
    key: Key[Array, ""], correct_share: Number, temperature: Number, *, num_prompts: int, vocabulary: int
) -> World:
    """A base and a teacher that knows nothing of it: an unrelated policy, tilted to the correct answers.

    Logits of both are standard normal; the teacher is other(y) exp(correct(y) / temperature) / Z over the answers y.

    Args:
        key: randomness of the world.
        correct_share: probability that an answer is correct, in [0, 1].
        temperature: > 0; the lower, the more the teacher succeeds.
        num_prompts: number of prompts, static.
        vocabulary: tokens to choose from, static.

    Returns:
        The `World`.

    Example:
        >>> import jax
        >>> world = random_world(jax.random.key(0), 0.3, 0.15, num_prompts=16, vocabulary=6)
        >>> rates = expected_reward(answers(world.teacher), world.correct)
        >>> print(f"{rates.mean():.3f}")
        0.996
    """
    of_base, of_teacher, of_correct = jax.random.split(key, 3)
    shape = (num_prompts, vocabulary)
    accept = jax.random.bernoulli(of_correct, correct_share, (num_prompts, vocabulary**2))
    correct = accept.astype(float)
    log_joint = tilt(answers(policy(_normal_logits(of_teacher, shape))), correct, temperature)
    log_joint = log_joint.reshape(*shape, vocabulary)
    log_first = jax.nn.logsumexp(log_joint, axis=-1)
    return World(_normal_logits(of_base, shape), Tokens(log_first, log_joint - log_first[..., None]), correct)


def policy(logits: Tokens) -> Tokens:
    """The softmax policy of each token.

    Args:
        logits: of both tokens.

    Returns:
        Log-probabilities of both.

    Example:
        >>> import jax.numpy as jnp
        >>> jnp.exp(policy(Tokens(jnp.zeros((1, 2)), jnp.zeros((1, 2, 2)))).first).tolist()
        [[0.5, 0.5]]
    """
    return Tokens(softmax_policy(logits.first), softmax_policy(logits.second))


def answers(tokens: Tokens) -> Float[Array, "prompts answers"]:
    """The policy over whole answers, pi(y1 y2 | x) = pi(y1 | x) pi(y2 | x, y1).

    Args:
        tokens: log-probabilities of both tokens.

    Returns:
        Log-probabilities, `[prompts, vocabulary²]`, the second token last.

    Example:
        >>> import jax.numpy as jnp
        >>> tokens = policy(Tokens(jnp.log(jnp.array([[0.5, 0.5]])), jnp.log(jnp.array([[[0.8, 0.2], [0.4, 0.6]]]))))
        >>> jnp.exp(answers(tokens)).round(3).tolist()
        [[0.4, 0.1, 0.2, 0.3]]
    """
    return (tokens.first[..., None] + tokens.second).reshape(tokens.first.shape[0], -1)


def token_loss(
    student: Tokens, teacher: Tokens, direction: str, rollouts: str, quantiles: Float[Array, "..."]
) -> PerRow:
    """The token-level loss KL(first) + mean over prefixes y1 of KL(second | y1), exact over the vocabulary.

    KL is KL(teacher || student), forward, or KL(student || teacher), reverse; the prefixes are drawn from whoever
    rolls out and not differentiated. In expectation this is the KL of whole answers where the teacher rolls out the
    forward KL, gradient included, and where the student rolls out the reverse KL, gradient not included.

    Args:
        student: log-probabilities.
        teacher: log-probabilities.
        direction: one of `DIRECTIONS`.
        rollouts: one of `ROLLOUTS`.
        quantiles: uniform random numbers in [0, 1) that the prefixes are drawn at, `[prompts, samples]`.

    Returns:
        Loss in nats, `[prompts]`.

    Raises:
        ValueError: an unknown direction or author of the rollouts.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> world = random_world(jax.random.key(0), 0.3, 0.15, num_prompts=2, vocabulary=3)
        >>> token_loss(world.teacher, world.teacher, REVERSE, STUDENT, jnp.full((2, 4), 0.5)).tolist()
        [0.0, 0.0]

    References:
        Agarwal et al., "On-Policy Distillation of Language Models", arXiv:2306.13649, eq. 1 and section 3.
    """
    if direction not in DIRECTIONS or rollouts not in ROLLOUTS:
        known = f"{', '.join(DIRECTIONS)} and {', '.join(ROLLOUTS)}"
        raise ValueError(f"unknown direction or rollouts {direction!r}, {rollouts!r}; there are {known}")
    pair = (teacher, student) if direction == FORWARD else (student, teacher)
    (log_p, log_p_next), (log_q, log_q_next) = pair
    prefixes = inverse_cdf(student.first if rollouts == STUDENT else teacher.first, quantiles)
    second = jnp.take_along_axis(kl_divergence(log_p_next, log_q_next), prefixes, axis=1)
    return kl_divergence(log_p, log_q) + second.mean(-1)


def distill(
    world: World,
    direction: str,
    rollouts: str,
    level: Number,
    rate: Number,
    key: Key[Array, ""],
    *,
    group_size: int,
    num_steps: int,
) -> Run:
    """Train the student by Adam on the mean of `token_loss` over prompts.

    Args:
        world: base and teacher.
        direction: of the loss, one of `DIRECTIONS`, static.
        rollouts: who writes the prefixes, one of `ROLLOUTS`, static.
        level: mean success rate over prompts at which drifts are compared.
        rate: learning rate of Adam.
        key: randomness of the rollouts.
        group_size: prefixes of each prompt in an update, static.
        num_steps: number of updates, static.

    Returns:
        The `Run` over the steps, `[num_steps + 1]`.

    Example:
        >>> import jax
        >>> world = random_world(jax.random.key(0), 0.3, 0.15, num_prompts=4, vocabulary=4)
        >>> run = distill(world, FORWARD, TEACHER, 0.8, 0.1, jax.random.key(1), group_size=8, num_steps=60)
        >>> bool(run.success[0] < 0.8 < run.success[-1]), bool(run.drift_at_level > 0)
        (True, True)
    """
    log_base = answers(policy(world.base))

    def loss(params: Tokens, key: Key[Array, ""]) -> Float[Array, ""]:
        quantiles = uniform(key, (world.base.first.shape[0], group_size))
        return token_loss(policy(params), world.teacher, direction, rollouts, quantiles).mean()

    def measured(params: Tokens) -> tuple[Float[Array, ""], Float[Array, ""]]:
        log_policy = answers(policy(params))
        return expected_reward(log_policy, world.correct).mean(), forward_drift(log_policy, log_base)

    with jax.numpy_dtype_promotion("standard"):  # optax mixes its integer counter with floats
        success, drift = train(jax.grad(loss), world.base, optax.adam(rate), key, num_steps=num_steps, record=measured)
    return Run(success, drift, value_at_crossing(success, drift, level))


def _normal_logits(key: Key[Array, ""], shape: tuple[int, int]) -> Tokens:
    of_first, of_second = jax.random.split(key)
    return Tokens(normal(of_first, shape), normal(of_second, (*shape, shape[-1])))
