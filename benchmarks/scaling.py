"""How time and memory grow with outcomes, rows, steps and devices: measured, fitted as power laws, and extrapolated."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import kernels
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from matplotlib.ticker import NullFormatter, NullLocator, StrMethodFormatter
from simulations import rl_runs
from timing import seconds

from rlrazor import plotting
from rlrazor.tasks import two_mode

FIGURE = Path(__file__).with_name("scaling.png")
NAMES = ("kl_divergence", "tilt", "log_partition", "best_of_n")
GROWING = tuple((name, kernel) for name in NAMES for kernel in kernels.KERNELS if kernel.what == f"`{name}`")
COLORS = dict(zip((*NAMES, "two-mode runs"), ("#1f6fb4", "#d1495b", "#2e8b57", "#5e3c99", "#3b3b3b"), strict=True))
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


def measure(cases: Iterable[tuple[int, Callable[..., object], tuple[jax.Array, ...]]], runs: int) -> Curve:
    """The curve of (size, function, its arguments)."""
    points = []
    for size, function, given in cases:
        program = jax.jit(function).lower(*given).compile()
        memory = program.memory_analysis()

        def call(program: Any = program, given: tuple[jax.Array, ...] = given) -> object:
            return jax.block_until_ready(program(*given))

        call()
        time = statistics.median(seconds(call) for _ in range(runs))
        points.append((size, time, memory.temp_size_in_bytes + memory.output_size_in_bytes))
    return Curve(*(np.array(column) for column in zip(*points, strict=True)))


def kernel_curve(kernel: kernels.Kernel, shapes: Sequence[tuple[int, int]], axis: int, runs: int) -> Curve:
    """A kernel over arrays that grow along an axis."""
    return measure(((shape[axis], kernel.ours, kernels.arguments(shape)[kernel.second]) for shape in shapes), runs)


def steps_curve(numbers: Sequence[int], runs: int) -> Curve:
    """Two-mode runs by the number of updates."""
    simulate, keys = partial(rl_runs, two_mode.bimodal_setting()), jax.random.split(jax.random.key(0), 4)
    return measure(((number, partial(simulate, num_steps=number), (keys,)) for number in numbers), runs)


def devices_curve(runs: int, num_seeds: int) -> Curve:
    """Two-mode runs, the seeds shared out over 1, 2, 4, ... devices, one for each core."""
    setting, keys = two_mode.bimodal_setting(), jax.random.split(jax.random.key(0), num_seeds)

    def share(keys: jax.Array) -> jax.Array:
        return jax.lax.map(lambda key: rl_runs(setting, key[None]).progress.drop[0, -1], keys)

    def cases() -> Iterator[tuple[int, Callable[..., object], tuple[jax.Array, ...]]]:
        for number in (n for n in (1, 2, 4, 8, 16) if n <= len(jax.devices())):
            mesh, spec = Mesh(np.array(jax.devices()[:number]), ("devices",)), PartitionSpec("devices")
            shared = jax.shard_map(share, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
            yield number, shared, (jax.device_put(keys, NamedSharding(mesh, spec)),)

    return measure(cases(), runs)


def curves(runs: int, *, small: bool = False) -> dict[str, dict[str, Curve]]:
    """Every curve, by what grows and by who."""
    outcomes = [2**k for k in (range(6, 9) if small else range(10, 19))]
    rows = [2**k for k in (range(2, 5) if small else range(4, 12))]
    steps = [20, 40, 80] if small else [50, 100, 200, 400, 800]
    batch, width = (4, 64) if small else (NUM_ROWS, NUM_OUTCOMES)
    few = max(runs // 3, 2)
    found = {
        "outcomes": {name: kernel_curve(kernel, [(batch, k) for k in outcomes], 1, few) for name, kernel in GROWING},
        "rows": {name: kernel_curve(kernel, [(n, width) for n in rows], 0, few) for name, kernel in GROWING},
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
