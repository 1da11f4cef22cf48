"""A storage that was moved keeps its pictures: MLflow's database holds whole paths."""

import logging
import os
import shutil
from collections import OrderedDict
from pathlib import Path

import pytest
from journals import open_journal

from spikeseg.platform.tracking.mlflow_client import make_database
from spikeseg.platform.tracking.run_reader import read_run
from spikeseg.platform.tracking.tracking_uri import tracking_uri
from spikeseg.platform.tracking.upload.upload_offset import SentOffset
from spikeseg.platform.tracking.upload.uploader import sync

EXPERIMENT = "moved"


def tracked(storage: Path) -> str:
    journal = open_journal(storage / "run" / "journal")
    journal.text("notes.txt", "kept")
    journal.close()
    return sync(journal.folder, tracking_uri(storage), EXPERIMENT)


@pytest.mark.parametrize(
    "name", ["moved", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sp ace", "a%20b"))]
)
def test_artifacts_are_found_beside_the_database(
    storage: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = storage / "before"
    before.mkdir()
    (storage / "mlflow.db").rename(before / "mlflow.db")
    run_id = tracked(before)
    after = storage / name
    before.rename(after)
    with caplog.at_level(logging.WARNING):
        assert read_run(tracking_uri(after), run_id).read("notes.txt") == b"kept"
    assert f"artifacts were in {(before / 'artifacts').as_uri()}, and are found in" in caplog.text
    # MLflow remembers for the life of a process where a run's artifacts are.
    cache = "mlflow.tracking._tracking_service.utils._artifact_repos_cache"
    monkeypatch.setattr(cache, OrderedDict())
    # What comes later lies there too, and nothing is made where it lay.
    journal = open_journal(after / "run" / "journal")
    journal.text("more.txt", "also")
    journal.close()
    sync(journal.folder, tracking_uri(after), EXPERIMENT)
    assert set(read_run(tracking_uri(after), run_id).artifacts) == {"more.txt", "notes.txt"}
    assert not before.exists()


def test_what_was_sent_is_known_where_journal_and_database_were_moved_together(
    storage: Path,
) -> None:
    before, after = storage / "before", storage / "after"
    before.mkdir()
    (storage / "mlflow.db").rename(before / "mlflow.db")
    run_id = tracked(before)
    before.rename(after)
    sent = SentOffset(after / "run" / "journal", tracking_uri(after))
    assert sent.run_id == run_id
    assert sent.offset == (after / "run" / "journal" / "records.jsonl").stat().st_size


def test_a_journal_beside_another_database_is_sent_from_its_beginning(
    storage: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_id = tracked(storage)
    other = tmp_path_factory.mktemp("other")
    make_database(tracking_uri(other))
    shutil.copytree(storage / "run", other / "run")
    assert SentOffset(other / "run" / "journal", tracking_uri(other)).run_id == ""
    (other / "mlflow.db").write_bytes(b"no database")
    assert SentOffset(other / "run" / "journal", tracking_uri(other)).run_id == ""
    assert SentOffset(storage / "run" / "journal", tracking_uri(storage)).run_id == run_id


def test_a_copy_leaves_the_first_storage_alone(storage: Path) -> None:
    run_id = tracked(storage)
    copy = storage / "copy"
    copy.mkdir()
    (copy / "mlflow.db").write_bytes((storage / "mlflow.db").read_bytes())
    (copy / "artifacts").mkdir()
    assert read_run(tracking_uri(copy), run_id).read("notes.txt") == b"kept"
    assert os.listdir(copy / "artifacts") == []
