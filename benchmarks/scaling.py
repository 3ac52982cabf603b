"""How time and memory grow with outcomes, rows, steps and devices: measured, fitted as power laws, and extrapolated."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from kernels import BETA, NUM_DRAWS, tilted
from matplotlib.ticker import NullFormatter, NullLocator, StrMethodFormatter
from timing import compiled, seconds

import rlrazor as rz
from rlrazor import plotting
from rlrazor.tasks import two_mode

FIGURE = Path(__file__).with_name("scaling.png")
KERNELS: dict[str, tuple[Callable[..., jax.Array], str]] = {
    "kl_divergence": (rz.kl_divergence, "far"),
    "tilt": (tilted(rz.tilt, BETA), "reward"),
    "log_partition": (tilted(rz.log_partition, BETA), "reward"),
    "best_of_n": (tilted(rz.best_of_n, NUM_DRAWS), "reward"),
}
COLORS = dict(zip((*KERNELS, "two-mode runs"), ("#1f6fb4", "#d1495b", "#2e8b57", "#5e3c99", "#3b3b3b"), strict=True))
NUM_ROWS, NUM_OUTCOMES = 64, 4096
# The prediction: a vocabulary and tokens that do not fit one device, and the data sheet of an H100 (SXM, 80 GB).
VOCABULARY, TOKENS, NUM_GPUS, BANDWIDTH, SHARE = 256_000, 1_000_000, 8, 3.35e12, 0.8


class Curve(NamedTuple):
    """Seconds, and bytes of temporary and output memory, by size; exponents of the power laws through them."""

    size: np.ndarray
    seconds: np.ndarray
    memory: np.ndarray

    def exponents(self) -> tuple[float, float]:
        """Of time and memory, by least squares of the logarithms over the larger sizes."""
        x = np.log(self.size[self.larger])
        time, memory = (float(np.polyfit(x, np.log(y[self.larger]), 1)[0]) for y in (self.seconds, self.memory))
        return time, memory

    @property
    def larger(self) -> slice:
        """The upper half of the sizes, where nothing is overhead."""
        return slice((len(self.size) - 1) // 2, None)


def measure(
    function: Callable[..., object], arguments: Sequence[tuple[jax.Array, ...]], size: Sequence[int], runs: int
) -> Curve:
    """The curve of one function over arguments of growing size."""
    times, memory = [], []
    for given in arguments:
        call = compiled(function, *given)
        times.append(statistics.median(seconds(call) for _ in range(runs)))
        analysis = jax.jit(function).lower(*given).compile().memory_analysis()
        memory.append(analysis.temp_size_in_bytes + analysis.output_size_in_bytes)
    return Curve(np.array(size), np.array(times), np.array(memory))


def kernel_curve(name: str, shapes: Sequence[tuple[int, int]], size: Sequence[int], runs: int) -> Curve:
    """A kernel over arrays of these shapes."""
    function, second = KERNELS[name]
    given = []
    for shape in shapes:
        keys = jax.random.split(jax.random.key(0))
        log_ref, other = (jax.random.normal(key, shape, jnp.float32) for key in keys)
        given.append((jax.nn.log_softmax(log_ref), other if second == "reward" else jax.nn.log_softmax(other)))
    return measure(function, given, size, runs)


def steps_curve(numbers: Sequence[int], runs: int) -> Curve:
    """Two-mode runs by the number of updates."""
    setting = two_mode.bimodal_setting()
    times, memory = [], []
    for num_steps in numbers:

        def simulate(keys: jax.Array, num_steps: int = num_steps) -> two_mode.Run:
            options = {"direction": two_mode.REVERSE, "learning_rate": 0.01, "slow_factor": 0.005, "num_samples": 1000}
            return two_mode.sampled_runs(setting, keys, **options, num_steps=num_steps)

        curve = measure(simulate, [(jax.random.split(jax.random.key(0), 4),)], [num_steps], runs)
        times.append(curve.seconds[0])
        memory.append(curve.memory[0])
    return Curve(np.array(numbers), np.array(times), np.array(memory))


def devices_curve(runs: int, num_seeds: int = 16) -> Curve:
    """Two-mode runs, the seeds shared out over 1, 2, 4, ... devices, one for each core."""
    setting, times, memory = two_mode.bimodal_setting(), [], []
    numbers = [n for n in (1, 2, 4, 8, 16) if n <= len(jax.devices())]
    for number in numbers:
        shares = NamedSharding(Mesh(np.array(jax.devices()[:number]), ("devices",)), PartitionSpec("devices"))

        def last_drop(key: jax.Array) -> jax.Array:
            options = {"direction": two_mode.REVERSE, "learning_rate": 0.01, "slow_factor": 0.005}
            runs = two_mode.sampled_runs(setting, key[None], **options, num_steps=200, num_samples=1000)
            return runs.progress.drop[0, -1]

        def simulate(keys: jax.Array, mesh: Mesh = shares.mesh) -> jax.Array:
            def share(keys: jax.Array) -> jax.Array:
                return jax.lax.map(last_drop, keys)

            spec = PartitionSpec("devices")
            return jax.shard_map(share, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)(keys)

        keys = jax.device_put(jax.random.split(jax.random.key(0), num_seeds), shares)
        curve = measure(simulate, [(keys,)], [number], runs)
        times.append(curve.seconds[0])
        memory.append(curve.memory[0])
    return Curve(np.array(numbers), np.array(times), np.array(memory))


def curves(runs: int, *, small: bool = False) -> dict[str, dict[str, Curve]]:
    """Every curve, by what grows and by who."""
    outcomes = [2**k for k in (range(6, 9) if small else range(10, 19))]
    rows = [2**k for k in (range(2, 5) if small else range(4, 12))]
    steps = [20, 40, 80] if small else [50, 100, 200, 400, 800]
    batch, width = (4, 64) if small else (NUM_ROWS, NUM_OUTCOMES)
    few = max(runs // 3, 2)
    found = {
        "outcomes": {name: kernel_curve(name, [(batch, k) for k in outcomes], outcomes, few) for name in KERNELS},
        "rows": {name: kernel_curve(name, [(n, width) for n in rows], rows, few) for name in KERNELS},
        "steps": {"two-mode runs": steps_curve(steps, few)},
    }
    if len(jax.devices()) > 1:
        found["devices"] = {"two-mode runs": devices_curve(few, (2 if small else 8) * len(jax.devices()))}
    return found


def draw(found: dict[str, dict[str, Curve]], path: Path) -> None:
    """One panel for each thing that grows: points measured, lines fitted."""
    with plotting.figure_style():
        figure, axes = plotting.panels([["outcomes", "rows"], ["steps", "devices"]], 4.6)
        for what, by_name in found.items():
            ax = axes[what]
            for name, curve in by_name.items():
                color, (exponent, _) = COLORS[name], curve.exponents()
                size, milliseconds = curve.size[curve.larger], 1e3 * curve.seconds[curve.larger]
                line = np.exp(np.log(milliseconds).mean()) * (size / np.exp(np.log(size).mean())) ** exponent
                ax.plot(curve.size, 1e3 * curve.seconds, "o", color=color, ms=3)
                ax.plot(size, line, "-", color=color, label=f"{name}: time $\\propto n^{{{exponent:.2f}}}$")
            ax.set(xscale="log", yscale="log", xlabel=f"{what} $n$", ylabel="milliseconds")
            sizes = next(iter(by_name.values())).size
            if len(sizes) <= 5:
                ax.set_xticks(sizes, map(str, sizes))
                ax.xaxis.set_minor_locator(NullLocator())
                ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
                ax.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}") if what == "devices" else NullFormatter())
            low, high = ax.get_ylim()
            ax.set_ylim(low, high * (high / low) ** (0.5 if len(by_name) > 1 else 0.15))  # room for the key
            ax.legend(loc="upper left" if what != "devices" else "upper right")
        figure.savefig(path, dpi=200)


def prediction() -> dict[str, float]:
    """What a KL of two bfloat16 arrays needs at least: gigabytes of each on a GPU, and milliseconds."""
    size = 2.0 * TOKENS * VOCABULARY
    return {
        "vocabulary": VOCABULARY,
        "tokens": TOKENS,
        "GB": size / NUM_GPUS / 1e9,
        "ms": 1e3 * 2 * size / (NUM_GPUS * BANDWIDTH * SHARE),
    }
