"""Exact objectives: log-policy to scalar, the sum over the outcomes, `log_policy [..., outcomes]` -> `[...]`.

Their gradient is the expected gradient of the sampled losses; `rlrazor.methods` has the table of which belongs to
which. Names ending in `loss` are minimised, the others maximised. Conventions and errors as in
`rlrazor.divergences`; a reward of `-inf` forbids an outcome, and 0/1 rewards may be booleans or integers.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlrazor._numerics import expectation, log_sum, times_log, weighted
from rlrazor._types import LogProbs, Number, PerRow, Rewards
from rlrazor.checks import boolean_array, floating_array, floating_number, nonnegative, outcome_arrays
from rlrazor.divergences import cross_entropy, kl_divergence
from rlrazor.objectives._terms import at_least_two, clipped


def sft_loss(log_policy: LogProbs, log_target: LogProbs) -> PerRow:
    """The SFT loss -E_target[log policy] = KL(target || policy) + H(target).

    Args:
        log_policy: policy being trained, `[..., outcomes]`.
        log_target: distribution of the demonstrations, `[..., outcomes]`.

    Returns:
        Loss in nats, `[...]`, in [0, inf].

    Raises:
        TypeError: `log_target` holds integers: for token ids there is `reinforce_loss(log_prob, 1)`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy, log_target = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
        >>> print(f"{sft_loss(log_policy, log_target):.4f}")
        0.6931

    References:
        Chen et al., "Retaining by Doing", arXiv:2510.18874.
    """
    target = jnp.asarray(log_target)
    if jnp.issubdtype(target.dtype, jnp.integer):
        raise TypeError(
            f"log_target must hold log-probabilities over the outcomes, got {target.dtype} of shape {target.shape}; "
            "for token ids call reinforce_loss(log_prob, 1) with their log_prob under the policy, or pass "
            "point_mass(ids, num_outcomes)"
        )
    log_policy, log_target = outcome_arrays(log_policy=log_policy, log_target=log_target)
    return cross_entropy(log_target, log_policy)


def expected_reward(log_policy: LogProbs, reward: Rewards) -> PerRow:
    """The expected reward E_policy[reward].

    Args:
        log_policy: policy, `[..., outcomes]`.
        reward: `[..., outcomes]`, `-inf` forbids an outcome.

    Returns:
        Expected reward, `[...]`; `-inf` where the policy may produce a forbidden outcome.

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
        ValueError: a negative or NaN Python `beta`.

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
    return expectation(log_policy, reward) - weighted(beta[..., 0], kl_divergence(log_policy, log_ref))


def grpo_objective(log_policy: LogProbs, accept: Bool[Array, "*#batch outcomes"], group_size: int) -> PerRow:
    """What GRPO maximises in expectation, for 0/1 rewards: F_G(J) = Σ_k P(Binomial(G - 1, J) >= k) / √(k (G - k)).

    J = policy(S) is the success rate and k runs from 1 to G - 1. Its derivative is `grpo_coefficient`, so its gradient
    is the expected gradient of `reinforce_loss` with `grpo_advantage`. For large groups it is 2 arcsin √J, the
    Fisher-Rao length of success.

    Args:
        log_policy: policy, `[..., outcomes]`.
        accept: the success set S, boolean, `[..., outcomes]`.
        group_size: samples G >= 2 of each prompt, static.

    Returns:
        Objective, dimensionless, `[...]`, in [0, π].

    Raises:
        TypeError: `accept` is not boolean, or `log_policy` is not floating.
        ValueError: `group_size` is below 2.

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy = jnp.log(jnp.array([0.3, 0.2, 0.5]))
        >>> print(f"{grpo_objective(log_policy, jnp.array([True, True, False]), group_size=2):.4f}")
        0.5000

    References:
        Shao et al., "DeepSeekMath", arXiv:2402.03300.
    """
    at_least_two("group_size", group_size)
    log_policy = floating_array("log_policy", log_policy)
    accept = boolean_array("accept", accept).astype(log_policy.dtype)
    log_policy, success = outcome_arrays(log_policy=log_policy, accept=accept)
    k = jnp.arange(1, group_size, dtype=log_policy.dtype)
    height = jnp.concatenate([jnp.zeros_like(k[:1]), jnp.cumsum(1 / jnp.sqrt(k * (group_size - k)))])
    log_success = log_sum(jnp.where(success > 0, log_policy, -jnp.inf))
    log_failure = log_sum(jnp.where(success > 0, -jnp.inf, log_policy))
    return _binomial_mean(log_success, log_failure, height)


