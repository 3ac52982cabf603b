"""Figures side by side: one process a core, since most of a run is compiling and drawing, which use one core."""

import gc
import math
import multiprocessing
import os
import platform
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import jax

from experiments.harness import running
from experiments.harness.chapters import BUILD, FIGURES, arrays_name
from experiments.harness.config import UserError
from experiments.harness.readme import saved_seconds

Record = dict[str, Any]


def set_up() -> None:
    """What every process that runs figures sets before its first array: float64, a device a core, kept programs."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", running.cores())  # sweeps train on every core at once
    # By machine, since a program that is compiled for one processor may not run on another.
    jax.config.update("jax_compilation_cache_dir", str(BUILD / "compiled" / platform.node()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    gc.freeze()  # a trace makes millions of objects that live, among which a search for dead ones takes a seventh
    gc.set_threshold(100_000)
    if parent := multiprocessing.parent_process():
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends this process without a word; the parent has it
        threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: Any) -> None:
    """End this process when its parent has gone: a killed run leaves no process behind."""
    parent.join()
    os._exit(1)


def execute_all(configs: dict[str, Any], out: Path | None) -> Iterator[Record]:
    """Run figures, and yield the record of each when its files are written."""
    groups: dict[tuple[str, Any], dict[str, Any]] = {}
    for name, config in configs.items():  # figures of one run stay in one process
        groups.setdefault((arrays_name(name), config), {})[name] = config
    workers = min(running.cores(), len(groups))
    if workers == 1:
        for name, config in configs.items():
            yield running.execute(name, config, out)
        return
    seconds = saved_seconds(FIGURES)  # the longest first, so that none is left alone at the end; new ones before them

    def seconds_of(group: dict[str, Any]) -> float:
        return sum(seconds[name]["published"] if name in seconds else math.inf for name in group)

    spawn = multiprocessing.get_context("spawn")  # a forked XLA hangs
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=set_up)
    try:
        longest_first = sorted(groups.values(), key=seconds_of, reverse=True)
        for future in as_completed([pool.submit(_execute_group, group, out) for group in longest_first]):
            yield from future.result()
    except BrokenProcessPool:
        raise UserError("a process that ran figures was killed; what had finished is saved") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _execute_group(configs: dict[str, Any], out: Path | None) -> list[Record]:
    """The records of figures that share their arrays."""
    return [running.execute(name, config, out) for name, config in configs.items()]
