"""Discrete steps, exact or sampled: the optimiser's path, whose small-step limit is the flow."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from rlrazor._trees import with_start
from rlrazor._types import Params


def train(
    gradient: Callable[[Any, Key[Array, ""]], Any],
    params: Params,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    *,
    num_steps: int,
    project: Callable[[Any], Any] = lambda params: params,
    record: Callable[[Any], Any] = lambda params: params,
) -> PyTree[Array]:
    """The path params_{k+1} = project(params_k + update_k), with update_k = optimizer(gradient(params_k, key_k)).

    One training; vmap over keys, learning rates or initial parameters for more.

    Args:
        gradient: (params, key) -> descent gradient, exact or a sampled estimate of it.
        params: initial parameters, a pytree of arrays.
        optimizer: any optax transformation.
        key: randomness, split once a step.
        num_steps: number of updates, static.
        project: brings parameters back into their domain after each update.
        record: what to keep of the parameters, all of them unless given: params -> pytree of arrays.

    Returns:
        What is recorded before the first and after every update, each leaf `[num_steps + 1, ...]`.

    Raises:
        ValueError: `num_steps` is negative.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> path = train(lambda x, key: x, jnp.array(1.0), optax.sgd(0.5), jax.random.key(0), num_steps=3)
        >>> path.tolist()
        [1.0, 0.5, 0.25, 0.125]

    References:
        Robbins, Monro, "A Stochastic Approximation Method", 1951.
    """
    if num_steps < 0:
        raise ValueError(f"num_steps must be at least 0, got {num_steps}")

    def update(carry: tuple[Any, Any], step_key: Array) -> tuple[tuple[Any, Any], Any]:
        current, state = carry
        updates, state = optimizer.update(gradient(current, step_key), state, current)
        following = project(optax.apply_updates(current, updates))
        return (following, state), record(following)

    _, path = jax.lax.scan(update, (params, optimizer.init(params)), jax.random.split(key, num_steps))
    return with_start(record(params), path)


def train_at(
    gradient: Callable[[Any, Key[Array, ""], Int[Array, ""]], Any],
    params: Params,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    steps: Int[Array, " checkpoints"],
    *,
    record: Callable[[Any], Any] = lambda params: params,
) -> PyTree[Array]:
    """What `train` records, at some steps only.

    How long a training is and when it is recorded are traced, so that one program runs short and long ones. Its path
    has no derivative, and its random numbers are not those of `train`.

    Args:
        gradient: (params, key, number of updates done) -> descent gradient, exact or a sampled estimate of it.
        params: initial parameters, a pytree of arrays.
        optimizer: any optax transformation.
        key: randomness, folded with the number of the step.
        steps: numbers of updates after which to record, increasing, from 0 on, `[checkpoints]`.
        record: what to keep of the parameters, all of them unless given: params -> pytree of arrays.

    Returns:
        What is recorded, each leaf `[checkpoints, ...]`.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> steps = jnp.array([0, 1, 10])
        >>> train_at(lambda x, key, step: x, jnp.array(1.0), optax.sgd(0.5), jax.random.key(0), steps).tolist()
        [1.0, 0.5, 0.0009765625]
    """

    def update(step: Int[Array, ""], carry: tuple[Any, Any]) -> tuple[Any, Any]:
        current, state = carry
        slope = gradient(current, jax.random.fold_in(key, step), step)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes its integer counter with floats
            updates, state = optimizer.update(slope, state, current)
        return optax.apply_updates(current, updates), state

    def to_checkpoint(carry: tuple[Any, Any], span: tuple[Array, Array]) -> tuple[tuple[Any, Any], Any]:
        carry = jax.lax.fori_loop(*span, update, carry)
        return carry, record(carry[0])

    before = jnp.concatenate([jnp.zeros_like(steps[:1]), steps[:-1]])
    _, path = jax.lax.scan(to_checkpoint, (params, optimizer.init(params)), (before, steps))
    return path


def newton_minimum(
    loss: Callable[[Float[Array, " n"]], Float[Array, ""]], start: Float[Array, " n"], *, num_steps: int
) -> Float[Array, " n"]:
    """The minimum of a smooth loss that a shift of all its numbers does not change, such as one of logits.

    Newton's method, whose steps are shortened to one at most, for where the loss is nearly linear; the curvature of a
    shift, which is zero, is made positive.

    Args:
        loss: of numbers `[n]`, convex from the start on.
        start: where to begin, `[n]`.
        num_steps: static.

    Returns:
        The minimum, `[n]`, with the mean of the start.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> target = jnp.array([0.7, 0.2, 0.1])
        >>> end = newton_minimum(lambda x: -target @ jax.nn.log_softmax(x), jnp.zeros(3), num_steps=20)
        >>> print(*(f"{p:.3f}" for p in jax.nn.softmax(end)))
        0.700 0.200 0.100
    """

    def newton(_: Int[Array, ""], x: Float[Array, " n"]) -> Float[Array, " n"]:
        step = jnp.linalg.solve(jax.hessian(loss)(x) + 1.0, jax.grad(loss)(x))
        following: Float[Array, " n"] = x - step / jnp.maximum(jnp.abs(step).max(), 1.0)
        return following

    end: Float[Array, " n"] = jax.lax.fori_loop(0, num_steps, newton, start)
    return end


def log_steps(last: int, num: int) -> Int[np.ndarray, " steps"]:
    """The start, and steps up to the last, evenly spaced on a log scale as far as whole numbers allow.

    Args:
        last: the last step, at least `num`.
        num: how many, the start not counted.

    Returns:
        Increasing whole numbers, `[num + 1]`, from 0 to `last`.

    Raises:
        ValueError: there are fewer steps than wanted.

    Example:
        >>> log_steps(100, 5).tolist()
        [0, 3, 7, 17, 41, 100]
        >>> log_steps(4, 4).tolist()
        [0, 1, 2, 3, 4]
    """
    if not 1 <= num <= last:
        raise ValueError(f"num must be from 1 to last {last}, got {num}")
    steps = [0]
    for left in range(num, 0, -1):
        ratio = (last / max(steps[-1], 1)) ** (1 / left)
        steps.append(min(max(round(max(steps[-1], 1) * ratio), steps[-1] + 1), last - left + 1))
    return np.array(steps)


def chosen_optimizer(
    index: Int[Array, ""], optimizers: Sequence[optax.GradientTransformation]
) -> optax.GradientTransformation:
    """One of several optimisers, by a traced index, so that one program trains with each.

    Args:
        index: into `optimizers`.
        optimizers: any optax transformations.

    Returns:
        The transformation; its state holds those of all, of which only the chosen one moves.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> optimizer = chosen_optimizer(jnp.array(1), (optax.sgd(0.5), optax.sgd(0.25)))
        >>> updates, _ = optimizer.update(jnp.array(1.0), optimizer.init(jnp.array(0.0)))
        >>> float(updates)
        -0.25
    """

    def init(params: Any) -> Any:
        return tuple(optimizer.init(params) for optimizer in optimizers)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def by(place: int) -> Callable[[], tuple[Any, Any]]:
            def apply() -> tuple[Any, Any]:
                moved, own = optimizers[place].update(updates, state[place], params)
                return moved, (*state[:place], own, *state[place + 1 :])

            return apply

        chosen: tuple[Any, Any] = jax.lax.switch(index, [by(place) for place in range(len(optimizers))])
        return chosen

    return optax.GradientTransformation(init, update)
