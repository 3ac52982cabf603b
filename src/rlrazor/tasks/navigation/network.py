"""The walker's network: the observation and the rule in force in, an action and a word of style out."""

from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from rlrazor.tasks.navigation.world import Observations

Params: TypeAlias = PyTree[Float[Array, "..."]]


class Size(NamedTuple):
    """The size of a network; all of it static.

    Attributes:
        features: of an observation, the rule not counted.
        rules: how many rules there are.
        actions: size of the vocabulary.
        styles: words of style, which no verifier reads.
        width: of the two hidden layers.
    """

    features: int
    rules: int
    actions: int
    styles: int
    width: int


class Answers(NamedTuple):
    """What the walker may answer: an action and a word of style, independent of each other given the observation.

    Attributes:
        log_action: log-probabilities, `[..., actions]`.
        log_style: log-probabilities, `[..., styles]`.
    """

    log_action: Float[Array, "*batch actions"]
    log_style: Float[Array, "*batch styles"]


class Network(nnx.Module):
    """A multilayer perceptron with two hidden layers of ReLU and two heads."""

    def __init__(self, size: Size, rngs: nnx.Rngs) -> None:
        widths = (size.features + size.rules, size.width, size.width, size.actions + size.styles)
        dtype = jnp.zeros(()).dtype
        self.layers = nnx.List(
            [nnx.Linear(a, b, rngs=rngs, dtype=dtype, param_dtype=dtype) for a, b in pairwise(widths)]
        )

    def __call__(self, inputs: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """The logits of both heads, side by side."""
        hidden = inputs
        for layer in self.layers[:-1]:
            hidden = jax.nn.relu(layer(hidden))
        logits: Float[Array, "*batch outputs"] = self.layers[-1](hidden)
        return logits


@cache
def _graph(size: Size, dtype: Any) -> Any:
    return nnx.split(nnx.eval_shape(lambda: Network(size, nnx.Rngs(0))))[0]


def init_network(size: Size, key: Key[Array, ""]) -> Params:
    """Random parameters of a network, in the default dtype.

    Args:
        size: of the network, static.
        key: randomness.

    Returns:
        The parameters.

    Example:
        >>> import jax
        >>> params = init_network(Size(features=66, rules=2, actions=14, styles=16, width=128), jax.random.key(0))
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        29214
    """
    return nnx.split(Network(size, nnx.Rngs(key)))[1]


def answers(
    params: Params,
    size: Size,
    observation: Observations,
    rule: Int[Array, "*batch"],
    allowed: Bool[Array, "*batch actions"] | None = None,
) -> Answers:
    """What the walker may answer at some states, under a rule for each.

    Args:
        params: of the network.
        size: of the network, static.
        observation: `[..., features]`.
        rule: index of the rule in force, `[...]`.
        allowed: the actions that the softmax runs over, `[..., actions]`; all of them unless given.

    Returns:
        The `Answers`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> size = Size(features=66, rules=2, actions=14, styles=16, width=128)
        >>> policy = answers(init_network(size, jax.random.key(0)), size, jnp.zeros((3, 66)), jnp.array([0, 1, 0]))
        >>> policy.log_action.shape, policy.log_style.shape
        ((3, 14), (3, 16))
    """
    inputs = jnp.concatenate([observation, jax.nn.one_hot(rule, size.rules, dtype=observation.dtype)], axis=-1)
    logits = nnx.merge(_graph(size, jnp.zeros(()).dtype), params)(inputs)
    action, style = logits[..., : size.actions], logits[..., size.actions :]
    if allowed is not None:
        action = jnp.where(allowed, action, -jnp.inf)
    return Answers(jax.nn.log_softmax(action), jax.nn.log_softmax(style))
