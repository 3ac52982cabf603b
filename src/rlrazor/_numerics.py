"""Kernels that stay exact where probabilities vanish, underflow or nearly agree.

Bad inputs are replaced before each operation, never cleaned after it, so values and derivatives are both right.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, DTypeLike, Float, Int, Key

Elementwise = Float[Array, "..."]
Scalar = Float[Array, ""]


def mass_times(log_p: Elementwise, x: Elementwise) -> Elementwise:
    """The product p x, with 0 x = 0 for infinite x, and p (±inf) = ±inf even where p > 0 underflows."""
    possible = log_p != -jnp.inf
    log_p = jnp.where(possible, log_p, 0.0)
    x = jnp.where(possible, x, 0.0)
    p = jnp.exp(log_p)
    p = jnp.where(jnp.isinf(x), jnp.maximum(p, jnp.finfo(p.dtype).tiny), p)
    return jnp.where(possible, p * x, 0.0)


def expectation(log_p: Elementwise, x: Elementwise) -> Elementwise:
    """E_p[x] over the last axis; impossible outcomes do not count, whatever x is there."""
    return mass_times(log_p, x).sum(-1)


def weighted(a: Elementwise, x: Elementwise) -> Elementwise:
    """The product a x, with 0 inf = 0: what has no weight does not count."""
    return a * jnp.where((a == 0) & jnp.isinf(x), 0.0, x)


def times_log(a: Elementwise, log_p: Elementwise) -> Elementwise:
    """The product a log p, with 0 log 0 = 0."""
    impossible = log_p == -jnp.inf
    return jnp.where(
        impossible, jnp.where(a == 0, 0.0, jnp.where(a > 0, -jnp.inf, jnp.inf)), a * jnp.where(impossible, 0.0, log_p)
    )


def with_derivatives_of(exact: Callable[..., Array]) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """A function whose derivatives, of every order, are those of `exact`, of which it is a faster form."""

    def decorate(function: Callable[..., Array]) -> Callable[..., Array]:
        def slope(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
            moving = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, SymbolicZero)]

            def along(*moved: Array) -> Array:
                at = dict(enumerate(primals)) | dict(zip(moving, moved, strict=True))
                return exact(*at.values())

            return fast(*primals), jax.jvp(along, [primals[i] for i in moving], [tangents[i] for i in moving])[1]

        fast = jax.custom_jvp(function)
        fast.defjvp(slope, symbolic_zeros=True)
        return functools.wraps(function)(fast)

    return decorate


def expm1_series(x: Elementwise) -> Elementwise:
    """The Taylor series of (e^x - 1 - x) / (x² / 2) for |x| < 1, to the last bit and with all its derivatives."""
    degree = 19 if jnp.finfo(x.dtype).bits == 64 else 12  # remainder below the last bit inside |x| < 1
    series = jnp.ones_like(x)
    for k in range(degree, 2, -1):
        series = 1 + x * (1 / k) * series
    return series


def _interpolated(degree: int) -> list[float]:
    """Coefficients, the highest first, of the polynomial through `expm1_series` at the Chebyshev points of [-1, 1]."""
    x = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    return [float(c) for c in np.polyfit(x, 2 * (np.expm1(x) - x) / x**2, degree)]


INTERPOLATED = _interpolated(7)  # as exact in float32 as the ten terms of the series


@with_derivatives_of(expm1_series)
def expm1_tail(x: Elementwise) -> Elementwise:
    """The quotient (e^x - 1 - x) / (x² / 2) for |x| < 1."""
    if jnp.finfo(x.dtype).bits == 64:
        return expm1_series(x)
    total = jnp.full_like(x, INTERPOLATED[0])
    for coefficient in INTERPOLATED[1:]:
        total = total * x + coefficient
    return total


def bregman(p: Elementwise, q: Elementwise, x: Elementwise) -> Elementwise:
    """The non-negative gap p (e^x - 1 - x) between the exponential and its tangent, with q = p e^x given.

    It is the Taylor series for |x| < 1 and q - p (1 + x) beyond; q is one number because e^x alone may overflow while
    p underflows. x = -inf gives +inf, even where p > 0 underflows.
    """
    near = jnp.abs(x) < 1
    x_near = jnp.where(near, x, 0.0)
    tail = expm1_tail(x_near)  # before its factor: derivatives are added up in this order, which long trainings magnify
    x_far = jnp.where(near, -2.0, x)
    p_far = jnp.where(x_far == -jnp.inf, jnp.maximum(p, jnp.finfo(p.dtype).tiny), p)
    return jnp.where(near, p * (x_near**2 / 2) * tail, q - p_far * (1 + x_far))


def expm1_ratio(p: Elementwise, q: Elementwise, x: Elementwise, t: Elementwise) -> Elementwise:
    """The quotient p (e^(t x) - 1) / t with q = p e^(t x) given, continued to t = 0 with all its derivatives."""
    near = jnp.abs(t * x) < 1
    x_near = jnp.where(near, x, 0.0)
    power = t * x_near
    return jnp.where(near, p * x_near * (1 + power / 2 * expm1_tail(power)), (q - p) / jnp.where(near, 1.0, t))


def shared_log_ratio(log_p: Elementwise, log_q: Elementwise) -> tuple[Elementwise, Elementwise, Elementwise]:
    """(log_p, log_q, log q/p) with zeros in place of all three wherever an outcome lacks either mass."""
    shared = (log_p != -jnp.inf) & (log_q != -jnp.inf)
    log_p, log_q = jnp.where(shared, log_p, 0.0), jnp.where(shared, log_q, 0.0)
    return log_p, log_q, log_q - log_p


@jax.custom_jvp
def mass_gap(log_p: Elementwise, log_q: Elementwise) -> Elementwise:
    """The difference q - p, also where they nearly agree."""
    p_zero = log_p == -jnp.inf
    log_ratio = jnp.where(p_zero, jnp.inf, log_q - jnp.where(p_zero, 0.0, log_p))
    return expm1_ratio(jnp.exp(log_p), jnp.exp(log_q), log_ratio, jnp.ones_like(log_ratio))


mass_gap.defjvps(lambda dp, _, log_p, log_q: -dp * jnp.exp(log_p), lambda dq, _, log_p, log_q: dq * jnp.exp(log_q))


@jax.custom_jvp
def kl_terms(log_p: Elementwise, log_q: Elementwise) -> Elementwise:
    """The terms p log(p/q) - p + q >= 0 of KL(p || q): q where p = 0, +inf where q = 0 < p.

    The added q - p sums to zero over normalised arrays and keeps every term non-negative, so a KL of 1e-8 survives
    float32. The derivatives are q - p in log_q and p log(p/q) in log_p, also at infinite arguments.
    """
    p_zero = log_p == -jnp.inf
    finite_log_p = jnp.where(p_zero, 0.0, log_p)
    q = jnp.exp(log_q)
    log_ratio = jnp.where(p_zero, 0.0, log_q) - finite_log_p
    return jnp.where(p_zero, q, bregman(jnp.exp(finite_log_p), q, log_ratio))


def _kl_slope(primals: tuple[Elementwise, Elementwise], tangents: tuple[Any, Any]) -> tuple[Elementwise, Elementwise]:
    log_p, log_q = primals
    terms, (dp, dq) = kl_terms(log_p, log_q), tangents
    slope = jnp.zeros_like(terms)
    if not isinstance(dp, SymbolicZero):  # 0 times an infinite slope would be NaN
        p_zero = log_p == -jnp.inf
        slope += dp * mass_times(log_p, jnp.where(p_zero, 0.0, log_p) - jnp.where(p_zero, 0.0, log_q))
    if not isinstance(dq, SymbolicZero):
        slope += dq * mass_gap(log_p, log_q)
    return terms, slope


kl_terms.defjvp(_kl_slope, symbolic_zeros=True)


def _jensen_shannon_by_kl(log_p: Elementwise, log_q: Elementwise, w: Elementwise) -> Elementwise:
    """The sum of the two KL that `jensen_shannon_terms` are, with m from a logarithm."""
    log_m = log_blend(log_q, log_p, w)
    # At w = 0 (or 1) the weightless side may be infinitely far from m; 0 inf counts as 0, as the limit does.
    apart = log_m == -jnp.inf
    from_p = kl_terms(jnp.where((w == 0) & apart, -jnp.inf, log_p), log_m)
    from_q = kl_terms(jnp.where((w == 1) & apart, -jnp.inf, log_q), log_m)
    return w * from_p + (1 - w) * from_q


@with_derivatives_of(_jensen_shannon_by_kl)
def jensen_shannon_terms(log_p: Elementwise, log_q: Elementwise, w: Elementwise) -> Elementwise:
    """The terms w (p log(p/m) - p + m) + (1-w) (q log(q/m) - q + m) >= 0 with m = w p + (1-w) q.

    All comes from the greater mass and the distance d >= 0 of the logarithms: with u and v the weights of the greater
    and of the lesser, m is the greater times u + v e^-d, which is 1 + v (e^-d - 1).
    """
    p_greater = log_p >= log_q
    u, v = jnp.where(p_greater, w, 1 - w), jnp.where(p_greater, 1 - w, w)
    high, low = jnp.maximum(log_p, log_q), jnp.minimum(log_p, log_q)
    alone = low == -jnp.inf
    d = jnp.where(alone, 0.0, high) - jnp.where(alone, 0.0, low)
    e, one = jnp.exp(-d), jnp.ones_like(d)
    change = v * expm1_ratio(one, e, -d, one)
    close = change > -0.5
    ratio = jnp.maximum(jnp.where(close, 1 + change, u + v * e), jnp.finfo(e.dtype).tiny)
    rounded_off = jnp.where(close, change - (ratio - 1), 0.0) / ratio
    from_high = jnp.maximum(jnp.log(ratio) + rounded_off, -d)
    greater = jnp.exp(high)
    terms = u * bregman(greater, greater * ratio, from_high) + v * bregman(greater * e, greater * ratio, from_high + d)
    return jnp.where(alone, greater * -times_log(u, jnp.log(u)), terms)


def log_power_sum(log_p: Elementwise, log_q: Elementwise, a: Elementwise) -> Elementwise:
    """The log of Σ p^a q^(1-a), kept as an axis of one: at a >= 1 it is +inf where q = 0 < p."""
    p_shared, q_shared, _ = shared_log_ratio(log_p, log_q)
    terms = jnp.where(log_q == -jnp.inf, jnp.where(a < 1, -jnp.inf, jnp.inf), a * p_shared - (a - 1) * q_shared)
    return log_sum(jnp.where(log_p == -jnp.inf, -jnp.inf, terms))[..., None]


def renyi_terms(log_p: Elementwise, log_q: Elementwise, a: Elementwise) -> Elementwise:
    """The terms (p^a q^(1-a) - p) / (a - 1) + q - p >= 0 of the Tsallis divergence, continued to a = 1.

    They are written so that nothing large cancels: near p = q, for a near 0, and else. At a = 1 they are `kl_terms`.
    """
    t = a - 1
    p_shared, q_shared, d = shared_log_ratio(log_p, log_q)
    p, q, power = jnp.exp(p_shared), jnp.exp(q_shared), jnp.exp(a * p_shared - t * q_shared)
    t_safe = jnp.where(t == 0, 1.0, t)
    d_near = jnp.where(jnp.abs(d) < 1, d, 0.0)
    curvature = t * p * d_near**2 * (1 / 2 - t * d_near / 6)
    near = bregman(p, q, d_near) + jnp.where(t == 0, curvature, bregman(p, power, -t * d_near) / t_safe)
    from_q = a * (expm1_ratio(q, power, -d, a) + q - p) / jnp.where(a < 0.5, t, 1.0)
    from_p = expm1_ratio(p, power, -d, t) + q - p
    both = jnp.where(jnp.abs(d) < 1, near, jnp.where(a < 0.5, from_q, from_p))
    only_p = jnp.where(a < 1, jnp.exp(log_p) * a / jnp.where(a < 1, 1.0 - a, 1.0), jnp.inf)
    return jnp.where(log_p == -jnp.inf, jnp.exp(log_q), jnp.where(log_q == -jnp.inf, only_p, both))


def log1p_ratio(x: Elementwise) -> Elementwise:
    """The quotient log(1 + x) / x, continued to x = 0 with all its derivatives and to x = inf."""
    near = jnp.abs(x) < 1e-2
    x_near, series = jnp.where(near, x, 0.0), jnp.full_like(x, 1 / 10)
    for k in range(9, 0, -1):
        series = 1 / k - x_near * series
    x_far = jnp.where(near, 1.0, jnp.minimum(x, jnp.finfo(x.dtype).max))
    return jnp.where(near, series, jnp.log1p(x_far) / x_far)


def reciprocal(x: Elementwise) -> Elementwise:
    """The quotient 1 / x on [0, inf], with derivative zero where 1 / x² is beyond the dtype."""
    steep = x < jnp.finfo(x.dtype).tiny ** 0.5
    at_end = jnp.where(x == 0, jnp.inf, 1 / jax.lax.stop_gradient(jnp.where(x == 0, 1.0, x)))
    return jnp.where(steep, at_end, 1 / jnp.where(steep, 1.0, x))


@jax.custom_jvp
def log_wright_omega(z: Elementwise) -> Elementwise:
    """The root y of e^y + y = z, which is log ω(z), by Newton from above: convex, so it only goes down."""
    y = jnp.minimum(z, jnp.log(jnp.maximum(z, 1.0)))
    for _ in range(6):
        e = jnp.exp(y)
        y = y - (e + y - z) / (1 + e)
    return y


log_wright_omega.defjvps(lambda tangent, y, z: tangent * jax.nn.sigmoid(-y))


def safe_sqrt(x: Elementwise) -> Elementwise:
    """Square root whose derivative at 0 is the subgradient 0 instead of inf."""
    nothing = x <= 0
    return jnp.where(nothing, 0.0, jnp.sqrt(jnp.where(nothing, 1.0, x)))


def log_mix(log_a: Elementwise, log_p: Elementwise, log_b: Elementwise, log_q: Elementwise) -> Elementwise:
    """The log of a p + b q, elementwise, with derivative zero where both terms vanish."""
    x, y = log_a + log_p, log_b + log_q
    empty = jnp.maximum(x, y) == -jnp.inf
    mixed = jnp.logaddexp(jnp.where(empty, 0.0, x), y)
    return jnp.where(empty, -jnp.inf, mixed)


def log_blend(log_p: Elementwise, log_q: Elementwise, t: Elementwise) -> Elementwise:
    """The log of (1 - t) p + t q for t in [0, 1], with its derivatives in t also at both ends, where log t has none."""
    inside = (t > 0) & (t < 1)
    t_inside = jnp.where(inside, t, 0.5)
    blended = log_mix(jnp.log1p(-t_inside), log_p, jnp.log(t_inside), log_q)
    from_p = _begin(log_p, log_q, jnp.where(t == 0, t, 0.0))
    from_q = _begin(log_q, log_p, jnp.where(t == 1, 1 - t, 0.0))
    return jnp.where(t == 0, from_p, jnp.where(t == 1, from_q, blended))


def _begin(log_p: Elementwise, log_q: Elementwise, t: Elementwise) -> Elementwise:
    """The sum log p + log(1 + t (q / p - 1)), for t about 0."""
    possible = log_p != -jnp.inf
    log_ratio = jnp.minimum(log_q - jnp.where(possible, log_p, 0.0), jnp.log(jnp.finfo(log_p.dtype).max) - 1)
    return jnp.where(possible, log_p + jnp.log1p(t * jnp.expm1(log_ratio)), -jnp.inf)


def log_sum(log_w: Elementwise) -> Elementwise:
    """Log of the sum of exp(log_w) over the last axis: -inf, with derivative zero, where every weight is zero.

    It is +inf, with derivative zero, where a weight is.
    """
    top = jnp.max(jax.lax.stop_gradient(log_w), axis=-1, keepdims=True)
    endless = jnp.isinf(top)
    shift = jnp.where(endless, 0.0, top)
    total = jnp.log(jnp.exp(jnp.where(endless, 0.0, log_w) - shift).sum(-1)) + shift[..., 0]
    return jnp.where(endless[..., 0], top[..., 0], total)


def log_cumulative_sum(log_w: Float[Array, " outcomes"]) -> Float[Array, " outcomes"]:
    """Logs of the sums of exp(log_w) up to each place, relative to the largest weight so far.

    The relative sums obey s' = s exp(largest so far - largest now) + exp(log_w - largest now), a linear recurrence, so
    that a scan needs neither an exponential nor a logarithm. Before the first weight it is a very negative number.
    """
    nothing = jnp.finfo(log_w.dtype).min / 4
    top = jax.lax.cummax(jnp.maximum(jax.lax.stop_gradient(log_w), nothing))
    shrink = jnp.exp(jnp.append(top[:1], top[:-1]) - top)
    weight = jnp.exp(jnp.maximum(log_w, nothing) - top)

    def both(first: tuple[Elementwise, Elementwise], then: tuple[Elementwise, Elementwise]) -> Any:
        return first[0] * then[0], first[1] * then[0] + then[1]

    return top + jnp.log(jax.lax.associative_scan(both, (shrink, weight))[1])


def ascending(x: Float[Array, " outcomes"]) -> Int[Array, " outcomes"]:
    """The permutation that sorts x. XLA sorts integers ten times as fast as numbers together with their places.

    So a number's bits, made to ascend, and its place are one integer: the place in the lower half. A number of 64 bits
    has two such integers, the lower of which is sorted first.
    """
    bits = jnp.finfo(x.dtype).bits
    with jax.enable_x64(True):
        place = jax.lax.iota(jnp.int64, x.size)
        key = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x), jnp.dtype(f"int{bits}")).astype(jnp.int64)
        key = jnp.where(key < 0, key ^ np.int64(2 ** (bits - 1) - 1), key)
        digits = [key] if bits <= 32 else [(key & np.int64(2**32 - 1)) - np.int64(2**31), key >> np.int64(32)]
        order = place
        for digit in digits:
            packed = jax.lax.sort(digit[order] << np.int64(32) | place)
            order = order[packed & np.int64(2**32 - 1)]
        return order.astype(jnp.int32)


def log_normalize(log_w: Elementwise) -> Elementwise:
    """Log-probabilities of the weights exp(log_w); all -inf where every weight is zero."""
    empty = jnp.max(log_w, axis=-1, keepdims=True) == -jnp.inf
    return jnp.where(empty, -jnp.inf, jax.nn.log_softmax(jnp.where(empty, 0.0, log_w)))


def gap_to_top(x: Elementwise, counted: Bool[Array, "..."]) -> tuple[Elementwise, Elementwise]:
    """(The largest counted x, or 0, over the last axis, kept; what each lacks of it, 0 where it does not count).

    The gap is exactly 0 somewhere; top - x is not where XLA computes x again for the maximum, and rounds otherwise.
    """
    allowed = jax.lax.stop_gradient(jnp.where(counted, x, -jnp.inf))
    top = jnp.max(allowed, axis=-1, keepdims=True)
    top = jnp.where(top == -jnp.inf, 0.0, top)
    first = jax.nn.one_hot(jnp.argmax(allowed, axis=-1), allowed.shape[-1], dtype=bool)
    shown = jnp.where(counted, x, top)
    gap = jnp.where(first | (shown > top), jax.lax.stop_gradient(shown), top) - shown
    return top, jnp.where(counted, gap, 0.0)


def increasing_root(function: Callable[[Scalar, Any], Scalar], low: Scalar, high: Scalar, given: Any) -> Scalar:
    """The root in [low, high] of a function that increases there, to the last bit, with its implicit derivatives."""
    import optimistix

    # Tolerances that are never met bisect down to the last bit. (mypy takes the class variable `norm` for a field.)
    to_last_bit: Any = optimistix.Bisection(rtol=0.0, atol=0.0, flip=False)  # type: ignore[call-arg]
    ends, steps = {"lower": low, "upper": high}, jnp.finfo(low.dtype).nmant + 12
    solved: Any = optimistix.root_find(
        function, to_last_bit, low, args=given, options=ends, max_steps=steps, throw=False
    )
    root: Scalar = solved.value
    return root


def uniform(key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike = float) -> Elementwise:
    """`jax.random.uniform`, the same numbers, drawn along one axis: XLA compiles that four times as fast."""
    return jax.random.uniform(key, (math.prod(shape),), dtype).reshape(shape)


def normal(key: Key[Array, ""], shape: tuple[int, ...]) -> Elementwise:
    """`jax.random.normal`, in the same way."""
    return jax.random.normal(key, (math.prod(shape),)).reshape(shape)
