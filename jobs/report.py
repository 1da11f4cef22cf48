"""`spikeseg report`: one offline HTML page over one or more runs."""

from pathlib import Path

import click

from .cli import run
from .options import plain_logging, storage_option


@click.command("report")
@click.argument("run_ids", nargs=-1, required=True, metavar="RUN_ID...")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    help="File to write.",
)
@storage_option
def command(run_ids: tuple[str, ...], output: Path, storage: Path) -> None:
    """Write curves, pictures, tables and provenance of the runs RUN_ID... into one HTML file."""
    from ..platform.runs.html_report import write_report

    plain_logging()
    print(f"report: {write_report(run_ids, storage=storage, output=output).absolute()}")


if __name__ == "__main__":
    run(command)
