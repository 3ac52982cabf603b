"""Advantages: the rewards of a prompt's group of samples to what multiplies their score, `[..., samples]` to the same.

Errors as in `rlrazor.checks.sample_arrays`; 0/1 rewards may be booleans or integers.
"""

import jax.numpy as jnp

from rlrazor.checks import sample_arrays
from rlrazor.objectives._terms import Advantages, SampleRewards, at_least_two


def rloo_advantage(reward: SampleRewards) -> Advantages:
    """The reward minus the mean reward of the prompt's other samples: r_i - Σ_{j≠i} r_j / (G - 1).

    Args:
        reward: of a group of G >= 2 samples of one prompt, `[..., samples]`.

    Returns:
        Advantages, `[..., samples]`.

    Raises:
        ValueError: fewer than 2 samples.

    Example:
        >>> import jax.numpy as jnp
        >>> rloo_advantage(jnp.array([1.0, 0.0, 0.0])).tolist()
        [1.0, -0.5, -0.5]

    References:
        Kool, van Hoof, Welling, "Buy 4 REINFORCE Samples, Get a Baseline for Free!", 2019; Ahmadian et al., "Back to
        Basics", arXiv:2402.14740.
    """
    centred = dr_grpo_advantage(reward)
    group_size = centred.shape[-1]
    return centred * (group_size / (group_size - 1))


def dr_grpo_advantage(reward: SampleRewards) -> Advantages:
    """The reward minus the mean reward of the group, itself included: r_i - mean(r).

    Args:
        reward: of a group of G >= 2 samples of one prompt, `[..., samples]`.

    Returns:
        Advantages, `[..., samples]`.

    Raises:
        ValueError: fewer than 2 samples.

    Example:
        >>> import jax.numpy as jnp
        >>> dr_grpo_advantage(jnp.array([1.0, 0.0, 0.0, 1.0])).tolist()
        [0.5, -0.5, -0.5, 0.5]

    References:
        Liu et al., "Understanding R1-Zero-Like Training", arXiv:2503.20783.
    """
    (reward,) = sample_arrays(reward=reward)
    at_least_two("samples of reward", reward.shape[-1])
    from_first = reward - reward[..., :1]  # exactly 0 where all are equal
    return from_first - from_first.mean(-1, keepdims=True)


def grpo_advantage(reward: SampleRewards) -> Advantages:
    """The reward standardised within the group: (r_i - mean(r)) / std(r), with the population standard deviation.

    Args:
        reward: of a group of G >= 2 samples of one prompt, `[..., samples]`.

    Returns:
        Advantages, `[..., samples]`; 0, and flat in the reward, where all rewards of the group are equal.

    Raises:
        ValueError: fewer than 2 samples.

    Example:
        >>> import jax.numpy as jnp
        >>> grpo_advantage(jnp.array([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])).tolist()
        [[1.0, -1.0, -1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]

    References:
        Shao et al., "DeepSeekMath", arXiv:2402.03300, section 4.1.
    """
    centred = dr_grpo_advantage(reward)
    span = jnp.ptp(centred, axis=-1, keepdims=True)
    equal = span == 0
    unit = centred / jnp.where(equal, 1.0, span)
    variance = jnp.square(unit).mean(-1, keepdims=True)
    deviation = jnp.sqrt(jnp.where(equal, 1.0, variance))
    return jnp.where(equal, 0.0, unit / jnp.where(equal, 1.0, deviation))  # else XLA rewrites x / √y
