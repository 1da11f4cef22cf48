"""A training's records through MLflow's real server, with outages of every kind on the way."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_proxy import FaultyProxy, Mode
from journals import (
    expected_rows,
    four_runs_at_once,
    metric_rows,
    open_journal,
    run_count,
    write_steps,
)
from mlflow import MlflowClient
from tracking_server import TrackingServer

from spikeseg.platform.tracking.upload.upload_offset import unsent
from spikeseg.platform.tracking.upload.upload_thread import Sender
from spikeseg.platform.tracking.upload.uploader import sync

STEPS = range(12)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    """A server that is not started yet."""
    made = TrackingServer(tmp_path_factory.mktemp("server"))
    yield made
    made.kill()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds for an answer, so that slowness costs a test little."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


def check(storage: Path, run_id: str, steps: range = STEPS) -> None:
    assert metric_rows(storage, run_id) == expected_rows(steps)


@pytest.mark.slow
def test_a_server_that_starts_late_or_dies_in_the_replay_gets_everything_once(
    tmp_path: Path, server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(tmp_path / "run" / "journal", name="late")
    sender = Sender(journal.folder, server.url, "late", journal.folder.parent)
    sender.start()
    for step in STEPS:
        write_steps(journal, range(step, step + 1))
    journal.finish("FINISHED")
    sender.stop(timeout=1)
    assert unsent(journal.folder) > 0

    server.start()
    replay = Sender(journal.folder, server.url, "late", journal.folder.parent)
    replay.start()
    deadline = time.monotonic() + 200
    while not run_count(server.storage) and time.monotonic() < deadline:
        time.sleep(0.02)
    server.kill()
    replay.stop(timeout=1)

    server.start()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    run_id = sync(journal.folder, server.url, "late")
    assert run_count(server.storage) == 1
    check(server.storage, run_id)
    images = MlflowClient(server.url).list_artifacts(run_id, "images")
    assert len(images) == 2 * len([step for step in STEPS if step % 5 == 0])


@pytest.mark.parametrize(
    "mode",
    ["error", "cut", *(pytest.param(m, marks=pytest.mark.slow) for m in ("refuse", "slow"))],
)
def test_a_broken_connection_loses_and_doubles_nothing(
    tmp_path: Path, server: TrackingServer, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not server.running:
        server.start()
    before = run_count(server.storage)
    # An answer comes in two parts: at 5 s together the server closes the connection meanwhile.
    proxy = FaultyProxy(server.port, delay=2.2)
    journal = open_journal(tmp_path / "run" / "journal", name=mode)
    sender = Sender(journal.folder, proxy.url, mode, journal.folder.parent)
    proxy.mode = mode
    sender.start()
    # Every answer of a slow server costs seconds, so that few records do.
    steps = range(4) if mode == "slow" else STEPS
    write_steps(journal, steps)
    deadline = time.monotonic() + 60
    while not proxy.broken and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(3)
    # A slow server stays slow: everything must arrive all the same.
    if mode != "slow":
        proxy.mode = "through"
    journal.finish("FINISHED")
    sender.stop(timeout=400)
    proxy.close()
    assert proxy.broken
    assert unsent(journal.folder) == 0
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name(mode)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run_count(server.storage) == before + 1
    assert run.info.status == "FINISHED"
    check(server.storage, run.info.run_id, steps)
    images = client.list_artifacts(run.info.run_id, "images")
    assert len(images) == 2 * len([step for step in steps if step % 5 == 0])


@pytest.mark.slow
def test_four_runs_at_once_reach_one_server(
    tmp_path: Path, server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not server.running:
        server.start()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    four_runs_at_once(tmp_path, server.url, "four", server.storage)


def test_an_answer_that_is_cut_off_makes_no_second_run(
    tmp_path: Path, server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A client that repeats its requests by itself, as MLflow's does when left alone.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    if not server.running:
        server.start()
    before = run_count(server.storage)
    proxy = FaultyProxy(server.port, delay=2.5)
    journal = open_journal(tmp_path / "run" / "journal", name="cut-create")
    proxy.mode = "cut"
    with pytest.raises(RuntimeError, match="out of reach"):
        for _ in range(20):
            sync(journal.folder, proxy.url, "cut-create")
            journal.metrics(len(list(tmp_path.rglob("*"))), {"train/loss": 1.0})
    proxy.mode = "through"
    sync(journal.folder, proxy.url, "cut-create")
    proxy.close()
    assert run_count(server.storage) == before + 1
