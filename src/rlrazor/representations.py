"""What changed inside a network: how far its weights moved, and whether its features still have the same neighbors."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlrazor._types import Params

Scalar = Float[Array, ""]


def spectral_norm(matrix: Float[Array, "rows columns"], num_iterations: int = 30) -> Scalar:
    """The largest singular value, by power iteration on the smaller Gram matrix from its row of largest norm.

    Args:
        matrix: `[rows, columns]`.
        num_iterations: of the power method.

    Returns:
        The norm, at most the true one.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{spectral_norm(jnp.array([[3.0, 0.0], [0.0, 1.0]])):.4f}")
        3.0000
    """
    gram = matrix.T @ matrix if len(matrix) > matrix.shape[1] else matrix @ matrix.T

    def unit(x: Array) -> Array:
        norm = jnp.sqrt((x**2).sum())
        return x / jnp.where(norm > 0, norm, 1.0)

    start = unit(gram[jnp.argmax((gram**2).sum(-1))])
    top = jax.lax.fori_loop(0, num_iterations, lambda _, x: unit(gram @ x), start)
    return jnp.sqrt(top @ (gram @ top))


def cknna(features: Float[Array, "items a"], others: Float[Array, "items b"], num_neighbors: int = 10) -> Scalar:
    """Mutual-nearest-neighbor kernel alignment of two representations of the same items.

    With linear kernels K, L and the mask α of pairs that are neighbors in both, A(K, L) = Σ α K̄ L̄ over the centered
    kernels, and CKNNA = A(K, L) / √(A(K, K) A(L, L)), each A with the mask of its own two kernels.

    Args:
        features: `[items, ...]`.
        others: `[items, ...]`.
        num_neighbors: k.

    Returns:
        Alignment, 1 for equal neighborhoods and similarities.

    Raises:
        ValueError: the representations are of different numbers of items, or of no more than k.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (50, 8))
        >>> print(f"{cknna(x, 3 * x):.4f}")
        1.0000

    References:
        Huh et al., "The Platonic Representation Hypothesis", arXiv:2405.07987, appendix A.
    """
    if len(features) != len(others) or len(features) <= num_neighbors:
        shapes = f"{features.shape} and {others.shape}"
        raise ValueError(f"features and others must share over {num_neighbors} items, got shapes {shapes}")

    def kernel(x: Array) -> tuple[Array, Array]:
        similarity = x @ x.T
        own = jnp.eye(len(x), dtype=bool)
        nearest = jax.lax.top_k(jnp.where(own, -jnp.inf, similarity), num_neighbors)[0]
        edge = nearest.min(-1, keepdims=True)  # nearest[:, -1:] would make XLA sort whole rows, ten times slower
        centered = similarity - similarity.mean(0, keepdims=True)
        return centered - centered.mean(1, keepdims=True), (similarity >= edge) & ~own

    (a, near_a), (b, near_b) = kernel(features), kernel(others)

    def align(x: Array, near_x: Array, y: Array, near_y: Array) -> Scalar:
        return jnp.where(near_x & near_y, x * y, 0.0).sum()

    return align(a, near_a, b, near_b) / jnp.sqrt(align(a, near_a, a, near_a) * align(b, near_b, b, near_b))


def parameter_distance(params: Params, base: Params) -> Scalar:
    """The Euclidean distance between two sets of parameters.

    Args:
        params: a pytree of arrays.
        base: another of the same structure and shapes.

    Returns:
        The distance, a scalar, >= 0.

    Example:
        >>> import jax.numpy as jnp
        >>> print(parameter_distance((jnp.array([3.0, 0.0]), jnp.array(4.0)), (jnp.zeros(2), jnp.array(0.0))))
        5.0
    """
    squares = jax.tree.map(lambda a, b: jnp.square(a - b).sum(), params, base)
    distance: Scalar = jnp.sqrt(jnp.stack(jax.tree.leaves(squares)).sum())
    return distance
