"""Discrete steps, exact or sampled: the optimiser's path, whose small-step limit is the flow."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import Array, Key, PyTree

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
