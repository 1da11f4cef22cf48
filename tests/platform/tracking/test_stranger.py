"""Somebody who knows MLflow and nothing of us finds what a run was made of."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from tracked_sweep import TrackedSweep, write_sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> TrackedSweep:
    return write_sweep(tmp_path_factory.mktemp("stranger"))


def test_with_mlflow_alone_the_best_run_its_data_code_curves_and_pictures_are_found(
    sweep: TrackedSweep, tmp_path: Path
) -> None:
    client = MlflowClient(f"sqlite:///{sweep.storage / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name != "Default"]
    best = client.search_runs(
        [experiment.experiment_id], order_by=["metrics.`val/mIoU` DESC"], max_results=1
    )[0]
    assert best.info.run_id == sweep.best

    assert best.inputs is not None
    data = {item.tags[0].value: item.dataset.digest for item in best.inputs.dataset_inputs}
    assert set(data) == {"train", "val", "test"}
    assert len(set(data.values())) == 1
    assert len(best.data.tags["git_sha"]) == 40
    assert best.data.tags["dirty"] in ("true", "false")

    curve = client.get_metric_history(best.info.run_id, "val/mIoU")
    assert [point.step for point in curve] == [100, 200, 300]
    names = [Path(entry.path).name for entry in client.list_artifacts(best.info.run_id, "images")]
    assert len([name for name in names if name.endswith(".png")]) == 3

    line = best.data.tags["mlflow.note.content"].split("```")[1].strip()
    assert line.startswith("spikeseg train shapes_tiny")
    assert f"model.neuron.timesteps={best.data.params['model.neuron.timesteps']}" in line


def test_the_trials_are_children_of_the_sweep(sweep: TrackedSweep) -> None:
    client = MlflowClient(f"sqlite:///{sweep.storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(sweep.experiment)
    assert experiment is not None
    found = client.search_runs(
        [experiment.experiment_id], f"tags.mlflow.parentRunId = '{sweep.parent}'"
    )
    assert {run.info.run_id for run in found} == set(sweep.trials)
