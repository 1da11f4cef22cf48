"""Artifacts reach a local store whose file system sets no modes; any other refusal is told."""

import errno
import os
from pathlib import Path

import pytest
from journals import open_journal
from mlflow import MlflowClient

from spikeseg.platform.tracking.run_reader import read_run
from spikeseg.platform.tracking.tracking_uri import tracking_uri
from spikeseg.platform.tracking.upload.uploader import sync


def refuse_modes(monkeypatch: pytest.MonkeyPatch, root: Path, number: int) -> None:
    """Below a folder, chmod fails with a number of the system's."""
    chmod = os.chmod

    def refuse(path: str | int, mode: int, **options: object) -> None:
        if str(path).startswith(str(root)):
            raise OSError(number, os.strerror(number), str(path))
        chmod(path, mode, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(os, "chmod", refuse)


def test_a_store_without_modes_takes_files_at_any_depth(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_modes(monkeypatch, storage / "artifacts", errno.EPERM)
    journal = open_journal(storage / "run" / "journal")
    journal.text("notes.txt", "kept")
    journal.text("deep/er/notes.txt", "also")
    journal.finish("FINISHED")
    run_id = sync(journal.folder, tracking_uri(storage), "modes")
    run = read_run(tracking_uri(storage), run_id)
    assert run.read("notes.txt") == b"kept" and run.read("deep/er/notes.txt") == b"also"
    assert MlflowClient(tracking_uri(storage)).get_run(run_id).info.status == "FINISHED"
    assert not list((storage / "artifacts").rglob(".*"))


def test_a_store_without_the_right_to_write_is_named(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_modes(monkeypatch, storage / "artifacts", errno.EACCES)
    journal = open_journal(storage / "run" / "journal")
    journal.text("notes.txt", "kept")
    journal.finish("FINISHED")
    with pytest.raises((OSError, RuntimeError), match="Permission denied"):
        sync(journal.folder, tracking_uri(storage), "modes")
