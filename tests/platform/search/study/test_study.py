"""The keeper: honest states, adoption after any kill, seeded proposals; no Ray in sight."""

import copy
import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from toy_sweep import DOWN, UP, Killed, check_sweep, listed, run, toy_plan
from toy_trials import NAN, RAISES, prepare, toy

from spikeseg.platform.search.study.samplers import build_sampler
from spikeseg.platform.search.study.study import Keeper
from spikeseg.platform.search.study.trial_records import TrialReport, Verdict
from spikeseg.platform.search.sweep_file.plan import SweepPlan
from spikeseg.platform.search.sweep_file.schema import Sampler
from spikeseg.platform.search.trials.engine import TrialQueue, run_here


def keeper_of(plan: SweepPlan, folder: Path, storage: str | None = None) -> Keeper:
    folder.mkdir(parents=True, exist_ok=True)
    return Keeper(plan, folder, storage=storage or f"{folder / 'study.log'}", trials=plan.trials)


def metrics(miou: float, mj: float = 1.0, dead: float = 0.0) -> dict[str, float]:
    return {"val/mIoU": miou, "energy/mJ": mj, "snn/dead_fraction": dead}


def test_a_trial_is_complete_only_at_full_budget(tmp_path: Path) -> None:
    keeper = keeper_of(toy_plan(tmp_path), tmp_path)
    proposal = keeper.next()
    assert proposal is not None
    early = keeper.report(0, TrialReport(1, metrics(40.0)))
    assert early == Verdict(None, "go on", 1)
    assert keeper.study.trials[0].state.name == "RUNNING"
    end = keeper.report(0, TrialReport(4, metrics(60.0, 2.0), final=True))
    assert end == Verdict("COMPLETE", "full budget", 4)
    assert keeper.study.trials[0].values == [60.0, 2.0]


