"""`spikeseg runs`: list the runs of a storage folder, and remove some."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..platform.config.command_lines import command_line
from .cli import NearestGroup, run
from .options import plain_logging, storage_option

if TYPE_CHECKING:
    from ..platform.runs.list_runs import RunSummary

_COLUMNS = (
    *("run", "recipe", "T", "D", "normalization", "val mIoU", "test mIoU", "energy mJ"),
    *("state", "started"),
)


@click.group("runs", cls=NearestGroup, invoke_without_command=True)
@click.option("--sweep", metavar="SWEEP", help="List the trials of this sweep.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every metric.")
@storage_option
@click.pass_context
def command(context: click.Context, sweep: str | None, as_json: bool, storage: Path) -> None:
    """List runs and sweeps, the one that was started last at the end.

    The first column is the word that other commands take. Of a sweep, neuron and scores are those
    of its best trial, SWEEP/best; of a sweep with several seeds the best configuration's means.
    """
    if context.invoked_subcommand is not None:
        return
    from ..platform.config.stored_json import to_json
    from ..platform.runs.list_runs import list_runs
    from ..platform.tracking.pages.page_links import find_neighbours

    plain_logging()
    runs = list_runs(storage, sweep=sweep)
    if as_json:
        print(to_json([dataclasses.asdict(item) for item in runs]))
    elif not runs:
        where = storage.absolute()
        print(f"no runs in {where}" if where.is_dir() else f"no runs: there is no folder {where}")
        for folder in find_neighbours(storage):
            print(f"runs may be in: {command_line('runs', '--storage', folder)}")
    else:
        _print_table([_row(item) for item in runs])


@command.command("remove")
@click.argument("words", nargs=-1, required=True, metavar="RUN...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@storage_option
def remove(words: tuple[str, ...], yes: bool, storage: Path) -> None:
    """Delete the folders of RUN... (runs or whole sweeps), after saying what that frees.

    What a process is at work on, a sweep without an end, and what such a sweep reads are never
    removed. The record in MLflow stays.
    """
    from ..platform.runs.remove_runs import plan_removal, remove_run

    plain_logging()
    removals = plan_removal(words, storage)
    for item in removals:
        warning = f"; {item.warning}" if item.warning else ""
        print(f"{item.run.word}: {item.frees / 1e6:.1f} MB in {item.run.folder}{warning}")
    if not yes:
        click.confirm(f"delete {len(removals)} folder(s)?", abort=True)
    for item in removals:
        remove_run(item)
    print(f"freed {sum(item.frees for item in removals) / 1e6:.1f} MB")


def _row(item: "RunSummary") -> tuple[str, ...]:
    def score(name: str, digits: int) -> str:
        value = item.metrics.get(name)
        return "-" if value is None else f"{value:.{digits}f}"

    # Another column would be wider than what it says; a number of another rule must not stand bare.
    energy = score("energy/mJ", 4)
    if energy == "-" and "energy/mJ.earlier" in item.metrics:
        energy = f"{score('energy/mJ.earlier', 4)} (earlier rule)"
    neuron = ("-" if value is None else str(value) for value in (item.T, item.D))
    return (
        *(item.word, item.recipe or "-", *neuron, item.normalization or "-"),
        *(score("val/mIoU", 2), score("test/mIoU", 2), energy),
        *(item.state, item.started[:19].replace("T", " ")),
    )


def _fit_columns(rows: list[tuple[str, ...]], width: int) -> list[int]:
    """Columns that a terminal has room for; what says least leaves first."""
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    shown = list(range(len(_COLUMNS)))
    for name in ("recipe", "started", "test mIoU", "normalization", "state"):
        if sum(widths[index] + 2 for index in shown) <= width:
            break
        shown.remove(_COLUMNS.index(name))
    return shown


def _print_table(rows: list[tuple[str, ...]]) -> None:
    """A table on a terminal; elsewhere plain columns, which other programs can cut."""
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table

        console = Console()
        shown = _fit_columns(rows, console.width)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for index in shown:
            table.add_column(_COLUMNS[index], no_wrap=True)
        for row in rows:
            table.add_row(*(row[index] for index in shown))
        console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    for row in (_COLUMNS, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


if __name__ == "__main__":
    run(command)
