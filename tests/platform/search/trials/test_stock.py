"""The faults of stock OptunaSearch with ASHA, and that the keeper has none of them."""

import math
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.storages import InMemoryStorage
from toy_sweep import UP, Killed, check_sweep, listed, run, toy_plan
from toy_trials import NAN, trained_steps

SUPPORT = Path(__file__).resolve().parents[3] / "support" / "sweeps"


def stock(folder: Path, what: str) -> list[optuna.trial.FrozenTrial]:
    """Trials of a stock sweep as Optuna has them afterwards."""
    subprocess.run(
        [sys.executable, str(SUPPORT / "stock_sweep.py"), str(folder), what],
        env={**os.environ, "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1"},
        check=what != "kill",
        capture_output=True,
        timeout=500,
    )
    url = f"sqlite:///{folder / 'study.db'}"
    return optuna.load_study(study_name="stock", storage=url).trials


@pytest.mark.ray
@pytest.mark.slow
def test_stock_calls_a_stopped_trial_complete_with_its_short_value(tmp_path: Path) -> None:
    (tmp_path / "stock").mkdir()
    trials = stock(tmp_path / "stock", "asha")
    assert all(trial.state.name == "COMPLETE" for trial in trials)
    short = [t for t in trials if t.value is not None and t.value < 8 * t.params["level"]]
    assert short, "ASHA stopped some, and Optuna does not know"

    plan = toy_plan(
        tmp_path,
        steps=8,
        **listed(5, 4, 3, 2, 1, objectives=[UP], pruner={"rule": "halving", "minimum": 2}),
    )
    keeper, _ = run(plan, tmp_path / "ours", InMemoryStorage())
    states = check_sweep(plan, tmp_path / "ours", keeper.study)
    assert states == {"COMPLETE": 1, "PRUNED": 4}


@pytest.mark.ray
@pytest.mark.slow
def test_stock_lets_a_trial_that_is_not_a_number_run_on_and_leaves_it_running(
    tmp_path: Path,
) -> None:
    (tmp_path / "stock").mkdir()
    trials = stock(tmp_path / "stock", "nan")
    sick = next(t for t in trials if t.params["level"] == 0)
    assert sick.state.name == "RUNNING"
    values = list(sick.intermediate_values.values())
    assert len(values) > 2 and any(math.isnan(value) for value in values)

    plan = toy_plan(tmp_path, steps=8, **listed(5, NAN, 1, objectives=[UP]))
    keeper, _ = run(plan, tmp_path / "ours", InMemoryStorage())
    assert keeper.records[1].state == "FAIL"
    assert trained_steps(tmp_path / "ours" / "trials" / "1") == [1, 2], "stopped at once"


@pytest.mark.ray
@pytest.mark.slow
def test_stock_leaves_a_trial_running_after_its_driver_was_killed(tmp_path: Path) -> None:
    (tmp_path / "stock").mkdir()
    trials = stock(tmp_path / "stock", "kill")
    assert [t.state.name for t in trials if t.params.get("level") == 1] == ["RUNNING"]
    plan = toy_plan(tmp_path, **listed(5, 1, 2))
    storage = InMemoryStorage()
    with pytest.raises(Killed):
        run(plan, tmp_path / "ours", storage, writes=20)
    keeper, _ = run(plan, tmp_path / "ours", storage)
    assert check_sweep(plan, tmp_path / "ours", keeper.study) == {"COMPLETE": 3}
