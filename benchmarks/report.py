"""Every measurement, as the table of `README.md` beside this file: `python benchmarks/report.py`, in some ten minutes.

`--smoke` measures next to nothing and writes nothing: it shows that the benchmarks run. Each part has a process of its
own, one after the other; trainings and what grows with devices have a host device for each core.
"""

import argparse
import importlib.metadata
import os
import platform
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from timing import Row

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- measured: python benchmarks/report.py -->", "<!-- end -->"
RUNS = 21
ENVIRONMENTS_AIM = 1e6


def kernel_rows(small: bool) -> tuple[list[Row], list[tuple[str, float]], list[tuple[float, float, float]]]:
    """The kernels, their memory and what bfloat16 costs."""
    import kernels

    shape = (4, 64)
    if small:
        return kernels.rows(1, (shape,)), kernels.memory(shape), kernels.sixteen_bits(shape)
    return kernels.rows(RUNS), kernels.memory(), kernels.sixteen_bits()


def simulation_rows(small: bool) -> list[Row]:
    """The simulations."""
    import simulations

    return simulations.rows(1 if small else RUNS, small=small)


def training_rows(small: bool) -> list[Row]:
    """The trainings, where PyTorch is there to compare with."""
    import kernels

    if small or not kernels.has_torch():
        return []
    import trainings

    return trainings.rows(7)


def first_uses(small: bool) -> tuple[Row, list[tuple[str, float, float]]]:
    """The import and the first calls."""
    import first_use

    return first_use.import_cost(1 if small else 11), first_use.first_calls(3 if small else None)


def environment_rates(small: bool) -> list[tuple[str, float]]:
    """The environments."""
    import environments

    return [] if small else environments.rates()


def scaling_curves(small: bool) -> tuple[dict[str, dict[str, tuple[float, float]]], dict[str, float]]:
    """Exponents of time and memory, and the prediction; the figure on the way."""
    import scaling

    found = scaling.curves(1 if small else 9, small=small)
    if not small:
        scaling.draw(found, scaling.FIGURE)
    exponents = {what: {name: curve.exponents() for name, curve in by.items()} for what, by in found.items()}
    return exponents, scaling.prediction()


def with_devices(number: int) -> None:
    """Set up a process."""
    import jax

    jax.config.update("jax_num_cpu_devices", number)


def alone(part: Callable[[bool], Any], small: bool, devices: int = 1) -> Any:
    """What a part measures, in a process of its own; in this one if nothing is timed."""
    if small:
        return part(small)
    with ProcessPoolExecutor(1, get_context("spawn"), with_devices, (devices,)) as pool:
        return pool.submit(part, small).result()


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(row: Row) -> tuple[str, ...]:
    """A row as text."""
    met = "" if row.aim is None else "met" if row.ratio <= row.aim else "**not met**"
    aim = "" if row.aim is None else f"{row.aim:.3g}"
    return row.what, f"{1e3 * row.ours:,.3g}", row.peer, f"{1e3 * row.theirs:,.3g}", f"{row.ratio:.3g}", aim, met


def report(small: bool) -> str:
    """Everything, in Markdown."""
    cores = os.cpu_count() or 1
    kernels, memory, sixteen_bits = alone(kernel_rows, small)
    imported, first_calls = alone(first_uses, small)
    rows = [*kernels, *alone(simulation_rows, small), imported, *alone(training_rows, small, cores)]
    exponents, predicted = alone(scaling_curves, small, cores)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib", "numpy", "scipy"))
    device = f"{cores} cores ({platform.machine()}), Python {platform.python_version()}, {versions}"
    return "\n\n".join(
        (
            f"On {device}. Milliseconds are medians; a ratio is the median over pairs of runs, ours / peer.",
            table(("what", "ours, ms", "against", "its ms", "ratio", "aim, at most", ""), map(shown, rows)),
            "Temporary memory, in arrays of the size of one argument (aim: at most 1):",
            table(("kernel", "arrays"), ((what, f"{size:.2f}") for what, size in memory)),
            "KL from bfloat16 logarithms, 32,768 outcomes, both sums in float32: relative error of the median row:",
            table(
                ("KL, nats", "`kl_divergence`", "plain"),
                ((f"{kl:.2g}", f"{ours:.1%}", f"{plain:.1%}") for kl, ours, plain in sixteen_bits),
            ),
            "First calls, the slowest five (trace and compile; then the same call again):",
            table(
                ("function", "first, s", "again, ms"),
                ((name, f"{first:.2f}", f"{1e3 * again:.2g}") for name, first, again in first_calls[:5]),
            ),
            f"Worlds, a second (aim: at least {ENVIRONMENTS_AIM:,.0f}):",
            table(
                ("what", "millions"), ((what, f"{rate / 1e6:.1f}") for what, rate in alone(environment_rates, small))
            ),
            "![time by size](scaling.png)",
            "Exponents of the power laws that time and memory follow:",
            table(
                ("growing", "what", "time", "memory"),
                (
                    (what, name, f"{time:.2f}", f"{memory:.2f}")
                    for what, by_name in exponents.items()
                    for name, (time, memory) in by_name.items()
                ),
            ),
            f"A KL over {predicted['vocabulary']:,.0f} outcomes for {predicted['tokens']:,.0f} tokens, bfloat16, on 8"
            " GPUs of 3.35 TB/s of which 80 % are had (an H100's data sheet, not measured), takes at least"
            f" {predicted['ms']:.0f} ms to read its arguments. Each GPU holds {predicted['GB']:.0f} GB of either, more"
            " than fits beside a model: the tokens come in parts.",
        )
    )


def main() -> None:
    """Measure, and write or print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="next to nothing, to see that it runs")
    small = parser.parse_args().smoke
    measured = report(small)
    if small:
        print(measured)
        return
    text = re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{measured}\n{END}", README.read_text(), flags=re.DOTALL)
    README.write_text(text)


if __name__ == "__main__":
    main()
