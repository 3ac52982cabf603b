"""EM on the success rate: condition the policy on success, then fit the family to what that gives.

Policy gradient is EM in a hurry: the gradient of log J is the first step of the fit. Conventions as in
`rlrazor.divergences`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from rlrazor._numerics import log_sum
from rlrazor._trees import with_start
from rlrazor._types import LogProbs, Number, Policy
from rlrazor.policies import softmax_policy
from rlrazor.tilting import condition


class EMPath(NamedTuple):
    """What EM passes through, the start first.

    Attributes:
        params: parameters, each leaf `[num_steps + 1, ...]`.
        log_policy: the policy there, `[num_steps + 1, ..., outcomes]`.
    """

    params: PyTree[Float[Array, "..."]]
    log_policy: Float[Array, "steps ... outcomes"]


def alternate(
    project: Callable[[Any, Any], Any],
    params: PyTree[Float[Array, "..."]],
    accept: Bool[Array, "*#batch outcomes"],
    num_steps: int,
    *,
    policy: Callable[[Any], Float[Array, "..."]] = softmax_policy,
) -> EMPath:
    """EM on log J = log policy(S): alternating projections between the policies that always succeed and a family.

        E-step   target = policy(. | S)                     the least KL(q || policy) of all q with q(S) = 1
        M-step   policy = project(target, policy)           the least KL(target || pi) of all pi in the family

    KL(target || policy) is -log J before the M-step, so J never falls where the M-step lowers it. Where the family is
    all distributions, one step ends at ref(. | S), the closest policy that always succeeds; where it is smaller, EM may
    end elsewhere, for the M-step minimises the other KL.

    Args:
        project: (log target `[..., outcomes]`, params) -> the params of the M-step, which may start from those given.
        params: initial parameters, a pytree of arrays.
        accept: the success set S, boolean, `[..., outcomes]`.
        num_steps: of the alternation, static.
        policy: params -> normalised log-probabilities, `[..., outcomes]`; a softmax table unless given.

    Returns:
        The `EMPath`.

    Raises:
        ValueError: `num_steps` is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> log_ref, accept = jnp.log(jnp.array([0.3, 0.2, 0.5])), jnp.array([True, True, False])
        >>> em = alternate(lambda log_target, logits: log_target, log_ref, accept, num_steps=1)
        >>> jnp.exp(em.log_policy[-1]).round(4).tolist()
        [0.6, 0.4, 0.0]

    References:
        Csiszár, Tusnády, "Information Geometry and Alternating Minimization Procedures", 1984; Neal, Hinton, "A View of
        the EM Algorithm that Justifies Incremental, Sparse, and Other Variants", 1998; Shenfeld, Pari, Agrawal, "RL's
        Razor", arXiv:2509.04259, Lemma A.1 and Proposition A.4.
    """
    if num_steps < 0:
        raise ValueError(f"num_steps must be at least 0, got {num_steps}")

    def step(current: Any, _: None) -> tuple[Any, Any]:
        following = project(condition(policy(current), accept), current)
        return following, following

    _, path = jax.lax.scan(step, params, None, length=num_steps)
    return _from_start(params, path, policy)


def partial_m_steps(
    log_init: Float[Array, " outcomes"],
    accept: Bool[Array, " outcomes"],
    rate: Number,
    num_inner: int | Int[Array, ""],
    num_steps: int,
) -> EMPath:
    """EM on the softmax table whose M-step takes n gradient steps, logits <- logits + rate (target - policy).

    That is descent on KL(target || policy), and target = policy(. | S) is drawn up anew before every n-th step. With
    n = 1 it is gradient ascent on log J, hence policy gradient on another clock; as n grows it becomes exact EM.

    Args:
        log_init: initial policy, `[outcomes]`.
        accept: the success set S, boolean, `[outcomes]`.
        rate: learning rate, a number.
        num_inner: n >= 1, a number, not static: lengths can be mapped over.
        num_steps: gradient steps in all, static.

    Returns:
        The `EMPath`, whose `params` are the logits; a row a gradient step.

    Raises:
        ValueError: `num_steps` is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> log_init, accept = jnp.log(jnp.array([0.3, 0.1, 0.6])), jnp.array([True, True, False])
        >>> for num_inner in (1, 200):
        ...     em = partial_m_steps(log_init, accept, 0.5, num_inner, num_steps=200)
        ...     print(jnp.exp(em.log_policy[-1]).round(2).tolist())
        [0.96, 0.03, 0.01]
        [0.75, 0.25, 0.01]

    References:
        Neal, Hinton, "A View of the EM Algorithm that Justifies Incremental, Sparse, and Other Variants", 1998;
        Shenfeld, Pari, Agrawal, "RL's Razor", arXiv:2509.04259, Lemma A.2 (one step is policy gradient) and
        Proposition A.4 (ii) (inexact M-steps).
    """
    if num_steps < 0:
        raise ValueError(f"num_steps must be at least 0, got {num_steps}")

    def step(carry: tuple[Array, Array], count: Array) -> tuple[tuple[Array, Array], Array]:
        logits, target = carry
        log_policy = softmax_policy(logits)
        target = jnp.where(count % num_inner == 0, jnp.exp(condition(log_policy, accept)), target)
        logits = logits + rate * (target - jnp.exp(log_policy))
        return (logits, target), logits

    _, path = jax.lax.scan(step, (log_init, jnp.exp(log_init)), jnp.arange(num_steps))
    return _from_start(log_init, path, softmax_policy)


def mixture(
    log_weights: Float[Array, "*#batch components"], log_components: Float[Array, "components outcomes"]
) -> Policy:
    """The mixture Σ_k w_k f_k of fixed components: the convex family.

    Args:
        log_weights: log w, normalised, `[..., components]`.
        log_components: log f, `[components, outcomes]`.

    Returns:
        Normalised log-probabilities, `[..., outcomes]`.

    Raises:
        ValueError: the numbers of components differ.

    Example:
        >>> import jax.numpy as jnp
        >>> log_components = jnp.log(jnp.array([[1.0, 0.0], [0.5, 0.5]]))
        >>> jnp.exp(mixture(jnp.log(jnp.array([0.2, 0.8])), log_components)).round(4).tolist()
        [0.6, 0.4]
    """
    mixed: Policy = jnp.vectorize(lambda row: _mixture(row, log_components), signature="(k)->(n)")(log_weights)
    return mixed


def fit_mixture(
    log_target: LogProbs,
    log_weights: Float[Array, "*#batch components"],
    log_components: Float[Array, "components outcomes"],
    num_steps: int,
) -> Float[Array, "*batch components"]:
    """The M-step of the convex family by its own EM: w_k <- w_k Σ_y target(y) f_k(y) / Σ_j w_j f_j(y).

    Every step lowers KL(target || Σ_k w_k f_k), which is convex in w, and its limit is the least of them.

    Args:
        log_target: what is fitted, `[..., outcomes]`; possible only where the first mixture is.
        log_weights: log w to start from, normalised, `[..., components]`; a weight of zero stays zero.
        log_components: log f, `[components, outcomes]`.
        num_steps: updates, static.

    Returns:
        log w after them, normalised, `[..., components]`.

    Raises:
        ValueError: `num_steps` is negative, or the numbers of components differ.

    Example:
        >>> import jax.numpy as jnp
        >>> log_components = jnp.log(jnp.array([[0.9, 0.1], [0.2, 0.8]]))
        >>> log_weights = fit_mixture(
        ...     jnp.log(jnp.array([0.55, 0.45])), jnp.log(jnp.array([0.9, 0.1])), log_components, num_steps=200
        ... )
        >>> jnp.exp(log_weights).round(4).tolist()
        [0.5, 0.5]

    References:
        Csiszár, Tusnády, "Information Geometry and Alternating Minimization Procedures", 1984.
    """
    if num_steps < 0:
        raise ValueError(f"num_steps must be at least 0, got {num_steps}")

    def fit(log_target: Array, start: Array) -> Array:
        def update(log_weights: Array, _: None) -> tuple[Array, None]:
            mixed = _mixture(log_weights, log_components)
            share = log_weights[:, None] + log_components - jnp.where(mixed != -jnp.inf, mixed, 0.0)[None]
            return log_sum(share + log_target[None]), None

        return jax.lax.scan(update, start, None, length=num_steps)[0]

    rank = max(log_target.ndim, log_weights.ndim)
    rows = (jnp.expand_dims(x, range(rank - x.ndim)) for x in (log_target, log_weights))
    fitted: Float[Array, "*batch components"] = jnp.vectorize(fit, signature="(n),(k)->(k)")(*rows)
    return fitted


def _mixture(log_weights: Float[Array, " components"], log_components: Float[Array, "components outcomes"]) -> Array:
    if log_weights.size != len(log_components):
        raise ValueError(f"log_weights has {log_weights.size} components, but log_components has {len(log_components)}")
    return log_sum((log_weights[:, None] + log_components).T)


def _from_start(params: Any, path: Any, policy: Callable[[Any], Float[Array, "..."]]) -> EMPath:
    """The path with its start in front, and the policies along it."""
    whole = with_start(params, path)
    return EMPath(whole, jax.vmap(policy)(whole))
