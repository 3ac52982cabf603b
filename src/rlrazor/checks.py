"""The doors: errors that name the argument, what it got and what it wants.

Shapes and dtypes are static, so the library checks them at trace time and for free. Values are known only at run
time, so `check_distribution` and its friends belong where people come in: configs, files, the command line.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

_MAY_BE_WHOLE = ("reward", "advantage", "length", "length_chosen", "mask")


def floating_array(name: str, value: ArrayLike) -> Float[Array, "..."]:
    """`value` as an array, if its dtype is floating.

    Args:
        name: what the error should call it.
        value: an array or number.

    Returns:
        The array.

    Raises:
        TypeError: not of a floating dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> floating_array("log_policy", jnp.array([True, False]))
        Traceback (most recent call last):
        ...
        TypeError: log_policy must be a floating array, got bool of shape (2,)
    """
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be a floating array, got {array.dtype} of shape {array.shape}")
    return array


def at_least_float32(array: Float[Array, "..."]) -> Float[Array, "..."]:
    """The array in float32 if it has fewer bits, as bfloat16 has; else as it is.

    Args:
        array: of a floating dtype.

    Returns:
        The array.

    Example:
        >>> import jax.numpy as jnp
        >>> at_least_float32(jnp.zeros(2, jnp.bfloat16)).dtype
        dtype('float32')
    """
    return array.astype(jnp.float32) if jnp.finfo(array.dtype).bits < 32 else array


def floating_number(name: str, value: ArrayLike) -> Float[Array, "..."]:
    """`value` as an array, if it is a Python number or an array of a floating dtype.

    Args:
        name: what the error should call it.
        value: an array, or a number, which gets the default dtype.

    Returns:
        The array.

    Raises:
        TypeError: an array that is not of a floating dtype.

    Example:
        >>> floating_number("success", 1).dtype.kind
        'f'
    """
    return jnp.asarray(value, float) if isinstance(value, int | float) else floating_array(name, value)


def boolean_array(name: str, value: ArrayLike) -> Bool[Array, "..."]:
    """`value` as an array, if it is boolean.

    Args:
        name: what the error should call it.
        value: an array or truth value.

    Returns:
        The array.

    Raises:
        TypeError: not boolean.

    Example:
        >>> import jax.numpy as jnp
        >>> boolean_array("accept", jnp.array([1, 0], jnp.int8))
        Traceback (most recent call last):
        ...
        TypeError: accept must be a boolean array, got int8 of shape (2,)
    """
    array = jnp.asarray(value)
    if array.dtype != jnp.bool_:
        raise TypeError(f"{name} must be a boolean array, got {array.dtype} of shape {array.shape}")
    return array


def integer_array(name: str, value: ArrayLike) -> Int[Array, "..."]:
    """`value` as an array, if its dtype is one of integers.

    Args:
        name: what the error should call it.
        value: an array or number, such as token ids.

    Returns:
        The array.

    Raises:
        TypeError: not of an integer dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> integer_array("tokens", jnp.zeros(2, jnp.float32))
        Traceback (most recent call last):
        ...
        TypeError: tokens must be an integer array, got float32 of shape (2,)
    """
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} must be an integer array, got {array.dtype} of shape {array.shape}")
    return array


def whole_as(dtype: Any, value: ArrayLike) -> Array:
    """Integers and booleans, such as 0/1 rewards, as numbers of a dtype; anything else as it is.

    Args:
        dtype: floating.
        value: an array or number.

    Returns:
        The array.

    Example:
        >>> import jax.numpy as jnp
        >>> whole_as(jnp.float32, jnp.array([True, False])).tolist()
        [1.0, 0.0]
    """
    array = jnp.asarray(value)
    whole = array.dtype == jnp.bool_ or jnp.issubdtype(array.dtype, jnp.integer)
    return array.astype(dtype) if whole else array


def outcome_arrays(
    per_row: Mapping[str, ArrayLike] | None = None, **arrays: ArrayLike
) -> tuple[Float[Array, "..."], ...]:
    """The named arguments as floating arrays of one rank, ready to broadcast over their batch axes.

    Args:
        per_row: numbers that may differ from row to row, such as beta or time, each a scalar or `[...]`.
        **arrays: log-probabilities, logits or rewards, each `[..., outcomes]`. One named `reward` or `advantage` may
            hold integers or booleans, as 0/1 rewards do; it gets the dtype of its first fellow.

    Returns:
        The arrays, `[..., outcomes]`, then the numbers, `[..., 1]` in the first array's dtype, in the order given. A
        number below the smallest normal one of that dtype is 0, on every device (XLA flushes it on some). Arrays of
        fewer than 32 bits, such as bfloat16, become float32.

    Raises:
        TypeError: an array is not of a floating dtype.
        ValueError: an array has no outcome axis, outcome counts differ, or batch axes do not broadcast.

    Example:
        >>> import jax.numpy as jnp
        >>> log_p, log_q, beta = outcome_arrays({"beta": 2.0}, log_p=jnp.zeros((7, 3)), log_q=jnp.zeros(3))
        >>> log_q.shape, beta.shape
        ((1, 3), (1, 1))
        >>> outcome_arrays(log_p=jnp.zeros(3), log_q=jnp.zeros(4))
        Traceback (most recent call last):
        ...
        ValueError: log_q has 4 outcomes in shape (4,), but log_p has 3 in shape (3,): outcome axes must match exactly
    """
    return _aligned("outcome", per_row or {}, arrays)


def sample_arrays(
    per_row: Mapping[str, ArrayLike] | None = None, **arrays: ArrayLike
) -> tuple[Float[Array, "..."], ...]:
    """The named arguments as floating arrays of one rank whose last axis is the samples of one prompt.

    Args:
        per_row: numbers that may differ from row to row, such as clip or beta, each a scalar or `[...]`.
        **arrays: log-probabilities, rewards or advantages of samples, each `[..., samples]`. One named `advantage` may
            be the same for all samples, `[..., 1]` or a number; integers and booleans as in `outcome_arrays`.

    Returns:
        The arrays, `[..., samples]`, then the numbers, `[..., 1]`, in the order given.

    Raises:
        TypeError: an array is not of a floating dtype.
        ValueError: an array has no sample axis, sample counts differ, or batch axes do not broadcast.

    Example:
        >>> import jax.numpy as jnp
        >>> sample_arrays(log_prob=jnp.zeros(3), reward=jnp.zeros(4))
        Traceback (most recent call last):
        ...
        ValueError: reward has 4 samples in shape (4,), but log_prob has 3 in shape (3,): sample axes must match exactly
    """
    return _aligned("sample", per_row or {}, arrays)


def pair_arrays(per_row: Mapping[str, ArrayLike] | None = None, **arrays: ArrayLike) -> tuple[Float[Array, "..."], ...]:
    """The named arguments as floating arrays of one rank whose last axis is the pairs of one prompt.

    Args:
        per_row: numbers that may differ from row to row, such as beta, each a scalar or `[...]`.
        **arrays: log-ratios, log-probabilities, rewards or weights of pairs of answers, each `[..., pairs]`. One named
            `length` or `length_chosen` may hold integers.

    Returns:
        The arrays, `[..., pairs]`, then the numbers, `[..., 1]`, in the order given.

    Raises:
        TypeError: an array is not of a floating dtype.
        ValueError: there is no pair, pair counts differ, or batch axes do not broadcast.

    Example:
        >>> import jax.numpy as jnp
        >>> pair_arrays(log_ratio_chosen=jnp.zeros(0), log_ratio_rejected=jnp.zeros(0))
        Traceback (most recent call last):
        ...
        ValueError: log_ratio_chosen needs a non-empty pair axis, got shape (0,)
    """
    return _aligned("pair", per_row or {}, arrays)


def place_of(kind: str, name: str, names: Sequence[str]) -> int:
    """The place of a name in a list, if it is there.

    Args:
        kind: what the error should call it.
        name: to look for.
        names: all there are.

    Returns:
        The index.

    Raises:
        ValueError: it is not there.

    Example:
        >>> place_of("color", "blue", ("red", "blue"))
        1
        >>> place_of("color", "bleu", ("red", "blue"))
        Traceback (most recent call last):
        ...
        ValueError: unknown color 'bleu'; there are red, blue
    """
    if name not in names:
        raise ValueError(f"unknown {kind} {name!r}; there are {', '.join(names)}")
    return names.index(name)


def nonnegative(name: str, value: Any) -> Any:
    """`value`, unless it is a concrete Python number that is negative or NaN.

    Args:
        name: what the error should call it.
        value: a number, array or tracer.

    Returns:
        `value`, unchanged.

    Raises:
        ValueError: `value` is a negative or NaN Python number. Arrays and tracers pass: their values are not static.

    Example:
        >>> nonnegative("beta", -1.0)
        Traceback (most recent call last):
        ...
        ValueError: beta must be at least 0, got -1.0
    """
    if isinstance(value, int | float) and not value >= 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return value


def positive(name: str, value: Any) -> Any:
    """`value`, unless it is concrete and an entry is zero, negative or NaN.

    Args:
        name: what the error should call it.
        value: a number, array or tracer.

    Returns:
        `value`, unchanged.

    Raises:
        ValueError: an entry is not above 0. Tracers pass: their values are not known.

    Example:
        >>> positive("length", [3, 0])
        Traceback (most recent call last):
        ...
        ValueError: length must be above 0, got 0
    """
    return _each(name, value, "above 0", lambda entries: entries > 0)


def finite(name: str, value: Any) -> Any:
    """`value`, unless it is concrete and an entry is infinite or NaN.

    Args:
        name: what the error should call it.
        value: a number, array or tracer.

    Returns:
        `value`, unchanged.

    Raises:
        ValueError: an entry is not finite. Tracers pass: their values are not known.

    Example:
        >>> finite("margin", float("nan"))
        Traceback (most recent call last):
        ...
        ValueError: margin must be finite, got nan
    """
    return _each(name, value, "finite", np.isfinite)


def _each(name: str, value: Any, wanted: str, holds: Callable[[np.ndarray], Any]) -> Any:
    """`value`, unless it is concrete and an entry is not as wanted."""
    if not isinstance(value, jax.core.Tracer):
        entries = np.asarray(value).ravel()
        wrong = entries[~np.asarray(holds(entries), bool)]
        if wrong.size:
            raise ValueError(f"{name} must be {wanted}, got {wrong[0]}")
    return value


def check_distribution(log_p: ArrayLike, name: str = "log_p", tolerance: float = 1e-5) -> Float[Array, "..."]:
    """`log_p`, if every row is a normalised log-probability vector. Not for use under `jit`.

    Args:
        log_p: log-probabilities, `[..., outcomes]`.
        name: what the error should call it.
        tolerance: largest allowed |Σ p - 1| of a row.

    Returns:
        `log_p` as an array.

    Raises:
        TypeError: not of a floating dtype.
        ValueError: NaN or +inf entries, or a row that does not sum to one.

    Example:
        >>> import jax.numpy as jnp
        >>> check_distribution(jnp.log(jnp.array([0.5, 0.25])), "log_ref")
        Traceback (most recent call last):
        ...
        ValueError: log_ref must hold normalised log-probabilities, but row () sums to 0.75
    """
    (log_p,) = outcome_arrays(None, **{name: log_p})
    values = np.asarray(log_p, dtype=np.float64)
    bad = np.isnan(values) | (values == np.inf)
    if bad.any():
        where = _first(bad)
        raise ValueError(f"{name} must hold log-probabilities, but entry {where} is {values[where]}")
    totals = np.exp(values).sum(-1)
    off = np.abs(totals - 1) > tolerance
    if off.any():
        row = _first(off)
        raise ValueError(
            f"{name} must hold normalised log-probabilities, but row {row} sums to {float(totals[row]):.6g}"
        )
    return log_p


def check_reward(reward: ArrayLike, name: str = "reward") -> Float[Array, "..."]:
    """`reward`, if it is free of NaN and +inf and allows some outcome in every row. Not for use under `jit`.

    Args:
        reward: rewards, `[..., outcomes]`; -inf forbids an outcome. Integers and booleans become floating.
        name: what the error should call it.

    Returns:
        `reward` as an array.

    Raises:
        TypeError: not of a floating dtype.
        ValueError: NaN or +inf entries, or a row of nothing but -inf.

    Example:
        >>> import jax.numpy as jnp
        >>> check_reward(jnp.array([1.0, float("nan")]))
        Traceback (most recent call last):
        ...
        ValueError: reward must be finite or -inf, but entry (1,) is nan
    """
    (reward,) = outcome_arrays(None, **{name: whole_as(float, reward)})
    values = np.asarray(reward, dtype=np.float64)
    bad = np.isnan(values) | (values == np.inf)
    if bad.any():
        where = _first(bad)
        raise ValueError(f"{name} must be finite or -inf, but entry {where} is {values[where]}")
    forbidden = np.all(values == -np.inf, axis=-1)
    if forbidden.any():
        raise ValueError(f"{name} must allow some outcome, but row {_first(forbidden)} is -inf throughout")
    return reward


def check_positive(value: float | jax.Array, name: str) -> float | jax.Array:
    """`value`, if every entry is finite and above zero. Not for use under `jit`.

    Args:
        value: a number or array, such as beta, a learning rate or a scale.
        name: what the error should call it.

    Returns:
        `value`, unchanged.

    Raises:
        ValueError: an entry is zero, negative, infinite or NaN.

    Example:
        >>> check_positive(0.0, "beta")
        Traceback (most recent call last):
        ...
        ValueError: beta must be finite and above 0, got 0.0
    """
    for entry in np.asarray(value, dtype=np.float64).ravel():
        if not (math.isfinite(entry) and entry > 0):
            raise ValueError(f"{name} must be finite and above 0, got {entry}")
    return value


def _aligned(
    axis: str, per_row: Mapping[str, ArrayLike], arrays: Mapping[str, ArrayLike]
) -> tuple[Float[Array, "..."], ...]:
    """The arrays, which share their last axis, then the numbers with a last axis of one, all of one rank."""
    dtype = next((jnp.asarray(x).dtype for name, x in arrays.items() if name not in _MAY_BE_WHOLE), float)
    cast = {name: whole_as(dtype, x) if name in _MAY_BE_WHOLE else x for name, x in arrays.items()}
    given = {name: at_least_float32(floating_array(name, value)) for name, value in cast.items()}
    shared = axis == "sample" and "advantage" in given and given["advantage"].shape[-1:] in ((), (1,))
    if shared:
        given["advantage"] = given["advantage"].reshape(given["advantage"].shape or (1,))
    first, reference = next(iter(given.items()))
    for name, array in given.items():
        if array.ndim == 0 or array.shape[-1] == 0:
            raise ValueError(f"{name} needs a non-empty {axis} axis, got shape {array.shape}")
        if array.shape[-1] != reference.shape[-1] and not (shared and name == "advantage"):
            raise ValueError(
                f"{name} has {array.shape[-1]} {axis}s in shape {array.shape}, but {first} has "
                f"{reference.shape[-1]} in shape {reference.shape}: {axis} axes must match exactly"
            )
    rows = {name: _normal(jnp.asarray(value, reference.dtype))[..., None] for name, value in per_row.items()}
    batches = {name: array.shape[:-1] for name, array in (given | rows).items()}
    try:
        rank = len(jnp.broadcast_shapes(*batches.values())) + 1
    except ValueError:
        listed = ", ".join(f"{name} {shape}" for name, shape in batches.items())
        raise ValueError(f"batch axes do not broadcast: {listed}") from None
    return tuple(jnp.expand_dims(x, range(rank - x.ndim)) for x in (given | rows).values())


def _normal(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x` with 0 for subnormal numbers; the derivative is 1 there too."""
    return x - jax.lax.stop_gradient(jnp.where(jnp.abs(x) < jnp.finfo(x.dtype).tiny, x, 0.0))


def _first(culprits: np.ndarray | np.bool) -> tuple[int, ...]:
    """Index of the first culprit; () where a single row is one number."""
    return tuple(int(i) for i in np.argwhere(culprits)[0])
