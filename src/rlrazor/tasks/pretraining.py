"""A line of answers with an old mode, of which there are pretraining data, and a new one, which is rewarded."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from rlrazor.objectives import ppo_ptx_objective
from rlrazor.policies import gaussian_log_density, softmax_policy
from rlrazor.training import newton_minimum, train_at

Number = float | Float[Array, ""]


class World(NamedTuple):
    """A reference, pretraining data and a reward.

    Attributes:
        log_ref: the reference, both modes, `[outcomes]`.
        log_pretrain: distribution of the pretraining data, the old mode, `[outcomes]`.
        reward: around the new mode, in (0, 1], `[outcomes]`.
    """

    log_ref: Float[Array, " outcomes"]
    log_pretrain: Float[Array, " outcomes"]
    reward: Float[Array, " outcomes"]


class Ascent(NamedTuple):
    """Gradient ascent on the objective with pretraining gradients.

    Attributes:
        path: log-policies at the steps, `[steps, outcomes]`.
        end: where Newton's method takes the last of them, `[outcomes]`.
    """

    path: Float[Array, "steps outcomes"]
    end: Float[Array, " outcomes"]


def old_and_new(num_outcomes: int, old: Number, new: Number, old_share: Number) -> World:
    """Normal modes on the line from -5 to 5: the reference's of width 1, the data's of width 0.8, the reward's of 1.

    Args:
        num_outcomes: answers, evenly spaced, static.
        old: where the old task's answers are.
        new: where the reward is.
        old_share: weight of the old mode in the reference, in (0, 1).

    Returns:
        The `World`.

    Example:
        >>> world = old_and_new(11, -2.0, 2.0, 0.7)
        >>> int(world.log_ref.argmax()), int(world.reward.argmax())
        (3, 7)
    """
    y, one = jnp.linspace(-5.0, 5.0, num_outcomes), jnp.ones(())
    modes = ((old_share, old), (1 - old_share, new))
    densities = [jnp.log(share) + gaussian_log_density(y, mean * one, one) for share, mean in modes]
    return World(
        log_ref=softmax_policy(jnp.logaddexp(*densities)),
        log_pretrain=softmax_policy(gaussian_log_density(y, old * one, 0.8 * one)),
        reward=jnp.exp(-((y - new) ** 2) / 2),
    )


def ascend(world: World, beta: Number, gamma: Number, rate: Number, steps: Int[Array, " steps"]) -> Ascent:
    """Gradient ascent on the logits of a table from the reference, and Newton's method from where it ends.

    Args:
        world: the world.
        beta: KL coefficient.
        gamma: weight of the pretraining term.
        rate: learning rate.
        steps: numbers of updates after which to record, increasing, `[steps]`.

    Returns:
        The `Ascent`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> world = old_and_new(11, -2.0, 2.0, 0.7)
        >>> jax.eval_shape(lambda: ascend(world, 0.2, 0.1, 4.0, jnp.array([0, 100]))).path.shape
        (2, 11)
    """

    def loss(logits: Float[Array, " outcomes"]) -> Float[Array, ""]:
        return -ppo_ptx_objective(softmax_policy(logits), *world, beta, gamma)

    def gradient(logits: Any, key: Any, step: Any) -> Any:
        return jax.grad(loss)(logits)

    path: Float[Array, "steps outcomes"] = train_at(gradient, world.log_ref, optax.sgd(rate), jax.random.key(0), steps)
    return Ascent(softmax_policy(path), softmax_policy(newton_minimum(loss, path[-1], num_steps=20)))
