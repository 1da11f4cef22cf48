"""One tiny finished training that tests of tracking, replay and report look at."""

import pytest
from trained_run import TrainedRun, train_tiny


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Four steps on generated shapes, in this process, tracked in sqlite."""
    return train_tiny(tmp_path_factory.mktemp("trained"))
