"""Running figures, drawing them, and where their files go."""

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np

import rlrazor
from experiments.harness import arrays, files, names, pictures
from experiments.harness.chapters import BUILD, FIGURES, ROOT, arrays_name, load, recorded_config
from experiments.harness.config import UserError, as_json, check_config, departures
from experiments.harness.gallery import gallery

_RUNS: dict[tuple[str, Any], Any] = {}  # of this process: figures that borrow a run find it here


class Run(NamedTuple):
    """A config, what came out of it, and what the record recognises its arrays by."""

    config: Any
    results: Any
    checksum: str


def place(name: str, config: Any, out: Path | None) -> Path:
    """The files of a run without their ending: in figures/ for the published config alone, unless told otherwise."""
    if out is not None:
        return out / name
    return FIGURES / name if config == type(config)() else BUILD / name / Path(name).name


def execute(name: str, config: Any, out: Path | None = None) -> dict[str, Any]:
    """Run one figure and write its arrays, pictures and record. Returns the record.

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
    earlier = reproduced(name, stem, config, results)
    if earlier is not None:
        found, written = earlier, {}
    else:
        content = arrays.pack(results)
        found, written = Run(config, results, arrays.sha256(content)), {arrays_path(stem, name): content}
    written |= pictures.of(figure, config, found.results, stem)
    took = {"seconds": round(time.perf_counter() - start, 1), "reproduced": earlier is not None}
    return save(stem, written, record_of(name, found), took | circumstances())


def saved_run(name: str, stem: Path) -> Run:
    """What an earlier run left."""
    record = files.load_record(stem.with_suffix(".json"))
    config = recorded_config(record)
    results = arrays.load(load(name).Results, arrays_path(stem, name), record)
    return Run(config, results, record["results_sha256"])


def reproduced(name: str, stem: Path, config: Any, results: Any) -> Run | None:
    """The earlier run of the same config with which the results agree; None if there is none, whole."""
    try:
        earlier = saved_run(name, stem)
    except UserError:
        return None
    return earlier if earlier.config == config and arrays.agree(results, earlier.results) else None


def replot(name: str, out: Path | None = None, *, quick: bool = False) -> dict[str, Any]:
    """Draw a figure again from its saved arrays; claims are measured again."""
    figure = load(name)
    stem = place(name, figure.Config.quick() if quick else figure.Config(), out)
    found = saved_run(name, stem)
    drawn = pictures.of(figure, found.config, found.results, stem)
    return save(stem, drawn, record_of(name, found), files.load_run(stem))


def arrays_path(stem: Path, name: str) -> Path:
    """Where the arrays of a figure are, which may be another's."""
    return stem.with_name(Path(arrays_name(name)).name).with_suffix(".npz")


def record_of(name: str, run: Run) -> dict[str, Any]:
    """What a figure found, as JSON."""
    figure, away = load(name), departures(run.config)
    return {
        "name": name,
        "config": as_json(run.config),
        "departures": away,
        "caption": str(figure.caption(run.config, run.results)),
        "claims": [claim.record(at_published=not away) for claim in figure.claims(run.config, run.results)],
        "results_sha256": run.checksum,
    }


def save(stem: Path, written: dict[Path, bytes], record: dict[str, Any], went: dict[str, Any]) -> dict[str, Any]:
    """Write arrays and pictures, then what was found, then how it went."""
    went = went | {"drawn_by": revision()}
    records = {stem.with_suffix(".json"): files.to_json(record), stem.with_suffix(".run.json"): files.to_json(went)}
    files.write_set(written | records)
    return record | went


def refresh_gallery(folder: Path, name: str) -> None:
    """Write the site of the folder that holds a figure's, or of the figure's own if it has one."""
    root = folder if folder.name == Path(name).name else folder.parent
    files.write_set({root / "index.html": gallery(root).encode(), root / "names.html": names.page().encode()})


def circumstances() -> dict[str, Any]:
    """How a run went: what no reader needs to reproduce bit for bit."""
    versions = {"python": platform.python_version(), "rlrazor": rlrazor.__version__}
    return {
        "versions": versions | {module.__name__: module.__version__ for module in (jax, np, matplotlib)},
        "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        "cores": cores(),
        "revision": revision(),
    }


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
