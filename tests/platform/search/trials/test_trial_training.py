"""A trial is trained and recorded as a run is; only the sending is left to the sweep's driver."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_training import small
from tiny import pack_shapes

from spikeseg.platform.cluster.worker_group import OneWorker
from spikeseg.platform.config.recipes import Resolved, dump
from spikeseg.platform.config.schema import ExperimentConfig
from spikeseg.platform.search.study.trial_records import TrialReport
from spikeseg.platform.search.trials.trial import reports
from spikeseg.platform.tracking.journal import Journal
from spikeseg.platform.tracking.journal_lines import read_records
from spikeseg.platform.train import tracked_training
from spikeseg.platform.train.tracked_training import TrackedRun


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


def trial_order(data: Path, sweep: Path, **trainer: Any) -> dict[str, Any]:
    """Trial 0 of a sweep: two steps, an evaluation after each."""
    config = small(data, **{"max_steps": 2, "evaluate_every": 1, "workers": 0, **trainer})
    return {
        "config": dump(config),
        "origins": {},
        "folder": str(sweep / "trials" / "0"),
        "tags": {"trial": "0"},
        "parent": "0123456789abcdef",
        "workers": 1,
    }


def first_reports(order: dict[str, Any], count: int) -> list[TrialReport]:
    """The first reports of a trial, whose driver then goes on without it."""
    trial = reports(order)
    taken = [next(trial) for _ in range(count)]
    trial.close()
    assert [report.failure for report in taken] == [None] * count
    return taken


def recorded(order: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    journal = Path(order["folder"]) / "journal"
    return [record for record in read_records(journal) if record["kind"] == kind]


def test_a_trial_goes_on_with_the_journal_that_its_mirror_has(tmp_path: Path, data: Path) -> None:
    order = trial_order(data, tmp_path / "sweep", mirror=(tmp_path / "far").as_uri())
    first_reports(order, 1)
    run = recorded(order, "run")[0]["id"]
    # Another machine goes on: all it has is what the mirror has.
    shutil.rmtree(tmp_path / "sweep")
    (again, new) = first_reports(order, 2)
    assert (again.step, again.replayed, new.step, new.replayed) == (1, True, 2, False)
    assert {record["id"] for record in recorded(order, "run")} == {run}


def test_trials_of_two_sweeps_have_copies_of_their_own(tmp_path: Path, data: Path) -> None:
    far = tmp_path / "far"
    for sweep in ("one", "two"):
        order = trial_order(data, tmp_path / sweep, mirror=far.as_uri())
        (report,) = first_reports(order, 1)
        assert not report.replayed
    assert sorted(path.name for path in far.iterdir()) == ["one", "two"]
    assert (far / "two" / "trials" / "0" / "checkpoints" / "step-00000001").is_dir()


class ForgetsEvaluations(Journal):
    """What a kill leaves between a checkpoint and its record: the record never reached the disk."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        if "val/mIoU" not in values:
            super().metrics(step, values)


def test_a_trial_records_the_evaluations_that_its_checkpoint_has_and_its_journal_lacks(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = trial_order(data, tmp_path / "sweep")

    def scored() -> list[int]:
        lines = recorded(order, "metrics")
        return [line["step"] for line in lines if "val/mIoU" in line["values"]]

    with monkeypatch.context() as once:
        once.setattr(tracked_training, "Journal", ForgetsEvaluations)
        first_reports(order, 1)
    assert scored() == []
    first_reports(order, 2)
    assert scored() == [1, 2]


@pytest.mark.parametrize("parent", [None, "0123456789abcdef"], ids=["run", "trial"])
def test_a_run_sends_its_journal_and_its_end_and_a_trial_leaves_both_to_its_driver(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, parent: str | None
) -> None:
    sent: list[Path] = []
    monkeypatch.setattr(
        tracked_training, "start_sender", lambda journal, tracked: sent.append(tracked.folder)
    )
    config = small(data, max_steps=1, evaluate_every=1)
    tracked = TrackedRun(Resolved(config, {}), tmp_path / "run", {}, parent)
    with tracked_training.tracked_training(tracked, OneWorker(), progress=None) as (training, _):
        assert [item.step for item in training.evaluations()] == [1]
    ends = recorded({"folder": str(tmp_path / "run")}, "status")
    assert sent == ([] if parent else [tmp_path / "run"])
    assert [end["status"] for end in ends] == ([] if parent else ["FINISHED"])


def test_the_untrained_network_s_score_is_the_first_metric_and_no_evaluation(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracked_training, "start_sender", lambda journal, tracked: None)
    weights = {}
    for looked in (True, False):
        tree = json.loads(small(data, max_steps=1, evaluate_every=1).model_dump_json())
        tree["tracking"]["first_step"] = looked
        config = ExperimentConfig.model_validate_json(json.dumps(tree))
        folder = tmp_path / str(looked)
        tracked = TrackedRun(Resolved(config, {}), folder, {})
        with tracked_training.tracked_training(tracked, OneWorker()) as (training, _):
            assert [item.step for item in training.evaluations()] == [1]
            assert [item.step for item in training.history] == [1]
            weights[looked] = training.state.state_dict()["model"]
        lines = recorded({"folder": str(folder)}, "metrics")
        scored = [line for line in lines if "val/mIoU" in line["values"]]
        assert [line["step"] for line in scored] == ([0, 1] if looked else [1])
        assert (lines[0] is scored[0]) is looked
        assert {"energy/mJ", "snn/firing_rate"} <= scored[0]["values"].keys()
    for name, value in weights[True].items():
        assert torch.equal(value, weights[False][name]), name


def test_a_run_survives_the_way_to_another_process(tmp_path: Path, data: Path) -> None:
    tracked = TrackedRun(Resolved(small(data), {"seed": "file"}), tmp_path, {"a": "b"}, "parent")
    assert TrackedRun.from_message(json.loads(json.dumps(tracked.to_message()))) == tracked
