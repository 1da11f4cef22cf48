"""Journals for tests, and what a tracking database really holds."""

import multiprocessing
import sqlite3
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
from mlflow import MlflowClient

from spikeseg.datasets.encoded_pixels import encode_png
from spikeseg.platform.tracking.journal import Journal
from spikeseg.platform.tracking.upload.upload_thread import Sender


def open_journal(
    folder: Path, *, name: str = "a", mirror: Path | None = None, limit: int = 1 << 30
) -> Journal:
    """A journal with one tag and one parameter."""
    return Journal(
        folder,
        run_name=name,
        tags={"T": "2"},
        params={"model.neuron.timesteps": "2"},
        mirror=mirror,
        limit=limit,
    )


def write_steps(journal: Journal, steps: range) -> None:
    """Two metrics a step, a picture every fifth; a step always has the same values."""
    for step in steps:
        journal.metrics(step, {"train/loss": 1 / (step + 1), "train/lr": 0.1 * step})
        if step % 5 == 0:
            journal.image("val", step, picture(step))


def picture(step: int) -> bytes:
    """A small picture that differs from step to step."""
    return encode_png(np.full((4, 6, 3), step % 256, np.uint8))


def metric_rows(storage: Path, run_id: str) -> list[tuple[str, int, float]]:
    """Every metric row that MLflow's database holds of a run, doubled ones too."""
    with sqlite3.connect(storage / "mlflow.db") as database:
        rows = database.execute(
            "select key, step, value from metrics where run_uuid = ? order by key, step", (run_id,)
        )
        return rows.fetchall()


def expected_rows(steps: range) -> list[tuple[str, int, float]]:
    """What `write_steps` leaves when nothing is lost and nothing doubled."""
    losses = [("train/loss", step, 1 / (step + 1)) for step in steps]
    return losses + [("train/lr", step, 0.1 * step) for step in steps]


def run_count(storage: Path) -> int:
    """Runs in MLflow's database."""
    with sqlite3.connect(storage / "mlflow.db") as database:
        return database.execute("select count(*) from runs").fetchone()[0]


def four_runs_at_once(folder: Path, uri: str, experiment: str, database: Path) -> None:
    """Four processes, each with a run of twenty steps and its sender; all must arrive whole, once.

    Args:
        folder: Takes the journals.
        uri: Where they are sent.
        experiment: Name of the experiment.
        database: Folder of the database behind the address.
    """

    started = multiprocessing.get_context("spawn")
    together = started.Barrier(4)
    processes = [
        started.Process(target=_run, args=(folder / f"run-{number}", uri, experiment, together))
        for number in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    assert sorted(run.info.run_name or "" for run in runs) == [f"run-{n}" for n in range(4)]
    for run_found in runs:
        assert metric_rows(database, run_found.info.run_id) == expected_rows(range(20))
        assert run_found.info.status == "FINISHED"


def _run(folder: Path, uri: str, experiment: str, together: Barrier) -> None:
    journal = open_journal(folder / "journal", name=folder.name)
    sender = Sender(journal.folder, uri, experiment, folder)
    together.wait()
    sender.start()
    for step in range(20):
        write_steps(journal, range(step, step + 1))
    journal.finish("FINISHED")
    sender.stop(timeout=120)
    journal.close()
