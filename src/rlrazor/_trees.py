"""Trees whose leaves are stacked along a new first axis: a row a name or a function, and a path with its start."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def rows_by_name(names: Iterable[str], stacked: Any) -> dict[str, Any]:
    """Row i of every leaf under the i-th name.

    Args:
        names: of the rows.
        stacked: a pytree of arrays, each leaf `[names, ...]`.

    Returns:
        By name, the pytree with leaves `[...]`.

    Example:
        >>> import numpy as np
        >>> rows_by_name(("a", "b"), {"x": np.array([[1, 2], [3, 4]])})["b"]["x"].tolist()
        [3, 4]
    """
    return {name: jax.tree.map(lambda leaf, row=row: leaf[row], stacked) for row, name in enumerate(names)}


def of_each(
    functions: Mapping[str, Callable[..., Any]], compute: Callable[[Callable[..., Any]], Any]
) -> dict[str, Any]:
    """What is computed of each function, compiled once for all of them.

    The program is that of the mixture Σ w f of the functions, vmapped over the weights that pick one.

    Args:
        functions: by name, each of the same arguments, to finite arrays of one shape.
        compute: function -> pytree of arrays.

    Returns:
        By name, the pytree.

    Example:
        >>> import jax.numpy as jnp
        >>> slopes = of_each({"square": jnp.square, "exp": jnp.exp}, lambda f: jax.grad(f)(3.0))
        >>> print(*(f"{name} {slope:.3f}" for name, slope in slopes.items()))
        square 6.000 exp 20.086
    """

    def of(weights: Float[Array, " functions"]) -> Any:
        return compute(lambda *args: jnp.tensordot(weights, jnp.stack([f(*args) for f in functions.values()]), 1))

    return rows_by_name(functions, jax.vmap(of)(jnp.eye(len(functions))))


def with_start(start: Any, path: Any) -> Any:
    """The path with its start in front, leaves `[steps + 1, ...]`."""
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, path)
