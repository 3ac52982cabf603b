"""What practice adds to an objective to hold a policy near its start: penalties, bonuses and data of the old task.

`rlrazor.objectives.kl_penalty_loss` and `rlrazor.objectives.preferences.nll_loss` belong here, too; the exact optima
are in `rlrazor.optima`. Errors as in `rlrazor.divergences` and `rlrazor.checks.sample_arrays`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlrazor._numerics import weighted
from rlrazor._types import LogProbs, Number, PerRow, Rewards
from rlrazor.checks import floating_number, nonnegative, outcome_arrays, positive, sample_arrays
from rlrazor.divergences import cross_entropy, entropy
from rlrazor.objectives._terms import SampleRewards, Samples
from rlrazor.objectives.exact import expected_reward, regularized_reward
from rlrazor.objectives.sampled import reinforce_loss


def penalized_reward(
    log_prob: Samples, log_prob_ref: Samples, reward: SampleRewards, beta: Number
) -> Float[Array, "*batch samples"]:
    """The KL-penalised reward of samples, reward - beta log(policy(y) / ref(y)), held fixed.

    As the advantage of `reinforce_loss` on the policy's own samples it has the expected gradient of
    `regularized_reward`. TRL and verl: the KL penalty in the reward (verl: `use_kl_in_reward`, `kl_penalty="kl"`).

    Args:
        log_prob: log policy(y), `[..., samples]`.
        log_prob_ref: log ref(y), `[..., samples]`.
        reward: `[..., samples]`.
        beta: KL coefficient >= 0, a number or `[...]`.

    Returns:
        Reward, `[..., samples]`.

    Raises:
        ValueError: a negative or NaN Python `beta`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_prob, log_prob_ref = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.5]]))
        >>> print(*(f"{r:.3f}" for r in penalized_reward(log_prob, log_prob_ref, jnp.array([1.0, 0.0]), beta=0.1)))
        0.931 0.000

    References:
        Jaques et al., "Sequence Tutor", arXiv:1611.02796; Ziegler et al., "Fine-Tuning Language Models from Human
        Preferences", arXiv:1909.08593, eq. 2.
    """
    log_prob, log_prob_ref, reward, beta = sample_arrays(
        {"beta": nonnegative("beta", beta)}, log_prob=log_prob, log_prob_ref=log_prob_ref, reward=reward
    )
    penalized: Float[Array, "*batch samples"] = jax.lax.stop_gradient(reward - beta * (log_prob - log_prob_ref))
    return penalized


def adapted_beta(beta: Number, kl: Number, target: Number, gain: Number, clip: Number = 0.2) -> PerRow:
    """Ziegler's controller, one step: beta (1 + K e), e = clip((KL - target) / target, -ε, ε).

    It settles where KL = target. With policies near their optimum and the KL of the samples that the same step trains
    on, the loop is stable iff K Var(reward) < beta² target, with the variance under the optimum: see the figure
    `regularizers/kl_penalty`. TRL and verl: `AdaptiveKLController`, K = n_steps / horizon.

    Args:
        beta: KL coefficient > 0, a number or `[...]`.
        kl: KL(policy || ref) as measured, in nats, a number or `[...]`.
        target: > 0, in nats, a number or `[...]`.
        gain: K >= 0, a number or `[...]`; 0.1 as published.
        clip: ε >= 0, a number or `[...]`; 0.2 as published.

    Returns:
        The next coefficient, `[...]`.

    Raises:
        ValueError: `beta` or `target` is not above 0, or a Python `gain` or `clip` is negative or NaN.

    Example:
        >>> print(f"{adapted_beta(0.2, kl=9.0, target=6.0, gain=0.1):.4f}")
        0.2040

    References:
        Ziegler et al., "Fine-Tuning Language Models from Human Preferences", arXiv:1909.08593, section 2.2.
    """
    beta = floating_number("beta", positive("beta", beta))
    kl, target, gain, clip = (
        jnp.asarray(x, beta.dtype)
        for x in (kl, positive("target", target), nonnegative("gain", gain), nonnegative("clip", clip))
    )
    return beta * (1 + gain * jnp.clip((kl - target) / target, -clip, clip))


def entropy_regularized_reward(log_policy: LogProbs, reward: Rewards, tau: Number) -> PerRow:
    """The objective with an entropy bonus, E_policy[reward] + tau H(policy): the KL penalty to a uniform reference.

    Its optimum is exp(reward / tau) / Z, which knows nothing of where the policy started.

    Args:
        log_policy: policy, `[..., outcomes]`.
        reward: `[..., outcomes]`, `-inf` forbids an outcome.
        tau: coefficient of the entropy >= 0, a number or `[...]`.

    Returns:
        Objective, in the units of the reward, `[...]`.

    Raises:
        ValueError: a negative or NaN Python `tau`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy, reward = jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, 1.0])
        >>> print(f"{entropy_regularized_reward(log_policy, reward, tau=1.0):.4f}")
        1.1931

    References:
        Williams, Peng, "Function Optimization Using Connectionist Reinforcement Learning Algorithms", 1991.
    """
    log_policy, reward, tau = outcome_arrays({"tau": nonnegative("tau", tau)}, log_policy=log_policy, reward=reward)
    return expected_reward(log_policy, reward) + tau[..., 0] * entropy(log_policy)


def entropy_bonus_loss(log_prob: Samples) -> PerRow:
    """The entropy bonus on the policy's own samples: mean(log policy(y)²) / 2.

    Its expected gradient is exactly that of -H(policy); its value is not. The mean of -log policy(y), which has the
    right value, has an expected gradient of zero on own samples.

    Args:
        log_prob: log policy(y), `[..., samples]`.

    Returns:
        Loss in nats², `[...]`, in [0, inf].

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{entropy_bonus_loss(jnp.log(jnp.array([0.5, 0.5]))):.4f}")
        0.2402

    References:
        Mnih et al., "Asynchronous Methods for Deep Reinforcement Learning", arXiv:1602.01783.
    """
    (log_prob,) = sample_arrays(log_prob=log_prob)
    return jnp.square(log_prob).mean(-1) / 2


def ppo_ptx_objective(
    log_policy: LogProbs,
    log_ref: LogProbs,
    log_pretrain: LogProbs,
    reward: Rewards,
    beta: Number,
    gamma: Number,
) -> PerRow:
    """The objective of PPO-ptx: E_policy[reward] - beta KL(policy || ref) + gamma E_pretrain[log policy].

    These are pretraining gradients; the optimum is `rlrazor.ppo_ptx_optimum`. With the answers of an old task in place
    of pretraining data it is replay; the two data may have different prompts, and then share parameters, not outcomes.

    Args:
        log_policy: policy, `[..., outcomes]`.
        log_ref: reference policy, `[..., outcomes]`.
        log_pretrain: distribution of the pretraining data, `[..., outcomes]`.
        reward: `[..., outcomes]`, `-inf` forbids an outcome.
        beta: KL coefficient >= 0, a number or `[...]`.
        gamma: weight of the pretraining term >= 0, a number or `[...]`; 27.8 as published, with beta = 0.02.

    Returns:
        Objective, in the units of the reward, `[...]`; `-inf` where the policy never produces what the data have.

    Raises:
        ValueError: a negative or NaN Python `beta` or `gamma`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_ref, reward = jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, 1.0])
        >>> print(f"{ppo_ptx_objective(log_ref, log_ref, log_ref, reward, beta=1.0, gamma=0.5):.4f}")
        0.1534

    References:
        Ouyang et al., "Training Language Models to Follow Instructions with Human Feedback", arXiv:2203.02155, eq. 2.
    """
    log_policy, log_ref, log_pretrain, reward, gamma = outcome_arrays(
        {"gamma": nonnegative("gamma", gamma)},
        log_policy=log_policy,
        log_ref=log_ref,
        log_pretrain=log_pretrain,
        reward=reward,
    )
    anchor = weighted(gamma[..., 0], cross_entropy(log_pretrain, log_policy))
    return regularized_reward(log_policy, log_ref, reward, beta) - anchor


def ppo_ptx_loss(
    log_prob: Samples,
    log_prob_pretrain: Float[Array, "*#batch examples"],
    advantage: SampleRewards | int | float,
    gamma: Number,
) -> PerRow:
    """The sampled loss of PPO-ptx: `reinforce_loss` - gamma mean(log policy(x)) over pretraining data x.

    Replay, if the data are an old task's demonstrations. With a `penalized_reward` as advantage its expected gradient
    is that of -`ppo_ptx_objective`.

    Args:
        log_prob: log policy(y) of the policy's own samples, `[..., samples]`.
        log_prob_pretrain: log policy(x) of the data, `[..., examples]`.
        advantage: `[..., samples]`, or one for all samples, `[..., 1]` or a number; held fixed.
        gamma: weight of the pretraining term >= 0, a number or `[...]`.

    Returns:
        Loss, `[...]`.

    Raises:
        ValueError: a negative or NaN Python `gamma`.

    Example:
        >>> import jax.numpy as jnp
        >>> own, data = jnp.log(jnp.array([0.5, 0.25])), jnp.log(jnp.array([0.5]))
        >>> print(f"{ppo_ptx_loss(own, data, jnp.array([1.0, 0.0]), gamma=0.5):.4f}")
        0.6931

    References:
        Ouyang et al., "Training Language Models to Follow Instructions with Human Feedback", arXiv:2203.02155, eq. 2.
    """
    (log_prob_pretrain, weight) = sample_arrays(
        {"gamma": nonnegative("gamma", gamma)}, log_prob_pretrain=log_prob_pretrain
    )
    return reinforce_loss(log_prob, advantage) + weight[..., 0] * reinforce_loss(log_prob_pretrain, 1)
