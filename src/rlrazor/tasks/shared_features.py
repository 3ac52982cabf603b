"""A world in which new and old inputs share features, so that learning the new task may cost the old one.

The policy is a linear softmax, log pi(y | x) = weights_y · x - log Z(x), so a gradient step at x moves the logits at x'
in proportion to x · x'. Old inputs lie in the first half of the features. New inputs have a share of their squared
length there, the overlap, and the rest in features of their own. On the old task the base's likeliest answer is right,
on the new one a random set of answers is.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from rlrazor._numerics import normal, uniform
from rlrazor._trees import rows_by_name
from rlrazor.divergences import kl_divergence
from rlrazor.forgetting import Drifts, success_rate
from rlrazor.methods import GRPO, ORACLE_SFT, REINFORCE, SFT, SFT_1, SIMPO, Problem, plus_kl, sampled_loss
from rlrazor.policies import linear_softmax_policy, softmax_policy
from rlrazor.tilting import condition
from rlrazor.training import train_at

METHODS = (SFT_1, SFT, ORACLE_SFT, plus_kl(SFT_1), SIMPO, REINFORCE, GRPO, plus_kl(GRPO))

Number = float | Float[Array, ""]
Inputs = Float[Array, "prompts features"]
Weights = Float[Array, "features outcomes"]
Policies = Float[Array, "prompts outcomes"]
PromptLoss = Callable[[Policies], Float[Array, " prompts"]]


class World(NamedTuple):
    """Two tasks for one linear softmax.

    Attributes:
        old: inputs of the old task, of length one, `[prompts, features]`.
        new: inputs of the new task, of length one, `[prompts, features]`.
        weights: of the base, `[features, outcomes]`.
        accept: correct answers of the new task, `[prompts, outcomes]`.
        log_teacher: a policy of the new task that is always correct and knows nothing of the base,
            `[prompts, outcomes]`.
    """

    old: Inputs
    new: Inputs
    weights: Weights
    accept: Bool[Array, "prompts outcomes"]
    log_teacher: Policies


class Checkpoint(NamedTuple):
    """What a policy has learned and forgotten.

    Attributes:
        success: success rate on the new task, in [0, 1], `[...]`.
        drift: from the base on new inputs, in nats, `[...]`.
        old_drift: from the base on old inputs, in nats, `[...]`.
        base_old_success: the base's success rate on the old task, `[...]`.
        old_success: the policy's, `[...]`.
    """

    success: Float[Array, "..."]
    drift: Drifts
    old_drift: Drifts
    base_old_success: Float[Array, "..."]
    old_success: Float[Array, "..."]

    @property
    def forgetting(self) -> Float[Array, "..."]:
        """Success rate lost on the old task, in [-1, 1], `[...]`."""
        return self.base_old_success - self.old_success


def make_world(
    key: Key[Array, ""],
    overlap: Number,
    *,
    scale: Number,
    teacher_scale: Number,
    num_prompts: int,
    num_features: int,
    num_outcomes: int,
    num_correct: int,
) -> World:
    """A random world: new inputs are sqrt(overlap) u + sqrt(1 - overlap) v, u in the old features, v in new ones.

    Args:
        key: randomness.
        overlap: squared cosine between a new input and its part in the old inputs' features, in [0, 1].
        scale: standard deviation of the base's weights.
        teacher_scale: standard deviation of the teacher's logits, before it is conditioned on being correct.
        num_prompts: prompts of either task, static.
        num_features: features that old inputs use, and as many that only new inputs use, static.
        num_outcomes: answers to a prompt, static.
        num_correct: how many of them are correct on the new task, static.

    Returns:
        The `World`.

    Raises:
        ValueError: `num_correct` is not in 1, ..., num_outcomes - 1.

    Example:
        >>> import jax
        >>> sizes = dict(num_prompts=3, num_features=4, num_outcomes=5, num_correct=2)
        >>> world = make_world(jax.random.key(0), 0.25, scale=1.0, teacher_scale=1.0, **sizes)
        >>> print(*(f"{square:.2f}" for square in (world.new[:, :4] ** 2).sum(-1)))
        0.25 0.25 0.25
    """
    if not 1 <= num_correct < num_outcomes:
        raise ValueError(f"num_correct must lie in 1, ..., {num_outcomes - 1}, got {num_correct}")
    inputs, answers = (num_prompts, num_features), (num_prompts, num_outcomes)
    *input_keys, weights_key, accept_key, teacher_key = jax.random.split(key, 6)
    old, shared, private = _unit(jax.vmap(lambda key: normal(key, inputs))(jnp.stack(input_keys)))
    accept = jnp.argsort(uniform(accept_key, answers), axis=-1) < num_correct
    return World(
        old=jnp.concatenate([old, jnp.zeros(inputs)], axis=-1),
        new=jnp.concatenate([jnp.sqrt(overlap) * shared, jnp.sqrt(1 - overlap) * private], axis=-1),
        weights=scale * normal(weights_key, (2 * num_features, num_outcomes)),
        accept=accept,
        log_teacher=condition(softmax_policy(teacher_scale * normal(teacher_key, answers)), accept),
    )


def new_task(world: World, group_size: int = 8, beta: Number = 0.1) -> Problem:
    """The new task as the table of methods knows it.

    SFT imitates the teacher and SFT 1 its likeliest answer; SimPO prefers the teacher's answers to wrong ones of the
    base.

    Args:
        world: the world.
        group_size: samples of each prompt in GRPO and Dr. GRPO, static.
        beta: coefficient of "+ KL".

    Returns:
        The `Problem`, with the prompts as its batch.

    Example:
        >>> import jax
        >>> sizes = dict(num_prompts=3, num_features=4, num_outcomes=5, num_correct=2)
        >>> world = make_world(jax.random.key(0), 1.0, scale=1.0, teacher_scale=1.0, **sizes)
        >>> list(new_task(world).demonstrations)
        ['SFT 1', 'SFT', 'SimPO']
    """
    log_base, teacher = linear_softmax_policy(world.weights, world.new), world.log_teacher
    top = jnp.arange(teacher.shape[-1])[None] == jnp.argmax(teacher, axis=-1)[:, None]
    return Problem(
        log_ref=log_base,
        accept=world.accept,
        demonstrations={SFT_1: condition(teacher, top), SFT: teacher, SIMPO: teacher},
        log_rejected=condition(log_base, ~world.accept),
        group_size=group_size,
        beta=beta,
    )


def first_prompts(count: Number, num_prompts: int) -> Float[Array, " prompts"]:
    """The uniform distribution over the first prompts, as weights of all.

    Args:
        count: how many, in [1, num_prompts].
        num_prompts: of how many, static.

    Returns:
        Weights that sum to one, `[prompts]`.

    Example:
        >>> first_prompts(2.0, 4).tolist()
        [0.5, 0.5, 0.0, 0.0]
    """
    return jnp.where(jnp.arange(num_prompts, dtype=jnp.result_type(float)) < count, 1 / count, 0.0)


def right_answers(log_old: Policies) -> Bool[Array, "prompts outcomes"]:
    """The right answers of the old task, the base's likeliest.

    Args:
        log_old: the base on old prompts, `[prompts, outcomes]`.

    Returns:
        Boolean, `[prompts, outcomes]`.

    Example:
        >>> import jax.numpy as jnp
        >>> right_answers(jnp.log(jnp.array([[0.2, 0.5, 0.3]]))).tolist()
        [[False, True, False]]
    """
    return jnp.arange(log_old.shape[-1])[None] == jnp.argmax(log_old, axis=-1)[:, None]


def evaluate(world: World, weights: Weights, prompts: Float[Array, " prompts"]) -> Checkpoint:
    """A policy on both tasks: on new inputs in the mean over `prompts`, on old ones in the mean over all.

    Args:
        world: the world.
        weights: of the policy, `[features, outcomes]`.
        prompts: the distribution of new prompts, `[prompts]`.

    Returns:
        The `Checkpoint`, of scalars.

    Example:
        >>> import jax
        >>> sizes = dict(num_prompts=3, num_features=4, num_outcomes=5, num_correct=2)
        >>> world = make_world(jax.random.key(0), 1.0, scale=1.0, teacher_scale=1.0, **sizes)
        >>> base = evaluate(world, world.weights, first_prompts(3.0, 3))
        >>> print(f"{base.forgetting:.1f} {base.drift.forward:.1f}")
        0.0 0.0
    """
    new_base, old_base = (linear_softmax_policy(world.weights, inputs) for inputs in (world.new, world.old))
    new, old = (linear_softmax_policy(weights, inputs) for inputs in (world.new, world.old))
    right = right_answers(old_base)
    return Checkpoint(
        success=prompts @ success_rate(new, world.accept),
        drift=Drifts(prompts @ kl_divergence(new_base, new), prompts @ kl_divergence(new, new_base)),
        old_drift=Drifts(kl_divergence(old_base, old).mean(), kl_divergence(old, old_base).mean()),
        base_old_success=success_rate(old_base, right).mean(),
        old_success=success_rate(old, right).mean(),
    )


def fine_tune(
    world: World,
    losses: Mapping[str, PromptLoss],
    prompts: Float[Array, " prompts"],
    rate: Number,
    steps: Int[Array, " checkpoints"],
) -> dict[str, Checkpoint]:
    """Gradient descent on each loss from the base, weights -= rate * grad(prompts · loss), compiled once for all.

    Lengths of training are traced like all numbers, so longer trainings do not compile again.

    Args:
        world: the world.
        losses: by method, log-policy `[prompts, outcomes]` -> loss `[prompts]`, such as `rlrazor.exact_loss`.
        prompts: the distribution of new prompts that is trained on, `[prompts]`.
        rate: learning rate.
        steps: numbers of updates after which to evaluate, increasing, `[checkpoints]`.

    Returns:
        The `Checkpoint` by method, `[checkpoints]`.

    Raises:
        ValueError: there is no loss.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor.methods import REINFORCE, exact_loss
        >>> sizes = dict(num_prompts=3, num_features=4, num_outcomes=5, num_correct=2)
        >>> world = make_world(jax.random.key(0), 0.0, scale=1.0, teacher_scale=1.0, **sizes)
        >>> losses = {REINFORCE: exact_loss(REINFORCE, new_task(world))}
        >>> end = fine_tune(world, losses, first_prompts(3.0, 3), 10.0, jnp.array([0, 50]))[REINFORCE]
        >>> print(*(f"{success:.2f}" for success in end.success), *(f"{loss:.2f}" for loss in end.forgetting))
        0.38 1.00 0.00 0.00
    """
    if not losses:
        raise ValueError("losses must hold at least one")
    branches = list(losses.values())

    def training(index: Int[Array, ""]) -> Checkpoint:
        def loss(weights: Weights) -> Float[Array, ""]:
            at_prompts: Float[Array, " prompts"] = jax.lax.switch(
                index, branches, linear_softmax_policy(weights, world.new)
            )
            return prompts @ at_prompts

        def gradient(weights: Weights, key: Key[Array, ""], step: Int[Array, ""]) -> Weights:
            slope: Weights = jax.grad(loss)(weights)
            return slope

        return _descend(world, gradient, prompts, rate, steps, jax.random.key(0))

    found = jax.lax.map(training, jnp.arange(len(branches)))
    return rows_by_name(losses, found)


def fine_tune_on_samples(
    world: World,
    method: str,
    problem: Problem,
    prompts: Float[Array, " prompts"],
    rate: Number,
    steps: Int[Array, " checkpoints"],
    key: Key[Array, ""],
    *,
    num_samples: int,
) -> Checkpoint:
    """Stochastic gradient descent on the sampled loss of a method from the base, fresh answers to every prompt a step.

    Args:
        world: the world.
        method: a name of the table of methods that samples once, so not SimPO.
        problem: the new task, such as `new_task(world)`.
        prompts: the distribution of new prompts that is trained on, `[prompts]`.
        rate: learning rate.
        steps: numbers of updates after which to evaluate, increasing, `[checkpoints]`.
        key: randomness.
        num_samples: answers to each prompt in an update, static.

    Returns:
        The `Checkpoint`, `[checkpoints]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor.methods import REINFORCE
        >>> sizes = dict(num_prompts=3, num_features=4, num_outcomes=5, num_correct=2)
        >>> world = make_world(jax.random.key(0), 0.0, scale=1.0, teacher_scale=1.0, **sizes)
        >>> task = world, REINFORCE, new_task(world), first_prompts(3.0, 3)
        >>> end = fine_tune_on_samples(*task, 10.0, jnp.array([0, 50]), jax.random.key(1), num_samples=8)
        >>> print(*(f"{success:.1f}" for success in end.success))
        0.4 1.0
    """
    loss = sampled_loss(method, problem)

    def gradient(weights: Weights, key: Key[Array, ""], step: Int[Array, ""]) -> Weights:
        quantiles = uniform(key, (len(world.new), num_samples))

        def of(weights: Weights) -> Float[Array, ""]:
            return prompts @ loss(linear_softmax_policy(weights, world.new), quantiles, None)

        slope: Weights = jax.grad(of)(weights)
        return slope

    return _descend(world, gradient, prompts, rate, steps, key)


def _descend(
    world: World,
    gradient: Callable[[Weights, Key[Array, ""], Int[Array, ""]], Weights],
    prompts: Float[Array, " prompts"],
    rate: Number,
    steps: Int[Array, " checkpoints"],
    key: Key[Array, ""],
) -> Checkpoint:
    """Gradient descent from the base, evaluated at some steps."""

    def record(weights: Weights) -> Checkpoint:
        return evaluate(world, weights, prompts)

    path: Checkpoint = train_at(gradient, world.weights, optax.sgd(rate), key, steps, record=record)
    return path


def _unit(rows: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
    """Rows of length one."""
    unit: Float[Array, "*batch features"] = rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)
    return unit
