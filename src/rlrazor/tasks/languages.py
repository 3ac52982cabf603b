"""Small languages as worlds of tokens: n-grams of a text, balanced brackets, digits whose sum is verified."""

import itertools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlrazor.sequences import Automaton, automaton

_MOST_STATES = 100_000


class Language(NamedTuple):
    """A world of tokens, and a policy that speaks it.

    Attributes:
        world: the automaton.
        log_ref: log-probabilities of tokens, `[states, tokens]`; `-inf` where a token is against the grammar.
        symbols: what each token stands for.
    """

    world: Automaton
    log_ref: Float[Array, "states tokens"]
    symbols: tuple[str, ...]


def ngram(text: str, order: int = 1, smoothing: float = 1.0) -> Language:
    """The model of a text in which a character depends on the `order` characters before it.

    Its log-probabilities are those of counts plus `smoothing` (Laplace). A state is what is remembered, at first
    nothing. Answers end at the horizon.

    Args:
        text: what the counts are of.
        order: how many characters are remembered, >= 0.
        smoothing: added to every count, > 0.

    Returns:
        The `Language`; its symbols are the characters of the text, sorted.

    Raises:
        ValueError: the text is empty, `order` is negative, `smoothing` is not above 0, or there are more than 100,000
            states.

    Example:
        >>> import jax.numpy as jnp
        >>> language = ngram("abab", order=1)
        >>> language.symbols, language.world.next_state.shape  # nothing, "a" or "b" is remembered
        (('a', 'b'), (3, 2))
        >>> print(*(f"{p:.2f}" for p in jnp.exp(language.log_ref[1])))  # after an "a"
        0.25 0.75

    References:
        Shannon, "A Mathematical Theory of Communication", 1948, section 3.
    """
    if not text:
        raise ValueError("text must not be empty")
    if order < 0:
        raise ValueError(f"order must be at least 0, got {order}")
    if not (math.isfinite(smoothing) and smoothing > 0):
        raise ValueError(f"smoothing must be finite and above 0, got {smoothing}")
    symbols = tuple(sorted(set(text)))
    count = sum(len(symbols) ** length for length in range(order + 1))
    if count > _MOST_STATES:
        raise ValueError(f"order {order} over {len(symbols)} characters makes {count} states, above {_MOST_STATES}")
    memories = ["".join(m) for length in range(order + 1) for m in itertools.product(symbols, repeat=length)]
    place = {memory: state for state, memory in enumerate(memories)}
    table = [[place[(memory + symbol)[-order:] if order else ""] for symbol in symbols] for memory in memories]
    counts = np.full((len(memories), len(symbols)), smoothing)
    for at, symbol in enumerate(text):
        counts[place[text[max(at - order, 0) : at]], symbols.index(symbol)] += 1
    return Language(automaton(jnp.array(table)), jnp.log(jnp.array(counts / counts.sum(1, keepdims=True))), symbols)


def brackets(max_depth: int, end: float) -> Language:
    """Brackets that close what they open: the state is the depth, and an answer may end at depth 0.

    Args:
        max_depth: brackets that may be open at once, >= 1.
        end: probability in (0, 1) that an answer ends where it may; brackets are equally likely otherwise.

    Returns:
        The `Language` of "(", ")" and "end". State `max_depth + 1` is the end; an answer that the horizon cuts off
        elsewhere is not balanced.

    Raises:
        ValueError: `max_depth` is below 1, or `end` is not in (0, 1).

    Example:
        >>> language = brackets(max_depth=2, end=0.1)
        >>> language.world.next_state.tolist()
        [[1, 0, 3], [2, 0, 1], [2, 1, 2], [3, 3, 3]]
    """
    if max_depth < 1:
        raise ValueError(f"max_depth must be at least 1, got {max_depth}")
    if not 0 < end < 1:
        raise ValueError(f"end must be above 0 and below 1, got {end}")
    over = max_depth + 1
    table = [[min(depth + 1, max_depth), max(depth - 1, 0), depth or over] for depth in range(over)] + [[over] * 3]
    chance = np.array([[1 - end, 0, end], *[[0.5, 0.5, 0]] * (max_depth - 1), [0, 1, 0], [1 / 3] * 3])
    symbols = ("(", ")", "end")
    ended = jnp.arange(over + 1) == over
    with np.errstate(divide="ignore"):
        return Language(automaton(jnp.array(table), ended), jnp.asarray(np.log(chance)), symbols)


def digits(modulus: int, base: int = 10) -> Language:
    """Answers of a fixed length, the horizon, made of equally likely digits; the state is their sum modulo `modulus`.

    A verifier is a final reward: `jnp.arange(modulus) == remainder`.

    Args:
        modulus: >= 2.
        base: how many digits there are, >= 2.

    Returns:
        The `Language` of the digits.

    Raises:
        ValueError: `modulus` or `base` is below 2.

    Example:
        >>> import jax.numpy as jnp
        >>> from rlrazor.sequences import expected_sum
        >>> world, log_ref, _ = digits(modulus=7)
        >>> right = expected_sum(world, log_ref, jnp.zeros((7, 10)), 5, jnp.arange(7) == 3)
        >>> print(f"{right:.5f}")  # of 100,000 answers
        0.14282
    """
    for name, value in (("modulus", modulus), ("base", base)):
        if value < 2:
            raise ValueError(f"{name} must be at least 2, got {value}")
    table = (np.arange(modulus)[:, None] + np.arange(base)) % modulus
    log_ref = jnp.full((modulus, base), -math.log(base))
    return Language(automaton(jnp.array(table)), log_ref, tuple(map(str, range(base))))
