"""Run figures: `python -m experiments [CHAPTER | CHAPTER/NAME ...] [--quick] [--replot] [--out DIR] [--list]`."""

import contextlib
import dataclasses
import io
import os
import re
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import tyro
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments.harness import chapters, claims, files, processes, readme, running
from experiments.harness.config import UserError, check_config

matplotlib.use("Agg")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Regenerate figures. With one figure, its Config fields are options too: `razor/em --help` lists them."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Chapters or figures to run; all of them if none is named."""
    quick: bool = False
    """Small settings, seconds instead of minutes."""
    replot: bool = False
    """Draw again from saved results, without running anything."""
    out: Path | None = None
    """Folder to write to; figures/ for the published settings and build/ for others unless given."""
    list: bool = False
    """Name the figures, and do nothing else."""
    readme: bool = False
    """Refresh the README's table and seconds from runs of one clean revision, and do nothing else."""
    check_readme: bool = False
    """Exit with 1, having refreshed it, where the README's table is stale; its seconds stay."""


def parse(parser: Any, args: list[str], **options: Any) -> Any:
    """tyro.cli, with its errors in one line."""
    box = io.StringIO()
    flags = (tyro.conf.FlagCreatePairsOff,)
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(parser, args=args, prog="python -m experiments", config=flags, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        words = " ".join(re.sub(r"\x1b\[[0-9;]*m|[─│╭╮╰╯]", " ", box.getvalue()).split())
        words = words.partition("Full helptext")[0].partition("For full helptext")[0]
        raise UserError(re.sub(r"^\W*Parsing error\W*", "", words).strip()) from None


def config_from(name: str, options: list[str], default: Any) -> Any:
    """The figure's config, changed by the options on the command line."""
    fields = [field.name for field in dataclasses.fields(default)]
    for option in options:
        field = option.partition("=")[0].removeprefix("--").replace("-", "_")
        if option.startswith("--") and field not in [*fields, "help"]:
            raise UserError(f"unknown field {field!r} of {name}; its fields are {', '.join(fields)}")
    return parse(type(default), options, default=default)


def main(args: list[str]) -> int:
    """Run the command line. Returns the exit code.

    It is 1 where a claim that applies does not hold, 2 for a mistake, and 130 after Ctrl-C.
    """
    console = Console(stderr=True)
    try:
        wants_help = len(args) > 1 and not args[0].startswith("-") and {"-h", "--help"} & set(args)
        known = [arg for arg in args if not (wants_help and arg in ("-h", "--help"))]
        arguments, options = parse(Arguments, known, return_unknown_args=True)
        if arguments.list:
            print_list()
            return 0
        if arguments.readme or arguments.check_readme:
            return refresh(arguments, console)
        todo = chapters.chosen(arguments.names)
        if (options or wants_help) and not (len(todo) == 1 and arguments.names == tuple(todo)):
            option = options[0] if options else "--help"
            raise UserError(f"unknown option {option}; Config fields need exactly one figure before them")
        configs = {n: chapters.load(n).Config.quick() if arguments.quick else chapters.load(n).Config() for n in todo}
        if options or wants_help:
            (name,) = todo
            configs[name] = config_from(name, options + ["--help"] * bool(wants_help), configs[name])
        if arguments.replot and options:
            raise UserError(f"--replot draws saved results and takes no Config field, got {options[0]}")
        for config in configs.values():
            check_config(config)
        if arguments.out is not None:
            files.open_folder(arguments.out)
        return work(configs, arguments, console)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: stopped; what had finished is saved", file=sys.stderr)
        return 128 + signal.SIGINT


def work(configs: dict[str, Any], arguments: Arguments, console: Console) -> int:
    """Run or redraw each figure, with a line a figure and one for each claim that applies and does not hold."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    code = 0
    again = (running.replot(name, arguments.out, quick=arguments.quick) for name in configs)
    records = again if arguments.replot else processes.execute_all(configs, arguments.out)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("figures", total=len(configs))
        for record in records:
            progress.advance(task)
            name = record["name"]
            took = "drawn again" if arguments.replot else f"{record['seconds']} s"
            if not arguments.replot and record["reproduced"]:
                took += ", as saved before"
            progress.console.print(f"{name}: {claims.summary(record)}, {took}", soft_wrap=True, highlight=False)
            for claim in claims.fails(record):
                code = 1
                progress.console.print(
                    f"  {name}/{claim['id']}: {claim['verdict']}; measured {claims.number(claim['measured'])}, "
                    f"expected {claim['expected']}, control {claims.number(claim['control_measured'])}",
                    soft_wrap=True,
                    highlight=False,
                )
            folder = running.place(name, configs[name], arguments.out).parent
            running.refresh_gallery(folder, name)
            progress.console.print(f"  in {folder}", soft_wrap=True, highlight=False)
    return code


def refresh(arguments: Arguments, console: Console) -> int:
    """Bring README.md and figures/claims.md up to date."""
    seconds = readme.measured_seconds() if arguments.readme else readme.saved_seconds(chapters.FIGURES)
    changed = readme.update(chapters.FIGURES, readme.README, seconds)
    console.print("README.md and figures/claims.md", "updated" if changed else "were current")
    return int(changed and arguments.check_readme)


def print_list() -> None:
    """Every figure with its caption, by chapter."""
    table = Table("figure", "what it shows", box=None)
    for name in chapters.names():
        table.add_row(name, chapters.title(chapters.load(name)))
    Console().print(table)


if __name__ == "__main__":
    if "--quick" in sys.argv:  # which is compilation for the most part
        hasty = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
        os.environ["XLA_FLAGS"] = f"{hasty} {os.environ.get('XLA_FLAGS', '')}"
    processes.set_up()
    sys.exit(main(sys.argv[1:]))
