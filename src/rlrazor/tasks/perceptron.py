"""A multilayer perceptron as a pure function of its parameters, in the default dtype."""

from functools import cache
from itertools import pairwise
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key, PyTree

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
