"""How far a policy went and how well it does: success rates, drifts, and the frontier between them.

Conventions as in `rlrazor.divergences`; the policy comes first and the reference second. Arguments of another rank,
outcome count or dtype raise `TypeError` or `ValueError`, see `rlrazor.checks.outcome_arrays`.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlrazor._numerics import log_sum
from rlrazor._types import LogProbs, Number, PerRow
from rlrazor.checks import boolean_array, floating_array, outcome_arrays, sample_arrays
from rlrazor.divergences import binary_kl, kl_divergence

PromptPolicies = Float[Array, "*#batch #prompts outcomes"]
Accept = Bool[Array, "*#batch outcomes"]


class Drifts(NamedTuple):
    """How far a policy is from its reference, in either direction.

    Attributes:
        forward: KL(ref || policy) in nats, the predictor of forgetting, `[...]`.
        reverse: KL(policy || ref) in nats, `[...]`.
    """

    forward: Float[Array, "..."]
    reverse: Float[Array, "..."]


def log_success(log_policy: LogProbs, accept: Accept) -> PerRow:
    """The log success rate log J = log policy(S).

    Args:
        log_policy: policy, `[..., outcomes]`.
        accept: the success set S, boolean, `[..., outcomes]`.

    Returns:
        log J in nats, `[...]`, in [-inf, 0]; with derivative zero where the policy never succeeds.

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy = jnp.log(jnp.array([0.2, 0.3, 0.5]))
        >>> print(f"{log_success(log_policy, jnp.array([True, True, False])):.4f}")
        -0.6931
    """
    log_policy = floating_array("log_policy", log_policy)
    accept = boolean_array("accept", accept).astype(log_policy.dtype)
    log_policy, success = outcome_arrays(log_policy=log_policy, accept=accept)
    return log_sum(jnp.where(success > 0, log_policy, -jnp.inf))


def success_rate(log_policy: LogProbs, accept: Accept) -> PerRow:
    """The success rate J = policy(S) = Σ_S policy.

    Args:
        log_policy: policy, `[..., outcomes]`.
        accept: the success set S, boolean, `[..., outcomes]`.

    Returns:
        J, `[...]`, in [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy = jnp.log(jnp.array([0.2, 0.3, 0.5]))
        >>> print(f"{success_rate(log_policy, jnp.array([True, True, False])):.4f}")
        0.5000
    """
    log_policy = floating_array("log_policy", log_policy)
    accept = boolean_array("accept", accept).astype(log_policy.dtype)
    log_policy, success = outcome_arrays(log_policy=log_policy, accept=accept)
    return jnp.where(success > 0, jnp.exp(log_policy), 0.0).sum(-1)


def success_frontier(base_success: Number, success: Number) -> Drifts:
    """The least drifts of a policy with success rate J from a base with p0: kl(p0, J) forward, kl(J, p0) reverse.

    Both are reached by one policy, the base reweighted on the success set and on its complement: `condition` at J = 1.

    Args:
        base_success: p0 in [0, 1], a number or `[...]`.
        success: J in [0, 1], a number or `[...]`.

    Returns:
        The `Drifts`, `[...]`, in [0, inf].

    Example:
        >>> import jax.numpy as jnp
        >>> least = success_frontier(jnp.array(0.5), jnp.array(1.0))
        >>> print(f"{least.forward:.4f} {least.reverse:.4f}")
        inf 0.6931

    References:
        Shenfeld, Pari, Agrawal, "RL's Razor", arXiv:2509.04259, Lemma 5.1, at every success rate: the data-processing
        inequality for the indicator of success.
    """
    return Drifts(binary_kl(base_success, success), binary_kl(success, base_success))


def forward_drift(log_policy: PromptPolicies, log_ref: PromptPolicies) -> PerRow:
    """The forward drift E_x[KL(ref(.|x) || policy(.|x))], the mean over prompts x.

    Args:
        log_policy: trained policy, `[..., prompts, outcomes]`.
        log_ref: reference policy, `[..., prompts, outcomes]`.

    Returns:
        Drift in nats, `[...]`, in [0, inf].

    Raises:
        ValueError: an argument has no prompt axis.

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy, log_ref = jnp.log(jnp.array([[[0.9, 0.1]], [[0.5, 0.5]]]))
        >>> print(f"{forward_drift(log_policy, log_ref):.4f} {reverse_drift(log_policy, log_ref):.4f}")
        0.5108 0.3681

    References:
        Shenfeld, Pari, Agrawal, "RL's Razor", arXiv:2509.04259, section 3 (the predictor of forgetting).
    """
    log_policy, log_ref = _prompt_policies(log_policy, log_ref)
    return kl_divergence(log_ref, log_policy).mean(-1)


def reverse_drift(log_policy: PromptPolicies, log_ref: PromptPolicies) -> PerRow:
    """The reverse drift E_x[KL(policy(.|x) || ref(.|x))], the mean over prompts x.

    Args:
        log_policy: trained policy, `[..., prompts, outcomes]`.
        log_ref: reference policy, `[..., prompts, outcomes]`.

    Returns:
        Drift in nats, `[...]`, in [0, inf].

    Raises:
        ValueError: an argument has no prompt axis.

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy, log_ref = jnp.log(jnp.array([[[1.0, 0.0]], [[0.5, 0.5]]]))
        >>> print(f"{forward_drift(log_policy, log_ref):.4f} {reverse_drift(log_policy, log_ref):.4f}")
        inf 0.6931

    References:
        Shenfeld, Pari, Agrawal, "RL's Razor", arXiv:2509.04259, section 5 (what policy gradient is said to minimise).
    """
    log_policy, log_ref = _prompt_policies(log_policy, log_ref)
    return kl_divergence(log_policy, log_ref).mean(-1)


def drifts(log_policy: PromptPolicies, log_ref: PromptPolicies) -> Drifts:
    """Both drifts, E_x[KL(ref || policy)] and E_x[KL(policy || ref)].

    Args:
        log_policy: trained policy, `[..., prompts, outcomes]`.
        log_ref: reference policy, `[..., prompts, outcomes]`.

    Returns:
        The `Drifts`, `[...]`.

    Raises:
        ValueError: an argument has no prompt axis.

    Example:
        >>> import jax.numpy as jnp
        >>> path = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))  # a policy over one prompt, at two times
        >>> both = drifts(path[:, None], path[0][None])
        >>> print(*(f"{x:.4f}" for x in (*both.forward, *both.reverse)))
        0.0000 0.5108 0.0000 0.3681
    """
    return Drifts(forward_drift(log_policy, log_ref), reverse_drift(log_policy, log_ref))


def _prompt_policies(log_policy: PromptPolicies, log_ref: PromptPolicies) -> tuple[PromptPolicies, PromptPolicies]:
    """Both, if each has a prompt axis: a path `[times, outcomes]` would be averaged over its times without a word."""
    policies, refs = outcome_arrays(log_policy=log_policy, log_ref=log_ref)
    for name, value in (("log_policy", log_policy), ("log_ref", log_ref)):
        if jnp.ndim(value) < 2:
            shape = jnp.shape(value)
            raise ValueError(f"{name} needs a prompt axis, [..., prompts, outcomes], got shape {shape}")
    return policies, refs


def value_at_crossing(
    progress: Float[Array, "*#batch times"], values: Float[Array, "*#batch times"], level: Number
) -> PerRow:
    """The value along a path where its progress first reaches the level, by linear interpolation.

    It compares methods at equal new-task success, whatever their speed.

    Args:
        progress: such as a success rate, `[..., times]`.
        values: such as drift or forgetting, `[..., times]`.
        level: of progress, a number or `[...]`.

    Returns:
        The value, `[...]`; NaN if the level is never reached.

    Example:
        >>> import jax.numpy as jnp
        >>> print(value_at_crossing(jnp.array([0.0, 0.5, 1.0]), jnp.array([0.0, 1.0, 3.0]), 0.75))
        2.0
    """
    progress, values = sample_arrays(progress=progress, values=values)
    progress, values = jnp.broadcast_arrays(progress, values)
    level = jnp.asarray(level, progress.dtype)
    level = jnp.expand_dims(level, range(progress.ndim - 1 - level.ndim)) if level.ndim < progress.ndim else level
    reached = progress >= level[..., None]
    after = jnp.argmax(reached, axis=-1, keepdims=True)
    before = jnp.maximum(after - 1, 0)

    def at(path: Float[Array, "..."], index: Array) -> Float[Array, "..."]:
        return jnp.take_along_axis(path, index, axis=-1)[..., 0]

    rise = jnp.where(after[..., 0] > 0, at(progress, after) - at(progress, before), 1.0)
    part = (level - at(progress, before)) / rise
    value = at(values, before) + part * (at(values, after) - at(values, before))
    return jnp.where(jnp.any(reached, axis=-1), value, jnp.nan)


def pareto_optimal(
    new: Float[Array, "*#batch points"], old: Float[Array, "*#batch points"]
) -> Bool[Array, "*batch points"]:
    """The points that no other beats: as good on both tasks, and better on one.

    It compares methods by the best that each can do, whatever its learning rate and length. Memory is quadratic in the
    points.

    Args:
        new: such as the accuracy on the new task, `[..., points]`.
        old: such as the accuracy on the old task, `[..., points]`.

    Returns:
        Whether each point is one of them, boolean, `[..., points]`; equal points are or are not together.

    Example:
        >>> import jax.numpy as jnp
        >>> pareto_optimal(jnp.array([0.9, 0.5, 0.8, 0.9]), jnp.array([0.1, 0.6, 0.1, 0.1])).tolist()
        [True, True, False, True]
    """
    new, old = sample_arrays(new=new, old=old)
    as_good = (new[..., None, :] >= new[..., None]) & (old[..., None, :] >= old[..., None])
    better = (new[..., None, :] > new[..., None]) | (old[..., None, :] > old[..., None])
    return ~(as_good & better).any(-1)
