"""Whoever is told to leave writes a checkpoint of that very step first."""

import contextlib
import os
import pty
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
from spikeseg.platform.train.faults.preemption import LEAVE_SIGNALS, Notice
from spikeseg.platform.train.step import Stepper


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2], ids=["SIGTERM", "SIGUSR2"])
def test_a_signal_writes_a_checkpoint_of_that_very_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    config = small(data, evaluate_every=5)
    trained(config, tmp_path / "quiet")
    take, notice = Stepper.train_step, Notice()

    def signalled(self: Stepper, step: int, micro_batches: Any) -> Any:
        if step == 2:
            os.kill(os.getpid(), number)
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


LEAVING = """
import os, signal, sys, time
from pathlib import Path
from spikeseg.platform.train.faults.preemption import Notice

# Tests that run in the background of a shell inherit that some are ignored.
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
notice, order = Notice(), Path(sys.argv[1])
with notice.on_signal(order=order):
    print("ready", flush=True)
    while not notice.must_leave():
        time.sleep(0.01)
    for _ in range(3):
        print("a line of the training", flush=True)
    assert order.is_file()
    order.with_name("left").touch()
    if "again" in sys.argv:
        time.sleep(60)
"""


@pytest.mark.parametrize("number", LEAVE_SIGNALS, ids=lambda number: number.name)
def test_every_notice_makes_the_order_and_a_second_one_ends_the_driver(
    tmp_path: Path, number: signal.Signals
) -> None:
    # The second is of another kind: what is meant is the same.
    second = signal.SIGTERM if number == signal.SIGUSR2 else signal.SIGUSR2
    child = subprocess.Popen(
        [sys.executable, "-c", LEAVING, str(tmp_path / "leave"), "again"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stderr is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(number)
    assert child.stdout.readline() == "a line of the training\n"
    assert f"{number.name}: ends after this step with its checkpoint" in child.stderr.readline()
    child.send_signal(second)
    assert child.wait(50) == -second
    assert (tmp_path / "leave").is_file()


def test_a_terminal_that_closes_is_one_notice_and_printing_goes_on(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", LEAVING, str(tmp_path / "leave")])
    assert b"ready" in os.read(terminal, 100)
    os.close(terminal)
    # A shell passes the hangup on to its jobs a second time.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGHUP)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (tmp_path / "left").is_file()


def test_what_the_process_ignores_stays_ignored(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from spikeseg.platform.train.faults.preemption import Notice\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "notice = Notice()\n"
        "with notice.on_signal():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    assert not notice.must_leave()\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    assert notice.must_leave()\n"
        "assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN\n"
        "assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)


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
