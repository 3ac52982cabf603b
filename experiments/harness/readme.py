"""What is generated from the saved records: the README's table of figures and `figures/claims.md`."""

import json
import re
from pathlib import Path
from typing import Any

from experiments import CHAPTERS
from experiments.harness import claims, files
from experiments.harness.chapters import BUILD, FIGURES, ROOT, chapter_module, command, load, names, title
from experiments.harness.claims import number
from experiments.harness.config import UserError, as_json

README = ROOT / "README.md"
START, END = "<!-- figures: start -->\n", "<!-- figures: end -->\n"
SMOKE = BUILD / "smoke"


def published_records(figures: Path) -> dict[str, dict[str, Any]]:
    """The saved record of every figure, which must be of today's published config."""
    records = {}
    for name in names():
        record = files.load_record((figures / name).with_suffix(".json"))
        today = as_json(load(name).Config())
        if record["config"] != today:
            odd = next(key for key in today | record["config"] if record["config"].get(key) != today.get(key))
            raise UserError(f"{figures / name}.json is stale: its config differs in {odd}; run it again")
        records[name] = record
    return records


def claims_page(records: dict[str, dict[str, Any]]) -> str:
    """Every claim with its numbers, in Markdown, by figure."""
    lines = ["# Every claim", "", "Made by `make readme`. A control is a condition under which the claim must fail."]
    for name, record in records.items():
        lines += ["", f"## {name}", "", "| claim | expected | measured | control | |", "|---|---|---|---|---|"]
        for claim in record["claims"]:
            control = f"{claim['control']}: {number(claim['control_measured'])}"
            cells = claim["statement"], claim["expected"], number(claim["measured"]), control, claim["verdict"]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def table(records: dict[str, dict[str, Any]], seconds: dict[str, dict[str, float]]) -> str:
    """A row a figure, by chapter, with the seconds of its published and its quick run."""
    lines = []
    for chapter in CHAPTERS:
        lines += [
            f"### {title(chapter_module(chapter)).rstrip('.')}",
            "",
            "| | figure | claims | command | seconds | `--quick` |",
        ]
        lines += ["|---|---|---|---|---|---|"]
        for name in names(chapter):
            picture = f'<a href="figures/{name}.png"><img src="figures/{name}.png" width="180"></a>'
            took = [f"{seconds[name][size]:.0f}" if name in seconds else "" for size in ("published", "quick")]
            counted = claims.summary(records[name]).removesuffix(" claims hold")
            lines.append(f"| {picture} | {title(load(name)).rstrip('.')} | {counted} | `{command(records[name])}` | "
                         f"{took[0]} | {took[1]} |")  # fmt: skip
        lines.append("")
    totals = [sum(entry[size] for entry in seconds.values()) for size in ("published", "quick")]
    total = f"They add up to {totals[0]:.0f} s and, of `make smoke`, {totals[1]:.0f} s"
    lines.append(f"{total}; as many run at once as there are cores.")
    return "\n".join(lines) + "\n"


def saved_seconds(figures: Path) -> dict[str, dict[str, float]]:
    """The committed seconds by figure, of its published and of its quick run; none before the first `make readme`."""
    path = figures / "seconds.json"
    saved: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    return saved


def measured_seconds() -> dict[str, dict[str, float]]:
    """The seconds of the last runs, which must all be of one clean revision."""
    runs = {(n, size): files.load_run(root / n) for n in names() for size, root in
            (("published", FIGURES), ("quick", SMOKE))}  # fmt: skip
    revisions = {run.get("revision") for run in runs.values()}
    if len(revisions) != 1 or None in revisions or any("+" in str(revision) for revision in revisions):
        listed = ", ".join(sorted(map(str, revisions)))
        raise UserError(f"seconds need `make figures smoke` at one clean revision, got runs at {listed}")
    return {name: {size: runs[name, size]["seconds"] for size in ("published", "quick")} for name in names()}


def update(figures: Path, readme: Path, seconds: dict[str, dict[str, float]]) -> bool:
    """Write the table into the README and the page of claims. Returns whether either changed."""
    records, text = published_records(figures), readme.read_text()
    pattern = re.compile(re.escape(START) + ".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(text):
        raise UserError(f"{readme} lacks the lines {START.strip()} and {END.strip()}")
    new = {
        readme: pattern.sub(lambda _: START + table(records, seconds) + END, text).encode(),
        figures / "claims.md": claims_page(records).encode(),
        figures / "seconds.json": files.to_json(seconds),
    }
    changed = {path: content for path, content in new.items() if not path.exists() or path.read_bytes() != content}
    for path, content in changed.items():
        files.write_atomically(path, content)
    return bool(changed)
