"""Sampled losses: log-probabilities of samples to scalar, the mean over them, `log_prob [..., samples]` -> `[...]`.

`log_prob` is the policy's log-probability of each sample. All are minimised, and their expected gradient is that of
the exact objectives; `rlrazor.methods` has the table of which belongs to which. Errors as in
`rlrazor.checks.sample_arrays`.

A sample is all that was drawn: of answers made of tokens it is the answer, whose log-probability is the sum over its
tokens, `rlrazor.policies.sequence_log_prob`. Tokens in the place of samples give another loss, which leaves out what a
token does to the following ones: so in every part of `kl_penalty_loss`, and beyond a ratio of 1 in `ppo_clip_loss`;
the gradient of `reinforce_loss` is the same up to the number of tokens, by which the mean divides. A `mask` tells which
samples count, such as the answers that were not cut off; the mean is over these, and 0 if there are none.
"""

import jax
import jax.numpy as jnp

from rlrazor._numerics import times_log
from rlrazor._types import Number, PerRow
from rlrazor.checks import nonnegative
from rlrazor.objectives._terms import Mask, SampleRewards, Samples, clipped, counted_samples


def reinforce_loss(log_prob: Samples, advantage: SampleRewards | int | float, *, mask: Mask = None) -> PerRow:
    """The policy-gradient surrogate -mean(A log policy(y)) over samples y, with the advantage A held fixed.

    On the policy's own samples, with A the reward minus anything that does not depend on the sample, its expected
    gradient is that of -E_policy[reward]. On demonstrations with A = 1 it is the SFT loss.

    Args:
        log_prob: log policy(y), `[..., samples]`.
        advantage: A, `[..., samples]`, or one for all samples, `[..., 1]` or a number.
        mask: which samples count, `[..., samples]`; all of them unless given.

    Returns:
        Loss, `[...]`.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{reinforce_loss(jnp.log(jnp.array([0.5, 0.25])), jnp.array([1.0, 0.0])):.4f}")
        0.3466

    References:
        Williams, "Simple Statistical Gradient-Following Algorithms ...", 1992.
    """
    mean, (log_prob, advantage) = counted_samples(mask, log_prob=log_prob, advantage=advantage)
    return -mean(times_log(jax.lax.stop_gradient(advantage), log_prob))


def ppo_clip_loss(
    log_prob: Samples,
    log_prob_old: Samples,
    advantage: SampleRewards | int | float,
    clip: Number,
    *,
    mask: Mask = None,
) -> PerRow:
    """The PPO loss -mean(min(ρ A, clip(ρ, 1 - ε, 1 + ε) A)) over samples y of the old policy, ρ = policy(y) / old(y).

    Args:
        log_prob: log policy(y), `[..., samples]`.
        log_prob_old: log old(y), `[..., samples]`; held fixed.
        advantage: A, `[..., samples]`, or one for all samples, `[..., 1]` or a number; held fixed.
        clip: ε >= 0, a number or `[...]`.
        mask: which samples count, `[..., samples]`; all of them unless given.

    Returns:
        Loss, `[...]`.

    Raises:
        ValueError: a negative or NaN Python `clip`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_prob, log_prob_old = jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]]))
        >>> print(f"{ppo_clip_loss(log_prob, log_prob_old, jnp.array([1.0, 1.0]), clip=0.2):.4f}")
        -0.7000

    References:
        Schulman et al., "Proximal Policy Optimization Algorithms", arXiv:1707.06347, eq. 7.
    """
    mean, (log_prob, log_prob_old, advantage, clip) = counted_samples(
        mask, {"clip": nonnegative("clip", clip)}, log_prob=log_prob, log_prob_old=log_prob_old, advantage=advantage
    )
    sampled = log_prob_old != -jnp.inf
    log_old = jax.lax.stop_gradient(jnp.where(sampled, log_prob_old, 0.0))
    log_ratio = jnp.where(sampled, log_prob, 0.0) - log_old
    return -mean(clipped(log_ratio, jnp.where(sampled, 0.0, -jnp.inf).astype(log_prob.dtype), advantage, clip))


def kl_penalty_loss(log_prob: Samples, log_prob_ref: Samples, *, mask: Mask = None) -> PerRow:
    """The KL penalty on the policy's own samples: mean((log policy(y) - log ref(y))²) / 2.

    Its expected gradient is exactly that of KL(policy || ref); its value is not. The estimator that is common in GRPO
    code, ref / policy - 1 + log(policy / ref), has the right value, but the expected gradient of KL(ref || policy); see
    `rlrazor.estimators`.

    A sample is a whole answer. On tokens the square of a sum becomes a sum of squares, and what a token does to the
    KL of the following ones is lost: the example has two tokens, of which the second is certain under the policy and
    follows the first, and the gradient of the loss on tokens is none of the KL's.

    Args:
        log_prob: log policy(y), `[..., samples]`.
        log_prob_ref: log ref(y), `[..., samples]`.
        mask: which samples count, `[..., samples]`; all of them unless given.

    Returns:
        Loss in nats², `[...]`, in [0, inf].

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(f"{kl_penalty_loss(jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.5]))):.4f}")
        0.1201
        >>> ref = jnp.log(jnp.array([[0.5, 0.8], [0.5, 0.1]]))  # [answers, tokens]: the second token repeats the first
        >>> def tokens(logit):
        ...     return jnp.stack([jax.nn.log_sigmoid(jnp.stack([logit, -logit])), jnp.zeros(2)], axis=-1)
        >>> def slope(loss):
        ...     return f"{jax.grad(lambda x: jnp.array([0.5, 0.5]) @ loss(tokens(x)))(0.0):.3f}"
        >>> print(slope(lambda log_prob: kl_penalty_loss(log_prob.sum(-1)[:, None], ref.sum(-1)[:, None])))  # answers
        -0.520
        >>> print(slope(lambda log_prob: 2 * kl_penalty_loss(log_prob, ref)))  # tokens
        0.000

    References:
        Schulman, "Approximating KL Divergence", 2020 (k2); Tang, Munos, "On a Few Pitfalls in KL Divergence Gradient
        Estimation for RL", arXiv:2506.09477.
    """
    mean, (log_prob, log_prob_ref) = counted_samples(mask, log_prob=log_prob, log_prob_ref=log_prob_ref)
    return mean(jnp.square(log_prob - log_prob_ref)) / 2
