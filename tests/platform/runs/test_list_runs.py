"""The list of runs says what a person compares, and the word that later commands take."""

import json
from pathlib import Path

import pytest
from run_folders import CONFIG, end, grow_old, make_run, make_sweep, result_row
from trained_run import TrainedRun

from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.runs.find_run import find_run
from spikeseg.platform.runs.list_runs import list_runs


def test_a_training_is_listed_with_its_neuron_its_result_and_its_state(
    trained: TrainedRun,
) -> None:
    grow_old(trained.folder)
    (run,) = [item for item in list_runs(trained.storage) if item.word == "tiny"]
    result = json.loads((trained.folder / "result.json").read_text())
    assert (run.kind, run.recipe, run.state) == ("run", "shapes_tiny", "finished")
    assert (run.T, run.D, run.normalization) == (1, 4, "levels")
    assert run.metrics == result["metrics"]
    assert {"val/mIoU", "test/mIoU", "energy/mJ"} <= set(run.metrics)
    assert find_run(run.word, trained.storage).folder == Path(run.folder)


def test_the_newest_start_stands_last_and_is_latest(tmp_path: Path) -> None:
    for name, started in (("a", 30.0), ("b", 10.0), ("c", 20.0)):
        make_run(tmp_path / name, started=started)
    runs = list_runs(tmp_path)
    assert [run.word for run in runs] == ["b", "c", "a"]
    assert find_run("latest", tmp_path).word == runs[-1].word


def test_a_run_without_a_result_shows_its_best_evaluation(tmp_path: Path) -> None:
    make_run(tmp_path / "one")
    (run,) = list_runs(tmp_path)
    assert run.metrics == {"val/mIoU": 30.0, "energy/mJ.earlier": 0.2}


def test_a_sweep_is_one_line_with_its_best_trial_and_lists_its_trials_on_demand(
    tmp_path: Path,
) -> None:
    rows = [result_row(0, 20.0, 0.4), result_row(1, 10.0, 0.4), result_row(2, "", "", "PRUNED")]
    folder = make_sweep(tmp_path / "sweep-one", rows)
    config = CONFIG.replace("timesteps: 2", "timesteps: 7")
    (folder / "trials" / "0" / "config.yaml").write_text(config)
    end(folder, "FINISHED")
    (sweep,) = list_runs(tmp_path)
    assert (sweep.kind, sweep.recipe) == ("sweep", "search")
    assert sweep.state == "finished (2 finished, 1 pruned)"
    assert sweep.T == 7
    trials = list_runs(tmp_path, sweep="sweep")
    assert [item.word for item in trials] == [f"sweep-one/{number}" for number in range(3)]
    assert trials[0].metrics["val/mIoU"] == 20.0, "a trial's result is its last evaluation"
    with pytest.raises(ConfigError, match="no such sweep"):
        list_runs(tmp_path, sweep="other")


@pytest.mark.parametrize("config", ["", "- 1", "name: [", "name: old\nmodel: {gone: 1}"])
def test_a_configuration_of_another_version_or_none_is_listed_all_the_same(
    tmp_path: Path, config: str
) -> None:
    make_run(tmp_path / "one", config=config or " ")
    (run,) = list_runs(tmp_path)
    assert (run.word, run.T) == ("one", None)


def test_data_and_what_was_half_removed_are_no_runs(tmp_path: Path) -> None:
    make_run(tmp_path / ".removing-one")
    (tmp_path / "data").mkdir()
    (tmp_path / "mlflow.db").write_text("")
    assert list_runs(tmp_path) == []
    assert list_runs(tmp_path / "none") == []
