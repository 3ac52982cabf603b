"""Paired timings and the rows they make: the same work in the same process, in turn; medians, and the median ratio."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Call = Callable[[], object]


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        what: is done.
        ours: seconds.
        peer: what it is measured against.
        theirs: seconds of the peer.
        ratio: ours / theirs, the median of the pairs.
        aim: the largest ratio that is aimed at; None where there is none.
    """

    what: str
    ours: float
    peer: str
    theirs: float
    ratio: float
    aim: float | None = None


def seconds(call: Call) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def paired(first: Call, second: Call, runs: int) -> tuple[float, float, float]:
    """Median seconds of both, run in turn, and the median of second / first."""
    pairs = [(seconds(first), seconds(second)) for _ in range(runs)]
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(b / a for a, b in pairs),
    )


def compiled(function: Callable[..., Any], *args: Any) -> Call:
    """A call of the jitted function that waits for its result, after two that compile it and warm it up."""
    program = jax.jit(function)
    for _ in range(2):
        jax.block_until_ready(program(*args))
    return lambda: jax.block_until_ready(program(*args))


def compare(what: str, ours: Call, peer: str, theirs: Call, runs: int, aim: float | None = None) -> Row:
    """The row of two calls."""
    slow, fast, ratio = paired(theirs, ours, runs)
    return Row(what, fast, peer, slow, ratio, aim)
