"""A sweep is steered from another process: points by hand, an order to stop, what it says."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from spikeseg.datasets.packed.files import hold_lock
from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.search import steering
from spikeseg.platform.search.stored_sweep import StoredSweep
from spikeseg.platform.search.study.study import Keeper
from spikeseg.platform.search.study.trial_records import TrialRecord, TrialReport
from spikeseg.platform.search.sweep_file.plan import SweepPlan, load_sweep

T, D = "model.neuron.timesteps", "model.neuron.levels"
METRICS = {"val/mIoU": 20.0, "energy/mJ": 0.1}


@pytest.fixture(scope="module")
def plan() -> SweepPlan:
    return load_sweep("demo", ["sweep.trials=2", "sweep.first=[]"])


def keep(plan: SweepPlan, folder: Path) -> Keeper:
    return Keeper(plan, folder, storage=f"sqlite:///{folder}/study.db", trials=2)


def finish(keeper: Keeper) -> list[dict[str, object]]:
    """Run all trials that are left; returns their points."""
    points = []
    while (proposal := keeper.next()) is not None:
        points.append(proposal.point)
        keeper.report(proposal.number, TrialReport(step=240, metrics=METRICS, final=True))
    return points


def test_a_point_by_hand_is_tried_on_top_of_the_trials(plan: SweepPlan, tmp_path: Path) -> None:
    sweep = StoredSweep(plan, {}, 2, tmp_path)
    count, point = steering.add_point(sweep, ["timesteps=2", "levels=8"])
    assert (count, point) == (1, {T: 2, D: 8})
    keeper = keep(plan, tmp_path)
    keeper.add(steering.read_added(tmp_path))
    points = finish(keeper)
    assert len(points) == 3
    assert {T: 2, D: 8}.items() <= points[0].items()
    again = keep(plan, tmp_path)
    again.add(steering.read_added(tmp_path))
    assert finish(again) == [], "a point that was tried is no trial of the next start"


def test_a_point_that_comes_while_trials_run_is_next(plan: SweepPlan, tmp_path: Path) -> None:
    keeper = keep(plan, tmp_path)
    first = keeper.next()
    assert first is not None
    steering.add_point(StoredSweep(plan, dict(keeper.records), 2, tmp_path), ["timesteps=2"])
    keeper.add(steering.read_added(tmp_path))
    keeper.add(steering.read_added(tmp_path))
    second = keeper.next()
    assert second is not None and second.point[T] == 2
    assert keeper.trials == 3


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        (["timesteps=3"], "command line: model.neuron.timesteps: got 3: must be one of [1, 2]"),
        (
            ["timestep=2"],
            "the sweep does not vary this field, did you mean 'model.neuron.timesteps'?",
        ),
        (["optimizer.lr=1"], "optimizer.lr: the sweep does not vary this field"),
        (["timesteps"], "is not of the form field=value"),
    ],
)
def test_a_point_outside_of_the_space_is_refused(
    plan: SweepPlan, tmp_path: Path, items: list[str], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        steering.add_point(StoredSweep(plan, {}, 2, tmp_path), items)
    assert sentence in str(caught.value)
    assert steering.read_added(tmp_path) == []


def test_a_point_that_was_tried_or_given_is_refused(plan: SweepPlan, tmp_path: Path) -> None:
    point = {T: 2, D: 8, "model.neuron.normalization": "levels", "loss.mask_weight": 20.0}
    records = {0: TrialRecord(0, "COMPLETE", point=point)}
    items = [f"{key}={value}" for key, value in point.items()]
    with pytest.raises(ConfigError, match="trial 0 has this point, it is COMPLETE"):
        steering.add_point(StoredSweep(plan, records, 2, tmp_path), items)
    steering.add_point(StoredSweep(plan, {}, 2, tmp_path), items)
    with pytest.raises(ConfigError, match="was given already"):
        steering.add_point(StoredSweep(plan, {}, 2, tmp_path), items)
    assert json.loads((tmp_path / "steering" / "point-000001.json").read_text()) == point


def test_an_order_to_stop_does_what_a_signal_does(tmp_path: Path) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        with steering.stopped_by_order(tmp_path), hold_lock(tmp_path / "driver.lock"):
            (tmp_path / "driver.lock").write_text(f"host here, process {os.getpid()}\n")
            assert steering.ask_to_stop(tmp_path) == f"host here, process {os.getpid()}"
            until = time.monotonic() + 20
            while not received and time.monotonic() < until:
                time.sleep(0.05)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]


def test_an_old_order_and_a_sweep_without_a_driver_stop_nothing(tmp_path: Path) -> None:
    assert steering.ask_to_stop(tmp_path) is None
    (tmp_path / "steering").mkdir()
    (tmp_path / "steering" / "stop").write_text("stop\n")
    with steering.stopped_by_order(tmp_path):
        assert not (tmp_path / "steering" / "stop").exists()
