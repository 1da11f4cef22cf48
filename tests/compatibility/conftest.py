"""The examples of every version: each test gets copies of its own."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from stored_examples import Stored, stored_versions


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without runs; making its tables takes seconds."""
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(params=stored_versions())
def stored(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    empty_database: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Stored:
    """The examples of every version, tracked in an empty database."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("SPIKESEG_STUDY", raising=False)
    copy = Stored.copied(request.param, tmp_path / "stored")
    shutil.copy(empty_database, copy.storage / "mlflow.db")
    return copy
