"""One thread sends a run's journal, or a sweep's and those of its trials as they come."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from journals import expected_rows, metric_rows, open_journal, run_count, write_steps
from mlflow import MlflowClient

from spikeseg.platform.tracking.tracking_uri import tracking_uri
from spikeseg.platform.tracking.upload.upload_thread import Sender

EXPERIMENT = "sweeps"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_trials_that_come_later_are_sent_and_a_deleted_one_is_no_obstacle(
    storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = storage / "sweep"
    journals = {"sweep": open_journal(sweep / "journal", name="sweep")}
    sender = Sender(
        sweep / "journal", tracking_uri(storage), EXPERIMENT, sweep, poll=0.02, delay=3600
    )
    sender.start()
    sender.begin()
    client = MlflowClient(tracking_uri(storage))
    for number in ("0", "1"):
        journals[number] = open_journal(sweep / "trials" / number / "journal", name=number)
        write_steps(journals[number], range(2))
        wait_for(lambda: run_count(storage) == len(journals))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    wait_for(lambda: len(client.search_runs([experiment.experiment_id])) == 3)
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    client.delete_run(runs["0"].info.run_id)
    for number in ("0", "1"):
        write_steps(journals[number], range(2, 4))
        journals[number].finish("KILLED")
    wait_for(lambda: "was deleted in MLflow" in caplog.text)
    journals["sweep"].finish("FINISHED")
    sender.stop(timeout=60)
    assert metric_rows(storage, runs["1"].info.run_id) == expected_rows(range(4))
    ends = {
        run.info.run_name: run.info.status for run in client.search_runs([experiment.experiment_id])
    }
    assert ends == {"sweep": "FINISHED", "1": "KILLED"}
    assert caplog.text.count("was deleted in MLflow") == 1


def test_a_sweep_that_nobody_took_says_how_to_send_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = tmp_path / "sweep"
    for folder in (sweep, sweep / "trials" / "0"):
        open_journal(folder / "journal").close()
    sender = Sender(sweep / "journal", "http://127.0.0.1:9", EXPERIMENT, sweep, delay=3600)
    sender.start()
    sender.stop(timeout=0.5)
    assert caplog.text.count("MLflow is out of reach, will retry") == 1
    assert f"send the rest with: spikeseg track sync {sweep}" in caplog.text
