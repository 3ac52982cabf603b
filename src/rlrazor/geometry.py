"""The information geometry of the simplex: metric, distance, geodesics, projections.

Conventions and errors as in `rlrazor.divergences`. Coordinates are logits unless stated otherwise.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlrazor._numerics import log_blend, log_normalize, times_log
from rlrazor._types import LogProbs, Number, PerRow, Policy
from rlrazor.checks import at_least_float32, floating_array, outcome_arrays
from rlrazor.divergences import hellinger_distance, kl_divergence
from rlrazor.tilting import exponential_tilt

Features = Float[Array, "*#batch outcomes features"]


class Projection(NamedTuple):
    """The projection of a distribution, as a member ref exp(multipliers · features) / Z of the exponential family.

    Attributes:
        log_policy: normalised log-probabilities, `[..., outcomes]`.
        multipliers: natural parameters, `[..., features]`.
        kl: KL(policy || ref) in nats, `[...]`.
        converged: whether finite multipliers meet the moments, to 1000 roundings of their range, `[...]`.
    """

    log_policy: Float[Array, "..."]
    multipliers: Float[Array, "..."]
    kl: Float[Array, "..."]
    converged: Bool[Array, "..."]


def fisher_metric(log_p: LogProbs) -> Float[Array, "*batch outcomes outcomes"]:
    """Fisher information of the softmax in logit coordinates, F = diag(p) - p pᵀ.

    It is the Hessian of log Σ exp(logits), and of KL in either direction at coincidence.

    Args:
        log_p: normalised log-probabilities, `[..., outcomes]`.

    Returns:
        Positive semi-definite, `[..., outcomes, outcomes]`; its null space holds the constant vector.

    Example:
        >>> import jax.numpy as jnp
        >>> fisher_metric(jnp.log(jnp.array([0.5, 0.5]))).round(3).tolist()
        [[0.25, -0.25], [-0.25, 0.25]]

    References:
        Amari, "Natural Gradient Works Efficiently in Learning", 1998.
    """
    (log_p,) = outcome_arrays(log_p=log_p)
    p = jnp.exp(log_p)
    diagonal = jnp.expand_dims(jnp.eye(p.shape[-1], dtype=p.dtype), range(p.ndim - 1)) * p[..., None]
    return diagonal - p[..., :, None] * p[..., None, :]


def fisher_rao_distance(log_p: LogProbs, log_q: LogProbs) -> PerRow:
    """Fisher-Rao geodesic distance 2 arccos BC(p, q) = 4 arcsin(H(p, q) / √2).

    Args:
        log_p: normalised log-probabilities, `[..., outcomes]`.
        log_q: normalised log-probabilities, `[..., outcomes]`.

    Returns:
        Distance, dimensionless, `[...]`, in [0, π]; its derivative at p = q is taken to be 0.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{fisher_rao_distance(jnp.log(jnp.array([1.0, 0.0])), jnp.log(jnp.array([0.0, 1.0]))):.4f}")
        3.1416

    References:
        Rao, "Information and the Accuracy Attainable in the Estimation of Statistical Parameters", 1945.
    """
    distance = hellinger_distance(log_p, log_q)
    return 4 * jnp.arcsin(distance / jnp.sqrt(2.0).astype(distance.dtype))


def e_geodesic(log_p: LogProbs, log_q: LogProbs, t: Number) -> Policy:
    """The exponential geodesic p^(1-t) q^t / Z, straight in logits.

    For 0 < t < 1 its support is the intersection of both supports; at the ends it is p and q exactly.

    Args:
        log_p: start, `[..., outcomes]`.
        log_q: end, `[..., outcomes]`.
        t: position, a number or `[...]`; outside [0, 1] it extrapolates where p and q share their support.

    Returns:
        Normalised log-probabilities, `[..., outcomes]`; `-inf` throughout where the supports are disjoint.

    Example:
        >>> import jax.numpy as jnp
        >>> log_p, log_q = jnp.log(jnp.array([[0.9, 0.1], [0.1, 0.9]]))
        >>> jnp.exp(e_geodesic(log_p, log_q, 0.5)).round(4).tolist()
        [0.5, 0.5]

    References:
        Amari, Nagaoka, "Methods of Information Geometry", 2000, chapter 2.
    """
    log_p, log_q, t = outcome_arrays({"t": t}, log_p=log_p, log_q=log_q)
    return log_pool(1 - t, log_p, t, log_q)


def m_geodesic(log_p: LogProbs, log_q: LogProbs, t: Number) -> Policy:
    """The mixture geodesic (1-t) p + t q, straight in probabilities.

    Args:
        log_p: start, `[..., outcomes]`.
        log_q: end, `[..., outcomes]`.
        t: position in [0, 1], a number or `[...]`.

    Returns:
        Normalised log-probabilities, `[..., outcomes]`.

    Raises:
        ValueError: a Python `t` outside [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> log_p, log_q = jnp.log(jnp.array([[0.75, 0.25], [0.25, 0.75]]))
        >>> jnp.exp(m_geodesic(log_p, log_q, 0.5)).round(4).tolist()
        [0.5, 0.5]

    References:
        Amari, Nagaoka, "Methods of Information Geometry", 2000, chapter 2.
    """
    if isinstance(t, int | float) and not 0 <= t <= 1:
        raise ValueError(f"t must lie in [0, 1], got {t}")
    log_p, log_q, t = outcome_arrays({"t": t}, log_p=log_p, log_q=log_q)
    return log_blend(log_p, log_q, t)


def i_projection(log_ref: LogProbs, features: Features, moments: Float[Array, "*#batch features"]) -> Projection:
    """The I-projection of ref on the moment constraints: argmin KL(pi || ref) with E_pi[features] = moments.

    The answer is the tilt ref exp(multipliers · features) / Z, and every pi that meets the constraints satisfies
    KL(pi || ref) = KL(pi || projection) + KL(projection || ref).

    Args:
        log_ref: reference, `[..., outcomes]`.
        features: finite, `[..., outcomes, features]`; redundant features are allowed.
        moments: required expectations, `[..., features]`, inside the convex hull of the features.

    Returns:
        The `Projection`; `converged` is false where no finite multipliers meet the moments, and where the solver, which
        starts at ref, does not find them: log-probabilities hundreds apart leave it no slope to follow.

    Raises:
        ValueError: feature shapes that do not match.

    Example:
        >>> import jax.numpy as jnp
        >>> log_ref = jnp.log(jnp.ones(6) / 6)  # a die that shows 4.5 on average
        >>> die = i_projection(log_ref, jnp.arange(1.0, 7.0)[:, None], jnp.array([4.5]))
        >>> print(f"{die.multipliers[0]:.4f} {die.kl:.4f} {bool(die.converged)}")
        0.3710 0.1782 True

    References:
        Csiszár, "I-Divergence Geometry of Probability Distributions and Minimization Problems", 1975; Jaynes,
        "Information Theory and Statistical Mechanics", 1957 (the die).
    """
    (log_ref,) = outcome_arrays(log_ref=log_ref)
    features, moments = _features(features, log_ref), floating_array("moments", moments)
    if moments.shape[-1:] != features.shape[-1:]:
        raise ValueError(f"moments must be [..., {features.shape[-1]} features], got shape {moments.shape}")
    batch = jnp.broadcast_shapes(log_ref.shape[:-1], features.shape[:-2], moments.shape[:-1])
    solve = jnp.vectorize(_i_projection, signature="(k),(k,m),(m)->(k),(m),(),()")
    wide = jnp.result_type(float)  # optimistix solves in the default dtype
    log_policy, multipliers, kl, converged = solve(
        jnp.broadcast_to(log_ref, batch + log_ref.shape[-1:]).astype(wide),
        jnp.broadcast_to(features, batch + features.shape[-2:]).astype(wide),
        jnp.broadcast_to(moments, batch + moments.shape[-1:]).astype(wide),
    )
    dtype = log_ref.dtype
    return Projection(log_policy.astype(dtype), multipliers.astype(dtype), kl.astype(dtype), converged)


def _features(features: Features, log_p: Float[Array, "..."]) -> Features:
    """The features, if they are floating and have one row an outcome."""
    features = floating_array("features", features)
    if features.ndim < 2 or features.shape[-2] != log_p.shape[-1]:
        raise ValueError(f"features must be [..., {log_p.shape[-1]} outcomes, features], got shape {features.shape}")
    return at_least_float32(features)


@jax.jit
def _i_projection(
    log_ref: Float[Array, " outcomes"],
    features: Float[Array, "outcomes features"],
    moments: Float[Array, " features"],
) -> tuple[Float[Array, " outcomes"], Float[Array, " features"], Float[Array, ""], Bool[Array, ""]]:
    import lineax
    import optimistix

    def tilted(multipliers: Float[Array, " features"], centred: Float[Array, "..."]) -> Float[Array, " outcomes"]:
        return exponential_tilt(log_ref, centred @ multipliers, jnp.ones_like(moments[:1]))

    def miss(multipliers: Float[Array, " features"], centred: Float[Array, "..."]) -> Float[Array, " features"]:
        return jnp.exp(tilted(multipliers, centred)) @ centred

    info = jnp.finfo(log_ref.dtype)
    scale = jnp.max(jnp.abs(features - moments[None]), axis=0)
    scale = jax.lax.stop_gradient(jnp.where(scale > 0, scale, 1.0))
    centred = (features - moments[None]) / scale[None]
    tolerance = 8 * float(info.eps)
    multipliers = optimistix.root_find(
        miss,
        optimistix.LevenbergMarquardt(rtol=tolerance, atol=tolerance),
        jnp.zeros_like(moments),
        args=centred,
        max_steps=512,
        throw=False,
        adjoint=optimistix.ImplicitAdjoint(lineax.AutoLinearSolver(well_posed=False)),
    ).value
    log_policy = tilted(multipliers, centred)
    possible = jnp.any(log_ref != -jnp.inf)  # else nothing has moments, and the sums over it miss none
    converged = possible & (jnp.max(jnp.abs(miss(multipliers, centred))) <= 1e3 * info.eps)
    return log_policy, multipliers / scale, kl_divergence(log_policy, log_ref), converged


def m_projection(log_p: LogProbs, log_ref: LogProbs, features: Features) -> Projection:
    """The m-projection of p on the exponential family q = ref exp(λ · features) / Z: argmin KL(p || q).

    It is the member with the moments of p, and every q of the family satisfies
    KL(p || q) = KL(p || projection) + KL(projection || q).

    Args:
        log_p: the distribution to project, `[..., outcomes]`.
        log_ref: a member of the family, `[..., outcomes]`.
        features: sufficient statistics, finite, `[..., outcomes, features]`.

    Returns:
        The `Projection` (its `kl` is KL(projection || ref)); `converged` is false where the minimum is at infinity.

    Raises:
        ValueError: feature shapes that do not match.

    Example:
        >>> import jax.numpy as jnp
        >>> log_p, log_ref = jnp.log(jnp.array([[0.5, 0.2, 0.3], [0.2, 0.6, 0.2]]))
        >>> fit = m_projection(log_p, log_ref, jnp.array([[0.0], [1.0], [2.0]]))
        >>> print(f"{jnp.exp(fit.log_policy) @ jnp.arange(3.0):.4f}")  # the mean of p
        0.8000

    References:
        Amari, Nagaoka, "Methods of Information Geometry", 2000, chapter 3.
    """
    log_p, log_ref = outcome_arrays(log_p=log_p, log_ref=log_ref)
    expect = jnp.vectorize(lambda row, table: jnp.exp(row) @ table, signature="(k),(k,m)->(m)")
    features = _features(features, log_p)
    features = jnp.expand_dims(features, range(max(0, log_p.ndim + 1 - features.ndim)))
    return i_projection(log_ref, features, expect(log_p, features))


def log_pool(a: Float[Array, "..."], log_p: LogProbs, b: Float[Array, "..."], log_q: LogProbs) -> Policy:
    """The log-linear pool p^a q^b / Z, with p^0 = 1 also where p = 0.

    Args:
        a: exponent of p, broadcasting against the outcomes.
        log_p: normalised log-probabilities, `[..., outcomes]`.
        b: exponent of q, broadcasting against the outcomes.
        log_q: normalised log-probabilities, `[..., outcomes]`.

    Returns:
        Normalised log-probabilities, `[..., outcomes]`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_p, log_q = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
        >>> print(*(f"{p:.4f}" for p in jnp.exp(log_pool(jnp.array([0.0]), log_p, jnp.array([1.0]), log_q))))
        0.9000 0.1000
    """
    return log_normalize(times_log(a, log_p) + times_log(b, log_q))
