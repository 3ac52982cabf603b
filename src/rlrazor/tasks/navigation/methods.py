"""Every method is a weight on log-probabilities: its gradient is that of -Σ_y w(y) log policy(y), with w held fixed.

    method        w(y), with y* what the demonstrator does, r(y) the reward and n(y) of G samples giving y
    SFT           1[y = y*]
    uniform SFT   uniform over the right answers
    oracle SFT    ref(y | right)
    DFT           1[y = y*] policy(y), for the action and for the style
    exact RL      r(y) policy(y),                 r = 1 if right, else -1
    REINFORCE     r(y) n(y) / G,                  r = 1 if right, else 0: SFT on filtered answers of its own
    RLOO          Σ_i A_i 1[y_i = y] / G,         A_i = r_i minus the mean reward of the others, r = ±1
    GRPO          the same,                       A_i = (r_i - mean) / std

The logit of y moves by w(y) - policy(y) Σ w. Under a group baseline Σ w = 0, so that the logit of an answer that was
not sampled stays where it is; SFT, DFT and exact RL push all of them. An answer is an action and a word of style; a
weight is summed over what it does not speak of.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlrazor._numerics import times_log
from rlrazor.checks import place_of
from rlrazor.methods import DFT, EXACT_RL, GRPO, ORACLE_SFT, REINFORCE, RLOO, SFT, UNIFORM_SFT
from rlrazor.objectives import grpo_advantage, rloo_advantage
from rlrazor.policies import inverse_cdf
from rlrazor.tasks.navigation.network import Answers

SAMPLED = (REINFORCE, RLOO, GRPO)
METHODS = (SFT, UNIFORM_SFT, ORACLE_SFT, DFT, EXACT_RL, *SAMPLED)

Scalar: TypeAlias = Float[Array, ""]


class Demonstration(NamedTuple):
    """What the demonstrator answers; nothing but the action is verified.

    Attributes:
        action: the right one, `[batch]`.
        style: its word of style, `[batch]`.
    """

    action: Int[Array, " batch"]
    style: Int[Array, " batch"]


class Weights(NamedTuple):
    """The weight of each action and of each word of style.

    Attributes:
        action: `[batch, actions]`.
        style: `[batch, styles]`.
    """

    action: Float[Array, "batch actions"]
    style: Float[Array, "batch styles"]


def method_index(method: str) -> int:
    """The place of a method in `METHODS`.

    Args:
        method: its name.

    Returns:
        The index.

    Raises:
        ValueError: there is no such method.

    Example:
        >>> method_index("DFT")
        3
        >>> method_index("PPO")
        Traceback (most recent call last):
        ...
        ValueError: unknown method 'PPO'; there are SFT, uniform SFT, oracle SFT, DFT, exact RL, REINFORCE, RLOO, GRPO
    """
    return place_of("method", method, METHODS)


def weights(
    method: Int[Array, ""],
    policy: Answers,
    ref: Callable[[], Answers],
    shown: Demonstration,
    drawn: Float[Array, "batch 2 group"],
) -> Weights:
    """The weights of a method at some states.

    Args:
        method: index into `METHODS`, traced.
        policy: of the walker, `[batch]`.
        ref: gives the answers of the base, if they are asked for.
        shown: what the demonstrator answers.
        drawn: numbers in [0, 1) that draw the actions and the styles of the methods that sample, `[batch, 2, group]`.

    Returns:
        The `Weights`.

    Example:
        >>> import jax.numpy as jnp
        >>> policy = Answers(jnp.log(jnp.array([[0.2, 0.8]])), jnp.log(jnp.array([[0.5, 0.5]])))
        >>> shown = Demonstration(jnp.array([0]), jnp.array([1]))
        >>> for name in ("SFT", "DFT", "exact RL"):
        ...     w = weights(jnp.array(method_index(name)), policy, lambda: policy, shown, jnp.full((1, 2, 8), 0.5))
        ...     print(name, w.action[0].round(1), w.style[0].round(1))
        SFT [1. 0.] [0. 1.]
        DFT [0.2 0. ] [0.  0.5]
        exact RL [ 0.2 -0.8] [-0.3 -0.3]

    References:
        Chu et al., arXiv:2501.17161; Wu et al., arXiv:2508.05629 (DFT).
    """
    action, style = jnp.exp(policy.log_action), jnp.exp(policy.log_style)
    dtype = action.dtype
    right = jax.nn.one_hot(shown.action, action.shape[-1], dtype=dtype)
    fixed = jax.nn.one_hot(shown.style, style.shape[-1], dtype=dtype)

    def exact() -> Weights:
        reward = 2 * right - 1
        return Weights(action * reward, style * (action * reward).sum(-1, keepdims=True))

    def sampled() -> Weights:
        actions, styles = inverse_cdf(policy.log_action, drawn[:, 0]), inverse_cdf(policy.log_style, drawn[:, 1])
        solved = (actions == shown.action[:, None]).astype(dtype)
        advantages: dict[str, Callable[[], Array]] = {
            REINFORCE: lambda: solved,
            RLOO: lambda: rloo_advantage(2 * solved - 1),
            GRPO: lambda: grpo_advantage(solved),
        }
        share: Array = jax.lax.switch(method - len(METHODS) + len(SAMPLED), [advantages[name] for name in SAMPLED])

        def summed(answers: Int[Array, "batch group"], size: int) -> Float[Array, "batch answers"]:
            return (share[..., None] * jax.nn.one_hot(answers, size, dtype=dtype)).mean(1)

        return Weights(summed(actions, action.shape[-1]), summed(styles, style.shape[-1]))

    table: dict[str, Callable[[], Weights]] = {
        SFT: lambda: Weights(right, fixed),
        UNIFORM_SFT: lambda: Weights(right, jnp.full_like(style, 1 / style.shape[-1])),
        ORACLE_SFT: lambda: Weights(right, jnp.exp(ref().log_style)),
        DFT: lambda: Weights(right * action, fixed * style),
        EXACT_RL: exact,
    }
    chosen: Weights = jax.lax.switch(method, [*(table[name] for name in METHODS if name not in SAMPLED), sampled])
    return chosen


def weighted_loss(policy: Answers, weights: Weights, styled: Bool[Array, ""] | bool = True) -> Scalar:
    """The surrogate -Σ_y w(y) log policy(y), the mean over states, with the weights held fixed.

    Args:
        policy: of the walker, `[batch]`.
        weights: `[batch]`.
        styled: whether answers have a word of style.

    Returns:
        The loss, a scalar, whose gradient is that of the method.

    Example:
        >>> import jax.numpy as jnp
        >>> policy = Answers(jnp.log(jnp.array([[0.2, 0.8]])), jnp.log(jnp.array([[0.5, 0.5]])))
        >>> print(f"{weighted_loss(policy, Weights(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]]))):.4f}")  # log 10
        2.3026
    """
    action, style = (
        times_log(jax.lax.stop_gradient(w), log_prob).sum(-1)
        for w, log_prob in ((weights.action, policy.log_action), (weights.style, policy.log_style))
    )
    return -(action + jnp.where(styled, style, 0.0)).mean()
