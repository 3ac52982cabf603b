"""Many prompts of mixed difficulty, and a teacher at a distance from the base: on-policy against off-policy learning.

Every prompt has a base policy of its own over the same outcomes, of which the first ones are correct. The teacher that
writes the demonstrations answers like the base at distance 0, and has nothing to do with it at distance 1. Which
method learns from whom is said by `rlrazor.methods`; here are the world and what is measured in it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from rlrazor._numerics import normal, uniform
from rlrazor._trees import rows_by_name
from rlrazor._types import Number
from rlrazor.flows import gradient_flows
from rlrazor.forgetting import forward_drift, success_rate, value_at_crossing
from rlrazor.methods import SFT, SIMPO, Problem, exact_losses, sampled_loss
from rlrazor.policies import softmax_policy
from rlrazor.tilting import condition
from rlrazor.training import train


class Size(NamedTuple):
    """How large a world of prompts is; all of it static.

    Attributes:
        prompts: number of prompts.
        outcomes: answers to each.
        correct: how many of them, the first ones, are correct.
    """

    prompts: int
    outcomes: int
    correct: int


class World(NamedTuple):
    """The bases and the teacher, as log-probabilities of the answers to every prompt.

    Attributes:
        log_ref: the bases, `[prompts, outcomes]`.
        accept: which answers are correct, `[prompts, outcomes]`.
        log_chosen: the teacher's correct answers, `[prompts, outcomes]`.
        log_rejected: its wrong ones, `[prompts, outcomes]`.
    """

    log_ref: Float[Array, "*batch prompts outcomes"]
    accept: Bool[Array, "*batch prompts outcomes"]
    log_chosen: Float[Array, "*batch prompts outcomes"]
    log_rejected: Float[Array, "*batch prompts outcomes"]


class Run(NamedTuple):
    """How far a policy drifted while it learned.

    Attributes:
        success: mean success rate over prompts, `[times]`.
        drift: forward drift from the base in nats, `[times]`.
        drift_at_level: the drift where the success rate reached the level, NaN where it never did, a scalar.
    """

    success: Float[Array, "*batch times"]
    drift: Float[Array, "*batch times"]
    drift_at_level: Float[Array, "*batch"]


def many_prompts(key: Key[Array, ""], distance: Number, spread: Number, teacher_spread: Number, size: Size) -> World:
    """A random world: bases of mixed ability, and a teacher on the e-geodesic from them to an unrelated policy.

    With z standard normal, the base answers prompt x correctly at log-odds spread * z_x. Given that, or given that it
    does not, it follows softmax(u), u_xy standard normal; the teacher follows softmax((1 - d) u + d w), where
    w_xy = teacher_spread * z'_xy knows nothing of the base.

    Args:
        key: randomness of the world.
        distance: d of the teacher in [0, 1]: 0 is the base, 1 an unrelated policy.
        spread: standard deviation of the bases' log-odds of success.
        teacher_spread: standard deviation of the logits of the unrelated policy.
        size: of the world, static.

    Returns:
        The `World`.

    Raises:
        ValueError: all answers are correct, or none is.

    Example:
        >>> import jax
        >>> world = many_prompts(jax.random.key(0), 0.0, 1.5, 2.0, Size(prompts=32, outcomes=10, correct=5))
        >>> own = condition(world.log_ref, world.accept)
        >>> bool(jnp.allclose(world.log_chosen, own))  # at distance 0
        True
    """
    if not 0 < size.correct < size.outcomes:
        raise ValueError(f"some of the outcomes must be correct and some wrong, got {size.correct} of {size.outcomes}")
    of_odds, of_base, of_teacher = jax.random.split(key, 3)
    shape = (size.prompts, size.outcomes)
    odds = spread * jax.random.normal(of_odds, (size.prompts, 1))
    accept = jnp.broadcast_to(jnp.arange(size.outcomes) < size.correct, shape)
    own, other = normal(of_base, shape), teacher_spread * normal(of_teacher, shape)
    right, wrong = condition(softmax_policy(own), accept), condition(softmax_policy(own), ~accept)
    log_ref = jnp.where(accept, jax.nn.log_sigmoid(odds) + right, jax.nn.log_sigmoid(-odds) + wrong)
    teacher = softmax_policy((1 - distance) * own + distance * other)
    return World(log_ref, accept, condition(teacher, accept), condition(teacher, ~accept))


def one_prompt(world: World, success: Number) -> World:
    """The world in which every prompt is the same one, which is that of this prompt alone, `prompts` times as slow.

    Args:
        world: many prompts.
        success: the prompt is the one that the base answers correctly at a rate closest to this, in [0, 1].

    Returns:
        The `World`, of the same size.

    Example:
        >>> import jax
        >>> world = many_prompts(jax.random.key(0), 1.0, 1.5, 2.0, Size(prompts=32, outcomes=10, correct=5))
        >>> rates = success_rate(one_prompt(world, 0.5).log_ref, world.accept)
        >>> print(f"{rates.min():.1f} {rates.max():.1f}")
        0.5 0.5
    """
    prompt = jnp.argmin(jnp.abs(success_rate(world.log_ref, world.accept) - success))
    return World(*(jnp.broadcast_to(leaf[prompt][None], leaf.shape) for leaf in world))


def problem_of(world: World, group_size: int) -> Problem:
    """The problem that methods solve: SFT and SimPO learn from the teacher's correct answers.

    Args:
        world: bases and teacher.
        group_size: samples of each prompt in an update, which are GRPO's group, static.

    Returns:
        The `rlrazor.methods.Problem`.

    Example:
        >>> import jax
        >>> world = many_prompts(jax.random.key(0), 1.0, 1.5, 2.0, Size(prompts=32, outcomes=10, correct=5))
        >>> list(problem_of(world, group_size=8).demonstrations)
        ['SFT', 'SimPO']
    """
    taught = {SFT: world.log_chosen, SIMPO: world.log_chosen}
    return Problem(world.log_ref, world.accept, taught, world.log_rejected, group_size)


def flows_to(methods: Sequence[str], problem: Problem, level: Number, times: Float[Array, " times"]) -> dict[str, Run]:
    """The exact gradient flow of each method on a softmax table, until its mean success rate reaches a level.

    Args:
        methods: names of `rlrazor.methods`.
        problem: the world, arrays `[prompts, outcomes]`.
        level: mean success rate over prompts at which a flow stops.
        times: increasing times >= 0 to save at, `[times]`; a flow ends at the last one, whether it arrived or not.

    Returns:
        A `Run` by method; after its end it stays where it is.

    Example:
        >>> import jax
        >>> from rlrazor.methods import REINFORCE
        >>> world = many_prompts(jax.random.key(0), 1.0, 1.5, 2.0, Size(prompts=8, outcomes=10, correct=5))
        >>> runs = flows_to((REINFORCE, SFT), problem_of(world, 8), 0.9, jnp.array([0.0, 1e4]))
        >>> bool(runs[REINFORCE].drift_at_level < runs[SFT].drift_at_level)  # an unrelated teacher
        True

    References:
        Shenfeld, Pari, Agrawal, "RL's Razor", arXiv:2509.04259, section 4 (the comparison at equal accuracy).
    """

    def beyond(logits: Float[Array, "prompts outcomes"]) -> Float[Array, ""]:
        return success_rate(softmax_policy(logits), problem.accept).mean() - level

    flows = gradient_flows(exact_losses(methods, problem), problem.log_ref, times, stop=beyond)
    runs = {}
    for method, flow in flows.items():
        success = success_rate(flow.log_policy, problem.accept[None]).mean(-1)
        drift = forward_drift(flow.log_policy, problem.log_ref[None])
        runs[method] = Run(success, drift, jnp.where(flow.stopped, drift[-1], jnp.nan))
    return runs


def train_to(
    methods: Sequence[str], problem: Problem, level: Number, rate: Number, key: Key[Array, ""], *, num_steps: int
) -> dict[str, Run]:
    """Plain SGD of each method on finite groups: an update samples `problem.group_size` answers to every prompt.

    The loss is the mean over prompts, as in `flows_to`, which it follows at small rates with time = rate * steps. All
    methods meet the same random numbers.

    Args:
        methods: names of `rlrazor.methods`.
        problem: the world, arrays `[prompts, outcomes]`.
        level: mean success rate over prompts at which methods are compared.
        rate: learning rate.
        key: randomness of the samples.
        num_steps: number of updates, static.

    Returns:
        A `Run` by method over its steps, `[num_steps + 1]`.

    Example:
        >>> import jax
        >>> world = many_prompts(jax.random.key(0), 1.0, 1.5, 2.0, Size(prompts=8, outcomes=10, correct=5))
        >>> runs = train_to((SFT,), problem_of(world, 8), 0.9, 8.0, jax.random.key(1), num_steps=200)
        >>> exact = flows_to((SFT,), problem_of(world, 8), 0.9, jnp.array([0.0, 1e4]))
        >>> bool(abs(runs[SFT].drift_at_level - exact[SFT].drift_at_level) < 0.2)
        True
    """
    losses = [sampled_loss(method, problem) for method in methods]

    def measured(logits: Float[Array, "prompts outcomes"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        log_policy = softmax_policy(logits)
        return success_rate(log_policy, problem.accept).mean(), forward_drift(log_policy, problem.log_ref)

    def training(index: Int[Array, ""]) -> Run:
        def loss(logits: Float[Array, "prompts outcomes"], key: Key[Array, ""]) -> Float[Array, ""]:
            quantiles, other = uniform(key, (2, logits.shape[0], problem.group_size))
            each: Float[Array, " prompts"] = jax.lax.switch(index, losses, softmax_policy(logits), quantiles, other)
            return each.mean()

        optimizer, gradient = optax.sgd(rate), jax.grad(loss)
        success, drift = train(gradient, problem.log_ref, optimizer, key, num_steps=num_steps, record=measured)
        return Run(success, drift, value_at_crossing(success, drift, level))

    runs = jax.lax.map(training, jnp.arange(len(methods)))
    return rows_by_name(methods, runs)
