"""A study that others wrote into is refused with trial and key, before a trial begins."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from toy_sweep import DOWN, UP, listed, run_toys, toy_plan

from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.search import sweep as sweep_loop
from spikeseg.platform.search.study.study import Keeper
from spikeseg.platform.search.study.trial_records import TrialReport


def half_done(tmp_path: Path) -> Callable[[], Keeper]:
    """A study in a journal with one trial that has ended and one that runs."""
    plan = toy_plan(tmp_path)
    (tmp_path / "toy").mkdir()

    def open_keeper() -> Keeper:
        return Keeper(plan, tmp_path / "toy", storage=str(tmp_path / "study.log"), trials=4)

    keeper = open_keeper()
    for number in (0, 1):
        keeper.next()
        metrics = {"val/mIoU": 40.0, "energy/mJ": 1.0}
        keeper.report(number, TrialReport(1, metrics, final=number == 0))
    return open_keeper


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("at:1x", {"metrics": {}, "seconds": 1.0}, "'at:1x': must be at: and a training step"),
        ("at:2", [1, 2], "at:2: got"),
        ("at:2", {"metrics": {"val/mIoU": "high"}, "seconds": 1.0}, "at:2: metrics.val/mIoU: got"),
        ("at:2", {"metrics": {"val/mIoU": 1.0}, "seconds": 1.0}, "energy/mJ is not among its me"),
        ("at:2", {"metrics": {"val/mIoU": 1.0, "energy/mJ": 1.0}}, "at:2: seconds: Field requir"),
        ("rung:-1", "go on", "'rung:-1': must be rung: and a training step"),
        ("verdict", "PRUNED", "verdict: got"),
        ("verdict", {"state": "DONE", "reason": "", "step": 1}, "verdict: state: got 'DONE'"),
        ("verdict", {"state": "FAIL", "reason": "", "step": "1"}, "verdict: step: got '1'"),
        ("attempts", "many", "attempts: got 'many'"),
        ("seconds_without_evaluation", None, "seconds_without_evaluation: got 'None'"),
    ],
)
def test_an_attribute_of_another_type_is_named(
    tmp_path: Path, key: str, value: Any, message: str
) -> None:
    open_keeper = half_done(tmp_path)
    keeper = open_keeper()
    storage = keeper.study._storage
    storage.set_trial_user_attr(keeper.study.trials[1]._trial_id, key, value)
    with pytest.raises(ConfigError) as caught:
        open_keeper()
    assert str(caught.value).startswith(f"{tmp_path / 'toy'}: its study: trial 1: ")
    assert message in str(caught.value)


def test_what_was_written_before_is_read_as_it_was(tmp_path: Path) -> None:
    keeper = half_done(tmp_path)()
    assert keeper.ended == [0] and list(keeper.running) == [1]
    assert keeper.records[0].values == (40.0, 1.0) and keeper.records[0].reason == "full budget"
    assert keeper.records[1].history == {1: {"val/mIoU": 40.0, "energy/mJ": 1.0}}
    proposal = keeper.next()
    assert proposal is not None and (proposal.number, proposal.attempt) == (1, 2)


def test_parameters_that_are_no_point_of_the_space_are_named(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path)
    study = optuna.create_study(
        storage=f"sqlite:///{tmp_path / 'study.db'}",
        study_name="toy",
        directions=["maximize", "minimize"],
    )
    study.ask().suggest_int("model.neuron.timesteps", 3, 3)
    with pytest.raises(
        ConfigError, match=r"trial 0: params: got .*not a point of the sweep's space"
    ):
        Keeper(plan, tmp_path / "toy", storage=f"sqlite:///{tmp_path / 'study.db'}", trials=4)


@pytest.mark.parametrize("directions", [["maximize"], ["minimize", "minimize"]])
def test_a_study_with_other_objectives_is_refused(tmp_path: Path, directions: list[Any]) -> None:
    plan = toy_plan(tmp_path, objectives=[UP, DOWN])
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=storage, study_name="toy", directions=directions)
    with pytest.raises(ConfigError, match=r"directions: got m.*must be those of the sweep's obj"):
        Keeper(plan, tmp_path / "toy", storage=storage, trials=4)


def test_a_database_whose_cells_are_damaged_is_refused(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path)
    (tmp_path / "toy").mkdir()
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    keeper = Keeper(plan, tmp_path / "toy", storage=storage, trials=4)
    keeper.next()
    for statement in (
        "update trial_user_attributes set value_json = '{'",
        "update trials set state = 'SLEEPING'",
        'update trial_params set distribution_json = \'{"name": "Other"}\'',
    ):
        with sqlite3.connect(tmp_path / "study.db") as database:
            database.execute(statement)
        with pytest.raises(ConfigError, match="its trials cannot be read"):
            Keeper(plan, tmp_path / "toy", storage=storage, trials=4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "got"),
        ({"base": "x", "trials": 1}, "recipe: Field required"),
        ({"recipe": [], "base": "x", "trials": 1}, "recipe: got"),
        ({"recipe": {}, "base": 1, "trials": 1}, "base: got '1'"),
        ({"recipe": {}, "base": "x", "trials": "4"}, "trials: got '4'"),
        ({"recipe": {}, "base": "x", "trials": 0}, "trials: got '0'"),
        ({"recipe": {}, "base": "x", "trials": 1, "study": 5}, "study: got '5'"),
    ],
)
def test_a_plan_of_other_types_is_refused_with_its_key(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, content: Any, message: str
) -> None:
    monkeypatch.setattr(sweep_loop, "check_trials", lambda plan: None)
    toy_plan(tmp_path, **listed(4))
    plan = tmp_path / "toy" / "plan.json"
    plan.parent.mkdir()
    plan.write_text(json.dumps(content))
    with pytest.raises(ConfigError) as caught:
        run_toys(data, tmp_path, resume="toy")
    assert str(caught.value).startswith(f"{plan}: {message}")
    assert list(plan.parent.iterdir()) == [plan], "nothing was written"
