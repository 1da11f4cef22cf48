"""`spikeseg track`: bring a run's journal to MLflow by hand."""

import os
from pathlib import Path

import click

from .cli import NearestGroup, run
from .options import run_argument, storage_option


@click.group("track", cls=NearestGroup)
def command() -> None:
    """Look after the records of runs."""


@command.command("sync")
@run_argument
@click.option("--experiment", help="MLflow experiment; the run's own if not given.")
@storage_option
def sync(word: str, experiment: str | None, storage: Path) -> None:
    """Send what the journal of RUN (a run, a trial or a whole sweep) holds and MLflow lacks.

    Sending twice changes nothing. Exit code 1 where a journal could not be sent, or records had to
    be set aside or are damaged.
    """
    # By hand there is time: a training's own sender gives up on an answer after seconds.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    from ..platform.runs.find_run import find_run
    from ..platform.tracking.upload.send_again import resend

    set_aside = damaged = unsent = 0
    run_folder = find_run(word, storage, kinds=("run", "trial", "sweep")).folder
    for sent in resend(run_folder, experiment):
        if sent.fault:
            print(f"{sent.folder}: NOT SENT: {sent.fault}")
            unsent += 1
            continue
        print(f"{sent.folder}: sent to {sent.address} as run {sent.run_id}")
        set_aside += sent.set_aside
        damaged += sent.damaged
    faults = []
    if unsent:
        faults.append(f"{unsent} journals could not be sent, each is named above")
    if set_aside:
        faults.append(
            f"{set_aside} records were not taken or their files are gone; see dead_letters.jsonl "
            "in the journals"
        )
    if damaged:
        faults.append(f"{damaged} lines of the journals are damaged and were not sent")
    if faults:
        raise RuntimeError("; ".join(faults))


if __name__ == "__main__":
    run(command)
