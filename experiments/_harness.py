"""Config -> results -> claims -> files: what every experiment shares, and nothing else.

An experiment is a module with

    Config          frozen dataclass; its defaults are the published run, `Config.quick()` takes seconds
    Results         NamedTuple of arrays, all that the claims and the plot need
    run(config)     -> Results, pure
    claims(results) -> list[Claim]
    plot(results)   -> matplotlib Figure
    animate(results) -> matplotlib animation (optional)
"""

import dataclasses
import hashlib
import html
import importlib
import io
import json
import math
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np

import rlrazor
from rlrazor.plotting import figure_style

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "figures"
README = ROOT / "README.md"
TABLE_START, TABLE_END = "<!-- figures: start -->\n", "<!-- figures: end -->\n"


class UserError(Exception):
    """A mistake of the caller's, told in one line."""


class Interval(NamedTuple):
    """What a claim expects: a closed interval of the real line."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether the value lies inside; NaN never does."""
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        if self.low == -math.inf:
            return f"≤ {number(self.high)}"
        if self.high == math.inf:
            return f"≥ {number(self.low)}"
        return f"{number((self.low + self.high) / 2)} ± {number((self.high - self.low) / 2)}"


def near(value: float, tolerance: float) -> Interval:
    """[value - tolerance, value + tolerance]."""
    return Interval(value - tolerance, value + tolerance)


def at_most(value: float) -> Interval:
    """(-inf, value]."""
    return Interval(-math.inf, value)


def at_least(value: float) -> Interval:
    """[value, inf)."""
    return Interval(value, math.inf)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement with a number, and a control in which the same test must fail.

    Attributes:
        id: short name, unique in its experiment.
        statement: what is claimed.
        source: who says so, or which theorem.
        expected: where the number must lie.
        measured: the number, computed from the results.
        control: the condition under which the claim must fail.
        control_measured: the same number there.
        note: what a reader should know, above all where a claim does not hold.
    """

    id: str
    statement: str
    source: str
    expected: Interval
    measured: float
    control: str
    control_measured: float
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the measured number is as expected."""
        return self.expected.holds(self.measured)

    @property
    def control_fails(self) -> bool:
        """Whether the control breaks the claim, as it must."""
        return not self.expected.holds(self.control_measured)

    def record(self) -> dict[str, Any]:
        """The claim as JSON."""
        return {
            "id": self.id,
            "statement": self.statement,
            "source": self.source,
            "expected": str(self.expected),
            "measured": float(self.measured),
            "holds": self.holds,
            "control": self.control,
            "control_measured": float(self.control_measured),
            "control_fails": self.control_fails,
            "note": self.note,
        }


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


# Experiments and their configs


def names() -> list[str]:
    """Every experiment, in alphabetical order."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


def load_experiment(name: str) -> ModuleType:
    """The module of that name."""
    if name not in names():
        raise UserError(f"unknown experiment {name!r}; there are {', '.join(names())}")
    return importlib.import_module(f"experiments.{name}")


def caption(experiment: ModuleType) -> str:
    """The first line of the experiment's docstring."""
    return (experiment.__doc__ or "").strip().splitlines()[0]


def check_config(config: Any) -> None:
    """Raise unless every count is at least 1, every number is finite, and every positive quantity is positive."""
    for field in dataclasses.fields(config):
        values = getattr(config, field.name)
        for value in values if isinstance(values, tuple) else (values,):
            if isinstance(value, bool | str):
                continue
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{field.name} must be finite, got {value}")
            least = field.metadata.get("at_least", 1 if isinstance(value, int) else -math.inf)
            if value < least:
                raise UserError(f"{field.name} must be at least {least}, got {value}")
            if value <= field.metadata.get("above", -math.inf):
                raise UserError(f"{field.name} must be above {field.metadata['above']}, got {value}")


def check_normalised(name: str, probabilities: Sequence[float]) -> None:
    """Raise unless the probabilities sum to one."""
    total = math.fsum(probabilities)
    if not abs(total - 1) < 1e-9:
        raise UserError(f"{name} must sum to 1, but {' + '.join(map(str, probabilities))} = {total:.6g}")


def positive(default: Any) -> Any:
    """A config field that must be above zero."""
    return dataclasses.field(default=default, metadata={"above": 0})


def nonnegative(default: Any) -> Any:
    """A config field that must be at least zero."""
    return dataclasses.field(default=default, metadata={"at_least": 0})


# Files, written whole or not at all


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file by the content, or leave it as it was."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def open_folder(out: Path) -> Path:
    """The output folder, made if missing, if files can be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror}") from None
    return out


def pack(results: NamedTuple) -> bytes:
    """Results as npz bytes, the same bytes for the same arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{k: np.asarray(v) for k, v in results._asdict().items()})
    return buffer.getvalue()


def load_record(path: Path) -> dict[str, Any]:
    """The JSON record of a finished run."""
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the experiment first") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path} is not valid JSON: run the experiment again") from None
    return record


