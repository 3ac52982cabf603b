"""What the speed claims rest on: import cost, and the price of exactness in a jitted KL.

`python benchmarks/core.py` prints medians over paired runs, and the ratio pair by pair.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

import rlrazor as rz


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def paired(first: Callable[[], object], second: Callable[[], object], runs: int) -> tuple[float, float, float]:
    """Median seconds of both, run in turn, and the median of second / first."""
    pairs = [(seconds(first), seconds(second)) for _ in range(runs)]
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(b / a for a, b in pairs),
    )


def import_cost(runs: int) -> tuple[str, float, float, float]:
    """`import jax` against `import jax, rlrazor`, in fresh processes."""

    def run(code: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    run("import jax, rlrazor")()
    return ("import jax -> import jax, rlrazor", *paired(run("import jax"), run("import jax, rlrazor"), runs))


def kl_cost(batch: int, outcomes: int, runs: int) -> tuple[str, float, float, float]:
    """The textbook Σ p (log p - log q) against `kl_divergence`, jitted, forward and backward."""
    keys = jax.random.split(jax.random.key(0))
    logits = [jax.random.normal(key, (batch, outcomes)) for key in keys]

    def textbook(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
        return (jnp.exp(log_p) * (log_p - log_q)).sum(-1)

    def gradient(divergence: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[[], object]:
        def total(x: jax.Array, y: jax.Array) -> jax.Array:
            return divergence(jax.nn.log_softmax(x), jax.nn.log_softmax(y)).sum()

        step = jax.jit(jax.value_and_grad(total))
        jax.block_until_ready(step(*logits))
        return lambda: jax.block_until_ready(step(*logits))

    times = paired(gradient(textbook), gradient(rz.kl_divergence), runs)
    return (f"value and gradient of KL, [{batch}, {outcomes}]: textbook -> kl_divergence", *times)


def main() -> None:
    """Print the table."""
    table = Table("what", "first", "second", "ratio", title=f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    for name, first, second, ratio in (import_cost(7), kl_cost(64, 512, 50), kl_cost(64, 32768, 20)):
        table.add_row(name, f"{first * 1e3:.2f} ms", f"{second * 1e3:.2f} ms", f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
