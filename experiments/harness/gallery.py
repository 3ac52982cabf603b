"""The gallery: a page that opens from disk, with every figure, its claims and their controls."""

import html
from pathlib import Path
from typing import Any

from experiments import CHAPTERS
from experiments.harness import claims, files
from experiments.harness.chapters import chapter_module, command, load, names
from experiments.harness.claims import number

STYLE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
img {{ max-width: 100%; height: auto }}
pre, code {{ font: 14px/1.5 ui-monospace, monospace; background: #f4f4f4 }}
pre {{ padding: .5rem .8rem; overflow-x: auto }}
table {{ border-collapse: collapse; font-size: 14px; width: 100% }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #ddd }}
.yes {{ color: #1b7837 }} .no {{ color: #b2182b; font-weight: 600 }} .small {{ color: #666; font-size: 14px }}
</style>
"""
HEAD = f"""{STYLE.format(title="rlrazor: figures and claims")}<h1>rlrazor: figures and claims</h1>
<p>Every number is computed by the command beside its figure. A claim holds where its measured value lies in the
expected range; its control is a condition under which the same test must fail. What TRL, verl and the RLHF book call
all this: <a href="names.html">which KL is this?</a></p>
"""


def finished(root: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Stem and record of every figure below a folder that has run, in the order of the argument."""
    done = {}
    for name in names():
        for stem in (root / name, root / Path(name).name):  # a run of its own has a folder of its own
            if stem.with_suffix(".json").exists() and name not in done:
                record = files.load_record(stem.with_suffix(".json"))
                if record["name"] == name:
                    done[name] = stem, record
    return done


def gallery(root: Path) -> str:
    """A page that opens from disk: every figure with its caption, claims, controls and the command that makes it."""
    done = finished(root)
    links = " · ".join(f'<a href="#{name}">{name}</a>' for name in done)
    sections = []
    for chapter in CHAPTERS:
        inside = [name for name in done if name.startswith(f"{chapter}/")]
        if inside:
            title, story = _parts(chapter_module(chapter).__doc__ or "")
            sections.append(f"<h2>{title}</h2>\n{story}")
        sections += [_section(name, *done[name], root) for name in inside]
    return f"{HEAD}<p>{links}</p>\n" + "\n".join(sections) + "\n</html>\n"


def _parts(docstring: str) -> tuple[str, str]:
    """The first line of a docstring, and its paragraphs, as HTML."""
    title, _, story = docstring.strip().partition("\n")
    paragraphs = (html.escape(" ".join(part.split())) for part in story.strip().split("\n\n"))
    return html.escape(title), "\n".join(f"<p>{paragraph}</p>" for paragraph in paragraphs if paragraph)


def _section(name: str, stem: Path, record: dict[str, Any], root: Path) -> str:
    """One figure of the gallery."""
    (title, story), here = _parts(load(name).__doc__ or ""), stem.relative_to(root).as_posix()
    moving = f'<p><img src="{here}.gif" alt="{title}, animated"></p>' if stem.with_suffix(".gif").exists() else ""
    rows = "\n".join(map(_row, record["claims"]))
    return f"""<section id="{name}">
<h3>{title}</h3>
{story}
<p><a href="{here}.svg"><img src="{here}.png" alt="{title}"></a></p>
<p class=small>{html.escape(record["caption"])}</p>
{moving}
<pre>{html.escape(command(record))}</pre>
<p>{html.escape(claims.summary(record))}.</p>
<table>
<tr><th>claim</th><th>expected</th><th>measured</th><th></th><th>control, which must fail</th></tr>
{rows}
</table>
<p class=small><a href="{here}.json">record</a></p>
</section>"""


def _row(claim: dict[str, Any]) -> str:
    """One claim of a figure."""
    notes = "".join(f"<br>{html.escape(text)}" for text in (claim["source"], claim["note"]) if text)
    cells = [f"{html.escape(claim['statement'])}<span class=small>{notes}</span>", html.escape(claim["expected"])]
    verdict = f"<span class={'yes' if claims.passes(claim) else 'no'}>{claim['verdict']}</span>"
    control = f"{html.escape(claim['control'])}: {number(claim['control_measured'])}"
    return "<tr>" + "".join(f"<td>{c}</td>" for c in (*cells, number(claim["measured"]), verdict, control)) + "</tr>"
