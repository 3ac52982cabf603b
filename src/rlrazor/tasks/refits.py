"""Repeated refits to N own samples: neutral Wright-Fisher evolution, exact in expectation.

A policy that is conditioned on success by sampling, and fitted to its own N correct answers again and again, gains
nothing after the first round and loses its diversity: the share of each answer is a martingale, and what is left of
the heterozygosity shrinks by 1 - 1/N a round.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from rlrazor._types import Number, PerRow
from rlrazor.checks import floating_array

Shares = Float[Array, "*batch answers"]


def refit(key: Key[Array, ""], shares: Float[Array, " answers"], population: Number, *, num_rounds: int) -> Shares:
    """A chain of refits, each to N answers drawn from the last: N shares_t+1 ~ Multinomial(N, shares_t).

    Args:
        key: randomness of the draws.
        shares: probabilities of the correct answers to start from, which sum to 1, `[answers]`.
        population: samples N of a refit.
        num_rounds: refits, static.

    Returns:
        Probabilities at the start and after every round, `[num_rounds + 1, answers]`.

    Raises:
        TypeError: `shares` is not floating.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> path = refit(jax.random.key(0), jnp.array([0.5, 0.3, 0.2]), 10, num_rounds=300)
        >>> path.shape, sorted(path[-1].tolist())  # one answer is left
        ((301, 3), [0.0, 0.0, 1.0])

    References:
        Wright, "Evolution in Mendelian Populations", 1931.
    """
    shares = floating_array("shares", shares)
    number = jnp.asarray(population, shares.dtype)

    def after(current: Shares, key: Key[Array, ""]) -> tuple[Shares, Shares]:
        following = jax.random.multinomial(key, number, current) / number
        return following, following

    _, path = jax.lax.scan(after, shares, jax.random.split(key, num_rounds))
    return jnp.concatenate([shares[None], path])


def heterozygosity(shares: Shares) -> PerRow:
    """The probability that two independent answers differ, H = 1 - Σ shares².

    Args:
        shares: probabilities, `[..., answers]`.

    Returns:
        H, `[...]`, in [0, 1 - 1 / answers].

    Raises:
        TypeError: `shares` is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> heterozygosity(jnp.array([0.5, 0.5])).tolist()
        0.5

    References:
        Nei, "Analysis of Gene Diversity in Subdivided Populations", 1973.
    """
    return 1 - jnp.square(floating_array("shares", shares)).sum(-1)


def expected_heterozygosity(shares: Shares, population: Number, rounds: Number) -> PerRow:
    """What a chain of refits keeps of it in expectation: E[H_t] = H_0 (1 - 1/N)^t.

    Args:
        shares: probabilities to start from, `[..., answers]`.
        population: samples N >= 1 of a refit, a number or `[...]`.
        rounds: refits t >= 0, a number or `[...]`.

    Returns:
        E[H_t], `[...]`, in [0, H_0].

    Raises:
        TypeError: `shares` is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{expected_heterozygosity(jnp.array([0.5, 0.5]), 10, 2):.3f}")  # 0.5 * 0.9 * 0.9
        0.405

    References:
        Wright, "Evolution in Mendelian Populations", 1931.
    """
    at_start = heterozygosity(shares)
    keeps = 1 - 1 / jnp.asarray(population, at_start.dtype)
    return at_start * keeps ** jnp.asarray(rounds, at_start.dtype)


def expected_variance(share: Number, population: Number, rounds: Number) -> PerRow:
    """How far chains of refits spread around a share that none of them moves: Var = p (1 - p) (1 - (1 - 1/N)^t).

    Args:
        share: probability p of an answer at the start, in [0, 1], a number or `[...]`.
        population: samples N >= 1 of a refit, a number or `[...]`.
        rounds: refits t >= 0, a number or `[...]`.

    Returns:
        The variance of the answer's share over chains, `[...]`; p (1 - p) once every chain has one answer left.

    Example:
        >>> print(f"{expected_variance(0.5, 10, 1):.3f}")  # one binomial draw: 0.25 / 10
        0.025

    References:
        Wright, "Evolution in Mendelian Populations", 1931.
    """
    share = jnp.asarray(share, float)
    keeps = 1 - 1 / jnp.asarray(population, share.dtype)
    return share * (1 - share) * (1 - keeps ** jnp.asarray(rounds, share.dtype))
