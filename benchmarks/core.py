"""What the speed claims rest on: import cost, the price of exactness in a jitted KL, and dynamic programming on tokens.

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


def tokens_cost(horizon: int, tokens: int, states: int, runs: int) -> tuple[str, float, float, float]:
    """The value of `tilt_tokens` against its value and its gradient in the reward, jitted."""
    of_world, of_ref, of_reward = jax.random.split(jax.random.key(0), 3)
    world = rz.automaton(jax.random.randint(of_world, (states, tokens), 0, states))
    log_ref = jax.nn.log_softmax(jax.random.normal(of_ref, (states, tokens)))
    reward = jax.random.normal(of_reward, (states, tokens))

    def value(reward: jax.Array) -> jax.Array:
        found: jax.Array = rz.tilt_tokens(world, log_ref, reward, 1.0, horizon).log_partition[0, 0]
        return found

    forward, both = jax.jit(value), jax.jit(jax.value_and_grad(value))
    jax.block_until_ready((forward(reward), both(reward)))
    calls = (lambda: jax.block_until_ready(forward(reward))), (lambda: jax.block_until_ready(both(reward)))
    return (f"soft DP, {horizon} x {tokens:,} x {states}: value -> value and gradient", *paired(*calls, runs))


def main() -> None:
    """Print the table."""
    table = Table("what", "first", "second", "ratio", title=f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    rows = import_cost(7), kl_cost(64, 512, 50), kl_cost(64, 32768, 20), tokens_cost(256, 1000, 64, 20)
    for name, first, second, ratio in rows:
        table.add_row(name, f"{first * 1e3:.2f} ms", f"{second * 1e3:.2f} ms", f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
