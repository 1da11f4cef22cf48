"""A worker that fails for good says so once, and nobody starts its group again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spikeseg.platform.train import ray_workers
from spikeseg.platform.train.failure import NonFiniteError, PreemptedError
from spikeseg.platform.train.ray_workers import PermanentFailure


class OneOfTwo:
    """Stands for a process group of two workers."""

    rank, size = 1, 2


@pytest.fixture
def failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ray_workers, "ProcessGroup", OneOfTwo)
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    return tmp_path / "failure-1.json"


def raising(error: Exception) -> Any:
    def work(message: dict[str, Any], group: Any) -> None:
        raise error

    return work


def describe(error: Exception) -> str:
    return f"said: {error}"


@pytest.mark.parametrize(
    ("error", "again"), [(NonFiniteError("step 3"), False), (PreemptedError("step 3"), True)]
)
def test_an_error_that_would_repeat_is_written_and_not_raised(
    failure: Path, error: Exception, again: bool
) -> None:
    ray_workers._work(raising(error), describe, str(failure), {})
    assert PermanentFailure.read(failure) == PermanentFailure("said: step 3", 1, again)
    assert json.loads(failure.read_text()).keys() == {"error", "rank", "again"}


def test_an_error_that_may_not_repeat_is_left_to_ray(failure: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        ray_workers._work(raising(OSError("No space left")), describe, str(failure), {})
    assert PermanentFailure.read(failure) is None


def test_a_worker_whose_peer_gave_up_ends_without_a_word(failure: Path) -> None:
    def work(message: dict[str, Any], group: Any) -> None:
        PermanentFailure("step 3", 0, False).write(failure)
        raise RuntimeError("Connection closed by peer")

    ray_workers._work(work, describe, str(failure), {})
    assert PermanentFailure.read(failure) == PermanentFailure("step 3", 0, False)


def test_a_group_that_is_started_after_a_permanent_failure_does_nothing(failure: Path) -> None:
    PermanentFailure("step 3", 0, False).write(failure)
    ray_workers._work(raising(RuntimeError("it worked")), describe, str(failure), {})


def test_a_worker_that_waits_for_one_that_gave_up_is_ended(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from spikeseg.platform.train import ray_workers\n"
        "ray_workers._POLL_SECONDS = ray_workers._END_SECONDS = 0.1\n"
        "path = Path(sys.argv[1])\n"
        "with ray_workers._exit_if_others_failed(path):\n"
        "    ray_workers.PermanentFailure('step 3', 0, False).write(path)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "failure.json")], timeout=50)
    assert done.returncode == 1
