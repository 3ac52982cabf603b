"""Steps of Adam on batches that are drawn before the first of them."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from rlrazor._numerics import uniform
from rlrazor.tasks.parity.methods import Loss
from rlrazor.tasks.parity.network import Params, Scalar


class Moments(NamedTuple):
    """What Adam remembers.

    Attributes:
        done: updates.
        first: decaying mean of the gradient, shaped like the parameters.
        second: decaying mean of its square.
    """

    done: Int[Array, ""]
    first: Params
    second: Params


class State(NamedTuple):
    """Where a training is.

    Attributes:
        params: of the network.
        moments: of Adam.
    """

    params: Params
    moments: Moments


class Batches(NamedTuple):
    """The randomness of a training.

    Attributes:
        rows: images of each batch, `[steps, batch]`.
        uniform: numbers in [0, 1) to draw answers with, `[steps, batch, group]`.
    """

    rows: Int[Array, "*steps batch"]
    uniform: Float[Array, "*steps batch group"]


def schedule(count: Int[Array, ""], cosine: Bool[Array, ""], num_steps: int) -> Scalar:
    """The learning rate as a share of its peak: a linear warmup over a tenth of the steps, then constant or cosine.

    Args:
        count: updates done.
        cosine: whether it falls to zero.
        num_steps: updates in all.

    Returns:
        The share in [0, 1], float32.

    Example:
        >>> import jax.numpy as jnp
        >>> [round(float(schedule(jnp.array(k), jnp.array(True), 100)), 3) for k in (0, 9, 55, 100)]
        [0.1, 1.0, 0.5, 0.0]
    """
    warmup = max(num_steps // 10, 1)
    done = count.astype(jnp.float32)
    phase = jnp.clip((done - warmup) / max(num_steps - warmup, 1), 0.0, 1.0)
    rest = jnp.where(cosine, (1 + jnp.cos(jnp.pi * phase)) / 2, 1.0)
    return jnp.minimum((done + 1) / warmup, rest)


def adam(rate: Callable[[Array], Scalar]) -> optax.GradientTransformation:
    """Adam, with both bias corrections in the step size.

    This is `optax.adam`, in the order that Kingma and Ba, arXiv:1412.6980, section 2, recommend. XLA rounds the two
    divisions of the other order in one way on one device and in another on several, and sampled answers amplify that.

    Args:
        rate: updates done -> learning rate, float32.

    Returns:
        The optimizer, whose state is `Moments`.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = adam(lambda done: jnp.float32(0.1))
        >>> params = jnp.ones(2, jnp.float32)
        >>> updates, moments = optimizer.update(jnp.array([3.0, -0.2], jnp.float32), optimizer.init(params))
        >>> print(*(f"{update:.4f}" for update in updates))
        -0.1000 0.1000
    """
    decay, decay_second, epsilon = 0.9, 0.999, 1e-8

    def init(params: Params) -> Moments:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return Moments(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(gradient: Params, state: Moments, params: Params | None = None) -> tuple[Params, Moments]:
        done = state.done + 1
        first = jax.tree.map(lambda m, g: decay * m + (1 - decay) * g, state.first, gradient)
        second = jax.tree.map(lambda v, g: decay_second * v + (1 - decay_second) * g**2, state.second, gradient)
        weight, weight_second = (-jnp.expm1(done.astype(jnp.float32) * math.log(d)) for d in (decay, decay_second))
        scale = jnp.sqrt(weight_second)
        size = rate(state.done) * scale / weight
        updates = jax.tree.map(lambda m, v: -size * m / (jnp.sqrt(v) + epsilon * scale), first, second)
        return updates, Moments(done, first, second)

    return optax.GradientTransformation(init, update)


def run_updates(loss: Loss, optimizer: optax.GradientTransformation, state: State, batches: Batches) -> State:
    """The state after a step of the optimizer on every batch.

    Args:
        loss: (parameters, rows, uniform numbers) -> scalar.
        optimizer: such as `adam`.
        state: before.
        batches: `[steps, ...]`.

    Returns:
        The `State` after the last step.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> optimizer, params = adam(lambda done: jnp.float32(0.1)), jnp.ones((), jnp.float32)
        >>> batches = draw_batches(jax.random.key(0), 10, num_steps=3, batch_size=5, group_size=1)
        >>> start = State(params, optimizer.init(params))
        >>> print(f"{run_updates(lambda x, rows, uniform: x, optimizer, start, batches).params:.4f}")
        0.7000
    """

    def step(state: State, batch: Batches) -> tuple[State, None]:
        gradient = jax.grad(loss)(state.params, batch.rows, batch.uniform)
        updates, moments = optimizer.update(gradient, state.moments, state.params)
        return State(optax.apply_updates(state.params, updates), moments), None

    state, _ = jax.lax.scan(step, state, batches)
    return state


def draw_batches(key: Key[Array, ""], num_images: int, *, num_steps: int, batch_size: int, group_size: int) -> Batches:
    """Every batch, each epoch in another order.

    All are drawn at once: a CPU takes longer to start the random generator for a batch than to run it.

    Args:
        key: randomness.
        num_images: to choose from.
        num_steps: batches, static.
        batch_size: images of a batch, static.
        group_size: uniform numbers an image, static.

    Returns:
        The `Batches`.

    Raises:
        ValueError: a batch is larger than all the images.

    Example:
        >>> import jax
        >>> batches = draw_batches(jax.random.key(0), 10, num_steps=3, batch_size=5, group_size=2)
        >>> batches.rows.shape, batches.uniform.shape, sorted(batches.rows[:2].ravel().tolist()) == list(range(10))
        ((3, 5), (3, 5, 2), True)
    """
    order, draws = jax.random.split(key)
    per_epoch = num_images // batch_size
    if per_epoch < 1:
        raise ValueError(f"batch_size must be at most the number of images {num_images}, got {batch_size}")
    epochs = jax.random.split(order, math.ceil(num_steps / per_epoch))
    rows = jax.vmap(lambda k: jax.random.permutation(k, num_images)[: per_epoch * batch_size])(epochs)
    quantiles = uniform(draws, (num_steps, batch_size, group_size), jnp.float32)
    return Batches(rows.reshape(-1, batch_size)[:num_steps], quantiles)