def test_the_objective_is_the_last_evaluation_and_not_the_best(tmp_path: Path) -> None:
    keeper = keeper_of(toy_plan(tmp_path, objectives=[UP]), tmp_path)
    keeper.next()
    keeper.report(0, TrialReport(1, metrics(70.0)))
    keeper.report(0, TrialReport(4, metrics(60.0), final=True))
    assert keeper.study.best_value == 60.0
    assert keeper.study.trials[0].intermediate_values == {1: 70.0, 4: 60.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_a_value_that_is_not_finite_fails_the_trial_with_its_name(
    tmp_path: Path, value: float
) -> None:
    keeper = keeper_of(toy_plan(tmp_path), tmp_path)
    keeper.next()
    verdict = keeper.report(0, TrialReport(2, metrics(value)))
    assert verdict == Verdict("FAIL", f"val/mIoU is {value}", 2)
    assert keeper.study.trials[0].state.name == "FAIL"


def test_a_failure_comes_with_its_reason_and_the_last_good_step(tmp_path: Path) -> None:
    keeper = keeper_of(toy_plan(tmp_path), tmp_path)
    keeper.next()
    keeper.report(0, TrialReport(1, metrics(40.0)))
    verdict = keeper.report(0, TrialReport(failure="out of memory: 2 GB"))
    assert verdict == Verdict("FAIL", "out of memory: 2 GB", 1)
    assert keeper.study.trials[0].user_attrs["verdict"]["reason"] == "out of memory: 2 GB"


def test_a_trial_that_breaks_a_constraint_takes_no_place_of_one_that_keeps_it(
    tmp_path: Path,
) -> None:
    halving = {"rule": "halving", "eta": 2, "minimum": 2, "rungs": [1]}
    cheap = [{"metric": "energy/mJ", "at_most": 1.0}]
    plan = toy_plan(tmp_path, objectives=[UP], pruner=halving, constraints=cheap)
    keeper = keeper_of(plan, tmp_path)
    for _ in range(4):
        keeper.next()
    told = [
        keeper.report(number, TrialReport(1, metrics(miou, mj)))
        for number, (miou, mj) in enumerate([(60.0, 5.0), (20.0, 0.5), (70.0, 6.0), (10.0, 0.4)])
    ]
    assert [verdict.state for verdict in told] == [None, None, "PRUNED", None]
    assert told[2].reason == "2 of 3 better at the rung, 1 go on"
    assert told[3].reason == "1 of 4 better at the rung, 2 go on"


def test_a_metric_that_is_missing_fails_the_trial(tmp_path: Path) -> None:
    keeper = keeper_of(toy_plan(tmp_path), tmp_path)
    keeper.next()
    verdict = keeper.report(0, TrialReport(1, {"val/mIoU": 1.0}))
    assert verdict.state == "FAIL"
    assert verdict.reason == "energy/mJ is not among the metrics of the evaluation"


def test_a_lost_process_fails_a_running_trial_and_leaves_an_ended_one(tmp_path: Path) -> None:
    keeper = keeper_of(toy_plan(tmp_path), tmp_path)
    for _ in range(2):
        keeper.next()
    keeper.report(0, TrialReport(4, metrics(1.0), final=True))
    assert keeper.lost(0, "killed") is None
    assert keeper.lost(1, "killed") == Verdict("FAIL", "killed", 0)
    assert [t.state.name for t in keeper.study.trials] == ["COMPLETE", "FAIL"]


@pytest.mark.parametrize("late", [TrialReport(4, metrics(99.0)), TrialReport(failure="again")])
def test_a_report_of_an_ended_trial_changes_nothing(tmp_path: Path, late: TrialReport) -> None:
    keeper = keeper_of(toy_plan(tmp_path), tmp_path)
    keeper.next()
    end = keeper.report(0, TrialReport(4, metrics(1.0), final=True, seconds=2.0))
    before = copy.deepcopy(keeper.records[0]), keeper.study.trials[0]
    assert keeper.report(0, late) == end
    assert (keeper.records[0], keeper.study.trials[0]) == before


def test_nobody_hears_twice_of_a_trials_end(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path)
    keeper = keeper_of(plan, tmp_path)
    told: list[Verdict] = []
    orders = TrialQueue(
        keeper,
        functools.partial(prepare, plan),
        lambda number, report, verdict: told.append(verdict),
        toy,
    )
    orders.next()
    end = orders.report(0, TrialReport(4, metrics(1.0), final=True))
    assert orders.report(0, TrialReport(2, metrics(1.0))) == end, "the engine stops it"
    assert told == [end]


def test_fewer_trials_than_were_started_end_those_that_a_kill_left(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path)
    killed = keeper_of(plan, tmp_path)
    for _ in range(3):
        killed.next()
    killed.report(0, TrialReport(4, metrics(1.0), final=True))
    keeper = Keeper(plan, tmp_path, storage=f"{tmp_path / 'study.log'}", trials=1)
    assert keeper.trials == 3
    run_here(TrialQueue(keeper, functools.partial(prepare, plan), lambda *told: None, toy))
    assert [t.state.name for t in keeper.study.trials] == ["COMPLETE"] * 3


def test_a_failed_trial_carries_the_seconds_that_it_took(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path)
    keeper = keeper_of(plan, tmp_path)
    for _ in range(2):
        keeper.next()
    keeper.report(0, TrialReport(1, metrics(1.0), seconds=2.0))
    keeper.report(0, TrialReport(failure="out of memory", seconds=3.0))
    keeper.report(1, TrialReport(1, metrics(float("nan")), seconds=4.0))
    assert [record.seconds for record in keeper.records.values()] == [5.0, 4.0]
    again = keeper_of(plan, tmp_path)
    assert [record.seconds for record in again.records.values()] == [5.0, 4.0]


def test_the_attempts_are_those_that_the_trial_tells(tmp_path: Path) -> None:
    keeper = keeper_of(toy_plan(tmp_path), tmp_path)
    keeper.next()
    keeper.report(0, TrialReport(1, metrics(1.0), attempt=1))
    keeper.report(0, TrialReport(2, metrics(1.0), attempt=3))
    assert keeper.records[0].attempts == 3
    assert keeper.study.trials[0].user_attrs["attempts"] == 3


def test_pruned_trials_of_two_objectives_have_no_values_and_stay_off_the_front(
    tmp_path: Path,
) -> None:
    plan = toy_plan(tmp_path, pruner={"rule": "non_dominated", "minimum": 2})
    keeper = keeper_of(plan, tmp_path)
    for _ in range(2):
        keeper.next()
    assert keeper.report(0, TrialReport(1, metrics(50.0, 1.0))).state is None
    verdict = keeper.report(1, TrialReport(1, metrics(40.0, 2.0)))
    assert verdict == Verdict("PRUNED", "1 of 2 ahead at the rung, 1 go on", 1)
    keeper.report(0, TrialReport(4, metrics(55.0, 1.0), final=True))
    assert keeper.study.trials[1].values is None
    assert [t.number for t in keeper.study.best_trials] == [0]


def test_a_replayed_rung_is_not_judged_against_trials_that_came_later(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, objectives=[UP], pruner={"rule": "halving", "minimum": 2})
    first = keeper_of(plan, tmp_path)
    first.next()
    first.next()
    assert first.report(0, TrialReport(1, metrics(40.0))).state is None
    assert first.report(1, TrialReport(1, metrics(50.0))).state is None
    again = keeper_of(plan, tmp_path)
    again.next()
    again.next()
    replayed = again.report(0, TrialReport(1, metrics(40.0), replayed=True))
    assert replayed.state is None, "it went on before, so it goes on now"


def test_a_rung_whose_judgement_was_lost_is_judged_at_the_replay(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, objectives=[UP], pruner={"rule": "halving", "minimum": 2})
    keeper = keeper_of(plan, tmp_path)
    for _ in range(2):
        keeper.next()
    keeper.report(0, TrialReport(1, metrics(50.0)))
    again = keeper_of(plan, tmp_path)
    again.next()
    again.next()
    verdict = again.report(1, TrialReport(1, metrics(40.0), replayed=True))
    assert verdict.state == "PRUNED"


def test_a_broken_limit_prunes_after_its_first_step_and_not_before(tmp_path: Path) -> None:
    limits = [{"metric": "snn/dead_fraction", "at_most": 0.9, "after": 2}]
    keeper = keeper_of(toy_plan(tmp_path, pruner={"limits": limits}), tmp_path)
    keeper.next()
    assert keeper.report(0, TrialReport(1, metrics(1.0, dead=1.0))).state is None
    verdict = keeper.report(0, TrialReport(2, metrics(1.0, dead=1.0)))
    assert verdict == Verdict(
        "PRUNED", "snn/dead_fraction is 1, the limit is snn/dead_fraction <= 0.9", 2
    )


def test_a_broken_constraint_is_complete_and_no_result(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, constraints=[{"metric": "energy/mJ", "at_most": 1.5}])
    keeper = keeper_of(plan, tmp_path)
    for _ in range(2):
        keeper.next()
    keeper.report(0, TrialReport(4, metrics(90.0, 2.0), final=True))
    keeper.report(1, TrialReport(4, metrics(50.0, 1.0), final=True))
    assert keeper.records[0].state == "COMPLETE"
    assert keeper.records[0].violations == ("energy/mJ <= 1.5",)
    assert keeper.study.trials[0].constraints == {"energy/mJ <= 1.5": 0.5}
    assert [t.number for t in keeper.study.best_trials] == [1], "Optuna agrees"
    again = keeper_of(plan, tmp_path)
    assert again.records[0].violations == ("energy/mJ <= 1.5",)


def test_listed_points_run_in_order_and_nothing_else(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, **listed(3, 5, 2))
    keeper, _ = run(plan, tmp_path, InMemoryStorage())
    assert [r.point["model.neuron.levels"] for _, r in sorted(keeper.records.items())] == [3, 5, 2]


def test_fixed_points_come_first_and_what_they_leave_out_is_drawn(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, first=[{"model.neuron.levels": 7}])
    keeper, _ = run(plan, tmp_path, InMemoryStorage())
    first = keeper.records[0].point
    assert first["model.neuron.levels"] == 7
    assert set(first) == set(plan.recipe.space.dimensions)
    assert len(keeper.records) == 8


def test_toy_trials_end_in_the_states_that_they_deserve(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, **listed(4, NAN, RAISES, 8))
    storage = InMemoryStorage()
    keeper, _ = run(plan, tmp_path, storage)
    states = [(r.state, r.reason) for _, r in sorted(keeper.records.items())]
    assert states == [
        ("COMPLETE", "full budget"),
        ("FAIL", "val/mIoU is nan"),
        ("FAIL", "RuntimeError: a toy that raises"),
        ("COMPLETE", "full budget"),
    ]


@pytest.mark.parametrize("name", ["tpe", "nsgaii", "nsgaiii", "random", "gp"])
def test_samplers_repeat_and_differ_by_seed(tmp_path: Path, name: str) -> None:
    def points(folder: str, seed: int) -> list[dict[str, Any]]:
        sampler = {"name": name, "seed": seed, "startup": 3, "population": 3}
        plan = toy_plan(tmp_path / folder, steps=1, trials=5, sampler=sampler)
        keeper, _ = run(plan, tmp_path / folder, InMemoryStorage())
        return [r.point for _, r in sorted(keeper.records.items())]

    first = points("a", 1)
    assert points("b", 1) == first
    assert points("c", 2) != first


def test_every_trial_has_its_own_random_numbers() -> None:
    def draw(number: int) -> float:
        sampler = build_sampler(Sampler(name="random", seed=1), number)
        return optuna.create_study(sampler=sampler).ask().suggest_float("x", 0.0, 1.0)

    assert len({draw(number) for number in range(20)}) == 20
    assert draw(3) == draw(3)


RULES: dict[str, Callable[[], dict[str, Any]]] = {
    "one objective, halving": lambda: {
        "objectives": [UP],
        "pruner": {"rule": "halving", "minimum": 2},
    },
    "two objectives, non-domination, constraint": lambda: {
        "pruner": {"rule": "non_dominated", "minimum": 2},
        "constraints": [{"metric": "energy/mJ", "at_most": 1.0}],
    },
    "listed, with failures": lambda: listed(4, NAN, RAISES, objectives=[UP, DOWN]),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_kill_before_any_single_write_is_healed(tmp_path: Path, rule: str) -> None:
    plan = toy_plan(tmp_path / "recipe", steps=3, **{"trials": 3, **RULES[rule]()})
    storage = InMemoryStorage()
    keeper, writes = run(plan, tmp_path / "undisturbed", storage)
    undisturbed = check_sweep(plan, tmp_path / "undisturbed", keeper.study)
    assert writes > 20
    for number in range(writes):
        folder, storage = tmp_path / str(number), InMemoryStorage()
        with pytest.raises(Killed):
            run(plan, folder, storage, writes=number)
        keeper, _ = run(plan, folder, storage)
        states = check_sweep(plan, folder, keeper.study)
        if plan.recipe.sampler.name == "listed":
            assert states == undisturbed, "points are given, so nothing may differ"


def test_many_kills_in_one_sweep_are_healed(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "recipe", pruner={"rule": "non_dominated"})
    chance = random.Random(5)
    kills = 0
    for round_ in range(10):
        folder, storage = tmp_path / str(round_), InMemoryStorage()
        while True:
            try:
                keeper, _ = run(plan, folder, storage, writes=chance.randrange(1, 40))
                break
            except Killed:
                kills += 1
        check_sweep(plan, folder, keeper.study)
    assert kills > 20


def test_an_interrupted_trial_keeps_number_parameters_and_folder(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path)
    before = keeper_of(plan, tmp_path).next()
    after = keeper_of(plan, tmp_path).next()
    assert before is not None and after is not None
    assert (after.number, after.point, after.folder) == (before.number, before.point, before.folder)
    assert (before.attempt, after.attempt) == (1, 2)


def test_sqlite_serves_as_storage_as_well_as_a_journal_file(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, trials=2)
    path = f"sqlite:///{tmp_path / 'study.db'}"
    keeper = keeper_of(plan, tmp_path, path)
    keeper.next()
    keeper.report(0, TrialReport(4, metrics(60.0), final=True))
    keeper.next()
    again = keeper_of(plan, tmp_path, path)
    assert again.records[0].values == (60.0, 1.0)
    adopted = again.next()
    assert adopted is not None and adopted.number == 1


def test_a_larger_budget_extends_a_finished_sweep(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, trials=2)
    storage = InMemoryStorage()
    run(plan, tmp_path, storage)
    larger = toy_plan(tmp_path, trials=4)
    keeper, _ = run(larger, tmp_path, storage)
    check_sweep(larger, tmp_path, keeper.study)
