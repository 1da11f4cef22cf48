"""A run's state is read from its folder: at work, ended, or interrupted without a word."""

import fcntl
import json
import os
import socket
import time
from pathlib import Path

import pytest
from run_folders import end, grow_old, make_run, make_sweep, result_row, start
from trained_run import TrainedRun

from spikeseg.platform.runs.find_run import FoundRun, find_run
from spikeseg.platform.runs.run_state import is_live, run_state
from spikeseg.platform.tracking.journal import Status

HERE = socket.gethostname()


def test_a_finished_training_is_not_live(trained: TrainedRun) -> None:
    grow_old(trained.folder)
    run = find_run("tiny", trained.storage)
    assert (run_state(run), is_live(run)) == ("finished", False)


@pytest.mark.parametrize(
    ("status", "state"),
    [("FAILED", "failed"), ("KILLED", "stopped"), (None, "interrupted")],
)
def test_a_run_without_a_process_is_as_its_journal_ends(
    tmp_path: Path, status: Status | None, state: str
) -> None:
    run = FoundRun(make_run(tmp_path / "one"), "run")
    end(run.folder, status)
    grow_old(run.folder)
    assert (run_state(run), is_live(run)) == (state, False)


def test_a_run_that_began_again_after_its_end_is_no_longer_ended(tmp_path: Path) -> None:
    run = FoundRun(make_run(tmp_path / "one"), "run")
    end(run.folder, "FAILED")
    end(run.folder, None)
    grow_old(run.folder)
    assert run_state(run) == "interrupted"


def test_a_run_of_a_living_process_is_live_however_long_it_is_silent(tmp_path: Path) -> None:
    run = FoundRun(make_run(tmp_path / "one"), "run")
    start(run.folder, host=HERE, pid=os.getpid(), at=time.time())
    grow_old(run.folder)
    assert (run_state(run), is_live(run)) == ("running", True)


@pytest.mark.parametrize("at", [1.0, time.time()], ids=["number given again", "process gone"])
def test_a_run_whose_process_is_gone_is_not_live(tmp_path: Path, at: float) -> None:
    run = FoundRun(make_run(tmp_path / "one"), "run")
    pid = os.getpid() if at == 1.0 else 2**22 + 1
    start(run.folder, host=HERE, pid=pid, at=at)
    end(run.folder, None)
    assert (run_state(run), is_live(run)) == ("interrupted", False)


def test_a_run_of_another_machine_is_live_while_its_journal_grows(tmp_path: Path) -> None:
    run = FoundRun(make_run(tmp_path / "one"), "run")
    end(run.folder, None)
    assert (run_state(run), is_live(run)) == ("running", True)
    grow_old(run.folder)
    assert (run_state(run), is_live(run)) == ("interrupted", False)


def test_a_run_that_no_worker_claimed_is_new(tmp_path: Path) -> None:
    run = FoundRun(make_run(tmp_path / "one"), "run")
    for path in (run.folder / "attempts").iterdir():
        path.unlink()
    grow_old(run.folder)
    assert run_state(run) == "new"


def test_a_process_that_just_ended_its_run_may_still_send_it(tmp_path: Path) -> None:
    run = FoundRun(make_run(tmp_path / "one"), "run")
    start(run.folder, host=HERE, pid=os.getpid(), at=time.time())
    (run.folder / "result.json").write_text(json.dumps({"metrics": {}}))
    end(run.folder, "FINISHED")
    assert (run_state(run), is_live(run)) == ("finished", True)
    grow_old(run.folder)
    assert (run_state(run), is_live(run)) == ("finished", False)


def test_trials_end_by_verdict_and_a_sweep_by_its_journal(tmp_path: Path) -> None:
    rows = [result_row(0, 1.0, 1.0), result_row(1, "", "", "PRUNED"), result_row(2, "", "", "FAIL")]
    folder = make_sweep(tmp_path / "sweep-one", rows)
    trials = [FoundRun(folder / "trials" / str(n), "trial") for n in range(3)]
    assert [run_state(trial) for trial in trials] == ["finished", "pruned", "failed"]
    sweep = FoundRun(folder, "sweep")
    assert run_state(sweep) == "interrupted"
    end(folder, "FINISHED")
    assert run_state(sweep) == "finished"


def test_a_sweep_whose_driver_holds_the_lock_is_live(tmp_path: Path) -> None:
    sweep = FoundRun(make_sweep(tmp_path / "sweep-one", [result_row(0, 1.0, 1.0)]), "sweep")
    with (sweep.folder / "driver.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert (run_state(sweep), is_live(sweep)) == ("running", True)
    assert (run_state(sweep), is_live(sweep)) == ("interrupted", False)
