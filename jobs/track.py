"""`spikeseg track`: bring a run's journal to MLflow by hand."""

import os
from pathlib import Path

import click

from .cli import run


@click.group("track")
def command() -> None:
    """Look after the records of runs."""


@command.command("sync")
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.option("--experiment", help="MLflow experiment; the run's own if not given.")
def sync(run_folder: Path, experiment: str | None) -> None:
    """Send what RUN_FOLDER's journal holds and MLflow lacks; sending twice changes nothing."""
    # By hand there is time: a training's own sender gives up on an answer after seconds.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    from ..platform.config import load_resolved
    from ..platform.tracking import sync as send
    from ..platform.tracking import tracking_uri

    journal = run_folder / "journal"
    if not journal.is_dir():
        raise ValueError(f"{run_folder}: no journal there; give the folder of a run")
    if experiment is None:
        text = (run_folder / "config.yaml").read_text()
        experiment = load_resolved(text).config.tracking.experiment
    uri = tracking_uri(run_folder.absolute().parent)
    print(f"{run_folder}: sent to {uri} as run {send(journal, uri, experiment)}")


if __name__ == "__main__":
    run(command)
