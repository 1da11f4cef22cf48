"""Toy trials on a real Ray Tune: kills of driver and trials at random points, and then --resume."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from toy_sweep import check_sweep, listed, toy_plan
from toy_trials import DIES, DIES_ONCE, NAN, RAISES

from spikeseg.platform.search.sweep_file.plan import SweepPlan
from spikeseg.platform.search.trials.ray_tune import death_reason

SUPPORT = Path(__file__).resolve().parents[3] / "support" / "sweeps"


class Driver:
    """A sweep of toys in a process of its own, two trials at once on one CPU.

    Args:
        folder: Folder of the sweep.
        seconds: What each step of a trial takes.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        path = os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, str(SUPPORT / "toy_driver.py"), str(folder), "2"],
            env={**os.environ, "PYTHONPATH": path, "TOY_SECONDS": str(seconds)},
            stdout=subprocess.DEVNULL,
            stderr=(folder / "driver.log").open("a"),
        )

    @property
    def told(self) -> int:
        """Reports that drivers of this sweep have taken in so far."""
        log = self.folder / "told.log"
        return len(log.read_text().splitlines()) if log.is_file() else 0

    def wait_for(self, reports: int) -> bool:
        """Wait until so many more reports came in; False where the driver ended before."""
        wanted = self.told + reports
        while self.told < wanted:
            if self.process.poll() is not None:
                return False
            time.sleep(0.02)
        return True

    def kill(self) -> None:
        """SIGKILL the driver."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def kill_a_trial(self) -> None:
        """SIGKILL the process that claimed a trial's folder last."""
        claims = [_newest(f / "attempts") for f in self.folder.glob("trials/*")]
        held = [json.loads(path.read_text()) for path in claims if path is not None]
        pid = max(held, key=lambda claim: claim["time"])["pid"] if held else 0
        title = Path(f"/proc/{pid}/cmdline")
        # The process may be gone already; its number must not hit another one.
        if title.is_file() and b"ray::" in title.read_bytes():
            os.kill(pid, signal.SIGKILL)

    def finish(self) -> None:
        """Wait for the end of the sweep."""
        code = self.process.wait(timeout=500)
        assert code == 0, (self.folder / "driver.log").read_text()[-3000:]


def _newest(attempts: Path) -> Path | None:
    return max(attempts.iterdir(), default=None) if attempts.is_dir() else None


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path


def ended(plan: SweepPlan, folder: Path) -> Counter[str]:
    study = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder / 'study.db'}")
    return check_sweep(plan, folder, study)


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_on_tune_survives_failures_deaths_and_a_killed_driver(folder: Path) -> None:
    changes = listed(4, NAN, RAISES, DIES_ONCE, 8, 2, resources={"cpu": 0.5})
    plan = toy_plan(folder, **changes)
    first = Driver(folder, seconds=0.2)
    assert first.wait_for(random.Random(time.time_ns()).randrange(2, 12))
    first.kill()
    Driver(folder, seconds=0.0).finish()
    assert ended(plan, folder) == {"COMPLETE": 4, "FAIL": 2}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("objectives", [1, 2])
def test_a_sweep_survives_ten_kills_at_random_points(folder: Path, objectives: int) -> None:
    rules = {1: "halving", 2: "non_dominated"}
    wanted = ["val/mIoU", "energy/mJ"][:objectives]
    ways = {"val/mIoU": "maximize", "energy/mJ": "minimize"}
    plan = toy_plan(
        folder,
        steps=8,
        trials=30,
        objectives=[{"metric": name, "direction": ways[name]} for name in wanted],
        pruner={"rule": rules[objectives]},
        resources={"cpu": 0.5},
        max_failures=30,
    )
    chance = random.Random(objectives)
    driver, kills = Driver(folder, seconds=0.3), 0
    while kills < 10:
        if not driver.wait_for(chance.randrange(1, 8)):
            break
        time.sleep(chance.random() * 0.3)
        if kills % 2:
            driver.kill_a_trial()
        else:
            driver.kill()
            driver = Driver(folder, seconds=0.3)
        kills += 1
    driver.finish()
    assert kills == 10
    states = ended(plan, folder)
    assert states["FAIL"] == 0
    assert states["COMPLETE"] >= 1


@pytest.mark.ray
@pytest.mark.slow
def test_a_process_that_always_dies_fails_with_the_number_of_its_deaths(folder: Path) -> None:
    plan = toy_plan(folder, **listed(4, DIES, max_failures=1, resources={"cpu": 0.5}))
    Driver(folder, seconds=0.0).finish()
    assert ended(plan, folder) == {"COMPLETE": 1, "FAIL": 1}
    url = f"sqlite:///{folder / 'study.db'}"
    lost = optuna.load_study(study_name=folder.name, storage=url).trials[1]
    assert lost.user_attrs["verdict"]["reason"] == "killed: its process died 2 times"


def test_a_lost_process_is_told_by_its_cause() -> None:
    guess = "Some common causes include: (1) the process was killed by the OOM killer"
    assert death_reason(guess, 1) == "killed: its process died once"
    killed = death_reason("1 worker(s) were killed due to the node running low on memory.", 4)
    assert killed == "out of memory: its process was killed 4 times"
