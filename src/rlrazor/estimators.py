"""What a loss of samples is in expectation: its gradient, its noise, and the objective that it descends.

A training step computes a loss of samples and differentiates it with the samples held fixed. On a finite space the
expectation of that gradient is a sum over what may be drawn, whatever the loss is:

    g = Σ_y b(y) ∇ loss(log pi(y)),   b = who sampled, pi itself or another policy, not differentiated.

`expected_loss` is the function whose gradient that is, so `jax.grad` gives g and `gradient_flow` where g leads;
`gradient_moments` is g with its covariance, and `best_match` tells which known objective has this gradient. Groups of
samples, as GRPO's advantages need them, are summed over exactly, as multisets.

The estimators k1, k2, k3 of KL(policy || ref) are what libraries call `k1`/`kl`, `k2`/`mse`, `k3`/`low_var_kl` (verl's
`kl_penalty` and `kl_loss_type`; its `abs` is |k1|).
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rlrazor._numerics import bregman, expectation
from rlrazor._types import LogProbs, PerRow, Rewards, Scalar
from rlrazor.checks import outcome_arrays, sample_arrays
from rlrazor.divergences import chi2_divergence, kl_divergence
from rlrazor.objectives import expected_reward

Samples = Float[Array, "*#batch samples"]
PerSample = Float[Array, "*batch samples"]
Objective = Callable[[Float[Array, " outcomes"]], Scalar]
_MOST_GROUPS = 1_000_000


class Moments(NamedTuple):
    """Mean and variance of a number under a policy.

    Attributes:
        mean: `[...]`.
        variance: `[...]`; inf where the mean is infinite.
    """

    mean: PerRow
    variance: PerRow


class ControlVariate(NamedTuple):
    """The multiple of a control whose subtraction leaves the least variance.

    Attributes:
        coefficient: Cov(values, control) / Var(control), `[...]`.
        variance: of values - coefficient (control - E[control]), `[...]`.
    """

    coefficient: PerRow
    variance: PerRow


class GradientMoments(NamedTuple):
    """The expected gradient of a sampled loss in the logits, and the covariance of the gradient of one group.

    Attributes:
        mean: `[outcomes]`.
        covariance: `[outcomes, outcomes]`; its trace is the mean squared distance from the mean.
    """

    mean: Float[Array, " outcomes"]
    covariance: Float[Array, "outcomes outcomes"]


class Match(NamedTuple):
    """Which of several known objectives has the gradient of a loss.

    Attributes:
        name: of the objective whose gradient is nearest in direction; None where the loss has no gradient anywhere.
        cosine: between the two gradients, the one that is farthest from 1 (or from -1, where the loss climbs the
            objective) among the policies at which they were compared.
        cosines: the same for every objective.
    """

    name: str | None
    cosine: float
    cosines: dict[str, float]

    def __str__(self) -> str:
        """One line that says what the loss descends."""
        if self.name is None:
            return "no gradient: descends nothing"
        if abs(self.cosine) < 1 - 1e-9:
            return f"descends none of {', '.join(self.cosines)}: nearest is {self.name}, cosine {self.cosine:.3f}"
        return f"{'descends' if self.cosine > 0 else 'climbs'} {self.name}"


def k1(log_prob: Samples, log_prob_ref: Samples) -> PerSample:
    """The estimator log policy(y) - log ref(y) of KL(policy || ref), for samples y of the policy.

    Unbiased, of variance Var(log policy/ref), of either sign. As a loss it has no expected gradient; as a penalty in
    the reward it has that of KL(policy || ref).

    Args:
        log_prob: log policy(y), `[..., samples]`.
        log_prob_ref: log ref(y), `[..., samples]`.

    Returns:
        Estimates in nats, `[..., samples]`.

    Example:
        >>> import jax.numpy as jnp
        >>> print(*(f"{k:.4f}" for k in k1(jnp.log(jnp.array([0.9, 0.1])), jnp.log(jnp.array([0.5, 0.5])))))
        0.5878 -1.6094

    References:
        Schulman, "Approximating KL Divergence", 2020.
    """
    log_prob, log_prob_ref = sample_arrays(log_prob=log_prob, log_prob_ref=log_prob_ref)
    return log_prob - log_prob_ref


def k2(log_prob: Samples, log_prob_ref: Samples) -> PerSample:
    """The estimator (log policy(y) / ref(y))² / 2 of KL(policy || ref), for samples y of the policy.

    Biased, by the third moment of the log-ratio near ref. As a loss it has the expected gradient of KL(policy || ref);
    its mean over samples is `kl_penalty_loss`.

    Args:
        log_prob: log policy(y), `[..., samples]`.
        log_prob_ref: log ref(y), `[..., samples]`.

    Returns:
        Estimates in nats², `[..., samples]`, at least 0.

    Example:
        >>> import jax.numpy as jnp
        >>> print(*(f"{k:.4f}" for k in k2(jnp.log(jnp.array([0.9, 0.1])), jnp.log(jnp.array([0.5, 0.5])))))
        0.1727 1.2951

    References:
        Schulman, "Approximating KL Divergence", 2020.
    """
    return jnp.square(k1(log_prob, log_prob_ref)) / 2


def k3(log_prob: Samples, log_prob_ref: Samples) -> PerSample:
    """The estimator ref(y)/policy(y) - 1 + log policy(y)/ref(y) of KL(policy || ref), for samples y of the policy.

    It is k1 with the control variate ref/policy - 1, at coefficient 1; unbiased where the policy excludes nothing that
    ref allows, else too small by the mass that ref has there. As a loss it has the expected gradient of
    KL(ref || policy). With its arguments exchanged it estimates χ²(policy || ref) - KL(policy || ref), and as a loss
    has the expected gradient of χ²(policy || ref) / 2.

    Args:
        log_prob: log policy(y), `[..., samples]`.
        log_prob_ref: log ref(y), `[..., samples]`.

    Returns:
        Estimates in nats, `[..., samples]`, at least 0.

    Example:
        >>> import jax.numpy as jnp
        >>> print(*(f"{k:.4f}" for k in k3(jnp.log(jnp.array([0.9, 0.1])), jnp.log(jnp.array([0.5, 0.5])))))
        0.1433 2.3906

    References:
        Schulman, "Approximating KL Divergence", 2020; Shao et al., "DeepSeekMath", arXiv:2402.03300, eq. 4.
    """
    down = -k1(log_prob, log_prob_ref)
    return bregman(jnp.ones_like(down), jnp.exp(down), down)


def moments(log_policy: LogProbs, values: LogProbs) -> Moments:
    """The mean E[x] and variance E[(x - E x)²] of a number that depends on the outcome.

    Args:
        log_policy: normalised log-probabilities of who sampled, `[..., outcomes]`.
        values: x, `[..., outcomes]`; what cannot be drawn does not count, whatever x is there.

    Returns:
        `Moments`.

    Raises:
        TypeError, ValueError: see `rlrazor.checks.outcome_arrays`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy, log_ref = jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]]))
        >>> mean, variance = moments(log_policy, k3(log_policy, log_ref))
        >>> print(f"{mean:.4f} {variance:.4f}")
        0.3681 0.4545
    """
    log_policy, values = outcome_arrays(log_policy=log_policy, values=values)
    mean = expectation(log_policy, values)
    finite = jnp.isfinite(mean)[..., None]
    centred = jnp.where(finite, values - jnp.where(finite, mean[..., None], 0.0), jnp.inf)
    return Moments(mean, expectation(log_policy, jnp.square(centred)))


def covariance(log_policy: LogProbs, a: LogProbs, b: LogProbs) -> PerRow:
    """The covariance E[(a - E a)(b - E b)] of two numbers that depend on the outcome.

    Args:
        log_policy: normalised log-probabilities of who sampled, `[..., outcomes]`.
        a: `[..., outcomes]`, finite where the policy has mass.
        b: `[..., outcomes]`, finite where the policy has mass.

    Returns:
        `[...]`.

    Raises:
        TypeError, ValueError: see `rlrazor.checks.outcome_arrays`.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{covariance(jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, 1.0]), jnp.array([3.0, 1.0])):.2f}")
        -0.50
    """
    log_policy, a, b = outcome_arrays(log_policy=log_policy, a=a, b=b)
    centred = [jnp.where(log_policy != -jnp.inf, x, 0.0) - expectation(log_policy, x)[..., None] for x in (a, b)]
    return expectation(log_policy, centred[0] * centred[1])


def best_control_variate(log_policy: LogProbs, values: LogProbs, control: LogProbs) -> ControlVariate:
    """The coefficient c = Cov(x, u) / Var(u) of a control u that leaves x - c (u - E u) the least variance.

    Subtracting c (u - E u) changes no mean. For x = k1 and u = ref/policy - 1, c is -(KL(policy || ref) +
    KL(ref || policy)) / χ²(ref || policy), where k3 has -1.

    Args:
        log_policy: normalised log-probabilities of who sampled, `[..., outcomes]`.
        values: x, `[..., outcomes]`, finite where the policy has mass.
        control: u, `[..., outcomes]`, the same.

    Returns:
        `ControlVariate`; its coefficient is 0 where the control does not vary.

    Raises:
        TypeError, ValueError: see `rlrazor.checks.outcome_arrays`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy, log_ref = jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]]))
        >>> best = best_control_variate(log_policy, k1(log_policy, log_ref), jnp.exp(log_ref - log_policy) - 1)
        >>> print(f"{best.coefficient:.4f} {abs(best.variance):.4f}")  # two outcomes: every number is linear in another
        -0.4944 0.0000

    References:
        Owen, "Monte Carlo theory, methods and examples", 2013, section 8.9.
    """
    variance, control_variance = moments(log_policy, values).variance, moments(log_policy, control).variance
    varies = control_variance > 0
    shared = covariance(log_policy, values, control)
    coefficient = jnp.where(varies, shared / jnp.where(varies, control_variance, 1.0), 0.0)
    return ControlVariate(coefficient, jnp.maximum(variance - coefficient * shared, 0.0))


def expected_loss(
    loss: Callable[..., Scalar], *data: Rewards, behavior: LogProbs | None = None, group_size: int = 1
) -> Objective:
    """A sampled loss in expectation over who sampled: the objective whose gradient is its expected gradient.

    The probability of the samples is held fixed, as a training step does, so the gradient is not in general that of
    the value.

    Args:
        loss: (log_prob `[samples]`, *data `[samples]`) -> scalar, such as a mean over the samples; it must not depend
            on their order.
        *data: what the loss takes of each sample beside its log-probability, such as log ref(y), the log-probability
            at sampling time or the reward, for every outcome, `[outcomes]`.
        behavior: normalised log-probabilities of who sampled, `[outcomes]`; the policy itself unless given.
        group_size: the samples that the loss sees at once, static.

    Returns:
        log-policy `[outcomes]` -> scalar.

    Raises:
        ValueError: `group_size` is below 1, or there are more than a million multisets of samples.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor import grpo_advantage, kl_divergence, reinforce_loss, softmax_policy
        >>> log_ref, reward = jnp.log(jnp.array([0.2, 0.3, 0.5])), jnp.array([1.0, 0.0, 0.0])
        >>> def of_logits(objective):
        ...     return jax.grad(lambda logits: objective(softmax_policy(logits)))(jnp.zeros(3))
        >>> k2_loss = expected_loss(lambda log_prob, ref: k2(log_prob, ref).mean(), log_ref)
        >>> print(*(f"{g:.4f}" for g in of_logits(k2_loss)))
        0.1469 0.0117 -0.1586
        >>> print(*(f"{g:.4f}" for g in of_logits(lambda log_policy: kl_divergence(log_policy, log_ref))))
        0.1469 0.0117 -0.1586
        >>> grpo = expected_loss(lambda log_prob, r: reinforce_loss(log_prob, grpo_advantage(r)), reward, group_size=4)
        >>> print(*(f"{g:.4f}" for g in of_logits(grpo)))
        -0.3620 0.1810 0.1810
    """

    def objective(log_policy: Float[Array, " outcomes"]) -> Scalar:
        groups, log_weights = _drawn(log_policy, behavior, group_size)
        losses = jax.vmap(lambda y: loss(log_policy[y], *(jnp.asarray(x)[y] for x in data)))(groups)
        return expectation(jax.lax.stop_gradient(log_weights), losses)

    return objective


def gradient_moments(
    loss: Callable[..., Scalar],
    log_policy: Float[Array, " outcomes"],
    *data: Rewards,
    behavior: LogProbs | None = None,
    group_size: int = 1,
) -> GradientMoments:
    """The mean and covariance, over what may be drawn, of the gradient of a sampled loss in the logits.

    Args:
        loss: as in `expected_loss`.
        log_policy: normalised log-probabilities, `[outcomes]`, of the softmax table whose logits are differentiated.
        *data: as in `expected_loss`.
        behavior: as in `expected_loss`.
        group_size: as in `expected_loss`.

    Returns:
        `GradientMoments` of one group; n independent groups have the covariance divided by n.

    Raises:
        ValueError: as in `expected_loss`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy, log_ref = jnp.log(jnp.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]))
        >>> found = gradient_moments(lambda log_prob, ref: k1(log_prob, ref).mean(), log_policy, log_ref)
        >>> print(f"{abs(found.mean).max():.4f} {jnp.trace(found.covariance):.4f}")  # nothing but noise
        0.0000 0.6200
    """
    groups, log_weights = _drawn(log_policy, behavior, group_size)

    def of_logits(logits: Float[Array, " outcomes"], y: Int[Array, " samples"]) -> Scalar:
        return loss(jax.nn.log_softmax(logits)[y], *(jnp.asarray(x)[y] for x in data))

    gradients = jax.vmap(jax.grad(of_logits), (None, 0))(log_policy, groups)
    weights = jnp.exp(log_weights)
    mean = weights @ gradients
    centred = gradients - mean[None]
    return GradientMoments(mean, (weights[:, None] * centred).T @ centred)


def known_objectives(log_ref: LogProbs, reward: Rewards | None = None) -> dict[str, Objective]:
    """The objectives that a sampled loss may turn out to descend.

    Args:
        log_ref: normalised log-probabilities of the reference, `[outcomes]`.
        reward: `[outcomes]`, if the loss has one.

    Returns:
        Objectives by name, each log-policy -> scalar, to be minimised.

    Example:
        >>> import jax.numpy as jnp
        >>> print(*known_objectives(jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, 1.0])), sep=", ")
        KL(policy || ref), KL(ref || policy), chi2(policy || ref), chi2(ref || policy), -E[reward]
    """
    known: dict[str, Objective] = {
        "KL(policy || ref)": lambda log_policy: kl_divergence(log_policy, log_ref),
        "KL(ref || policy)": lambda log_policy: kl_divergence(log_ref, log_policy),
        "chi2(policy || ref)": lambda log_policy: chi2_divergence(log_policy, log_ref),
        "chi2(ref || policy)": lambda log_policy: chi2_divergence(log_ref, log_policy),
    }
    if reward is not None:
        known["-E[reward]"] = lambda log_policy: -expected_reward(log_policy, reward)
    return known


def best_match(
    objective: Objective, known: Mapping[str, Objective], log_policies: Float[Array, "policies outcomes"]
) -> Match:
    """The known objective whose gradient in the logits has the direction of another's, at every one of some policies.

    Print it for one line. Directions that agree at a few random policies agree everywhere, but for coincidence. It
    compares numbers on the host, so it cannot be jitted.

    Args:
        objective: such as an `expected_loss`.
        known: such as the `known_objectives`.
        log_policies: normalised log-probabilities, `[policies, outcomes]`.

    Returns:
        `Match`.

    Raises:
        ValueError: `known` is empty.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> log_ref = jnp.log(jnp.array([0.2, 0.3, 0.5]))
        >>> log_policies = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (4, 3)))
        >>> def per_token_kl(log_prob, ref):  # as GRPO code has it
        ...     return (jnp.exp(ref - log_prob) - (ref - log_prob) - 1).mean()
        >>> print(best_match(expected_loss(per_token_kl, log_ref), known_objectives(log_ref), log_policies))
        descends KL(ref || policy)
    """
    if not known:
        raise ValueError("known must hold at least one objective, got none")

    def gradients(of: Objective) -> Float[np.ndarray, "policies outcomes"]:
        slope = jax.grad(lambda logits: of(jax.nn.log_softmax(logits)))
        return np.asarray(jax.jit(jax.vmap(slope))(log_policies))

    own = gradients(objective)
    others = {name: gradients(of) for name, of in known.items()}
    sizes = np.linalg.norm(own, axis=-1)
    if (sizes < 1e-12 * max(np.linalg.norm(other) for other in others.values())).all():
        return Match(None, math.nan, dict.fromkeys(known, math.nan))
    cosines = {name: _agreement(own, other) for name, other in others.items()}
    name = max(cosines, key=lambda name: abs(cosines[name]))
    return Match(name, cosines[name], cosines)


def _agreement(own: Float[np.ndarray, "policies outcomes"], other: Float[np.ndarray, "policies outcomes"]) -> float:
    """The cosine that is farthest from 1, or from -1 where most are below 0; 0 where the signs differ."""
    cosines = (own * other).sum(-1) / (np.linalg.norm(own, axis=-1) * np.linalg.norm(other, axis=-1))
    sign = np.sign(cosines.mean())
    return float(sign * max((sign * cosines).min(), 0.0))


def _drawn(
    log_policy: Float[Array, " outcomes"], behavior: LogProbs | None, group_size: int
) -> tuple[Int[Array, "groups samples"], Float[Array, " groups"]]:
    """Every multiset of samples, and its log-probability; in those that cannot be drawn others stand in."""
    behavior = log_policy if behavior is None else behavior
    log_policy, log_behavior = outcome_arrays(log_policy=log_policy, behavior=behavior)
    if log_policy.ndim != 1 or log_behavior.ndim != 1:
        raise ValueError(f"log_policy and behavior must be [outcomes], got {log_policy.shape}, {log_behavior.shape}")
    groups, log_orders = _multisets(log_policy.shape[0], group_size)
    log_weights = jnp.asarray(log_orders, log_behavior.dtype) + log_behavior[groups].sum(-1)
    likely = jnp.where(log_behavior != -jnp.inf, jnp.arange(len(log_behavior)), jnp.argmax(log_behavior))
    return likely[groups], log_weights


@functools.cache
def _multisets(
    num_outcomes: int, group_size: int
) -> tuple[Int[np.ndarray, "groups samples"], Float[np.ndarray, " groups"]]:
    """Every multiset of outcomes, and the logs of the numbers of orders in which it can be drawn."""
    if group_size < 1:
        raise ValueError(f"group_size must be at least 1, got {group_size}")
    count = math.comb(num_outcomes + group_size - 1, group_size)
    if count > _MOST_GROUPS:
        raise ValueError(f"group_size {group_size} makes {count} multisets of {num_outcomes} outcomes, above a million")
    groups = np.array(list(itertools.combinations_with_replacement(range(num_outcomes), group_size)))
    log_factorials = np.cumsum(np.log(np.maximum(np.arange(group_size + 1), 1)))
    repeats = sum(log_factorials[(groups == y).sum(-1)] for y in range(num_outcomes))
    return groups, log_factorials[-1] - repeats
