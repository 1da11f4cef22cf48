"""`spikeseg report`: one offline HTML page over one or more runs."""

from pathlib import Path

import click

from .cli import run
from .options import plain_logging, storage_option


@click.command("report")
@click.argument("words", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    help="File to write.",
)
@storage_option
def command(words: tuple[str, ...], output: Path, storage: Path) -> None:
    """Write curves, pictures, tables and provenance of RUN... into one HTML file.

    A RUN may be a sweep too, whose own record has its counts, its front and its best values.
    """
    from ..platform.runs.find_run import find_mlflow_ids
    from ..platform.runs.html_report import write_report
    from ..platform.tracking.pages.page_links import describe_report_pages

    plain_logging()
    run_ids, storage = find_mlflow_ids(words, storage, kinds=("run", "trial", "sweep"))
    print(f"report: {write_report(run_ids, storage=storage, output=output).absolute()}")
    for line in describe_report_pages(run_ids, storage):
        print(line)


if __name__ == "__main__":
    run(command)
