"""A study in memory proposes what a study of copied trials would, and leaves the trials alone."""

import copy
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import create_trial
from toy_sweep import run, toy_plan

from spikeseg.platform.search.study.optuna_internals import FIXED_PARAMS, study_of
from spikeseg.platform.search.study.samplers import build_sampler
from spikeseg.platform.search.study.study import Keeper

SPACE = {
    "model.neuron.timesteps": {"choices": [1, 2, 4]},
    "model.neuron.levels": {"low": 1, "high": 14},
    "model.neuron.dynamics": {"choices": ["stateless", "temporal"]},
    "model.neuron.decay": {"low": 0.1, "high": 0.9, "when": {"model.neuron.dynamics": "temporal"}},
}
CHEAP = [{"metric": "energy/mJ", "at_most": 2.0}]


def copied_study(keeper: Keeper, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    """The study by Optuna's public calls: each trial checked and copied."""
    study = optuna.create_study(directions=keeper.study.directions, sampler=sampler)
    for trial in keeper.study.get_trials():
        study.add_trial(
            create_trial(
                state=trial.state,
                values=trial.values,
                params=trial.params,
                distributions=trial.distributions,
                system_attrs=trial.system_attrs,
                intermediate_values=trial.intermediate_values,
            )
        )
    return study


@pytest.mark.parametrize(
    ("name", "storage"),
    [
        ("tpe", "memory"),
        ("nsgaii", "memory"),
        ("nsgaiii", "memory"),
        ("random", "memory"),
        pytest.param("tpe", "sqlite", marks=pytest.mark.slow),
        pytest.param("gp", "memory", marks=pytest.mark.slow),
    ],
)
def test_proposals_are_those_of_a_study_of_copied_trials(
    tmp_path: Path, name: str, storage: str
) -> None:
    """Of trials of every state, two of them running, behind constraints and conditions."""
    sampler = {"name": name, "seed": 3, "startup": 3, "population": 3}
    pruner = {"rule": "non_dominated", "minimum": 3, "rungs": [1]}
    plan = toy_plan(
        tmp_path, steps=2, trials=20, sampler=sampler, space=SPACE, pruner=pruner, constraints=CHEAP
    )
    place: Any = InMemoryStorage()
    if storage == "sqlite":
        place = optuna.storages.get_storage(f"sqlite:///{tmp_path / 'study.db'}")
    keeper, _ = run(plan, tmp_path, place)
    keeper.configurations += 2
    keeper.next()
    keeper.next()
    states = {trial.state.name for trial in keeper.study.trials}
    assert {"COMPLETE", "PRUNED", "FAIL", "RUNNING"} <= states
    for draw in range(3):
        asked = []
        trials = keeper.study.get_trials(deepcopy=False)
        proposers = [
            build_sampler(plan.recipe.sampler, len(keeper.records), draw) for _ in range(2)
        ]
        for study in (
            study_of(trials, keeper.study.directions, proposers[0]),
            copied_study(keeper, proposers[1]),
        ):
            trial = study.ask()
            point = plan.recipe.space.draw(trial)
            asked.append((trial.number, point, study.trials[trial.number].system_attrs))
        assert asked[0] == asked[1]


def test_a_queued_trial_that_is_asked_for_stays_queued_where_it_came_from(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path)
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.enqueue_trial({"model.neuron.levels": 3})
    queued = study.get_trials(deepcopy=False)
    before = copy.deepcopy(queued)
    twin = study_of(queued, study.directions, build_sampler(plan.recipe.sampler, 0))
    point = plan.recipe.space.draw(twin.ask())
    assert point["model.neuron.levels"] == 3
    assert queued == before
    assert queued[0].params == {} and list(queued[0].system_attrs) == [FIXED_PARAMS]
