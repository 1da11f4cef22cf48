"""A signal or an order to a sweep on Ray Tune: every trial keeps its step, the driver goes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_sweep import listed, run_toys, toy_plan
from toy_trials import trained_steps

from spikeseg.platform.search import sweep as tuner
from spikeseg.platform.search import sweep_tracking
from spikeseg.platform.search.sweep import SweepUnfinishedError
from spikeseg.platform.search.trials.leaving import StoppedError, left_by_signals, mark_left
from spikeseg.platform.tracking.journal import read_records

SUPPORT = Path(__file__).resolve().parents[3] / "support"
DRIVER = """
import sys
from pathlib import Path
from toy_sweep import run_toys
from spikeseg.platform.search import sweep
sweep.check_trials = lambda plan: None
data, storage = map(Path, sys.argv[1:])
try:
    run_toys(data, storage, lambda line: print(line, flush=True), name="toy", here=False)
except sweep.SweepUnfinishedError as error:
    print(error, flush=True)
    sys.exit(error.code)
"""


def test_the_block_ends_once_every_trial_has_left(tmp_path: Path) -> None:
    leave, live = tmp_path / "leave-1", {3, 4}
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    try:
        with pytest.raises(StoppedError) as stopped, left_by_signals(leave, lambda: live):
            signal.raise_signal(signal.SIGUSR1)
            assert leave.exists()
            mark_left(leave, 3)
            time.sleep(0.5)
            mark_left(leave, 4)
            time.sleep(30)
            pytest.fail("nobody ended the block")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert stopped.value.number == signal.SIGUSR1
    assert not list(tmp_path.iterdir()), "orders and marks are removed"


def test_a_block_that_ends_by_itself_after_the_signal_says_so_too(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with (
            pytest.raises(StoppedError) as stopped,
            left_by_signals(tmp_path / "leave", lambda: {0}),
        ):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert stopped.value.number == signal.SIGHUP


@pytest.mark.parametrize(
    "name",
    ["SIGHUP", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGUSR1", "SIGUSR2"))],
)
def test_every_notice_to_leave_ends_a_sweep_as_sigterm_does(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def kill(line: str) -> None:
        if line.startswith("trial"):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(tuner, "check_trials", lambda plan: None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(sweep_tracking, "_LEAVE_SECONDS", 0.1)
    monkeypatch.setattr(sweep_tracking, "_STOP_SECONDS", 0.1)
    number = signal.Signals[name]
    toy_plan(tmp_path, **listed(4, 2))
    outside = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SweepUnfinishedError) as caught:
            run_toys(data, tmp_path, kill, name="toy")
    finally:
        signal.signal(number, outside)
    assert (caught.value.name, caught.value.code) == ("toy", 128 + number)
    # The trial ended its step and was told so to MLflow; it goes on, and does no step twice.
    records = list(read_records(tmp_path / "toy" / "trials" / "0" / "journal"))
    assert records[-1]["kind"] == "status"
    assert records[-1]["status"] == "KILLED"
    assert not list((tmp_path / "toy").glob("leave-*"))
    assert run_toys(data, tmp_path, resume="toy").counts == {"COMPLETE": 2}
    steps = trained_steps(tmp_path / "toy" / "trials" / "0")
    assert len(steps) == len(set(steps))


def _listen_to_signals() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def command(storage: Path, *words: str) -> str:
    """What `spikeseg sweep` prints in another process, as in a second terminal."""
    line = [sys.executable, "-m", "spikeseg.jobs.cli", "sweep", *words, "--storage", str(storage)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "stop"])
def test_trials_on_tune_keep_their_step_and_go_on(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(tuner, "check_trials", lambda plan: None)
    toy_plan(tmp_path, steps=20, **listed(4, 2))
    paths = [str(SUPPORT), str(SUPPORT / "sweeps"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        # Two commands of a second terminal come while the first trial runs.
        "TOY_SECONDS": "5" if name == "stop" else "0.5",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    }
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(data), str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # Whoever starts the tests in the background, or by nohup, has left them ignored.
        preexec_fn=_listen_to_signals,
    ) as driver:
        assert driver.stdout is not None
        for line in driver.stdout:
            if line.startswith("trial"):
                break
        if name == "stop":
            status = command(tmp_path, "status", "toy")
            assert f"process {driver.pid}" in status and "running: trial 0" in status
            assert "asked its driver to stop" in command(tmp_path, "stop", "toy")
        else:
            driver.send_signal(signal.Signals[name])
        rest = driver.stdout.read()
        code = driver.wait(120)
    # An order does what SIGTERM does.
    sent = signal.Signals["SIGTERM" if name == "stop" else name]
    assert code == 128 + sent
    assert f"toy: stopped by {sent.name}, 0 of 2 trials have ended" in rest
    if name == "stop":
        assert "driver: none; continue: spikeseg sweep" in command(tmp_path, "status", "toy")
    sweep = tmp_path / "toy"
    begun = [folder for folder in (sweep / "trials").iterdir() if (folder / "toy.json").is_file()]
    assert begun
    for folder in begun:
        last = list(read_records(folder / "journal"))[-1]
        assert (last["kind"], last["status"]) == ("status", "KILLED")
    assert not list(sweep.glob("leave-*"))
    kept = {f.name: len(json.loads((f / "toy.json").read_text())) for f in begun}
    assert run_toys(data, tmp_path, resume="toy").counts == {"COMPLETE": 2}
    # What was kept was not done again.
    for number, steps in kept.items():
        ledger = (sweep / "trials" / number / "ledger").read_text().split()
        assert steps > 0 and len(ledger) == len(set(ledger)) == 20


@pytest.mark.ray
@pytest.mark.slow
def test_a_point_by_hand_is_tried_by_a_sweep_that_runs_on_tune(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuner, "check_trials", lambda plan: None)
    toy_plan(tmp_path, steps=8, **listed(4))
    paths = [str(SUPPORT), str(SUPPORT / "sweeps"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TOY_SECONDS": "5",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    }
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(data), str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as driver:
        assert driver.stdout is not None
        for line in driver.stdout:
            if line.startswith("trial"):
                break
        # The only trial of the sweep runs: none would follow.
        added = command(tmp_path, "add", "toy", "levels=2", "timesteps=2", "mask_weight=11")
        assert "toy: will try timesteps=2, levels=2, mask_weight=11" in added
        assert "nobody is at work" not in added
        rest = driver.stdout.read()
        assert driver.wait(120) == 0
    assert "trial 1 step 8/8" in rest and "levels=2" in rest
    status = command(tmp_path, "status", "toy")
    assert "2 COMPLETE, of 1 trials and 1 given by hand" in status