def grpo_coefficient(success: Number, group_size: int) -> PerRow:
    """What GRPO multiplies the gradient of the success rate J by: c_G(J) = E[√(K (G - K))] / (G J (1 - J)).

    K ~ Binomial(G, J) successes in a group of G samples, whose 0/1 rewards are centred and divided by their population
    standard deviation (with the unbiased one it is √((G - 1) / G) times as large). Equal to
    E[(G - 1) / √((M + 1) (G - 1 - M))], M ~ Binomial(G - 2, J), which has no 0/0 at the ends; 1 / √(J (1 - J)) for
    large groups. A single prompt only learns at another speed for it; among many, it decides which learn first.

    Args:
        success: success rate J in [0, 1], a number or `[...]`.
        group_size: samples G >= 2 of each prompt, static.

    Returns:
        c_G(J), `[...]`, in [1, √(G - 1)].

    Raises:
        TypeError: `success` is an array of a non-floating dtype.
        ValueError: `group_size` is below 2.

    Example:
        >>> print(*(f"{grpo_coefficient(0.85, group_size):.3f}" for group_size in (4, 8, 64)))
        1.673 2.206 2.756

    References:
        Shao et al., "DeepSeekMath", arXiv:2402.03300 (GRPO); Mroueh, "Reinforcement Learning with Verifiable Rewards",
        arXiv:2503.06639.
    """
    at_least_two("group_size", group_size)
    success = floating_number("success", success)
    m = jnp.arange(group_size - 1, dtype=success.dtype)
    gain = (group_size - 1) / jnp.sqrt((m + 1) * (group_size - 1 - m))
    rate = jnp.minimum(success, 1 - success)  # c_G is symmetric, and linear at its ends
    inside = jnp.where(rate > 0, rate, 0.5)
    at_end = gain[0] + rate * (group_size - 2) * (gain[min(1, group_size - 2)] - gain[0])
    return jnp.where(rate > 0, _binomial_mean(jnp.log(inside), jnp.log1p(-inside), gain), at_end)


def _binomial_mean(
    log_success: Float[Array, "*batch"], log_failure: Float[Array, "*batch"], values: Float[Array, " counts"]
) -> Float[Array, "*batch"]:
    """E[values[M]], M ~ Binomial(n, success) with n + 1 values."""
    n = values.size - 1
    log_choose = [math.lgamma(n + 1) - math.lgamma(m + 1) - math.lgamma(n - m + 1) for m in range(n + 1)]
    spread = range(log_success.ndim)
    m, weights = (
        jnp.expand_dims(x, spread) for x in (jnp.arange(n + 1, dtype=values.dtype), jnp.array(log_choose, values.dtype))
    )
    log_mass = weights + times_log(m, log_success[..., None]) + times_log(n - m, log_failure[..., None])
    return expectation(log_mass, jnp.expand_dims(values, spread))


def dr_grpo_objective(log_policy: LogProbs, reward: Rewards, group_size: int) -> PerRow:
    """What Dr. GRPO maximises in expectation: (1 - 1 / G) E_policy[reward].

    The factor is the price of a baseline that holds the sample itself; RLOO leaves the sample out and has none.

    Args:
        log_policy: policy, `[..., outcomes]`.
        reward: `[..., outcomes]`.
        group_size: samples G >= 2 of each prompt, static.

    Returns:
        Objective, `[...]`, in the units of the reward.

    Raises:
        ValueError: `group_size` is below 2.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{dr_grpo_objective(jnp.log(jnp.array([0.2, 0.8])), jnp.array([0.0, 1.0]), group_size=4):.4f}")
        0.6000

    References:
        Liu et al., "Understanding R1-Zero-Like Training", arXiv:2503.20783.
    """
    at_least_two("group_size", group_size)
    return (1 - 1 / group_size) * expected_reward(log_policy, reward)


def ppo_clip_objective(log_policy: LogProbs, log_old: LogProbs, advantage: Rewards, clip: Number) -> PerRow:
    """The PPO surrogate E_old[min(ρ A, clip(ρ, 1 - ε, 1 + ε) A)], ρ = policy / old.

    Args:
        log_policy: policy, `[..., outcomes]`.
        log_old: the policy that the samples would come from, `[..., outcomes]`.
        advantage: A, `[..., outcomes]`; held fixed.
        clip: ε >= 0, a number or `[...]`.

    Returns:
        Objective, in the units of the advantage, `[...]`.

    Raises:
        ValueError: a negative or NaN Python `clip`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_old, log_policy = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
        >>> print(f"{ppo_clip_objective(log_policy, log_old, jnp.array([1.0, 0.0]), clip=0.2):.4f}")
        0.6000

    References:
        Schulman et al., "Proximal Policy Optimization Algorithms", arXiv:1707.06347, eq. 7.
    """
    log_policy, log_old, advantage, clip = outcome_arrays(
        {"clip": nonnegative("clip", clip)}, log_policy=log_policy, log_old=log_old, advantage=advantage
    )
    log_old = jax.lax.stop_gradient(log_old)
    return clipped(log_policy, log_old, advantage, clip).sum(-1)
