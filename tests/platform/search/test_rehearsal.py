"""A rehearsal proposes what the sweep will, and measures what a trial costs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from spikeseg.platform.search import rehearsal
from spikeseg.platform.search.rehearsal import TrialCost
from spikeseg.platform.search.study.study import Keeper
from spikeseg.platform.search.sweep_file.plan import SweepPlan, load_sweep


@pytest.fixture(scope="module")
def plan() -> SweepPlan:
    return load_sweep("demo")


def test_the_first_proposals_are_those_of_the_sweep(plan: SweepPlan, tmp_path: Path) -> None:
    keeper = Keeper(plan, tmp_path, storage=f"sqlite:///{tmp_path}/study.db", trials=6)
    begun = [proposal.point for _ in range(6) if (proposal := keeper.next()) is not None]
    assert rehearsal.propose_first(plan, 6) == begun


def test_points_that_results_decide_are_not_shown(plan: SweepPlan) -> None:
    changed = load_sweep("demo", ["sweep.sampler.startup=5", "sweep.first=[]", "sweep.trials=20"])
    assert len(rehearsal.propose_first(changed, 20)) == 5


def test_cost_is_measured_at_fewest_and_most_timesteps(plan: SweepPlan) -> None:
    point = {"model.neuron.timesteps": 1, "model.neuron.levels": 4}
    chosen = rehearsal.choose_measured(plan, point)
    assert [item["model.neuron.timesteps"] for item in chosen] == [1, 2]
    assert rehearsal.choose_measured(plan, {"model.neuron.levels": 4}) == [
        {"model.neuron.levels": 4}
    ]


def test_time_memory_and_disk_are_those_of_all_trials(plan: SweepPlan) -> None:
    make: Callable[[float], TrialCost] = lambda seconds: TrialCost(  # noqa: E731
        point={},
        start_seconds=1.0,
        step_seconds=seconds / 240,
        evaluation_seconds=1.0,
        memory_mb=500.0,
        disk_mb=3.0,
        seconds=seconds,
    )
    text = rehearsal.describe_costs(plan, [make(60.0), make(120.0)], trials=6, at_once=2)
    assert "a trial:   1:00 to 2:00 on this machine's cpu (0.25 to 0.5 s a step" in text
    assert "the sweep: 3:00 to 6:00 for 6 trials, 2 at once" in text
    assert "500 MB a trial, 1000 MB together" in text
    assert "3.0 MB a trial, 18 MB in all" in text


def test_every_dimension_is_a_line(plan: SweepPlan) -> None:
    lines = list(rehearsal.describe_space(plan))
    assert lines[0] == "model.neuron.timesteps: one of 1, 2"
    assert lines[-1] == "loss.mask_weight: 5 to 40, evenly in its logarithm"
