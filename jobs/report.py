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
    """Write verdict, pictures, curves, tables and provenance of RUN... into one HTML file.

    Of a single sweep it shows front, trials, effects of parameters, failures and how to go on.
    """
    from ..platform.runs.find_run import find_mlflow_ids, find_run
    from ..platform.runs.html_report import write_report
    from ..platform.tracking.page_links import describe_report_pages

    plain_logging()
    if len(words) == 1:
        found = find_run(words[0], storage, kinds=("run", "trial", "sweep"))
        if found.kind == "sweep":
            from ..platform.search.sweep_results import write_sweep_report

            print(f"report: {write_sweep_report(found.folder, output).absolute()}")
            return
    run_ids, storage = find_mlflow_ids(words, storage, kinds=("run", "trial", "sweep"))
    print(f"report: {write_report(run_ids, storage=storage, output=output).absolute()}")
    for line in describe_report_pages(run_ids, storage):
        print(line)


if __name__ == "__main__":
    run(command)
