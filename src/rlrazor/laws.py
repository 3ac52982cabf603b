"""Whether drift says what was forgotten: fits of the forgetting law, and their intervals.

A law is fitted to `[points]` of drift x and forgetting y, one for each trained policy. R² is the share of the variance
of y that the fit explains. It knows nothing of the size of the effect, so show the slope beside it. Points that are not
floating vectors of one length raise `TypeError` or `ValueError`, see `rlrazor.checks.sample_arrays`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from rlrazor.checks import sample_arrays

Points = Float[Array, " points"]
Scalar = Float[Array, ""]


class Estimate(NamedTuple):
    """A statistic and its bootstrap interval.

    Attributes:
        value: the statistic of the sample itself, a scalar.
        low: lower end of the percentile interval, a scalar.
        high: upper end of the percentile interval, a scalar.
    """

    value: Scalar
    low: Scalar
    high: Scalar


def quadratic_r2(x: Points, y: Points) -> Scalar:
    """The R² of the least-squares parabola y = a + b x + c x², the published fit of the forgetting law.

    Args:
        x: drift, `[points]`.
        y: forgetting, `[points]`.

    Returns:
        R², a scalar in [0, 1]; NaN where y is constant, since there is nothing to explain.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.arange(5.0)
        >>> print(f"{quadratic_r2(x, x**2 - x):.3f} {quadratic_r2(x, jnp.array([1.0, -1.0, 0.0, 1.0, -1.0])):.3f}")
        1.000 0.100

    References:
        Shenfeld, Pari, Agrawal, "RL's Razor", arXiv:2509.04259, table 1.
    """
    x, y = _points(x=x, y=y)
    scale = jnp.ptp(x)
    x = (x - x.mean()) / jnp.where(scale > 0, scale, 1.0)
    powers = jnp.stack([jnp.ones_like(x), x, x**2], axis=-1)
    return _r2(y, powers @ jnp.linalg.lstsq(powers, y)[0])


def isotonic_fit(x: Points, y: Points) -> Points:
    """The best non-decreasing function of x in least squares, f(x_i) = max_{j <= i} min_{k >= i} mean(y_j ... y_k).

    Points of equal x get one value. Memory is quadratic in the points.

    Args:
        x: drift, `[points]`.
        y: forgetting, `[points]`.

    Returns:
        f at each point, `[points]`, in the order of the points; NaN throughout if one has no number.

    Example:
        >>> import jax.numpy as jnp
        >>> isotonic_fit(jnp.array([4.0, 1.0, 2.0, 3.0]), jnp.array([9.0, 0.0, 5.0, 3.0])).tolist()
        [9.0, 0.0, 4.0, 4.0]

    References:
        Robertson, Wright, Dykstra, "Order Restricted Statistical Inference", 1988, theorem 1.4.4.
    """
    x, y = _points(x=x, y=y)
    mean = y.mean()
    order = jnp.lexsort((-y, x))  # equal x in falling order of y, which the fit then pools: one value for one x
    sums = jnp.concatenate([jnp.zeros_like(y[:1]), jnp.cumsum(y[order] - mean)])
    first, last = jnp.arange(y.size)[:, None], jnp.arange(y.size)[None]
    means = (sums[None, 1:] - sums[:-1, None]) / jnp.maximum(last - first + 1, 1).astype(y.dtype)
    least = jax.lax.cummin(jnp.where(first <= last, means, jnp.inf), axis=1, reverse=True)
    fit = jnp.max(jnp.where(first <= last, least, -jnp.inf), axis=0)
    return jnp.where(jnp.isnan(x).any(), jnp.nan, mean + jnp.zeros_like(y).at[order].set(fit))


def isotonic_r2(x: Points, y: Points) -> Scalar:
    """The R² of `isotonic_fit`, which bounds that of every increasing law from above, whatever its form.

    Args:
        x: drift, `[points]`.
        y: forgetting, `[points]`.

    Returns:
        R², a scalar in [0, 1]; NaN where y is constant, since there is nothing to explain.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.arange(5.0)
        >>> print(f"{isotonic_r2(x, jnp.exp(x)):.3f} {isotonic_r2(x, -x):.3f}")
        1.000 0.000
    """
    x, y = _points(x=x, y=y)
    return _r2(y, isotonic_fit(x, y))


def rank_correlation(x: Points, y: Points) -> Scalar:
    """Spearman's rank correlation of x and y; ties share their mean rank.

    Args:
        x: drift, `[points]`.
        y: forgetting, `[points]`.

    Returns:
        Correlation, a scalar in [-1, 1]; NaN where x or y is constant.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{rank_correlation(jnp.array([1.0, 2.0, 3.0]), jnp.array([10.0, 1000.0, 100.0])):.2f}")
        0.50

    References:
        Spearman, "The Proof and Measurement of Association between Two Things", 1904.
    """
    ranks = (jax.scipy.stats.rankdata(values).astype(values.dtype) for values in _points(x=x, y=y))
    a, b = (jnp.where(jnp.ptp(rank) > 0, rank - rank.mean(), 0.0) for rank in ranks)
    correlation: Scalar = (a @ b) / jnp.sqrt((a @ a) * (b @ b))
    return correlation


def bootstrap(
    statistic: Callable[..., Scalar],
    key: Key[Array, ""],
    *samples: Float[Array, "units ..."],
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """The percentile bootstrap interval of statistic(*samples).

    What is drawn with replacement are the units of the leading axis, the same for every array. Points that depend on
    each other, such as checkpoints of one training or trainings in one world, belong to one unit.

    Args:
        statistic: arrays of the shapes of `samples` -> scalar.
        key: randomness.
        *samples: arrays that share their leading axis, `[units, ...]`.
        num_resamples: number of resamples, static.
        level: coverage, in (0, 1).

    Returns:
        The `Estimate`.

    Raises:
        ValueError: leading axes differ, or `level` lies outside (0, 1).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> normal = jax.random.normal(jax.random.key(0), (400,))
        >>> mean = bootstrap(jnp.mean, jax.random.key(1), normal)
        >>> print(f"{mean.high - mean.low:.1f}")  # 2 * 1.96 / sqrt(400)
        0.2

    References:
        Efron, Tibshirani, "An Introduction to the Bootstrap", 1993.
    """
    samples = tuple(map(jnp.asarray, samples))
    units = {array.shape[:1] for array in samples}
    if len(units) != 1 or () in units:
        raise ValueError(f"samples must share their leading axis, got shapes {[array.shape for array in samples]}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    ((num_units,),) = units

    def resampled(draw: Key[Array, ""]) -> Scalar:
        chosen = jax.random.randint(draw, (num_units,), 0, num_units)
        return statistic(*(array[chosen] for array in samples))

    draws = jax.lax.map(resampled, jax.random.split(key, num_resamples))
    low, high = jnp.quantile(draws, jnp.array([(1 - level) / 2, (1 + level) / 2], draws.dtype))
    return Estimate(statistic(*samples), low, high)


@partial(jax.jit, static_argnames=("num_resamples", "level"))
def mean_interval(
    values: Float[Array, " units"], key: Key[Array, ""], *, num_resamples: int = 1000, level: float = 0.95
) -> Estimate:
    """The mean over units, such as seeds, with its percentile bootstrap interval; compiled once for all of one length.

    Args:
        values: one of each unit, `[units]`.
        key: randomness.
        num_resamples: number of resamples, static.
        level: coverage, in (0, 1), static.

    Returns:
        The `Estimate`.

    Raises:
        ValueError: `level` lies outside (0, 1).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> found = mean_interval(jnp.array([1.0, 2.0, 3.0, 6.0]), jax.random.key(0))
        >>> print(f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]")
        3.0 [1.5, 5.0]
    """
    return bootstrap(jnp.mean, key, values, num_resamples=num_resamples, level=level)


def _points(**arrays: Points) -> tuple[Points, ...]:
    """The arrays, if they are vectors of one length."""
    points = sample_arrays(None, **arrays)
    if points[0].ndim != 1:
        raise ValueError(f"points must be vectors, got shapes {[array.shape for array in arrays.values()]}")
    return points


def _r2(y: Points, fit: Points) -> Scalar:
    """The share of the variance of y that the fit explains."""
    total = jnp.where(jnp.ptp(y) > 0, jnp.square(y - y.mean()).sum(), jnp.nan)
    return 1 - jnp.square(y - fit).sum() / total
