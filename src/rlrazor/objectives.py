"""Log-policy to scalar: what SFT and RL maximise or minimise.

Exact functions sum over the outcomes, `log_policy [..., outcomes]` -> `[...]`; their gradient is the expected gradient
of the sampled ones, which average over samples, `log_prob [..., samples]` -> `[...]`, with log_prob the policy's
log-probability of each. Names ending in `loss` are minimised, the others maximised.

    method           exact                  sampled
    SFT              sft_loss               reinforce_loss(log_prob, 1) on demonstrations
    REINFORCE        expected_reward        reinforce_loss(log_prob, reward)
    1-0 REINFORCE    expected_reward        the same, with a reward of 1 for success and 0 for failure
    RLOO             expected_reward        reinforce_loss(log_prob, rloo_advantage(reward))
    Dr. GRPO         dr_grpo_objective      reinforce_loss(log_prob, dr_grpo_advantage(reward))
    GRPO             grpo_objective         reinforce_loss(log_prob, grpo_advantage(reward))
    PPO-clip         ppo_clip_objective     ppo_clip_loss
    SimPO            expected_simpo_loss    simpo_loss
    KL penalty       regularized_reward     kl_penalty_loss

Conventions as in `rlrazor.divergences`.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlrazor._numerics import expectation, log_sum, mass_times, times_log
from rlrazor.checks import boolean_array, floating_array, nonnegative, outcome_arrays, sample_arrays
from rlrazor.divergences import LogProbs, Number, PerRow, cross_entropy, kl_divergence
from rlrazor.tilting import Rewards

Samples = Float[Array, "*#batch samples"]
Advantages = Float[Array, "*batch samples"]


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
    _at_least_two("group_size", group_size)
    success = jnp.asarray(success, float) if isinstance(success, int | float) else floating_array("success", success)
    m = jnp.arange(group_size - 1, dtype=success.dtype)
    gain = (group_size - 1) / jnp.sqrt((m + 1) * (group_size - 1 - m))
    rate = jnp.minimum(success, 1 - success)  # c_G is symmetric, and linear at its ends
    inside = jnp.where(rate > 0, rate, 0.5)
    at_end = gain[0] + rate * (group_size - 2) * (gain[min(1, group_size - 2)] - gain[0])
    return jnp.where(rate > 0, _binomial_mean(jnp.log(inside), jnp.log1p(-inside), gain), at_end)


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
        ValueError: see `rlrazor.checks.outcome_arrays`; `group_size` is below 2.

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy = jnp.log(jnp.array([0.3, 0.2, 0.5]))
        >>> print(f"{grpo_objective(log_policy, jnp.array([True, True, False]), group_size=2):.4f}")
        0.5000

    References:
        Shao et al., "DeepSeekMath", arXiv:2402.03300.
    """
    _at_least_two("group_size", group_size)
    log_policy = floating_array("log_policy", log_policy)
    accept = boolean_array("accept", accept).astype(log_policy.dtype)
    log_policy, success = outcome_arrays(log_policy=log_policy, accept=accept)
    k = jnp.arange(1, group_size, dtype=log_policy.dtype)
    height = jnp.concatenate([jnp.zeros_like(k[:1]), jnp.cumsum(1 / jnp.sqrt(k * (group_size - k)))])
    log_success = log_sum(jnp.where(success > 0, log_policy, -jnp.inf))
    log_failure = log_sum(jnp.where(success > 0, -jnp.inf, log_policy))
    return _binomial_mean(log_success, log_failure, height)


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
        TypeError, ValueError: see `rlrazor.checks.outcome_arrays`; `group_size` is below 2.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{dr_grpo_objective(jnp.log(jnp.array([0.2, 0.8])), jnp.array([0.0, 1.0]), group_size=4):.4f}")
        0.6000

    References:
        Liu et al., "Understanding R1-Zero-Like Training", arXiv:2503.20783.
    """
    _at_least_two("group_size", group_size)
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
        TypeError, ValueError: see `rlrazor.checks.outcome_arrays`; a negative or NaN Python `clip`.

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
    return _clipped(log_policy, log_old, advantage, clip).sum(-1)


def expected_simpo_loss(
    log_policy: LogProbs, log_chosen: LogProbs, log_rejected: LogProbs, beta: Number, margin: Number
) -> PerRow:
    """The SimPO loss of independent pairs: -E_chosen E_rejected[log σ(β (log policy(y+) - log policy(y-)) - γ)].

    Args:
        log_policy: policy, `[..., outcomes]`.
        log_chosen: distribution of the preferred answers y+, `[..., outcomes]`.
        log_rejected: distribution of the rejected answers y-, `[..., outcomes]`.
        beta: scale β > 0, a number or `[...]`.
        margin: target margin γ, a number or `[...]`.

    Returns:
        Loss in nats, `[...]`, in [0, inf]; inf where the policy never gives a preferred answer.

    Raises:
        TypeError, ValueError: see `rlrazor.checks.outcome_arrays`; a negative or NaN Python `beta`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy, log_chosen, log_rejected = jnp.log(jnp.array([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]))
        >>> print(f"{expected_simpo_loss(log_policy, log_chosen, log_rejected, beta=1.0, margin=1.0):.4f}")
        1.3133

    References:
        Meng, Xia, Chen, "SimPO", arXiv:2405.14734, eq. 6 (answers of length one); with β = γ = 1 the variant of
        Shenfeld, Pari, Agrawal, "RL's Razor", arXiv:2509.04259, section 4.
    """
    log_policy, log_chosen, log_rejected, beta, margin = outcome_arrays(
        {"beta": nonnegative("beta", beta), "margin": margin},
        log_policy=log_policy,
        log_chosen=log_chosen,
        log_rejected=log_rejected,
    )
    pairs = _simpo(log_policy[..., :, None], log_policy[..., None, :], beta[..., None], margin[..., None])
    pairs = jnp.where(log_chosen[..., :, None] > -jnp.inf, pairs, 0.0)
    return expectation(log_chosen, mass_times(log_rejected[..., None, :], pairs).sum(-1))


def reinforce_loss(log_prob: Samples, advantage: Samples) -> PerRow:
    """The policy-gradient surrogate -mean(A log policy(y)) over samples y, with the advantage A held fixed.

    On the policy's own samples, with A the reward minus anything that does not depend on the sample, its expected
    gradient is that of -E_policy[reward]. On demonstrations with A = 1 it is the SFT loss.

    Args:
        log_prob: log policy(y), `[..., samples]`.
        advantage: A, `[..., samples]`.

    Returns:
        Loss, `[...]`.

    Raises:
        TypeError, ValueError: see `rlrazor.checks.sample_arrays`.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{reinforce_loss(jnp.log(jnp.array([0.5, 0.25])), jnp.array([1.0, 0.0])):.4f}")
        0.3466

    References:
        Williams, "Simple Statistical Gradient-Following Algorithms ...", 1992.
    """
    log_prob, advantage = sample_arrays(log_prob=log_prob, advantage=advantage)
    return -times_log(jax.lax.stop_gradient(advantage), log_prob).mean(-1)


def rloo_advantage(reward: Samples) -> Advantages:
    """The reward minus the mean reward of the prompt's other samples: r_i - Σ_{j≠i} r_j / (G - 1).

    Args:
        reward: of a group of G >= 2 samples of one prompt, `[..., samples]`.

    Returns:
        Advantages, `[..., samples]`.

    Raises:
        TypeError, ValueError: see `rlrazor.checks.sample_arrays`; fewer than 2 samples.

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


