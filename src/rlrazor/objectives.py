"""Log-policy to scalar: what SFT and RL maximise or minimise.

Each function takes batches and returns one value a row. Conventions as in `rlrazor.divergences`.
"""

import jax.numpy as jnp

from rlrazor._numerics import expectation
from rlrazor.checks import nonnegative, outcome_arrays
from rlrazor.divergences import LogProbs, Number, PerRow, cross_entropy, kl_divergence
from rlrazor.tilting import Rewards


def sft_loss(log_policy: LogProbs, log_target: LogProbs) -> PerRow:
    """The SFT loss -E_target[log policy] = KL(target || policy) + H(target).

    Args:
        log_policy: policy being trained, `[..., outcomes]`.
        log_target: distribution of the demonstrations, `[..., outcomes]`.

    Returns:
        Loss in nats, `[...]`, in [0, inf].

    Raises:
        TypeError, ValueError: see `rlrazor.checks.outcome_arrays`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy, log_target = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
        >>> print(f"{sft_loss(log_policy, log_target):.4f}")
        0.6931

    References:
        Chen et al., "Retaining by Doing", arXiv:2510.18874.
    """
    log_policy, log_target = outcome_arrays(log_policy=log_policy, log_target=log_target)
    return cross_entropy(log_target, log_policy)


def expected_reward(log_policy: LogProbs, reward: Rewards) -> PerRow:
    """The expected reward E_policy[reward].

    Args:
        log_policy: policy, `[..., outcomes]`.
        reward: `[..., outcomes]`, `-inf` forbids an outcome.

    Returns:
        Expected reward, `[...]`; `-inf` where the policy may produce a forbidden outcome.

    Raises:
        TypeError, ValueError: see `rlrazor.checks.outcome_arrays`.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{expected_reward(jnp.log(jnp.array([0.2, 0.8])), jnp.array([0.0, 1.0])):.4f}")
        0.8000

    References:
        Williams, "Simple Statistical Gradient-Following Algorithms ...", 1992.
    """
    log_policy, reward = outcome_arrays(log_policy=log_policy, reward=reward)
    return expectation(log_policy, reward)


def regularized_reward(log_policy: LogProbs, log_ref: LogProbs, reward: Rewards, beta: Number) -> PerRow:
    """The KL-regularised objective J = E_policy[reward] - beta KL(policy || ref).

    With pi* = tilt(ref, reward, beta) it equals beta log Z - beta KL(policy || pi*), so maximising it is minimising
    the reverse KL to the tilted reference.

    Args:
        log_policy: policy, `[..., outcomes]`.
        log_ref: reference policy, `[..., outcomes]`.
        reward: `[..., outcomes]`, `-inf` forbids an outcome.
        beta: KL coefficient >= 0, a number or `[...]`.

    Returns:
        Objective, `[...]`, in the units of the reward; `-inf` where the policy may produce a forbidden
        outcome or, at beta > 0, one that the reference never produces.

    Raises:
        TypeError, ValueError: see `rlrazor.checks.outcome_arrays`; a negative or NaN Python `beta`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_ref, reward = jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, 1.0])
        >>> print(f"{regularized_reward(log_ref, log_ref, reward, beta=1.0):.4f}")
        0.5000

    References:
        Jaques et al., "Sequence Tutor", arXiv:1611.02796; Korbak et al., "RL with KL Penalties is Better Viewed as
        Bayesian Inference", arXiv:2205.11275.
    """
    log_policy, log_ref, reward, beta = outcome_arrays(
        {"beta": nonnegative("beta", beta)}, log_policy=log_policy, log_ref=log_ref, reward=reward
    )
    beta, kl = beta[..., 0], kl_divergence(log_policy, log_ref)
    return expectation(log_policy, reward) - beta * jnp.where((beta == 0) & jnp.isinf(kl), 0.0, kl)
