"""Chapters and their figures: finding them, and the command that makes one."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments import CHAPTERS
from experiments.harness import config
from experiments.harness.config import UserError, as_json

ROOT = Path(__file__).resolve().parent.parent.parent
FIGURES, BUILD = ROOT / "figures", ROOT / "build"


def chapter_module(chapter: str) -> ModuleType:
    """The chapter: its docstring is the verdict, its FIGURES the order of the argument."""
    return importlib.import_module(f"experiments.{chapter}")


def names(chapter: str | None = None) -> list[str]:
    """Every figure as chapter/name, in the order of the argument."""
    chapters = CHAPTERS if chapter is None else (chapter,)
    return [f"{c}/{name}" for c in chapters for name in chapter_module(c).FIGURES]


def chosen(wanted: tuple[str, ...]) -> list[str]:
    """The figures that are asked for, by figure or by chapter; all of them where none is."""
    found: list[str] = []
    for name in wanted or CHAPTERS:
        if name in CHAPTERS:
            found += names(name)
        elif name in names():
            found.append(name)
        else:
            raise UserError(f"unknown figure or chapter {name!r}; there are {', '.join([*CHAPTERS, *names()])}")
    return list(dict.fromkeys(found))


def load(name: str) -> ModuleType:
    """The module of a figure."""
    return importlib.import_module(f"experiments.{name.replace('/', '.')}")


def title(module: ModuleType) -> str:
    """The first line of the docstring of a figure or a chapter."""
    return (module.__doc__ or "").strip().splitlines()[0]


def arrays_name(name: str) -> str:
    """The figure, or shared run, under whose name the arrays are saved: the module that defines `run`."""
    return str(load(name).run.__module__.removeprefix("experiments.").replace(".", "/"))


def recorded_config(record: dict[str, Any]) -> Any:
    """The config of a record, if its fields are today's and it could have run."""
    kind, saved, known = load(record["name"]).Config, record["config"], as_json(load(record["name"]).Config())
    odd = sorted(set(saved) ^ set(known)) or [key for key in known if not _alike(saved[key], known[key])]
    if odd:
        raise UserError(f"the record of {record['name']} is of another version (field {odd[0]}): run the figure again")
    found = kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()})
    config.check_config(found)
    return found


def _alike(value: Any, known: Any) -> bool:
    """Whether a JSON value has the type of another; an integer may stand for a number."""
    if isinstance(value, list) and isinstance(known, list):
        return all(_alike(entry, known[0]) for entry in value)
    return type(value) is type(known) or (type(value), type(known)) == (int, float)


def command(record: dict[str, Any]) -> str:
    """The command that makes a recorded figure."""
    return config.command(record["name"], recorded_config(record))
