"""MLflow's client and its address: a database is made once, and no password is said."""

import os
import sqlite3
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
from alembic.runtime.migration import HeadMaintainer
from journals import four_runs_at_once, open_journal
from requests import ReadTimeout

from spikeseg.platform.config.recipes import Resolved, load_experiment
from spikeseg.platform.config.typed_paths import sqlite_address
from spikeseg.platform.tracking import mlflow_client as client
from spikeseg.platform.tracking.tracking_uri import check_uri, tracking_uri, without_user
from spikeseg.platform.tracking.upload import uploader as tracking
from spikeseg.platform.tracking.upload.dead_letters import set_aside
from spikeseg.platform.tracking.upload.upload_offset import unsent
from spikeseg.platform.tracking.upload.upload_thread import Sender
from spikeseg.platform.tracking.upload.uploader import sync
from spikeseg.platform.train.tracked_training import TrackedRun, start_sender

EXPERIMENT = "client"


def _tracked(folder: Path) -> TrackedRun:
    items = ["data.path=d", f"tracking.experiment={EXPERIMENT}"]
    return TrackedRun(Resolved(load_experiment("shapes_tiny", items).config, {}), folder, {})


@pytest.mark.slow
def test_four_runs_at_once_reach_one_database_that_none_of_them_had(tmp_path: Path) -> None:
    four_runs_at_once(tmp_path, tracking_uri(tmp_path), EXPERIMENT, tmp_path)


def test_a_database_that_a_kill_left_half_made_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(tmp_path / "run" / "journal")

    steps = 0
    update = HeadMaintainer.update_to_step

    def killed(self: HeadMaintainer, step: Any) -> None:
        nonlocal steps
        steps += 1
        if steps > 20:
            raise KeyboardInterrupt
        update(self, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(HeadMaintainer, "update_to_step", killed)
        sync(journal.folder, tracking_uri(tmp_path), EXPERIMENT)
    assert sync(journal.folder, tracking_uri(tmp_path), EXPERIMENT)


def test_a_client_that_fails_at_the_start_is_made_again(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(storage / "run" / "journal")
    left = ["once"]

    def connect(uri: str) -> Any:
        if left:
            raise sqlite3.OperationalError(f"{left.pop()} locked")
        return client.connect(uri)

    monkeypatch.setattr(tracking, "connect", connect)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(storage))
    sender = start_sender(journal, _tracked(storage / "run"))
    assert sender is not None
    sender.stop(timeout=60)
    assert not left
    assert unsent(journal.folder) == 0


@pytest.mark.parametrize(
    "uri", ["http://bob:hunter22@127.0.0.1:9", "http://127.0.0.1:9/?token=hunter22"]
)
def test_no_password_of_the_address_is_said(
    tmp_path: Path, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal = open_journal(tmp_path / "run" / "journal")
    with pytest.raises(RuntimeError, match="out of reach") as raised:
        sync(journal.folder, uri, EXPERIMENT)
    sender = Sender(journal.folder, uri, EXPERIMENT, tmp_path / "run")
    sender.start()
    sender.stop(timeout=0.5)
    set_aside(journal.folder, {"path": "a"}, OSError(f"{uri}: Forbidden"))
    said = "".join(traceback.format_exception(raised.value)) + caplog.text
    assert "out of reach" in caplog.text
    assert "track sync" in caplog.text
    assert "hunter22" not in said + (journal.folder / "dead_letters.jsonl").read_text()


@pytest.mark.parametrize("uri", ["file:///tmp/runs", "foo", "htp://x", "/tmp/runs", "http"])
def test_an_address_that_mlflow_cannot_record_to_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI: got"):
        check_uri(uri)


@pytest.mark.parametrize(
    "uri",
    ["http://h:5000", "https://h", "sqlite:///a.db", "postgresql+psycopg2://h/db", "databricks"],
)
def test_addresses_that_mlflow_records_to_are_taken(uri: str) -> None:
    check_uri(uri)


def test_messages_show_no_password() -> None:
    assert without_user("http://bob:hun@ter2@host:5000/x") == "http://host:5000/x"
    assert without_user("sqlite:////runs/mlflow.db") == "sqlite:////runs/mlflow.db"


def test_the_time_for_an_answer_grows_with_late_ones_alone_and_falls_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = ReadTimeout("HTTPConnectionPool(host='h', port=1): Read timed out. (read timeout=5)")
    answers = [late, late, ConnectionError("refused"), None, None, None]
    allowed: list[str] = []

    def send(_: object) -> None:
        journal.metrics(len(allowed), {"train/loss": 1.0})
        allowed.append(os.environ[client.TIMEOUT])
        answer = answers[min(len(allowed), len(answers)) - 1]
        if answer is not None:
            raise answer

    monkeypatch.setenv(client.TIMEOUT, "5")
    monkeypatch.setattr("spikeseg.platform.tracking.upload.upload_thread.Uploader.send", send)
    monkeypatch.setattr("spikeseg.platform.tracking.upload.upload_thread._FIRST_RETRY", 0.01)
    journal = open_journal(tmp_path / "run" / "journal")
    uri = "http://127.0.0.1:9"
    sender = Sender(journal.folder, uri, EXPERIMENT, tmp_path / "run", poll=0.01)
    sender.start()
    while len(allowed) < len(answers):
        time.sleep(0.01)
    sender.stop(timeout=5)
    assert allowed[: len(answers)] == ["5", "10", "20", "20", "10", "5"]


def test_a_database_of_ours_shows_no_empty_experiment(tmp_path: Path) -> None:
    tracker = client.connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert tracker.search_experiments() == []
    tracker.create_experiment("shapes")
    assert [experiment.name for experiment in tracker.search_experiments()] == ["shapes"]


def test_folders_of_databases_are_made_decoded_and_those_of_other_programs_as_before(
    tmp_path: Path,
) -> None:
    from mlflow.store.db import utils

    client.connect(sqlite_address(tmp_path / "storage?" / "mlflow.db"))
    utils._make_parent_dirs_if_sqlite(f"sqlite:///{tmp_path}/plain/other.db")
    utils._make_parent_dirs_if_sqlite(sqlite_address(tmp_path / "a?b" / "other.db"))
    assert {path.name for path in tmp_path.iterdir()} == {"storage?", "plain", "a?b"}
