"""Whoever is told to leave writes a checkpoint of that very step first."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from recorded_training import files, small, trained
from tiny import pack_shapes

from spikeseg.platform.checkpoint.run_folder import RunFolder
from spikeseg.platform.train.failure import PreemptedError
from spikeseg.platform.train.faults.preemption import Notice
from spikeseg.platform.train.step import Stepper


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


def test_a_signal_writes_a_checkpoint_of_that_very_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(data, evaluate_every=5)
    trained(config, tmp_path / "quiet")
    take, notice = Stepper.train_step, Notice()

    def signalled(self: Stepper, step: int, micro_batches: Any) -> Any:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(self, step, micro_batches)

    with (
        monkeypatch.context() as once,
        notice.on_signal(),
        pytest.raises(PreemptedError, match="asked to leave at step 3"),
    ):
        once.setattr(Stepper, "train_step", signalled)
        trained(config, tmp_path / "run", notice=notice)
    assert not notice.received()
    lines = trained(config, tmp_path / "run")
    assert "attempt 2 of run: resumed at step 3" in lines
    assert files(tmp_path / "run") == files(tmp_path / "quiet")


def test_a_drivers_order_to_leave_writes_a_checkpoint_and_ends_the_worker(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = tmp_path / "leave"
    watching = Notice()
    watching.watch(lambda: False, order)
    monkeypatch.setattr("spikeseg.platform.train.faults.preemption._LOOK_SECONDS", 0.0)
    take = Stepper.train_step

    def ordered(self: Stepper, step: int, micro_batches: Any) -> Any:
        if step == 2:
            order.touch()
        return take(self, step, micro_batches)

    monkeypatch.setattr(Stepper, "train_step", ordered)
    with pytest.raises(PreemptedError, match="asked to leave at step 3"):
        trained(small(data, evaluate_every=5), tmp_path / "run", notice=watching)
    assert (tmp_path / "run" / "checkpoints" / "step-00000003").is_dir()


def test_a_signal_makes_the_order_and_the_second_one_ends_the_driver(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from spikeseg.platform.train.faults.preemption import Notice\n"
        "notice = Notice()\n"
        "with notice.on_signal(order=Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    assert notice.must_leave()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    order = tmp_path / "leave"
    done = subprocess.run([sys.executable, "-c", code, str(order)], timeout=50)
    assert done.returncode == -signal.SIGTERM
    assert order.is_file()


@pytest.mark.parametrize(("at", "every"), [(3, 2), (4, 5), (1, 1)])
def test_a_signal_just_before_an_evaluation_does_not_lose_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, every: int
) -> None:
    config = small(data, evaluate_every=every)
    take, notice = Stepper.train_step, Notice()

    def signalled(self: Stepper, step: int, micro_batches: Any) -> Any:
        if step == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(self, step, micro_batches)

    with monkeypatch.context() as once, notice.on_signal(), pytest.raises(PreemptedError):
        once.setattr(Stepper, "train_step", signalled)
        trained(config, tmp_path / "run", notice=notice)
    trained(config, tmp_path / "run")
    newest = RunFolder(tmp_path / "run").newest()
    assert newest is not None
    steps = [past["step"] for past in newest.state["history"]]
    assert steps == [*range(every, 5, every), 5]


def test_a_draining_node_gets_one_checkpoint_and_training_goes_on(
    data: Path, tmp_path: Path
) -> None:
    drained = Notice()
    drained.watch(lambda: True, tmp_path / "no order")
    lines = trained(small(data, evaluate_every=5), tmp_path / "run", notice=drained)
    assert sum("asked to leave" in line for line in lines) == 1
    assert (tmp_path / "run" / "checkpoints" / "step-00000001").is_dir()
    assert (tmp_path / "run" / "checkpoints" / "step-00000005").is_dir()
