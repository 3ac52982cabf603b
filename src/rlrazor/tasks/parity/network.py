"""The published network of ParityMNIST, a pure function of its parameters. Float32, whatever the default dtype."""

from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key, PyTree

from rlrazor.tasks.parity.world import NUM_LABELS, NUM_PIXELS

WIDTHS = (512, 256)

Params: TypeAlias = PyTree[Float[Array, "..."]]
Inputs: TypeAlias = Float[Array, "images inputs"]
LogPolicy: TypeAlias = Float[Array, "images labels"]
Hidden: TypeAlias = Float[Array, "images hidden"]
Scalar: TypeAlias = Float[Array, ""]


class Outputs(NamedTuple):
    """What the network says of some images.

    Attributes:
        log_policy: normalised log-probabilities of the answers, `[images, 10]`.
        hidden: the last hidden layer, `[images, 256]`.
    """

    log_policy: LogPolicy
    hidden: Hidden


class Network(nnx.Module):
    """The published multilayer perceptron, 785-512-256-10 with ReLU."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        widths = (NUM_PIXELS + 1, *WIDTHS, NUM_LABELS)
        layers = [nnx.Linear(a, b, rngs=rngs, dtype=jnp.float32) for a, b in pairwise(widths)]
        self.layers = nnx.List(layers)

    def __call__(self, inputs: Inputs) -> Outputs:
        """The log-policy and the last hidden layer."""
        hidden = inputs
        for layer in self.layers[:-1]:
            hidden = jax.nn.relu(layer(hidden))
        return Outputs(jax.nn.log_softmax(self.layers[-1](hidden)), hidden)


@cache
def _graph() -> Any:
    return nnx.split(nnx.eval_shape(lambda: Network(nnx.Rngs(0))))[0]


def init_network(key: Key[Array, ""]) -> Params:
    """Random parameters of the network.

    Args:
        key: randomness.

    Returns:
        The parameters, 536,330 float32 numbers.

    Example:
        >>> import jax
        >>> sum(leaf.size for leaf in jax.tree.leaves(init_network(jax.random.key(0))))
        536330
    """
    return nnx.split(Network(nnx.Rngs(key)))[1]


def apply_network(params: Params, inputs: Inputs) -> Outputs:
    """The policy of a network, and its representation.

    Args:
        params: of the network.
        inputs: `[images, 785]`.

    Returns:
        The `Outputs`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params = init_network(jax.random.key(0))
        >>> [x.shape for x in apply_network(params, jnp.zeros((3, 785), jnp.float32))]
        [(3, 10), (3, 256)]
    """
    outputs: Outputs = nnx.merge(_graph(), params)(inputs)
    return outputs
