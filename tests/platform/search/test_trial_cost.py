"""Where device time went, a sweep's budget, and the cheaper of points of equal promise."""

from pathlib import Path

import pytest
from toy_sweep import listed, toy_plan

from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.search.study.study import Keeper
from spikeseg.platform.search.study.trial_records import TrialRecord, TrialReport
from spikeseg.platform.search.sweep_file.plan import SweepPlan
from spikeseg.platform.search.trial_cost import seconds_left, spent_by_state


def keeper_of(plan: SweepPlan, folder: Path) -> Keeper:
    return Keeper(plan, folder, storage=str(folder / "study.log"), trials=plan.trials)


def run_trial(keeper: Keeper, seconds: float) -> bool:
    """Run one trial to its end; False where none is left."""
    proposal = keeper.next()
    if proposal is None:
        return False
    metrics = {"val/mIoU": 40.0, "energy/mJ": 1.0}
    keeper.report(proposal.number, TrialReport(4, metrics, final=True, seconds=seconds))
    return True


def test_device_seconds_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, resources={"cpu": 2, "gpu": 0})
    records = [
        TrialRecord(0, "COMPLETE", seconds=10.0, held=12.0),
        TrialRecord(1, "PRUNED", seconds=3.0, held=4.0),
        TrialRecord(2, "FAIL", seconds=1.0, held=90.0, attempts=2),
        TrialRecord(3, "RUNNING", seconds=5.0),
    ]
    assert spent_by_state(plan, records) == {
        "finished": 20.0,
        "pruned": 6.0,
        "failed": 2.0,
        "running": 10.0,
        "waiting": 6.0,
        "total": 44.0,
        "trials_with_unknown_waiting": 1,
    }


def test_no_trial_begins_beyond_the_budget_also_after_a_kill(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, budget="35s")
    keeper = keeper_of(plan, tmp_path)
    done = 0
    while done < 2 and run_trial(keeper, 10.0):
        done += 1
    again = keeper_of(plan, tmp_path)
    while run_trial(again, 10.0):
        done += 1
    assert done == 3
    assert again.finished == again.trials == 3


def test_a_budget_counts_devices(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, budget="1.5h", workers_per_trial=2, resources={"cpu": 4, "gpu": 0.5})
    assert plan.recipe.budget_seconds == 5400.0
    assert toy_plan(tmp_path, resources={"cpu": 3}, budget="30m").recipe.budget_seconds == 600.0
    assert "budget" not in toy_plan(tmp_path).recipe.model_dump(mode="json")


@pytest.mark.parametrize("budget", ["2", "h", "2 hours", "-1h", "2x"])
def test_a_budget_without_unit_is_refused(tmp_path: Path, budget: str) -> None:
    rule = f"budget: got '{budget}': must be a number and s, m, h or d, such as 90m"
    with pytest.raises(ConfigError, match=rule):
        toy_plan(tmp_path, budget=budget)


def test_a_budget_that_is_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="budget: got 2"):
        toy_plan(tmp_path, budget=2)


def test_the_time_left_follows_what_queued_points_cost(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, **listed(1, 1 + 1, 4, 8, 16))
    keeper = keeper_of(plan, tmp_path)
    assert seconds_left(plan, keeper) is None
    for seconds in (10.0, 20.0, 40.0):
        run_trial(keeper, seconds)
    left = seconds_left(plan, keeper)
    assert left is not None
    assert left > 2 * 23.3 * 1.5, "D = 8 and 16 take longer than the mean of 1, 2 and 4"


def test_of_several_candidates_the_cheapest_is_tried(tmp_path: Path) -> None:
    spent = {}
    for candidates in (1, 6):
        sampler = {"name": "random", "seed": 3, "startup": 4, "candidates": candidates}
        folder = tmp_path / str(candidates)
        plan = toy_plan(folder, sampler=sampler, trials=24)
        keeper = keeper_of(plan, folder)
        for _ in range(24):
            proposal = keeper.next()
            assert proposal is not None
            seconds = 10.0 * proposal.point["model.neuron.timesteps"]
            metrics = {"val/mIoU": 40.0, "energy/mJ": 1.0}
            keeper.report(proposal.number, TrialReport(4, metrics, final=True, seconds=seconds))
        spent[candidates] = sum(item.seconds for item in keeper.records.values())
    assert spent[6] < 0.75 * spent[1]
