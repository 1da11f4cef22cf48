"""`spikeseg table`: runs side by side, seeds together, for a terminal, a paper or a spreadsheet."""

import sys
from pathlib import Path

import click

from .cli import run
from .options import plain_logging, storage_option


@click.command("table")
@click.argument("words", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--columns", metavar="NAMES", help="Metrics and fields, with commas: T,lr,val/mIoU,energy/mJ."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["md", "csv", "latex"]),
    default="md",
    show_default=True,
    help="What is printed.",
)
@storage_option
def command(words: tuple[str, ...], columns: str | None, form: str, storage: Path) -> None:
    """Print a table of RUN..., or of a sweep's trials; seeds of one experiment are one row.

    Numbers are the mean over seeds and half of its 95 % interval. The best of a column is bold only
    where it beats every other row by more than the spread of seeds.
    """
    from ..platform.runs.run_table import group_runs, make_table
    from ..platform.runs.table_text import WRITERS

    plain_logging()
    names = [name.strip() for name in (columns or "").split(",") if name.strip()]
    groups = group_runs(words, storage)
    print(WRITERS[form](make_table(groups, names)), end="")
    chose = [word for group in groups for word in group.left_out]
    if chose:
        print(
            f"left out: {len(chose)} trainings by which a sweep chose what it repeated "
            f"({', '.join(chose[:3])}{', ...' if len(chose) > 3 else ''}): they say too much good",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run(command)
