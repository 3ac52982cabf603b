"""What the exact objectives, the sampled losses and the advantages share."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Real

from rlrazor._numerics import mass_times
from rlrazor.checks import boolean_array, sample_arrays

Samples = Float[Array, "*#batch samples"]
SampleRewards = Real[Array, "*#batch #samples"] | Bool[Array, "*#batch #samples"]
Advantages = Float[Array, "*batch samples"]
Mask = Bool[Array, "*#batch samples"] | None


def at_least_two(name: str, count: int) -> None:
    """Raise if there are fewer: one sample has nothing to be compared with."""
    if not count >= 2:
        raise ValueError(f"{name} must be at least 2, got {count}")


def counted_samples(
    mask: Mask, per_row: Mapping[str, ArrayLike] | None = None, **arrays: ArrayLike
) -> tuple[Callable[[Float[Array, "..."]], Float[Array, "..."]], tuple[Float[Array, "..."], ...]]:
    """(The mean over the samples that count, the arrays with zeros for the others, then the numbers)."""
    if mask is None:
        return lambda terms: terms.mean(-1), sample_arrays(per_row, **arrays)
    found = list(sample_arrays(per_row, **arrays, mask=boolean_array("mask", mask)))
    counts = found.pop(len(arrays)) > 0

    def mean(terms: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.where(counts, terms, 0.0).sum(-1) / jnp.maximum(counts.sum(-1, dtype=terms.dtype), 1)

    aligned, numbers = found[: len(arrays)], found[len(arrays) :]
    return mean, (*(jnp.where(counts, x, 0.0) for x in aligned), *numbers)


def clipped(
    log_policy: Float[Array, "..."],
    log_old: Float[Array, "..."],
    advantage: Float[Array, "..."],
    clip: Float[Array, "..."],
) -> Float[Array, "..."]:
    """The terms old min(ρ A, clip(ρ, 1 - ε, 1 + ε) A), with the clipping done on logs, where no ratio overflows."""
    low, high = log_old + jnp.log(jnp.maximum(1 - clip, 0.0)), log_old + jnp.log1p(clip)
    counted = jnp.where(advantage < 0, jnp.maximum(log_policy, low), jnp.minimum(log_policy, high))
    return mass_times(jnp.where(log_old != -jnp.inf, counted, -jnp.inf), jax.lax.stop_gradient(advantage))


def gap_terms(
    loss: Callable[[Float[Array, "..."]], Float[Array, "..."]],
    chosen: Float[Array, "..."],
    rejected: Float[Array, "..."],
) -> Float[Array, "..."]:
    """The terms loss(chosen - rejected), inf where the chosen answer is impossible."""
    possible = chosen != -jnp.inf
    gap = jnp.where(possible, chosen, 0.0) - jnp.where(possible, rejected, 0.0)
    return jnp.where(possible, loss(gap), jnp.inf)


def weighted_mean(terms: Float[Array, "..."], weights: Float[Array, "..."]) -> Float[Array, "..."]:
    """The mean of terms over pairs, Σ w x / Σ w; what weighs nothing does not count, whatever it is."""
    counted = weights > 0
    return jnp.where(counted, weights * jnp.where(counted, terms, 0.0), 0.0).sum(-1) / weights.sum(-1)
