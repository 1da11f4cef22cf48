"""Records that an earlier version could not send reach MLflow."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from command import spikeseg
from mlflow import MlflowClient
from stored_examples import Stored


def records(journal: Path, kind: str) -> list[dict[str, Any]]:
    lines = (journal / "records.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def last_values(journal: Path, kind: str) -> dict[str, str]:
    """Name -> last value of all records of tags or parameters."""
    return {k: v for record in records(journal, kind) for k, v in record["values"].items()}


def curves(journal: Path) -> dict[str, dict[int, float]]:
    """Metric -> step -> value."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for record in records(journal, "metrics"):
        for key, value in record["values"].items():
            found[key][record["step"]] = value
    return dict(found)


def curves_of(client: MlflowClient, run_id: str) -> dict[str, dict[int, float]]:
    """Metric -> step -> value, as MLflow has them; each step once."""
    found = {}
    for key in client.get_run(run_id).data.metrics:
        points = client.get_metric_history(run_id, key)
        found[key] = {point.step: point.value for point in points}
        assert len(found[key]) == len(points), key
    return found


def test_everything_of_a_training_is_sent(
    stored: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = stored.run / "journal"
    assert not (journal / "sent.json").exists()
    ran = spikeseg(capsys, "track", "sync", str(stored.run))
    assert ran.code == 0, ran.err

    client = MlflowClient(f"sqlite:///{stored.storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("stored")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id in ran.out
    assert run.info.run_name == stored.run.name

    recorded = curves(journal)
    assert {"train/loss", "val/mIoU", "energy/mJ"} <= set(recorded)
    assert curves_of(client, run.info.run_id) == recorded
    tags, params = last_values(journal, "tags"), last_values(journal, "params")
    assert tags["data_digest"] and params["model.neuron.levels"] == "4"
    assert {key: run.data.tags.get(key) for key in tags} == tags
    assert {key: run.data.params.get(key) for key in params} == params
    assert run.inputs is not None
    splits = {item.tags[0].value for item in run.inputs.dataset_inputs}
    assert splits == {"train", "val", "test"}

    kept = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    files = {record["path"].partition("/")[0] for record in records(journal, "file")}
    assert "provenance.json" in files and files <= kept
    assert client.list_artifacts(run.info.run_id, "images")


def test_a_sweep_is_sent_with_its_trials_as_children(
    stored: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = spikeseg(capsys, "track", "sync", str(stored.sweep))
    assert ran.code == 0, ran.err
    parent, *children = re.findall(r"as run (\w+)", ran.out)

    client = MlflowClient(f"sqlite:///{stored.storage / 'mlflow.db'}")
    assert curves_of(client, parent) == curves(stored.sweep / "journal")
    assert len(children) == 3
    for number, child in enumerate(children):
        trial = client.get_run(child)
        assert trial.data.tags["mlflow.parentRunId"] == parent
        assert trial.data.tags["trial"] == str(number)
        assert curves_of(client, child) == curves(stored.sweep / f"trials/{number}/journal")
    status = [client.get_run(child).info.status for child in children]
    assert status == ["FINISHED", "FINISHED", "RUNNING"]
