"""Pretraining and fine-tuning of the network."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from rlrazor.objectives import sft_loss
from rlrazor.tasks.parity.measures import Base, Measures, measure
from rlrazor.tasks.parity.methods import REPLAY, Rows, Uniform, losses, method_index
from rlrazor.tasks.parity.network import LogPolicy, Params, Scalar, apply_network, init_network
from rlrazor.tasks.parity.updates import Batches, State, adam, draw_batches, run_updates, schedule
from rlrazor.tasks.parity.world import LABELS, NUM_PIXELS, World
from rlrazor.tilting import condition

BATCH_SIZE, GROUP_SIZE = 64, 8  # as published


class Setting(NamedTuple):
    """One fine-tuning; every field is a scalar array, or `[runs]` in a sweep.

    Attributes:
        method: index into `METHODS`.
        rate: peak learning rate of Adam.
        cosine: whether the rate falls to zero along a cosine after its warmup, else it stays.
        beta: coefficient of the KL penalty, in the methods that have one.
        base: which of the bases to start from.
        key: randomness.
    """

    method: Int[Array, "*runs"]
    rate: Float[Array, "*runs"]
    cosine: Bool[Array, "*runs"]
    beta: Float[Array, "*runs"]
    base: Int[Array, "*runs"]
    key: Key[Array, "*runs"]


class FineTuned(NamedTuple):
    """What comes out of a fine-tuning.

    Attributes:
        measures: at the base and at every checkpoint, `[checkpoints + 1]`.
        log_train: the final policy on the digits of the fine-tuning, `[images, 10]`.
    """

    measures: Measures
    log_train: LogPolicy


class Training(NamedTuple):
    """A fine-tuning that is ready to run.

    Attributes:
        base: what it starts from and is measured against.
        start: its first state.
        batches: all of its batches.
        advance: (state, some of the batches) -> the state after an update on each.
    """

    base: Base
    start: State
    batches: Batches
    advance: Callable[[State, Batches], State]


def pretrain(
    world: World, skew: Scalar, key: Key[Array, ""], *, num_steps: int, rate: float = 1e-3, batch_size: int = BATCH_SIZE
) -> Params:
    """Joint pretraining on both tasks, by Adam on soft labels.

    The parity labels spread over the correct digits, from the smallest on, in proportion to exp(-skew · rank): uniform
    at skew 0, as published.

    Args:
        world: the images.
        skew: of the parity labels, >= 0, a scalar.
        key: randomness.
        num_steps: updates, static.
        rate: learning rate.
        batch_size: images of an update, static.

    Returns:
        Parameters of the base.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor.tasks.images import load_fashion, load_mnist
        >>> from rlrazor.tasks.parity import split_world
        >>> world = split_world(load_mnist(), load_fashion(), num_test=100)
        >>> params = pretrain(world, jnp.zeros(()), jax.random.key(0), num_steps=1)
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        536330
    """
    inputs = jnp.concatenate([world.pretrain_new.inputs, world.pretrain_old.inputs])
    preference = jax.nn.log_softmax(-skew.astype(jnp.float32) * jnp.asarray(LABELS // 2).astype(jnp.float32))
    accept = jnp.concatenate([world.pretrain_new.accept, world.pretrain_old.accept])
    target = condition(preference[None], accept)
    start, draws = jax.random.split(key)

    def loss(params: Params, rows: Rows, _: Uniform) -> Scalar:
        return sft_loss(apply_network(params, inputs[rows]).log_policy, target[rows]).mean()

    optimizer, params = adam(lambda _: jnp.float32(rate)), init_network(start)
    batches = draw_batches(draws, len(inputs), num_steps=num_steps, batch_size=batch_size, group_size=1)
    return run_updates(loss, optimizer, State(params, optimizer.init(params)), batches).params


def fine_tune(
    world: World,
    bases: Base,
    setting: Setting,
    *,
    num_steps: int,
    num_checkpoints: int,
    batch_size: int = BATCH_SIZE,
    group_size: int = GROUP_SIZE,
    num_aligned: int = 500,
) -> FineTuned:
    """One fine-tuning on the new task, by Adam, with its measures on the way.

    Args:
        world: the images.
        bases: every field with a leading axis, `[bases, ...]`.
        setting: what to run, scalars.
        num_steps: updates, a multiple of `num_checkpoints`, static.
        num_checkpoints: evaluations after the one of the base, static.
        batch_size: images of an update, static.
        group_size: answers to each image, of the methods that reward their own, static.
        num_aligned: held-out digits that the CKNNA compares, static.

    Returns:
        The `FineTuned`.

    Raises:
        ValueError: `num_steps` is not a positive multiple of `num_checkpoints`, or there is no batch in the digits.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor.methods import SFT_1
        >>> from rlrazor.tasks.images import load_fashion, load_mnist
        >>> from rlrazor.tasks.parity import make_base, split_world
        >>> world = split_world(load_mnist(), load_fashion(), num_test=100)
        >>> bases = jax.tree.map(lambda leaf: leaf[None], jax.jit(make_base)(world, init_network(jax.random.key(0))))
        >>> setting = Setting(
        ...     method=jnp.array(method_index(SFT_1)),
        ...     rate=jnp.float32(1e-3),
        ...     cosine=jnp.array(False),
        ...     beta=jnp.float32(0.1),
        ...     base=jnp.array(0),
        ...     key=jax.random.key(1),
        ... )
        >>> drift = fine_tune(world, bases, setting, num_steps=2, num_checkpoints=1).measures.new.forward
        >>> drift.shape, float(drift[0]), bool(drift[1] > 0)
        ((2,), 0.0, True)
    """
    if num_checkpoints < 1 or num_steps < 1 or num_steps % num_checkpoints:
        raise ValueError(f"num_steps must be a multiple of num_checkpoints {num_checkpoints}, got {num_steps}")
    training = prepare(world, bases, setting, num_steps=num_steps, batch_size=batch_size, group_size=group_size)
    segments = jax.tree.map(lambda leaf: leaf.reshape(num_checkpoints, -1, *leaf.shape[1:]), training.batches)

    def to_checkpoint(state: State, checkpoint: Int[Array, ""]) -> tuple[State, Measures]:
        part = jax.tree.map(lambda leaf: leaf[checkpoint - 1], segments)
        state = jax.lax.cond(checkpoint > 0, lambda: training.advance(state, part), lambda: state)
        return state, measure(world, training.base, state.params, num_aligned=num_aligned)

    end, measures = jax.lax.scan(to_checkpoint, training.start, jnp.arange(num_checkpoints + 1))
    return FineTuned(measures, apply_network(end.params, world.train.inputs).log_policy)


def prepare(
    world: World,
    bases: Base,
    setting: Setting,
    *,
    num_steps: int,
    batch_size: int = BATCH_SIZE,
    group_size: int = GROUP_SIZE,
) -> Training:
    """A fine-tuning that is ready to run: where it starts, its batches, and how it advances by some of them.

    The weights of an input that is dark in all the images have no gradient, and Adam leaves them where they are. So the
    methods that only see the new task train without them: the same path for an eighth less arithmetic, on the embedded
    digits. Replay needs them and has a loop of its own, for a branch in a common loop would cost all methods time.

    Args:
        world: the images.
        bases: every field with a leading axis, `[bases, ...]`.
        setting: what to run, scalars.
        num_steps: updates in all, static.
        batch_size: images of an update, static.
        group_size: answers to each image, of the methods that reward their own, static.

    Returns:
        The `Training`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor.methods import GRPO
        >>> from rlrazor.tasks.images import load_fashion, load_mnist
        >>> from rlrazor.tasks.parity import make_base, split_world
        >>> world = split_world(load_mnist(), load_fashion(), num_test=100)
        >>> bases = jax.tree.map(lambda leaf: leaf[None], jax.jit(make_base)(world, init_network(jax.random.key(0))))
        >>> setting = Setting(
        ...     method=jnp.array(method_index(GRPO)),
        ...     rate=jnp.float32(1e-3),
        ...     cosine=jnp.array(False),
        ...     beta=jnp.float32(0.1),
        ...     base=jnp.array(0),
        ...     key=jax.random.key(1),
        ... )
        >>> training = prepare(world, bases, setting, num_steps=2)
        >>> int(training.advance(training.start, training.batches).moments.done)
        2
    """
    base = jax.tree.map(lambda leaf: leaf[setting.base], bases)
    optimizer = adam(lambda count: setting.rate * schedule(count, setting.cosine, num_steps))
    loss = losses(world, base, setting.method, setting.beta)

    def updates_of_lit(state: State, batches: Batches) -> State:
        part = jax.tree.map(lambda leaf: leaf[world.lit] if _has_inputs(leaf) else leaf, state)
        part = run_updates(loss.new_task, optimizer, part, batches)
        lit: State = jax.tree.map(lambda a, b: a.at[world.lit].set(b) if _has_inputs(a) else b, state, part)
        return lit

    def advance(state: State, batches: Batches) -> State:
        with_replay = partial(run_updates, loss.replay, optimizer)
        is_replay = setting.method == method_index(REPLAY)
        state = jax.lax.cond(is_replay, with_replay, updates_of_lit, state, batches)
        return state

    sizes = {"num_steps": num_steps, "batch_size": batch_size, "group_size": group_size}
    batches = draw_batches(setting.key, len(world.train.inputs), **sizes)
    return Training(base, State(base.params, optimizer.init(base.params)), batches, advance)


def _has_inputs(leaf: Array) -> bool:
    """Whether it has a row for each input: the first matrix and its moments."""
    return leaf.shape[:1] == (NUM_PIXELS + 1,)
