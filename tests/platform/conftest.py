"""What tests of the platform share: a tiny finished training, empty databases, two nodes."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from nodes import Nodes, two_nodes
from trained_run import TrainedRun, train_tiny

from spikeseg.platform.cluster.session import settings
from spikeseg.platform.tracking.tracking_uri import tracking_uri


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


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """A cluster of two nodes with a CPU each, and no tracker that answers."""
    for key, value in settings().items():
        monkeypatch.setenv(key, value)
    support = Path(__file__).resolve().parents[1] / "support"
    path = os.pathsep.join(
        [str(support), str(support / "sweeps"), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    monkeypatch.setenv("PYTHONPATH", path)
    # Nobody listens there: the record waits in the journal, and the work does not.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with two_nodes() as made:
        yield made