def dr_grpo_advantage(reward: Samples) -> Advantages:
    """The reward minus the mean reward of the group, itself included: r_i - mean(r).

    Args:
        reward: of a group of G >= 2 samples of one prompt, `[..., samples]`.

    Returns:
        Advantages, `[..., samples]`.

    Raises:
        TypeError, ValueError: see `rlrazor.checks.sample_arrays`; fewer than 2 samples.

    Example:
        >>> import jax.numpy as jnp
        >>> dr_grpo_advantage(jnp.array([1.0, 0.0, 0.0, 1.0])).tolist()
        [0.5, -0.5, -0.5, 0.5]

    References:
        Liu et al., "Understanding R1-Zero-Like Training", arXiv:2503.20783.
    """
    (reward,) = sample_arrays(reward=reward)
    _at_least_two("samples of reward", reward.shape[-1])
    from_first = reward - reward[..., :1]  # exactly 0 where all are equal
    return from_first - from_first.mean(-1, keepdims=True)


def grpo_advantage(reward: Samples) -> Advantages:
    """The reward standardised within the group: (r_i - mean(r)) / std(r), with the population standard deviation.

    Args:
        reward: of a group of G >= 2 samples of one prompt, `[..., samples]`.

    Returns:
        Advantages, `[..., samples]`; 0 where all rewards of the group are equal.

    Raises:
        TypeError, ValueError: see `rlrazor.checks.sample_arrays`; fewer than 2 samples.

    Example:
        >>> import jax.numpy as jnp
        >>> grpo_advantage(jnp.array([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])).tolist()
        [[1.0, -1.0, -1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]

    References:
        Shao et al., "DeepSeekMath", arXiv:2402.03300, section 4.1.
    """
    centred = dr_grpo_advantage(reward)
    span = jnp.ptp(centred, axis=-1, keepdims=True)
    unit = centred / jnp.where(span > 0, span, 1.0)
    deviation = jnp.sqrt(jnp.square(unit).mean(-1, keepdims=True))
    return unit / jnp.where(span > 0, deviation, 1.0)


