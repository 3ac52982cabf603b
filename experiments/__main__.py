"""Run experiments: `python -m experiments [NAME ...] [--quick] [--replot] [--out DIR] [--list] [--readme]`."""

import contextlib
import dataclasses
import io
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import jax
import matplotlib
import tyro
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments import _harness as harness

matplotlib.use("Agg")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Regenerate the figures. With one NAME, its Config fields are options too: `NAME --help` lists them."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Experiments to run; all of them if none is named."""
    quick: bool = False
    """Small settings, seconds instead of minutes; writes to figures/quick unless --out says otherwise."""
    replot: bool = False
    """Draw again from saved results, without running anything."""
    out: Path | None = None
    """Folder to write to; figures/ by default."""
    list: bool = False
    """Name the experiments, and do nothing else."""
    readme: bool = False
    """Put the table of figures/ into the README, and do nothing else."""


def parse(parser: Any, args: list[str], **options: Any) -> Any:
    """tyro.cli, with its errors in one line."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(
                parser, args=args, prog="python -m experiments", config=(tyro.conf.FlagCreatePairsOff,), **options
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        words = " ".join(re.sub(r"\x1b\[[0-9;]*m|[─│╭╮╰╯]", " ", box.getvalue()).split())
        words = words.partition("Full helptext")[0].partition("For full helptext")[0]
        raise harness.UserError(re.sub(r"^\W*Parsing error\W*", "", words).strip()) from None


def config_from(name: str, options: list[str], default: Any) -> Any:
    """The experiment's config, changed by the options on the command line."""
    fields = [field.name for field in dataclasses.fields(default)]
    for option in options:
        field = option.partition("=")[0].removeprefix("--").replace("-", "_")
        if option.startswith("--") and field not in [*fields, "help"]:
            raise harness.UserError(f"unknown field {field!r} of {name}; its fields are {', '.join(fields)}")
    return parse(type(default), options, default=default)


def main(args: list[str]) -> int:
    """Run the command line. Returns the exit code."""
    console = Console(stderr=True)
    try:
        wants_help = len(args) > 1 and not args[0].startswith("-") and {"-h", "--help"} & set(args)
        known = [arg for arg in args if not (wants_help and arg in ("-h", "--help"))]
        arguments, options = parse(Arguments, known, return_unknown_args=True)
        if options and len(arguments.names) != 1:
            raise harness.UserError(
                f"unknown option {options[0]}; Config fields need exactly one experiment before them"
            )
        if arguments.list:
            print_list()
            return 0
        if arguments.readme:
            changed = harness.update_readme()
            console.print("README table", "updated" if changed else "was current")
            return 0
        todo = harness.plan(arguments.names, arguments.quick)
        if options or wants_help:
            ((name, default),) = todo
            todo = [(name, config_from(name, options + ["--help"] * bool(wants_help), default))]
        for _, config in todo:
            harness.check_config(config)
        if arguments.replot and options:
            raise harness.UserError(f"--replot draws saved results and takes no Config field, got {options[0]}")
        out = harness.open_folder(arguments.out or harness.FIGURES / ("quick" if arguments.quick else ""))
        work(todo, out, arguments.replot, console)
    except harness.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def work(todo: list[tuple[str, Any]], out: Path, replot: bool, console: Console) -> None:
    """Run or redraw each experiment, with a line a figure."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for name, config in todo:
            task = progress.add_task(name, total=1)
            record = harness.replot(name, out) if replot else harness.execute(name, config, out)
            good = sum(claim["holds"] and claim["control_fails"] for claim in record["claims"])
            progress.update(task, completed=1, visible=False)
            seconds = "drawn again" if replot else f"{record['seconds']} s"
            progress.console.print(f"{name}: {good} of {len(record['claims'])} claims hold, {seconds}")
            for claim in record["claims"]:
                if not (claim["holds"] and claim["control_fails"]):
                    progress.console.print(
                        f"  {name}/{claim['id']}: measured {harness.number(claim['measured'])}, "
                        f"expected {claim['expected']}, control {claim['control_measured']:.4g}"
                    )
    console.print(f"gallery: {out / 'index.html'}", soft_wrap=True)


def print_list() -> None:
    """Every experiment with its caption."""
    table = Table("name", "what it shows", box=None)
    for name in harness.names():
        table.add_row(name, harness.caption(harness.load_experiment(name)))
    Console().print(table)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jax.config.update("jax_num_cpu_devices", allowed)  # sweeps train on every core at once
    sys.exit(main(sys.argv[1:]))
