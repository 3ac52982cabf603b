"""Trees whose leaves are stacked along a new first axis: a row a name, and a path with its start."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp


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


def with_start(start: Any, path: Any) -> Any:
    """The path with its start in front, leaves `[steps + 1, ...]`."""
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, path)
