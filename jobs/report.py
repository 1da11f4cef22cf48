"""`spikeseg report`: one offline HTML page over one or more runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from .cli import run
from .options import TypedPath, plain_logging, storage_option

_KINDS: Sequence[Literal["run", "trial", "sweep"]] = ("run", "trial", "sweep")


@click.command("report")
@click.argument("words", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--output",
    type=TypedPath(dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    help="File to write.",
)
@storage_option
def command(words: tuple[str, ...], output: Path, storage: Path) -> None:
    """Write verdict, pictures, curves, tables and provenance of RUN... into one HTML file.

    Of a single sweep it shows front, trials, effects of parameters, failures and how to go on.
    """
    from ..platform.runs.find_run import find_mlflow_ids
    from ..platform.runs.html_report import write_report
    from ..platform.tracking.pages.page_links import describe_report_pages, describe_run_page

    plain_logging()
    if len(words) == 1 and not _are_here(words, storage):
        found = _find_sweep(words[0], storage)
        if found is not None:
            from ..platform.search.sweep_results import write_sweep_report

            print(f"report: {write_sweep_report(found, output).absolute()}")
            for line in describe_run_page(found, storage):
                print(line)
            return
    run_ids, storage = find_mlflow_ids(words, storage, kinds=_KINDS)
    named = words if _are_here(words, storage) else ()
    written = write_report(run_ids, storage=storage, output=output, words=named)
    print(f"report: {written.absolute()}")
    for line in describe_report_pages(run_ids, storage):
        print(line)


def _are_here(words: Sequence[str], storage: Path) -> bool:
    """Whether all words name runs or trials with a folder; MLflow may know others."""
    from ..platform.config.errors import ConfigError
    from ..platform.runs.find_run import find_run

    try:
        return all(find_run(word, storage, kinds=_KINDS).kind != "sweep" for word in words)
    except ConfigError:
        return False


def _find_sweep(word: str, storage: Path) -> Path | None:
    """Folder of the sweep that a word names; None where it names no sweep with a folder."""
    from ..platform.config.errors import ConfigError
    from ..platform.runs.find_run import find_run

    try:
        found = find_run(word, storage, kinds=_KINDS)
    except ConfigError:
        return None
    return found.folder if found.kind == "sweep" else None


if __name__ == "__main__":
    run(command)