def ppo_clip_loss(log_prob: Samples, log_prob_old: Samples, advantage: Samples, clip: float) -> PerRow:
    """The PPO loss -mean(min(ρ A, clip(ρ, 1 - ε, 1 + ε) A)) over samples y of the old policy, ρ = policy(y) / old(y).

    Args:
        log_prob: log policy(y), `[..., samples]`.
        log_prob_old: log old(y), `[..., samples]`; held fixed.
        advantage: A, `[..., samples]`; held fixed.
        clip: ε >= 0.

    Returns:
        Loss, `[...]`.

    Raises:
        TypeError, ValueError: see `rlrazor.checks.sample_arrays`; a negative or NaN Python `clip`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_prob, log_prob_old = jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]]))
        >>> print(f"{ppo_clip_loss(log_prob, log_prob_old, jnp.array([1.0, 1.0]), clip=0.2):.4f}")
        -0.7000

    References:
        Schulman et al., "Proximal Policy Optimization Algorithms", arXiv:1707.06347, eq. 7.
    """
    log_prob, log_prob_old, advantage = sample_arrays(log_prob=log_prob, log_prob_old=log_prob_old, advantage=advantage)
    width = jnp.asarray(nonnegative("clip", clip), log_prob.dtype)
    sampled = log_prob_old > -jnp.inf
    log_old = jax.lax.stop_gradient(jnp.where(sampled, log_prob_old, 0.0))
    log_ratio = jnp.where(sampled, log_prob, 0.0) - log_old
    return -_clipped(log_ratio, jnp.where(sampled, 0.0, -jnp.inf).astype(log_prob.dtype), advantage, width).mean(-1)


def simpo_loss(log_prob_chosen: Samples, log_prob_rejected: Samples, beta: float, margin: float) -> PerRow:
    """The SimPO loss -mean(log σ(β (log policy(y+) - log policy(y-)) - γ)) over pairs of answers.

    Args:
        log_prob_chosen: log policy(y+), per token for longer answers, `[..., samples]`.
        log_prob_rejected: log policy(y-), per token for longer answers, `[..., samples]`.
        beta: scale β > 0.
        margin: target margin γ.

    Returns:
        Loss in nats, `[...]`, in [0, inf].

    Raises:
        TypeError, ValueError: see `rlrazor.checks.sample_arrays`; a negative or NaN Python `beta`.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{simpo_loss(jnp.log(jnp.array([0.5])), jnp.log(jnp.array([0.5])), beta=1.0, margin=1.0):.4f}")
        1.3133

    References:
        Meng, Xia, Chen, "SimPO", arXiv:2405.14734, eq. 6.
    """
    chosen, rejected = sample_arrays(log_prob_chosen=log_prob_chosen, log_prob_rejected=log_prob_rejected)
    scale, offset = (jnp.asarray(x, chosen.dtype) for x in (nonnegative("beta", beta), margin))
    return _simpo(chosen, rejected, scale, offset).mean(-1)


def kl_penalty_loss(log_prob: Samples, log_prob_ref: Samples) -> PerRow:
    """The KL penalty on the policy's own samples: mean((log policy(y) - log ref(y))²) / 2.

    Its expected gradient is exactly that of KL(policy || ref); its value is not. The estimator that is common in GRPO
    code, ref / policy - 1 + log(policy / ref), has the right value, but the expected gradient of KL(ref || policy).

    Args:
        log_prob: log policy(y), `[..., samples]`.
        log_prob_ref: log ref(y), `[..., samples]`.

    Returns:
        Loss in nats², `[...]`, in [0, inf].

    Raises:
        TypeError, ValueError: see `rlrazor.checks.sample_arrays`.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{kl_penalty_loss(jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.5]))):.4f}")
        0.1201

    References:
        Schulman, "Approximating KL Divergence", 2020 (k2); Tang, Munos, "On a Few Pitfalls in KL Divergence Gradient
        Estimation for RL", arXiv:2506.09477.
    """
    log_prob, log_prob_ref = sample_arrays(log_prob=log_prob, log_prob_ref=log_prob_ref)
    return jnp.square(log_prob - log_prob_ref).mean(-1) / 2


def _at_least_two(name: str, count: int) -> None:
    """Raise if there are fewer: one sample has nothing to be compared with."""
    if not count >= 2:
        raise ValueError(f"{name} must be at least 2, got {count}")


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


def _clipped(
    log_policy: Float[Array, "..."],
    log_old: Float[Array, "..."],
    advantage: Float[Array, "..."],
    clip: Float[Array, "..."],
) -> Float[Array, "..."]:
    """The terms old min(ρ A, clip(ρ, 1 - ε, 1 + ε) A), with the clipping done on logs, where no ratio overflows."""
    low, high = log_old + jnp.log(jnp.maximum(1 - clip, 0.0)), log_old + jnp.log1p(clip)
    counted = jnp.where(advantage < 0, jnp.maximum(log_policy, low), jnp.minimum(log_policy, high))
    return mass_times(jnp.where(log_old > -jnp.inf, counted, -jnp.inf), jax.lax.stop_gradient(advantage))


def _simpo(
    chosen: Float[Array, "..."], rejected: Float[Array, "..."], beta: Float[Array, "..."], margin: Float[Array, "..."]
) -> Float[Array, "..."]:
    """The terms -log σ(β (chosen - rejected) - γ), inf where the chosen answer is impossible."""
    possible = chosen > -jnp.inf
    gap = jnp.where(possible, chosen, 0.0) - jnp.where(possible, rejected, 0.0)
    return jnp.where(possible, jax.nn.softplus(margin - beta * gap), jnp.inf)