def load_results(experiment: ModuleType, name: str, out: Path) -> Any:
    """Saved results, if they are whole and belong to their record."""
    path = out / f"{name}.npz"
    record = load_record(out / f"{name}.json")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the experiment first") from None
    if hashlib.sha256(content).hexdigest() != record.get("results_sha256"):
        raise UserError(f"{path} is truncated or does not belong to {name}.json: run the experiment again")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        fields = experiment.Results._fields
        if set(arrays.files) != set(fields):
            odd = sorted(set(arrays.files) ^ set(fields))
            raise UserError(f"{path} was saved by another version (field {odd[0]}): run the experiment again")
        return experiment.Results(**{field: arrays[field] for field in fields})


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


# Running and drawing


def execute(name: str, config: Any, out: Path) -> dict[str, Any]:
    """Run one experiment and write its results, figure, record and the gallery. Returns the record."""
    experiment = load_experiment(name)
    start = time.perf_counter()
    results = jax.tree.map(np.asarray, experiment.run(config))
    results_npz = pack(results)
    pictures, claims = draw(experiment, results)
    record = {
        "name": name,
        "config": dataclasses.asdict(config),
        "claims": claims,
        "seconds": round(time.perf_counter() - start, 1),
        "versions": {
            "python": platform.python_version(),
            "rlrazor": rlrazor.__version__,
            **{module.__name__: module.__version__ for module in (jax, np, matplotlib)},
        },
        "device": jax.devices()[0].device_kind,
        "revision": revision(),
        "results_sha256": hashlib.sha256(results_npz).hexdigest(),
    }
    save(name, out, pictures | {"npz": results_npz}, record)
    return record


def replot(name: str, out: Path) -> dict[str, Any]:
    """Draw again from saved results; claims are measured again, the rest of the record stays."""
    experiment = load_experiment(name)
    record = load_record(out / f"{name}.json")
    pictures, record["claims"] = draw(experiment, load_results(experiment, name, out))
    save(name, out, pictures, record)
    return record


def draw(experiment: ModuleType, results: Any) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """The pictures by file ending, and the claims."""
    pictures = {}
    with figure_style():
        figure = experiment.plot(results)
        for ending, options in (("png", {"dpi": 200}), ("svg", {"metadata": {"Date": None}})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=ending, **options)
            pictures[ending] = buffer.getvalue()
        matplotlib.pyplot.close(figure)
        if hasattr(experiment, "animate"):
            pictures["gif"] = animation_bytes(experiment.animate(results))
    return pictures, [claim.record() for claim in experiment.claims(results)]


def animation_bytes(animation: Any) -> bytes:
    """The animation as a GIF that loops."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "animation.gif"
        animation.save(path, writer="pillow", fps=12, dpi=80)
        matplotlib.pyplot.close(animation._fig)
        return path.read_bytes()


def save(name: str, out: Path, contents: dict[str, bytes], record: dict[str, Any]) -> None:
    """Write every file of a run, the record last, then the gallery."""
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    for ending, content in contents.items():
        write_atomically(out / f"{name}.{ending}", content)
    write_atomically(out / f"{name}.json", text.encode())
    write_atomically(out / "index.html", gallery(out).encode())


def plan(chosen: Sequence[str], quick: bool) -> list[tuple[str, Any]]:
    """Names and configs of what to run; all experiments where none is named."""
    modules = [(name, load_experiment(name)) for name in chosen or names()]
    return [(name, module.Config.quick() if quick else module.Config()) for name, module in modules]


# The gallery and the README table


def finished(out: Path) -> list[dict[str, Any]]:
    """Records of the experiments that have run, in order."""
    return [load_record(out / f"{name}.json") for name in names() if (out / f"{name}.json").exists()]


def gallery(out: Path) -> str:
    """A page that opens from disk: every figure with its claims, their controls and the command that makes it."""
    records = finished(out)
    sections = "\n".join(gallery_section(record, out) for record in records)
    links = " · ".join(f'<a href="#{r["name"]}">{r["name"]}</a>' for r in records)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>rlrazor: figures and claims</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
img {{ max-width: 100%; height: auto }}
pre, code {{ font: 14px/1.5 ui-monospace, monospace; background: #f4f4f4 }}
pre {{ padding: .5rem .8rem; overflow-x: auto }}
table {{ border-collapse: collapse; font-size: 14px; width: 100% }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #ddd }}
.yes {{ color: #1b7837 }} .no {{ color: #b2182b; font-weight: 600 }}
.small {{ color: #666; font-size: 14px }}
</style>
<h1>rlrazor: figures and claims</h1>
<p>Every number is computed by the command beside its figure. A claim holds where its measured value lies in the
expected range; its control is a condition under which the same test must fail.</p>
<p>{links}</p>
{sections}
</html>
"""


