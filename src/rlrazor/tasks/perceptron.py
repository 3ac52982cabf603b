"""A multilayer perceptron as a pure function of its parameters, in the default dtype."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key, PyTree

from rlrazor.training import train_at

Params: TypeAlias = PyTree[Float[Array, "..."]]
Widths: TypeAlias = tuple[int, ...]


class Perceptron(nnx.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, widths: Widths, rngs: nnx.Rngs) -> None:
        dtype = jnp.zeros(()).dtype
        layers = [nnx.Linear(a, b, rngs=rngs, dtype=dtype, param_dtype=dtype) for a, b in pairwise(widths)]
        self.layers = nnx.List(layers)

    def __call__(self, inputs: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """The last layer's outputs."""
        for layer in self.layers[:-1]:
            inputs = jax.nn.relu(layer(inputs))
        outputs: Float[Array, "*batch outputs"] = self.layers[-1](inputs)
        return outputs


@cache
def _graph(widths: Widths, dtype: Any) -> Any:
    return nnx.split(nnx.eval_shape(lambda: Perceptron(widths, nnx.Rngs(0))))[0]


def init_perceptron(widths: Widths, key: Key[Array, ""]) -> Params:
    """Random parameters: normal weights of variance 1 / inputs, no biases.

    Args:
        widths: of the inputs, of every hidden layer and of the outputs, static.
        key: randomness.

    Returns:
        The parameters.

    Example:
        >>> import jax
        >>> sum(leaf.size for leaf in jax.tree.leaves(init_perceptron((5, 3, 2), jax.random.key(0))))  # 5 * 3 + 3 + ...
        26
    """
    return nnx.split(Perceptron(widths, nnx.Rngs(key)))[1]


def fit_perceptron(
    loss: Callable[[Params, Key[Array, ""]], Float[Array, ""]],
    widths: Widths,
    key: Key[Array, ""],
    *,
    num_steps: int,
    rate: float = 3e-3,
) -> Params:
    """A perceptron after Adam on a loss of random batches, at a rate that falls to zero along a cosine.

    Args:
        loss: (parameters, key of a batch) -> scalar.
        widths: of the layers, static.
        key: randomness.
        num_steps: updates, static.
        rate: learning rate at the start.

    Returns:
        The parameters.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def error(params, key):  # of the sum of two numbers
        ...     x = jax.random.normal(key, (32, 2))
        ...     return jnp.square(apply_perceptron(params, (2, 8, 1), x)[:, 0] - x.sum(1)).mean()
        >>> bool(error(fit_perceptron(error, (2, 8, 1), jax.random.key(0), num_steps=500), jax.random.key(1)) < 0.1)
        True
    """
    start, draws = jax.random.split(key)
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, num_steps))

    def gradient(params: Params, key: Key[Array, ""], _: Int[Array, ""]) -> Params:
        return jax.grad(loss)(params, key)

    last = train_at(gradient, init_perceptron(widths, start), optimizer, draws, jnp.array([num_steps]))
    return jax.tree.map(lambda leaf: leaf[0], last)


def apply_perceptron(
    params: Params, widths: Widths, inputs: Float[Array, "*batch inputs"]
) -> Float[Array, "*batch outputs"]:
    """The outputs of a perceptron.

    Args:
        params: see `init_perceptron`.
        widths: of its layers, static.
        inputs: `[..., inputs]`.

    Returns:
        `[..., outputs]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params = init_perceptron((5, 3, 2), jax.random.key(0))
        >>> apply_perceptron(params, (5, 3, 2), jnp.zeros((7, 5))).shape
        (7, 2)
    """
    outputs: Float[Array, "*batch outputs"] = nnx.merge(_graph(widths, inputs.dtype), params)(inputs)
    return outputs
