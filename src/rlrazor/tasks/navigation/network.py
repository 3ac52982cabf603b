"""The walker's network: the observation and the rule in force in, an action and a word of style out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlrazor.tasks.navigation.world import Observations
from rlrazor.tasks.perceptron import Params, Widths, apply_perceptron


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

    @property
    def widths(self) -> Widths:
        """Of all layers."""
        return (self.features + self.rules, self.width, self.width, self.actions + self.styles)


class Answers(NamedTuple):
    """What the walker may answer: an action and a word of style, independent of each other given the observation.

    Attributes:
        log_action: log-probabilities, `[..., actions]`.
        log_style: log-probabilities, `[..., styles]`.
    """

    log_action: Float[Array, "*batch actions"]
    log_style: Float[Array, "*batch styles"]


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
        >>> from rlrazor.tasks.perceptron import init_perceptron
        >>> size = Size(features=66, rules=2, actions=14, styles=16, width=128)
        >>> params = init_perceptron(size.widths, jax.random.key(0))
        >>> policy = answers(params, size, jnp.zeros((3, 66)), jnp.array([0, 1, 0]))
        >>> policy.log_action.shape, policy.log_style.shape
        ((3, 14), (3, 16))
    """
    inputs = jnp.concatenate([observation, jax.nn.one_hot(rule, size.rules, dtype=observation.dtype)], axis=-1)
    logits = apply_perceptron(params, size.widths, inputs)
    action, style = logits[..., : size.actions], logits[..., size.actions :]
    if allowed is not None:
        action = jnp.where(allowed, action, -jnp.inf)
    return Answers(jax.nn.log_softmax(action), jax.nn.log_softmax(style))