def gallery_section(record: dict[str, Any], out: Path) -> str:
    """One experiment of the gallery."""
    name, escape = record["name"], html.escape
    experiment = load_experiment(name)
    title, _, story = (experiment.__doc__ or "").strip().partition("\n")
    paragraphs = "\n".join(f"<p>{escape(' '.join(part.split()))}</p>" for part in story.strip().split("\n\n"))
    moving = f'<p><img src="{name}.gif" alt="{name}, animated"></p>' if (out / f"{name}.gif").exists() else ""
    rows = "\n".join(
        f"<tr><td>{escape(c['statement'])}<br><span class=small>{escape(c['source'])}"
        + (f"<br>{escape(c['note'])}" if c["note"] else "")
        + f"</span></td><td>{escape(c['expected'])}</td><td>{number(c['measured'])}</td>"
        + ("<td class=yes>holds</td>" if c["holds"] else "<td class=no>does not hold</td>")
        + f"<td>{escape(c['control'])}: {number(c['control_measured'])}"
        + ("" if c["control_fails"] else " <span class=no>(holds too)</span>")
        + "</td></tr>"
        for c in record["claims"]
    )
    versions = ", ".join(f"{key} {value}" for key, value in record["versions"].items())
    return f"""<section id="{name}">
<h2>{escape(title)}</h2>
{paragraphs}
<p><a href="{name}.svg"><img src="{name}.png" alt="{escape(title)}"></a></p>
{moving}
<pre>{command(record)}</pre>
<table>
<tr><th>claim</th><th>expected</th><th>measured</th><th></th><th>control, which must fail</th></tr>
{rows}
</table>
<p class=small>{record["seconds"]} s on {escape(record["device"])}; {escape(versions)}; revision
{record["revision"] or "unknown"}; <a href="{name}.npz">arrays</a>, <a href="{name}.json">record</a></p>
</section>"""


def command(record: dict[str, Any]) -> str:
    """The command that makes this figure."""
    config_type = load_experiment(record["name"]).Config
    for config, flag in ((config_type(), ""), (config_type.quick(), " --quick")):
        if as_json(config) == record["config"]:
            return f"python -m experiments {record['name']}{flag}"
    changed = [f for f, v in as_json(config_type()).items() if record["config"].get(f) != v]
    options = []
    for field in changed:
        value = record["config"].get(field)
        values = value if isinstance(value, list) else [value]
        options.append(f" --{field.replace('_', '-')} {' '.join(str(v) for v in values)}")
    return f"python -m experiments {record['name']}{''.join(options)}"


def as_json(config: Any) -> Any:
    """The config as it comes back from its JSON record."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def readme_table(out: Path) -> str:
    """The README's tables of figures and claims, from saved records, which must be those of today's configs."""
    full = {name: current_record(name, out, load_experiment(name).Config()) for name in names()}
    quick = {name: current_record(name, out / "quick", load_experiment(name).Config.quick()) for name in names()}
    figures = [
        "| figure | what it shows | claims that hold | command | seconds | `--quick` |",
        "|---|---|---|---|---|---|",
    ]
    claims = ["| claim | expected | measured | control, which must fail | |", "|---|---|---|---|---|"]
    for name, record in full.items():
        good = sum(claim["holds"] and claim["control_fails"] for claim in record["claims"])
        thumbnail = f'<a href="figures/{name}.png"><img src="figures/{name}.png" width="260"></a>'
        shows, count = caption(load_experiment(name)).rstrip("."), f"{good} of {len(record['claims'])}"
        seconds = f"{record['seconds']:.0f} | {quick[name]['seconds']:.0f}"
        figures.append(f"| {thumbnail} | {shows} | {count} | `{command(record)}` | {seconds} |")
        for c in record["claims"]:
            values = c["expected"], number(c["measured"]), f"{c['control']}: {number(c['control_measured'])}"
            verdict = "holds" if c["holds"] and c["control_fails"] else "does not hold"
            claims.append("| " + " | ".join(map(cell, (c["statement"], *values, verdict))) + " |")
    totals = [sum(record["seconds"] for record in records.values()) for records in (full, quick)]
    figures.append(f"| | all of them | | `make figures`, `make smoke` | {totals[0]:.0f} | {totals[1]:.0f} |")
    summary = "<summary>Every claim with its numbers</summary>"
    return "\n".join([*figures, "", f"<details>{summary}", "", *claims, "", "</details>", ""])


def cell(text: str) -> str:
    """Text that cannot break out of its cell of a Markdown table."""
    return text.replace("|", "\\|")


def current_record(name: str, out: Path, config: Any) -> dict[str, Any]:
    """The saved record, if its config is the one given."""
    record, today = load_record(out / f"{name}.json"), as_json(config)
    if record["config"] != today:
        odd = next(key for key in today | record["config"] if record["config"].get(key) != today.get(key))
        raise UserError(f"{out / name}.json is stale: its config differs in {odd}; run it again")
    return record


def update_readme(out: Path = FIGURES, readme: Path = README) -> bool:
    """Put today's table into the README. Returns whether that changed it."""
    text = readme.read_text()
    pattern = re.compile(re.escape(TABLE_START) + ".*?" + re.escape(TABLE_END), re.DOTALL)
    if not pattern.search(text):
        raise UserError(f"{readme} lacks the lines {TABLE_START.strip()} and {TABLE_END.strip()}")
    table = TABLE_START + readme_table(out) + TABLE_END
    updated = pattern.sub(lambda _: table, text)
    if updated != text:
        write_atomically(readme, updated.encode())
    return updated != text
