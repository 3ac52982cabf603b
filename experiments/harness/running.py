"""Running figures, drawing them, and where their files go."""

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np

import rlrazor
from experiments.harness import arrays, files, pictures
from experiments.harness.chapters import BUILD, FIGURES, ROOT, arrays_name, load, recorded_config
from experiments.harness.config import UserError, as_json, check_config, departures
from experiments.harness.gallery import gallery

_RUNS: dict[tuple[str, Any], Any] = {}  # of this process: figures that borrow a run find it here


def place(name: str, config: Any, out: Path | None) -> Path:
    """The files of a run without their ending: in figures/ for the published config alone, unless told otherwise."""
    if out is not None:
        return out / name
    return FIGURES / name if config == type(config)() else BUILD / name / Path(name).name


def execute(name: str, config: Any, out: Path | None = None) -> dict[str, Any]:
    """Run one figure and write its arrays, pictures and record, and the gallery. Returns the record.

    Where the results agree with those of an earlier run, the figure is drawn from the earlier ones: processors round
    differently, and that changes no file.
    """
    figure, stem = load(name), place(name, config, out)
    check_config(config)
    files.open_folder(stem.parent)
    start, shared = time.perf_counter(), (arrays_name(name), config)
    if shared not in _RUNS:
        _RUNS.clear()
        _RUNS[shared] = jax.tree.map(np.asarray, figure.run(config))
    results = _RUNS[shared]
    saved = saved_run(name, stem, config)
    reproduced = saved is not None and arrays.agree(results, saved[0])
    if saved is not None and reproduced:
        (results, checksum), written = saved, {}
    else:
        content = arrays.pack(results)
        checksum, written = arrays.sha256(content), {arrays_path(stem, name): content}
    written |= pictures.of(figure, config, results, stem)
    took = {"seconds": round(time.perf_counter() - start, 1), "reproduced": reproduced}
    return save(stem, written, record_of(name, config, results, checksum), took | circumstances())


def saved_run(name: str, stem: Path, config: Any) -> tuple[Any, str] | None:
    """Results of an earlier run of the same config, and their checksum; None if they are not there, whole and ours."""
    try:
        record = files.load_record(stem.with_suffix(".json"))
        if recorded_config(record) != config:
            return None
        return arrays.load(load(name).Results, arrays_path(stem, name), record), record["results_sha256"]
    except UserError:
        return None


def replot(name: str, out: Path | None = None, *, quick: bool = False) -> dict[str, Any]:
    """Draw a figure again from its saved arrays; claims are measured again."""
    figure = load(name)
    stem = place(name, figure.Config.quick() if quick else figure.Config(), out)
    old = files.load_record(stem.with_suffix(".json"))
    config = recorded_config(old)
    results = arrays.load(figure.Results, arrays_path(stem, name), old)
    record = record_of(name, config, results, old["results_sha256"])
    return save(stem, pictures.of(figure, config, results, stem), record, files.load_run(stem))


def arrays_path(stem: Path, name: str) -> Path:
    """Where the arrays of a figure are, which may be another's."""
    return stem.with_name(Path(arrays_name(name)).name).with_suffix(".npz")


def record_of(name: str, config: Any, results: Any, checksum: str) -> dict[str, Any]:
    """What a figure found, as JSON."""
    figure, away = load(name), departures(config)
    return {
        "name": name,
        "config": as_json(config),
        "departures": away,
        "caption": str(figure.caption(config, results)),
        "claims": [claim.record(at_published=not away) for claim in figure.claims(config, results)],
        "results_sha256": checksum,
    }


def save(stem: Path, written: dict[Path, bytes], record: dict[str, Any], went: dict[str, Any]) -> dict[str, Any]:
    """Write arrays and pictures, then what was found, then how it went, then the gallery."""
    went = went | {"drawn_by": revision()}
    records = {stem.with_suffix(".json"): files.to_json(record), stem.with_suffix(".run.json"): files.to_json(went)}
    files.write_set(written | records)
    root = stem.parent if stem.parent.name == stem.name else stem.parent.parent
    files.write_set({root / "index.html": gallery(root).encode()})
    return record | went


def circumstances() -> dict[str, Any]:
    """How a run went: what no reader needs to reproduce bit for bit."""
    versions = {"python": platform.python_version(), "rlrazor": rlrazor.__version__}
    return {
        "versions": versions | {module.__name__: module.__version__ for module in (jax, np, matplotlib)},
        "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "revision": revision(),
    }


def revision() -> str | None:
    """The git commit of the code, marked if the code has changed since; None outside a checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "src", "experiments")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
