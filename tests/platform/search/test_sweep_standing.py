"""Where a sweep stands is at every moment what a count over all its trials gives."""

import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toy_sweep import DOWN, UP, toy_plan

from spikeseg.platform.search.study.pareto import dominates
from spikeseg.platform.search.study.trial_records import TrialRecord
from spikeseg.platform.search.sweep_file.plan import SweepPlan
from spikeseg.platform.search.sweep_standing import (
    Standing,
    best_trial,
    front_trials,
    hypervolumes,
    signed_values,
)

REFERENCES = [UP | {"reference": 2.0}, DOWN | {"reference": 4.0}]


def random_record(number: int, chance: random.Random, tied: bool) -> TrialRecord:
    """An ended trial; few values where they shall tie; a third of them without values."""
    state = chance.choice(["COMPLETE", "COMPLETE", "COMPLETE", "COMPLETE", "PRUNED", "FAIL"])
    record = TrialRecord(number, state, seconds=chance.random())
    if state == "COMPLETE":
        draw = (lambda: float(chance.randint(0, 5))) if tied else (lambda: chance.uniform(0, 5))
        record.values = (draw(), draw())
        if chance.random() < 0.2:
            record.violations = ("energy/mJ at most 1",)
    return record


def counted_front(plan: SweepPlan, records: dict[int, TrialRecord]) -> list[int]:
    """Numbers of the results that no other dominates, by values, then by number."""
    done = {
        number: signed_values(plan, record)
        for number, record in sorted(records.items())
        if record.state == "COMPLETE" and not record.violations
    }
    best = [
        number
        for number, vector in done.items()
        if not any(dominates(other, vector) for other in done.values())
    ]
    return sorted(best, key=lambda number: done[number])


def counted_volume(vectors: list[tuple[float, ...]], reference: tuple[float, float]) -> float:
    area, ceiling = 0.0, reference[1]
    for x, y in sorted(vectors):
        if x < reference[0] and y < ceiling:
            area += (reference[0] - x) * (ceiling - y)
            ceiling = y
    return area


@pytest.mark.parametrize("tied", [False, True], ids=["random", "tied"])
@pytest.mark.parametrize("seed", range(3))
def test_front_best_and_hypervolume_agree_with_a_count_over_all_trials(
    tmp_path: Path, seed: int, tied: bool
) -> None:
    plan = toy_plan(tmp_path, objectives=REFERENCES)
    chance = random.Random(seed)
    # Trials end in another order than they began.
    order = chance.sample(range(120), 120)
    keeper: Any = SimpleNamespace(records={}, ended=[])
    standing = Standing(plan, keeper)
    for number in order:
        keeper.records[number] = random_record(number, chance, tied)
        keeper.ended.append(number)
        if chance.random() < 0.3:
            continue
        standing.update()
        records = keeper.records
        expected = counted_front(plan, records)
        assert [item.number for item in standing.front] == expected
        assert [item.number for item in front_trials(plan, records)] == expected
        assert standing.best is best_trial(plan, records)
        assert standing.states == Counter(item.state for item in records.values())
        assert standing.broken == sum(bool(item.violations) for item in records.values())
        assert standing.seconds == pytest.approx(sum(r.seconds for r in records.values()))
        vectors = [signed_values(plan, records[n]) for n in expected]
        volume = counted_volume(vectors, (-2.0, 4.0)) if vectors else None
        assert standing.hypervolume == volume


@pytest.mark.parametrize("objectives", [REFERENCES, [UP, DOWN]], ids=["fixed", "worst"])
@pytest.mark.parametrize("tied", [False, True], ids=["random", "tied"])
def test_the_curve_of_the_hypervolume_is_to_the_last_digit_the_one_computed_anew(
    tmp_path: Path, tied: bool, objectives: list[dict[str, Any]]
) -> None:
    plan = toy_plan(tmp_path, objectives=objectives)
    chance = random.Random(5)
    records = {number: random_record(number, chance, tied) for number in range(150)}
    curve = hypervolumes(plan, records)
    assert curve is not None
    vectors = [signed_values(plan, r) for r in records.values() if r.values and not r.violations]
    worst = max(x for x, _ in vectors), max(y for _, y in vectors)
    signed = (-2.0, 4.0) if objectives is REFERENCES else worst
    assert curve[0] == (-signed[0], signed[1])
    assert curve[1] == [counted_volume(vectors[: n + 1], signed) for n in range(len(vectors))]


def test_a_sweep_without_a_fixed_reference_has_no_hypervolume_while_it_runs(tmp_path: Path) -> None:
    keeper: Any = SimpleNamespace(records={0: TrialRecord(0, "COMPLETE")}, ended=[0])
    keeper.records[0].values = (1.0, 1.0)
    for objectives in ([UP, DOWN], [UP | {"reference": 0.0}, DOWN]):
        standing = Standing(toy_plan(tmp_path, objectives=objectives), keeper)
        assert standing.best is keeper.records[0] and standing.hypervolume is None
