"""Points of new trials: seeded, by Optuna's samplers, and none twice."""

from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from toy_sweep import Killed, run, toy_plan

from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.search.study.samplers import build_sampler, key_of, random_points
from spikeseg.platform.search.study.study import Keeper

SAMPLERS = ["tpe", "nsgaii", "nsgaiii", "random", "gp"]
SIX = {
    "model.neuron.timesteps": {"choices": [1, 2]},
    "model.neuron.levels": {"choices": [1, 2, 4]},
}


def sampler(name: str, seed: int = 1) -> dict[str, Any]:
    return {"name": name, "seed": seed, "startup": 2, "population": 2}


def points(keeper: Keeper) -> list[dict[str, Any]]:
    return [record.point for _, record in sorted(keeper.records.items())]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_space_of_six_points_is_tried_whole_and_each_once(tmp_path: Path, name: str) -> None:
    plan = toy_plan(tmp_path, steps=1, trials=18, sampler=sampler(name), space=SIX)
    keeper, _ = run(plan, tmp_path, InMemoryStorage())
    assert keeper.trials == 6, "there are no more"
    assert sorted(map(key_of, points(keeper))) == sorted(map(key_of, plan.recipe.space.grid()))
    again, _ = run(plan, tmp_path / "again", InMemoryStorage())
    assert points(again) == points(keeper), "the same seed"


def test_a_point_is_not_drawn_again_where_only_some_have_a_number_of_any_size(
    tmp_path: Path,
) -> None:
    decay = {"low": 0.1, "high": 0.9, "when": {"model.neuron.dynamics": "temporal"}}
    space = {
        **SIX,
        "model.neuron.dynamics": {"choices": ["stateless", "temporal"]},
        "model.neuron.decay": decay,
    }
    plan = toy_plan(tmp_path, steps=1, trials=24, sampler=sampler("tpe"), space=space)
    keeper, _ = run(plan, tmp_path, InMemoryStorage())
    counts = Counter(map(key_of, points(keeper)))
    assert len(points(keeper)) == 24
    assert max(counts.values()) == 1
    stateless = [p for p in points(keeper) if p["model.neuron.dynamics"] == "stateless"]
    assert len(stateless) == 6, "what has no such number is used up"


def test_what_first_leaves_out_is_drawn_anew_where_it_was_tried(tmp_path: Path) -> None:
    first = [{"model.neuron.timesteps": 1}] * 3
    plan = toy_plan(tmp_path, steps=1, trials=6, sampler=sampler("tpe"), space=SIX, first=first)
    keeper, _ = run(plan, tmp_path, InMemoryStorage())
    drawn = points(keeper)
    assert {point["model.neuron.levels"] for point in drawn[:3]} == {1, 2, 4}
    assert {point["model.neuron.timesteps"] for point in drawn[:3]} == {1}
    assert len(set(map(key_of, drawn))) == 6


@pytest.mark.parametrize("seed", range(4))
def test_what_is_drawn_is_not_what_first_names_later(tmp_path: Path, seed: int) -> None:
    named = [{"model.neuron.timesteps": 1, "model.neuron.levels": level} for level in (1, 2)]
    first = [{"model.neuron.timesteps": 1}, *named]
    given = sampler("tpe", seed)
    plan = toy_plan(tmp_path, steps=1, trials=6, sampler=given, space=SIX, first=first)
    keeper, _ = run(plan, tmp_path, InMemoryStorage())
    assert points(keeper)[0] == {"model.neuron.timesteps": 1, "model.neuron.levels": 4}
    assert len(set(map(key_of, points(keeper)))) == 6


def test_a_rare_branch_with_a_number_of_any_size_is_found_where_nothing_else_is_left(
    tmp_path: Path,
) -> None:
    space = {
        "trainer.log_every": {"low": 1, "high": 30},
        "loss.mask_weight": {"low": 5.0, "high": 40.0, "when": {"trainer.log_every": 30}},
    }
    plan = toy_plan(tmp_path, steps=1, trials=40, sampler=sampler("random"), space=space)
    keeper, _ = run(plan, tmp_path, InMemoryStorage())
    assert len(set(map(key_of, points(keeper)))) == 40


def test_an_evolution_goes_on_from_generation_to_generation(tmp_path: Path) -> None:
    space = {**SIX, "model.neuron.levels": {"low": 1, "high": 12}}
    plan = toy_plan(tmp_path, steps=1, trials=20, sampler=sampler("nsgaii"), space=space)
    keeper, _ = run(plan, tmp_path, InMemoryStorage())
    kept = [trial.system_attrs["NSGAIISampler:generation"] for trial in keeper.study.trials[1:]]
    assert sorted(kept) == kept
    assert max(kept) >= 5, "two trials make a generation"


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_where_nothing_repeats_proposals_are_optunas_own(tmp_path: Path, name: str) -> None:
    plan = toy_plan(tmp_path, steps=1, trials=12, sampler=sampler(name))
    keeper, _ = run(plan, tmp_path, InMemoryStorage())
    study = optuna.create_study(directions=keeper.study.directions)
    for number, record in sorted(keeper.records.items()):
        study.sampler = build_sampler(plan.recipe.sampler, number)
        trial = study.ask()
        assert plan.recipe.space.draw(trial) == record.point
        study.tell(trial, list(record.values))


def test_a_space_with_fewer_points_than_are_asked_for_is_refused(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, space=SIX)
    assert len(set(map(key_of, random_points(plan, 6)))) == 6
    with pytest.raises(ConfigError, match="trials: got 7: the space has no more than 6 points"):
        random_points(plan, 7)


@pytest.mark.parametrize("name", ["random", pytest.param("nsgaii", marks=pytest.mark.slow)])
def test_a_kill_at_any_write_leaves_no_point_tried_twice(tmp_path: Path, name: str) -> None:
    plan = toy_plan(tmp_path, steps=1, trials=6, sampler=sampler(name), space=SIX)
    _, writes = run(plan, tmp_path / "whole", InMemoryStorage())
    for before in range(1, writes):
        storage = InMemoryStorage()
        folder = tmp_path / str(before)
        with pytest.raises(Killed):
            run(plan, folder, storage, writes=before)
        keeper, _ = run(plan, folder, storage)
        assert len(set(map(key_of, points(keeper)))) == len(points(keeper)) == 6
        assert {record.state for record in keeper.records.values()} == {"COMPLETE"}


def test_another_driver_on_the_same_study_is_noticed(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path)
    one, two = (
        Keeper(plan, tmp_path / folder / "toy", storage=f"{tmp_path}/all.log", trials=4)
        for folder in ("here", "there")
    )
    assert one.next() is not None
    with pytest.raises(RuntimeError, match="trial 0 was begun by somebody else: another driver"):
        two.next()
