"""One tiny finished training that tests of tracking, replay and report look at; empty databases."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from trained_run import TrainedRun, train_tiny

from spikeseg.platform.address import tracking_uri


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Four steps on generated shapes, in this process, tracked in sqlite."""
    return train_tiny(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without runs; making its tables takes seconds."""
    storage = tmp_path_factory.mktemp("empty")
    MlflowClient(tracking_uri(storage)).search_experiments()
    return storage / "mlflow.db"


@pytest.fixture
def storage(tmp_path: Path, empty_database: Path) -> Path:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path
