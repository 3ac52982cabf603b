"""Kernels that stay exact where probabilities vanish, underflow or nearly agree.

Bad inputs are replaced before each operation, never cleaned after it, so values and derivatives are both right.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Elementwise = Float[Array, "..."]

_SERIES_RADIUS = 0.05
_SERIES_DEGREE = 9  # remainder below 1e-17 of the leading term inside the radius


def mass_times(log_p: Elementwise, x: Elementwise) -> Elementwise:
    """The product p x, with 0 x = 0 for infinite x, and p (±inf) = ±inf even where p > 0 underflows."""
    possible = log_p > -jnp.inf
    log_p = jnp.where(possible, log_p, 0.0)
    x = jnp.where(possible, x, 0.0)
    log_tiny = jnp.log(jnp.finfo(log_p.dtype).tiny)
    p = jnp.where(jnp.isinf(x), jnp.exp(jnp.maximum(log_p, log_tiny)), jnp.exp(log_p))
    return jnp.where(possible, p * x, 0.0)


def expectation(log_p: Elementwise, x: Elementwise) -> Elementwise:
    """E_p[x] over the last axis; impossible outcomes do not count, whatever x is there."""
    return mass_times(log_p, x).sum(-1)


def bregman(log_p: Elementwise, x: Elementwise) -> Elementwise:
    """The non-negative gap p (e^x - 1 - x) between the exponential and its tangent, for finite log_p and x.

    Three branches, each accurate in its range: a series near 0, `expm1` in between, and p e^x as one exponential
    where e^x alone would overflow while p underflows.
    """
    near, far = jnp.abs(x) < _SERIES_RADIUS, x > 1.0
    x_near, x_far = jnp.where(near, x, 0.0), jnp.where(far, x, 0.0)
    x_middle = jnp.where(near | far, 0.0, x)
    series = jnp.ones_like(x)
    for k in range(_SERIES_DEGREE, 2, -1):
        series = 1.0 + x_near / k * series
    p = jnp.exp(log_p)
    gap = jnp.where(near, p * (0.5 * x_near**2 * series), p * (jnp.expm1(x_middle) - x_middle))
    return jnp.where(far, jnp.exp(log_p + x_far) - p * (1.0 + x_far), gap)


def shared_log_ratio(log_p: Elementwise, log_q: Elementwise) -> tuple[Elementwise, Elementwise, Elementwise]:
    """(log_p, log_q, log q/p) with zeros in place of all three wherever an outcome lacks either mass."""
    shared = (log_p > -jnp.inf) & (log_q > -jnp.inf)
    log_p, log_q = jnp.where(shared, log_p, 0.0), jnp.where(shared, log_q, 0.0)
    return log_p, log_q, log_q - log_p


def kl_terms(log_p: Elementwise, log_q: Elementwise) -> Elementwise:
    """The terms p log(p/q) - p + q >= 0 of KL(p || q): q where p = 0, +inf where q = 0 < p.

    The added q - p sums to zero over normalised arrays and keeps every term non-negative, so a KL of 1e-8 survives
    float32. The derivatives are q - p in log_q and p log(p/q) in log_p, also at infinite arguments.
    """
    p_shared, _, log_ratio = shared_log_ratio(log_p, log_q)
    p_zero, q_zero = log_p == -jnp.inf, log_q == -jnp.inf
    terms = jnp.where(q_zero, mass_times(log_p, -log_q), bregman(p_shared, log_ratio))
    return jnp.where(p_zero, jnp.exp(log_q), terms)


def safe_sqrt(x: Elementwise) -> Elementwise:
    """Square root whose derivative at 0 is the subgradient 0 instead of inf."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def log_mix(log_a: Elementwise, log_p: Elementwise, log_b: Elementwise, log_q: Elementwise) -> Elementwise:
    """log(a p + b q), elementwise, with derivative zero where both terms vanish."""
    x, y = log_a + log_p, log_b + log_q
    empty = jnp.maximum(x, y) == -jnp.inf
    mixed = jnp.logaddexp(jnp.where(empty, 0.0, x), jnp.where(empty, 0.0, y))
    return jnp.where(empty, -jnp.inf, mixed)


def log_sum(log_w: Elementwise) -> Elementwise:
    """Log of the sum of exp(log_w) over the last axis: -inf, with derivative zero, where every weight is zero."""
    empty = jnp.max(log_w, axis=-1) == -jnp.inf
    total = jax.nn.logsumexp(jnp.where(empty[..., None], 0.0, log_w), axis=-1)
    return jnp.where(empty, -jnp.inf, total)


def log_normalise(log_w: Elementwise) -> Elementwise:
    """Log-probabilities of the weights exp(log_w); all -inf where every weight is zero."""
    log_total = log_sum(log_w)[..., None]
    return log_w - jnp.where(log_total == -jnp.inf, 0.0, log_total)
