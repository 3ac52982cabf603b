"""Divergences between two distributions on a finite outcome space.

Every function takes normalised log-probabilities whose last axis is the outcome axis; leading axes are batch axes
and broadcast. An impossible outcome is `-inf`. Results are in nats and exact at the boundary: 0 log 0 = 0, and a
divergence is `+inf` exactly where its support condition is violated. Derivatives are meant along the simplex, as
they arise when the arguments come from `jax.nn.log_softmax`.

Results have the dtype of the arguments, but for bfloat16 and float16: there all is computed, and returned, in float32,
because a sum over a vocabulary has more digits than bfloat16 has room for. What is left is the rounding of the
arguments, a 500th of a log-probability: of a KL divergence of 0.01 nats some 2 % (`benchmarks/`).

An array of log-probabilities that is not floating raises `TypeError`, one without outcomes, with other outcomes than
its fellows or with batch axes that do not broadcast `ValueError`: see `rlrazor.checks.outcome_arrays`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlrazor._numerics import (
    Elementwise,
    bregman,
    expectation,
    jensen_shannon_terms,
    kl_terms,
    log1p_ratio,
    log_power_sum,
    mass_gap,
    renyi_terms,
    safe_sqrt,
    shared_log_ratio,
    with_derivatives_of,
)
from rlrazor._types import LogProbs, Number, PerRow
from rlrazor.checks import floating_array, nonnegative, outcome_arrays


def entropy(log_p: LogProbs) -> PerRow:
    """Shannon entropy H(p) = -Σ p log p.

    Args:
        log_p: normalised log-probabilities, `[..., outcomes]`.

    Returns:
        Entropy in nats, `[...]`, in [0, log outcomes].

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{entropy(jnp.log(jnp.array([0.5, 0.5, 0.0]))):.4f}")
        0.6931

    References:
        Shannon, "A Mathematical Theory of Communication", 1948.
    """
    (log_p,) = outcome_arrays(log_p=log_p)
    return expectation(log_p, -log_p)


def cross_entropy(log_p: LogProbs, log_q: LogProbs) -> PerRow:
    """Cross-entropy H(p, q) = -Σ p log q = H(p) + KL(p || q), the SFT loss of policy q on data p.

    Args:
        log_p: data distribution, `[..., outcomes]`.
        log_q: policy, `[..., outcomes]`.

    Returns:
        Cross-entropy in nats, `[...]`, in [0, inf]; `+inf` where p > 0 = q.

    Example:
        >>> import jax.numpy as jnp
        >>> log_p, log_q = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
        >>> print(f"{cross_entropy(log_p, log_q):.4f}")
        1.2040
    """
    log_p, log_q = outcome_arrays(log_p=log_p, log_q=log_q)
    return expectation(log_p, -log_q)


def kl_divergence(log_p: LogProbs, log_q: LogProbs) -> PerRow:
    """Relative entropy KL(p || q) = Σ p log(p / q).

    Computed as Σ (p log(p/q) - p + q), whose terms are all non-negative, so that small divergences keep their
    relative accuracy in float32.

    Args:
        log_p: distribution that the expectation is over, `[..., outcomes]`.
        log_q: the other distribution, `[..., outcomes]`.

    Returns:
        KL(p || q) in nats, `[...]`, in [0, inf]; `+inf` exactly where some outcome has p > 0 = q.

    Example:
        >>> import jax.numpy as jnp
        >>> log_p, log_q = jnp.log(jnp.array([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]))
        >>> print(f"{kl_divergence(log_p, log_q):.4f} {kl_divergence(log_q, log_p)}")
        0.6931 inf

    References:
        Kullback, Leibler, "On Information and Sufficiency", 1951.
    """
    log_p, log_q = outcome_arrays(log_p=log_p, log_q=log_q)
    return kl_terms(log_p, log_q).sum(-1)


def jeffreys_divergence(log_p: LogProbs, log_q: LogProbs) -> PerRow:
    """Jeffreys divergence J(p, q) = KL(p || q) + KL(q || p).

    Args:
        log_p: normalised log-probabilities, `[..., outcomes]`.
        log_q: normalised log-probabilities, `[..., outcomes]`.

    Returns:
        Divergence in nats, `[...]`, in [0, inf]; `+inf` where supports differ.

    Example:
        >>> import jax.numpy as jnp
        >>> log_p, log_q = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
        >>> print(f"{jeffreys_divergence(log_p, log_q):.4f}")
        0.8789

    References:
        Jeffreys, "An Invariant Form for the Prior Probability in Estimation Problems", 1946.
    """
    return kl_divergence(log_p, log_q) + kl_divergence(log_q, log_p)


def jensen_shannon_divergence(log_p: LogProbs, log_q: LogProbs, weight: Number = 0.5) -> PerRow:
    """Jensen-Shannon divergence w KL(p || m) + (1-w) KL(q || m), with m = w p + (1-w) q.

    As w -> 0, JS_w / w -> KL(p || q); as w -> 1, JS_w / (1-w) -> KL(q || p). Where these are infinite, so is the
    derivative in w at that end, of which automatic differentiation gives the finite part.

    Args:
        log_p: normalised log-probabilities, `[..., outcomes]`.
        log_q: normalised log-probabilities, `[..., outcomes]`.
        weight: w in [0, 1], a number or `[...]`.

    Returns:
        Divergence in nats, `[...]`, in [0, H(w)] with H(w) the binary entropy (log 2 at w = 1/2).

    Raises:
        ValueError: a Python `weight` outside [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> log_p, log_q = jnp.log(jnp.array([[1.0, 0.0], [0.0, 1.0]]))
        >>> print(f"{jensen_shannon_divergence(log_p, log_q):.4f}")
        0.6931

    References:
        Lin, "Divergence Measures Based on the Shannon Entropy", 1991; Agarwal et al., "On-Policy Distillation of
        Language Models", arXiv:2306.13649.
    """
    if isinstance(weight, int | float) and not 0 <= weight <= 1:
        raise ValueError(f"weight must lie in [0, 1], got {weight}")
    log_p, log_q, w = outcome_arrays({"weight": weight}, log_p=log_p, log_q=log_q)
    return jensen_shannon_terms(log_p, log_q, w).sum(-1)


def renyi_divergence(log_p: LogProbs, log_q: LogProbs, order: Number) -> PerRow:
    """Rényi divergence D_a(p || q) = log(Σ p^a q^(1-a)) / (a - 1), continued to a = 0, 1 and inf.

    D_0 = -log q(p > 0), D_1 = KL(p || q), D_inf = log max p/q. Small divergences are summed from the one-signed
    terms of the Tsallis form S_a = (Σ p^a q^(1-a) - 1) / (a-1), with D_a = log(1 + (a-1) S_a) / (a-1); large ones are
    log Σ p^a q^(1-a) / (a-1).

    Args:
        log_p: normalised log-probabilities, `[..., outcomes]`.
        log_q: normalised log-probabilities, `[..., outcomes]`.
        order: a in [0, inf], a number or `[...]`.

    Returns:
        Divergence in nats, `[...]`, in [0, inf] and non-decreasing in the order.

    Raises:
        ValueError: a negative or NaN Python `order`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_p, log_q = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
        >>> [f"{renyi_divergence(log_p, log_q, a):.4f}" for a in (0.0, 0.5, 1.0, jnp.inf)]
        ['0.0000', '0.2231', '0.5108', '1.6094']

    References:
        van Erven, Harremoës, "Rényi Divergence and Kullback-Leibler Divergence", arXiv:1206.2459.
    """
    log_p, log_q, order = outcome_arrays({"order": nonnegative("order", order)}, log_p=log_p, log_q=log_q)
    a = jnp.where(jnp.isinf(order), 2.0, order)
    log_powers = log_power_sum(log_p, log_q, a)
    close = jnp.isfinite(log_powers) & ((jnp.abs(log_powers) < 0.5) | (a == 1))
    # Elsewhere the terms may overflow and are not needed: p in place of q makes them zero, and their derivatives.
    tsallis = _tsallis_where_close(log_p, jnp.where(close, log_q, log_p), a, jnp.any(close))
    by_terms = log1p_ratio((a - 1) * tsallis) * tsallis
    at_order = jnp.where(close, by_terms, log_powers / jnp.where(a == 1, 1.0, a - 1))
    worst = jax.lax.cond(jnp.any(jnp.isinf(order)), _log_worst_ratio, _nothing, log_p, log_q, a)
    return jnp.where(jnp.isinf(order), jnp.maximum(worst, 0.0), at_order)[..., 0]


def _tsallis(log_p: Elementwise, log_q: Elementwise, a: Elementwise, close: Bool[Array, ""]) -> PerRow:
    return renyi_terms(log_p, log_q, a).sum(-1, keepdims=True)


@with_derivatives_of(_tsallis)  # for those of a condition keep every intermediate array of both its branches
def _tsallis_where_close(log_p: Elementwise, log_q: Elementwise, a: Elementwise, close: Bool[Array, ""]) -> PerRow:
    found: PerRow = jax.lax.cond(close, _tsallis, _nothing, log_p, log_q, a, close)
    return found


def _log_worst_ratio(log_p: Elementwise, log_q: Elementwise, a: Elementwise) -> PerRow:
    possible = log_p != -jnp.inf
    log_ratio = jnp.where(possible, log_p - jnp.where(possible, log_q, 0.0), -jnp.inf)
    return jnp.max(log_ratio + jnp.zeros_like(a), axis=-1, keepdims=True)


def _nothing(log_p: Elementwise, log_q: Elementwise, a: Elementwise, close: Bool[Array, ""] | None = None) -> PerRow:
    return jnp.zeros_like(jnp.max(log_p + log_q + a, axis=-1, keepdims=True))


def chi2_divergence(log_p: LogProbs, log_q: LogProbs) -> PerRow:
    """Pearson's χ²(p || q) = Σ (p - q)² / q, the variance of the importance weight p/q under q.

    Args:
        log_p: normalised log-probabilities, `[..., outcomes]`.
        log_q: normalised log-probabilities, `[..., outcomes]`.

    Returns:
        Divergence, dimensionless, `[...]`, in [0, inf]; `+inf` where p > 0 = q.

    Example:
        >>> import jax.numpy as jnp
        >>> log_p, log_q = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
        >>> print(f"{chi2_divergence(log_p, log_q):.4f}")
        1.7778

    References:
        Pearson, "On the Criterion that a Given System of Deviations ...", 1900.
    """
    log_p, log_q = outcome_arrays(log_p=log_p, log_q=log_q)
    p_shared, q_shared, log_ratio = shared_log_ratio(log_p, log_q)
    far = log_ratio < -1.0  # p >> q, where p / q may overflow while q underflows
    near = jnp.exp(q_shared) * jnp.expm1(jnp.where(far, 0.0, -log_ratio)) ** 2
    p, q = jnp.exp(p_shared), jnp.exp(q_shared)
    terms = jnp.where(far, jnp.exp(p_shared - jnp.where(far, log_ratio, 0.0)) - 2 * p + q, near)
    terms = jnp.where(log_q == -jnp.inf, jnp.inf, terms)
    return jnp.where(log_p == -jnp.inf, jnp.exp(log_q), terms).sum(-1)


def total_variation(log_p: LogProbs, log_q: LogProbs) -> PerRow:
    """Total variation TV(p, q) = ½ Σ |p - q|.

    Args:
        log_p: normalised log-probabilities, `[..., outcomes]`.
        log_q: normalised log-probabilities, `[..., outcomes]`.

    Returns:
        Distance, dimensionless, `[...]`, in [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> log_p, log_q = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
        >>> print(f"{total_variation(log_p, log_q):.4f}")
        0.4000
    """
    log_p, log_q = outcome_arrays(log_p=log_p, log_q=log_q)
    return 0.5 * jnp.abs(mass_gap(log_p, log_q)).sum(-1)


def hellinger_distance(log_p: LogProbs, log_q: LogProbs) -> PerRow:
    """Hellinger distance H(p, q) = sqrt(½ Σ (√p - √q)²) = sqrt(1 - BC(p, q)).

    The distance has a corner at p = q, where its derivative is taken to be the subgradient 0.

    Args:
        log_p: normalised log-probabilities, `[..., outcomes]`.
        log_q: normalised log-probabilities, `[..., outcomes]`.

    Returns:
        Distance, dimensionless, `[...]`, in [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> log_p, log_q = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
        >>> print(f"{hellinger_distance(log_p, log_q):.4f}")
        0.3249

    References:
        Hellinger, "Neue Begründung der Theorie quadratischer Formen ...", 1909.
    """
    log_p, log_q = outcome_arrays(log_p=log_p, log_q=log_q)
    return safe_sqrt(0.5 * (mass_gap(log_p / 2, log_q / 2) ** 2).sum(-1))


def bhattacharyya_coefficient(log_p: LogProbs, log_q: LogProbs) -> PerRow:
    """Bhattacharyya coefficient BC(p, q) = Σ √(p q), the overlap of two distributions.

    Args:
        log_p: normalised log-probabilities, `[..., outcomes]`.
        log_q: normalised log-probabilities, `[..., outcomes]`.

    Returns:
        Overlap, dimensionless, `[...]`, in [0, 1]: 1 iff p = q, 0 iff the supports are disjoint.

    Example:
        >>> import jax.numpy as jnp
        >>> log_p, log_q = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
        >>> print(f"{bhattacharyya_coefficient(log_p, log_q):.4f}")
        0.8944

    References:
        Bhattacharyya, "On a Measure of Divergence between Two Statistical Populations ...", 1943.
    """
    log_p, log_q = outcome_arrays(log_p=log_p, log_q=log_q)
    return jnp.exp((log_p + log_q) / 2).sum(-1)


def binary_kl(p: Number, q: Number) -> PerRow:
    """Binary relative entropy kl(p, q) = p log(p/q) + (1-p) log((1-p)/(1-q)) of two probabilities.

    No policy with success rate J is closer than kl(p0, J) in KL(ref || policy), or kl(J, p0) in KL(policy || ref),
    to a reference with success rate p0.

    Args:
        p: probabilities (not logs) in [0, 1], `[...]`.
        q: probabilities (not logs) in [0, 1], `[...]`.

    Returns:
        Divergence in nats, `[...]`, in [0, inf].

    Raises:
        TypeError: an array of a non-floating dtype.

    Example:
        >>> print(f"{binary_kl(0.85, 0.99):.4f} {binary_kl(0.99, 0.85):.4f}")
        0.2766 0.1239

    References:
        Shenfeld, Pari, Agrawal, "RL's Razor", arXiv:2509.04259, Lemma 5.1 (the case J = 1).
    """
    p, q = _probabilities(p, q)
    return _binary_term(p, q, q - p) + _binary_term(1 - p, 1 - q, p - q)


def _probabilities(p: Number, q: Number) -> tuple[Float[Array, "*#batch"], Float[Array, "*#batch"]]:
    """Both as floating arrays of one rank; Python numbers take the other's dtype."""
    given = [floating_array(name, x) for name, x in (("p", p), ("q", q)) if not isinstance(x, int | float)]
    dtype = given[0].dtype if given else jnp.result_type(float)
    arrays = [jnp.asarray(x, dtype) if isinstance(x, int | float) else jnp.asarray(x) for x in (p, q)]
    rank = max(x.ndim for x in arrays)
    first, second = (jnp.expand_dims(x, range(rank - x.ndim)) for x in arrays)
    return first, second


def _binary_term(p: Float[Array, "..."], q: Float[Array, "..."], difference: Float[Array, "..."]) -> PerRow:
    """The term p log(p/q) - p + q from probabilities; near p = q the ratio comes from their exact difference."""
    shared = (p > 0) & (q > 0)
    p_safe, q_safe = jnp.where(shared, p, 1.0), jnp.where(shared, q, 1.0)
    log_ratio = _log_ratio(p_safe, q_safe, jnp.where(shared, difference, 0.0))
    terms = jnp.where(shared, bregman(p_safe, q_safe, log_ratio), jnp.inf)
    return jnp.where(p == 0, q, terms)


@jax.custom_jvp
def _log_ratio(p: Float[Array, "..."], q: Float[Array, "..."], difference: Float[Array, "..."]) -> Float[Array, "..."]:
    """The logarithm of q / p with q - p given exactly. Its derivatives are 1/q and -1/p: none squares a tiny p."""
    near = jnp.abs(difference) < p / 2
    return jnp.where(near, jnp.log1p(jnp.where(near, difference / p, 0.0)), jnp.log(q) - jnp.log(p))


_log_ratio.defjvps(lambda dp, _, p, q, difference: -dp / p, lambda dq, _, p, q, difference: dq / q, None)
