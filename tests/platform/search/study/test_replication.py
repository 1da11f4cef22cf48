"""Replicates: which configuration gets which seed, through kills and resumes, seen by samplers."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from toy_sweep import DOWN, UP, Killed, listed, run, toy_plan
from toy_trials import RAISES

from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.search.study.replication import order_by_hypervolume, rank_vectors
from spikeseg.platform.search.study.samplers import merge_replicates
from spikeseg.platform.search.study.study import Keeper
from spikeseg.platform.search.study.trial_records import TrialReport


def groups_of(keeper: Keeper) -> dict[int, list[int]]:
    """First trial of each configuration -> seeds of its trials."""
    groups: dict[int, list[int]] = {}
    for item in keeper.records.values():
        groups.setdefault(item.group, []).append(item.point["seed"])
    return {number: sorted(seeds) for number, seeds in sorted(groups.items())}


def test_every_result_gets_the_same_seeds(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, **listed(1, 2, RAISES), replicates=3)
    keeper, _ = run(plan, tmp_path, InMemoryStorage())
    seed = plan.base.config.seed
    three = [seed, seed + 1, seed + 2]
    assert groups_of(keeper) == {0: three, 1: three, 2: [seed]}, "what failed is not repeated"
    assert keeper.finished == keeper.trials == 7


def test_only_the_best_and_the_reference_are_repeated_with_fresh_seeds(tmp_path: Path) -> None:
    changes = {"objectives": [UP], "replicates": {"seeds": 2, "best": 1}}
    plan = toy_plan(tmp_path, **listed(1, 2, 8, 4), **changes)
    keeper, _ = run(plan, tmp_path, InMemoryStorage())
    seed = plan.base.config.seed
    whole = [seed, seed + 1, seed + 2]
    assert groups_of(keeper) == {0: whole, 1: [seed], 2: whole, 3: [seed]}
    assert keeper.replication is not None
    members = keeper.replication.members(keeper.records)
    counted = {n: [item.point["seed"] for item in items] for n, items in members.items()}
    fresh = [seed + 1, seed + 2]
    assert counted == {0: fresh, 2: fresh}, "the training that chose one does not count"


def test_more_trials_repeat_what_is_the_best_then(tmp_path: Path) -> None:
    changes = {"objectives": [UP], "replicates": {"seeds": 2, "best": 1, "stop_error": None}}
    storage = InMemoryStorage()
    plan = toy_plan(tmp_path, **listed(1, 2), **changes)
    run(plan, tmp_path, storage)
    more, _ = run(toy_plan(tmp_path, **listed(1, 2, 8, 4), **changes), tmp_path, storage)
    seed = plan.base.config.seed
    whole = [seed, seed + 1, seed + 2]
    assert groups_of(more) == {0: whole, 1: whole, 6: whole, 7: [seed]}
    assert more.finished == more.trials == 10


def test_an_older_sweep_has_no_seeds_and_the_same_stored_recipe(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, **listed(1, 2))
    keeper, _ = run(plan, tmp_path, InMemoryStorage())
    assert all("seed" not in item.point for item in keeper.records.values())
    assert "replicates" not in plan.recipe.model_dump(mode="json")
    with_seeds = toy_plan(tmp_path, **listed(1), replicates=2)
    assert with_seeds.recipe.model_dump(mode="json")["replicates"]["seeds"] == 2


@pytest.mark.parametrize("best", [None, pytest.param(1, marks=pytest.mark.slow)])
def test_replicates_go_on_after_a_kill_at_every_write(tmp_path: Path, best: int | None) -> None:
    section: dict[str, Any] = {"seeds": 2, "best": best, "stop_error": None}
    changes = {"objectives": [UP], "replicates": section}
    plan = toy_plan(tmp_path, steps=1, **listed(1, 4), **changes)
    whole, writes = run(plan, tmp_path / "whole", InMemoryStorage())
    for last in range(1, writes, 7):
        storage, folder = InMemoryStorage(), tmp_path / f"killed-{last}"
        with pytest.raises(Killed):
            run(plan, folder, storage, writes=last)
        keeper, _ = run(plan, folder, storage)
        assert groups_of(keeper) == groups_of(whole), last
        assert all(item.state == "COMPLETE" for item in keeper.records.values())
        values = {(i.group, i.point["seed"]): i.values for i in keeper.records.values()}
        assert values == {(i.group, i.point["seed"]): i.values for i in whole.records.values()}


def test_replicates_are_not_judged_at_rungs_and_fill_none(tmp_path: Path) -> None:
    halving = {"rule": "halving", "eta": 2, "minimum": 2, "rungs": [1]}
    changes = {"objectives": [UP], "pruner": halving, "replicates": {"seeds": 2, "best": 1}}
    plan = toy_plan(tmp_path, **listed(8, 4, 2, 1), **changes)
    keeper, _ = run(plan, tmp_path, InMemoryStorage())
    states = {(i.group, i.point["seed"]): i.state for i in keeper.records.values()}
    seed = plan.base.config.seed
    assert states == {
        (0, seed): "COMPLETE",
        (1, seed): "PRUNED",
        (2, seed): "PRUNED",
        (3, seed): "PRUNED",
        (0, seed + 1): "COMPLETE",
        (0, seed + 2): "COMPLETE",
    }


def test_a_clearly_worse_group_gets_no_further_seeds(tmp_path: Path) -> None:
    changes = {"objectives": [UP], "replicates": {"seeds": 8, "stop_error": 0.5}}
    plan = toy_plan(tmp_path, steps=1, **listed(8, 1), **changes)
    keeper = Keeper(plan, tmp_path, storage=str(tmp_path / "study.log"), trials=2)
    while (proposal := keeper.next()) is not None:
        value = 8.0 if proposal.point["model.neuron.levels"] == 8 else 1.0
        noise = 0.1 * (proposal.point["seed"] % 3)
        metrics = {"val/mIoU": value + noise, "energy/mJ": 1.0}
        keeper.report(proposal.number, TrialReport(1, metrics, final=True))
    groups = groups_of(keeper)
    assert len(groups[0]) == 8
    assert len(groups[1]) == 2
    assert keeper.finished == keeper.trials == 10


def test_a_sampler_sees_a_configuration_once_with_the_mean_of_its_seeds(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, objectives=[UP], **listed(1, 2), replicates=2)
    keeper = Keeper(plan, tmp_path, storage=str(tmp_path / "study.log"), trials=2)
    for value in (10.0, 30.0, 50.0, 70.0):
        proposal = keeper.next()
        assert proposal is not None
        metrics = {"val/mIoU": value, "energy/mJ": 1.0}
        keeper.report(proposal.number, TrialReport(4, metrics, final=True))
    assert keeper.next() is None
    by_group = {number: [] for number in (0, 2)} | {
        item.group: [] for item in keeper.records.values()
    }
    for item in keeper.records.values():
        by_group[item.group].append(item.values[0])
    merged = merge_replicates(keeper.study.get_trials())
    seen = {t.number: t.values for t in merged if t.state == optuna.trial.TrialState.COMPLETE}
    assert seen == {n: [sum(v) / len(v)] for n, v in by_group.items() if v}
    assert len(seen) == 2


def test_a_space_over_seeds_is_refused_beside_replicates(tmp_path: Path) -> None:
    space = {"seed": {"choices": [1, 2]}, "model.neuron.levels": {"choices": [1, 2]}}
    with pytest.raises(ConfigError, match="replicates gives the seeds"):
        toy_plan(tmp_path, space=space, replicates=2)


@pytest.mark.parametrize(
    "section", [1, {"seeds": 1}, {"seeds": 3, "best": 0}, {"seeds": 3, "stop_error": 1.0}, "three"]
)
def test_a_section_that_cannot_be_is_refused_with_its_line(tmp_path: Path, section: Any) -> None:
    with pytest.raises(ConfigError, match="replicates"):
        toy_plan(tmp_path, replicates=section)


def test_vectors_are_ranked_by_layer_then_by_room() -> None:
    assert rank_vectors([[3.0, 3.0], [1.0, 2.0], [2.0, 1.0], [1.4, 1.6]]) == [1, 2, 3, 0]


def test_the_knee_of_a_front_is_kept_and_equal_points_count_once() -> None:
    # val/mIoU (negated) and energy/mJ of trainings on CamVid; 1 and 2 are the same network.
    found = [(-40.27, 0.1829), (-32.2, 0.1214), (-32.2, 0.1214), (-34.39, 0.1458)]
    found += [(-44.92, 0.146), (-47.27, 0.1783), (-47.35, 0.2878), (-48.55, 0.5571), (-48.68, 0.69)]
    order = order_by_hypervolume(found, (0.0, 2.0))
    assert order[0] == 5, "the knee alone holds most"
    assert {*order[:5]} >= {4, 5, 7} and len({*order[:5]} & {1, 2}) == 1
    assert sorted(order) == list(range(9)), "each once"
    assert {*order[-2:]} == {0, 1} or {*order[-2:]} == {0, 2}, "what adds nothing is last"
    by_room = rank_vectors(found)[:6]
    assert 5 not in by_room and {1, 2} <= {*by_room}, "which crowding does not see"


def test_two_objectives_repeat_the_front(tmp_path: Path) -> None:
    changes = {"objectives": [UP, DOWN], "replicates": {"seeds": 2, "best": 2}}
    plan = toy_plan(tmp_path, **listed(1, 2, 4), **changes)
    keeper, _ = run(plan, tmp_path, InMemoryStorage())
    repeated = [number for number, seeds in groups_of(keeper).items() if len(seeds) > 1]
    assert repeated == [0, 2], "the ends of the front"
