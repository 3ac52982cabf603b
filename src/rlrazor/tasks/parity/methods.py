"""The nine methods of ParityMNIST: whom each imitates, or how it rewards its own answers.

Which of them a run trains with is traced, so that one program trains them all.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rlrazor.checks import place_of
from rlrazor.divergences import kl_divergence
from rlrazor.methods import DISTILLED_GRPO, GRPO, ORACLE_SFT, REINFORCE, SFT_1, SFT_2, plus_kl, plus_replay
from rlrazor.objectives import grpo_advantage, reinforce_loss
from rlrazor.policies import inverse_cdf
from rlrazor.tasks.parity.measures import Base
from rlrazor.tasks.parity.network import LogPolicy, Params, Scalar, apply_network
from rlrazor.tasks.parity.world import LABELS, NUM_LABELS, World
from rlrazor.tilting import condition

REPLAY = plus_replay(SFT_1)
METHODS = (
    SFT_1,
    SFT_2,
    ORACLE_SFT,
    GRPO,
    plus_kl(GRPO),
    REINFORCE,
    plus_kl(SFT_1),
    REPLAY,
    DISTILLED_GRPO,
)
DEMONSTRATED = {SFT_1: (0, 1), SFT_2: (0, 4, 1, 5)}  # the digits that stand for even and for odd

Rows: TypeAlias = Int[Array, " batch"]
Uniform: TypeAlias = Float[Array, "batch group"]
Loss: TypeAlias = Callable[[Params, Rows, Uniform], Scalar]
T = TypeVar("T")


class Losses(NamedTuple):
    """The sampled losses of a method, each a function of parameters, rows of a batch and uniform numbers.

    Attributes:
        new_task: of every method but replay, by the weights of lit inputs only.
        replay: of SFT with replay, by all weights.
    """

    new_task: Loss
    replay: Loss


def method_index(method: str) -> int:
    """The place of a method in `METHODS`.

    Args:
        method: its name.

    Returns:
        The index.

    Raises:
        ValueError: there is no such method.

    Example:
        >>> from rlrazor.methods import GRPO
        >>> method_index(GRPO)
        3
        >>> method_index("GRP0")
        Traceback (most recent call last):
        ...
        ValueError: unknown method 'GRP0'; there are SFT 1, SFT 2, oracle SFT, GRPO, GRPO + KL, REINFORCE, SFT 1 + KL, SFT 1 + replay, distilled GRPO
    """  # noqa: E501  (the error is one line)
    return place_of("method", method, METHODS)


def _branches(table: Mapping[str, T]) -> list[T]:
    """A table by method as the branches of a switch, if it has an entry for each method and no other."""
    odd = sorted(set(table) ^ set(METHODS))
    if odd:
        raise ValueError(f"a table must have an entry for each method and no other, which fails for {', '.join(odd)}")
    return [table[method] for method in METHODS]


def losses(world: World, base: Base, method: Int[Array, ""], beta: Scalar) -> Losses:
    """The sampled losses of a method, on batches of the digits of the fine-tuning.

    Args:
        world: the images.
        base: what the training starts from.
        method: index into `METHODS`, traced.
        beta: coefficient of the KL penalty.

    Returns:
        The `Losses`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor.methods import SFT_1
        >>> from rlrazor.tasks.images import load_fashion, load_mnist
        >>> from rlrazor.tasks.parity import init_network, make_base, split_world
        >>> world = split_world(load_mnist(), load_fashion(), num_test=100)
        >>> everywhere = world._replace(lit=jnp.arange(785))  # by all weights
        >>> base = jax.jit(make_base)(world, init_network(jax.random.key(0)))
        >>> loss = losses(everywhere, base, jnp.array(method_index(SFT_1)), jnp.float32(0.1)).new_task
        >>> 2.0 < loss(base.params, jnp.arange(64), jnp.full((64, 8), 0.5, jnp.float32)) < 2.6  # log 10 or so
        Array(True, dtype=bool)
    """
    accept, digits = world.train.accept, world.train.inputs[:, world.lit]
    target = _target(world, base, method)

    def imitation(log_policy: LogPolicy, rows: Rows, uniform: Uniform) -> Scalar:
        answers = inverse_cdf(target[rows], uniform[:, :1])
        return -jnp.take_along_axis(log_policy, answers, axis=1).mean()

    def new_task(params: Params, rows: Rows, uniform: Uniform) -> Scalar:
        log_policy = apply_network(params, digits[rows]).log_policy

        def imitate() -> Scalar:
            return imitation(log_policy, rows, uniform)

        def explore(advantage: Callable[[Array], Array]) -> Scalar:
            answers = inverse_cdf(log_policy, uniform)
            reward = jnp.take_along_axis(accept[rows], answers, axis=1).astype(jnp.float32)
            return reinforce_loss(jnp.take_along_axis(log_policy, answers, axis=1), advantage(reward)).mean()

        def penalty() -> Scalar:
            return beta * kl_divergence(log_policy, base.log_train[rows]).mean()

        table: dict[str, Callable[[], Scalar]] = {
            GRPO: lambda: explore(grpo_advantage),
            plus_kl(GRPO): lambda: explore(grpo_advantage) + penalty(),
            REINFORCE: lambda: explore(lambda reward: reward),
            SFT_1: imitate,
            SFT_2: imitate,
            ORACLE_SFT: imitate,
            plus_kl(SFT_1): lambda: imitate() + penalty(),
            REPLAY: imitate,  # its half on the new task; the whole is below
            DISTILLED_GRPO: imitate,
        }
        chosen: Scalar = jax.lax.switch(method, _branches(table))
        return chosen

    def replay(params: Params, rows: Rows, uniform: Uniform) -> Scalar:
        old = world.pretrain_old
        memory = jnp.floor(uniform[:, -1] * len(old.inputs)).astype(int)
        inputs = jnp.concatenate([world.train.inputs[rows], old.inputs[memory]])
        log_policy, recalled = jnp.split(apply_network(params, inputs).log_policy, 2)
        return imitation(log_policy, rows, uniform) - jnp.where(old.accept[memory], recalled, 0.0).sum(-1).mean()

    return Losses(new_task, replay)


def _target(world: World, base: Base, method: Int[Array, ""]) -> LogPolicy:
    """Whose answers the method imitates; the base's where it gives answers of its own, and nothing asks for them."""
    accept = world.train.accept

    def evenly_over(answers: tuple[int, ...]) -> LogPolicy:
        return condition(jnp.full_like(base.log_train, -np.log(NUM_LABELS)), accept & np.isin(LABELS, answers)[None])

    def nobody() -> LogPolicy:
        return base.log_train

    def one_label() -> LogPolicy:
        return evenly_over(DEMONSTRATED[SFT_1])

    table: dict[str, Callable[[], LogPolicy]] = {
        SFT_1: one_label,
        SFT_2: lambda: evenly_over(DEMONSTRATED[SFT_2]),
        ORACLE_SFT: lambda: condition(base.log_train, accept),
        plus_kl(SFT_1): one_label,
        REPLAY: one_label,
        DISTILLED_GRPO: lambda: base.log_teacher,
        GRPO: nobody,
        plus_kl(GRPO): nobody,
        REINFORCE: nobody,
    }
    target: LogPolicy = jax.lax.switch(method, _branches(table))
    return target
