"""A run can be repeated from its id; what is missing or different is said."""

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from trained_run import TrainedRun

from spikeseg.platform.config.recipes import ConfigError
from spikeseg.platform.runs import replay as module
from spikeseg.platform.runs.replay import (
    compare_provenance,
    describe_cause,
    find_first_difference,
    leave_out_start,
    plan_replay,
    replay,
)
from spikeseg.platform.tracking.provenance import packages
from spikeseg.platform.tracking.run_reader import TrackedRun


def test_a_run_repeated_from_its_id_ends_with_equal_numbers(trained: TrainedRun) -> None:
    plan = plan_replay(trained.run_id, trained.storage)
    assert [item for item in plan.differences if item.kind != "environment"] == []
    verdict = replay(plan, storage=trained.storage, progress=lambda line: None)
    assert verdict.first is None
    assert verdict.compared > 20
    assert verdict.folder != trained.folder


def test_a_trial_is_repeated_without_the_test_split_that_no_trial_scores(
    trained: TrainedRun,
) -> None:
    assert plan_replay(trained.run_id, trained.storage).resolved.config.trainer.test
    trained.client.set_tag(trained.run_id, "trial", "0")
    try:
        trial = plan_replay(trained.run_id, trained.storage)
    finally:
        trained.client.delete_tag(trained.run_id, "trial")
    assert not trial.resolved.config.trainer.test


def test_a_repetition_that_leaves_the_run_names_the_first_step_and_the_cause(
    trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {**packages(), "torch": "9.9"}
    monkeypatch.setattr(module, "packages", lambda: changed)
    plan = plan_replay(trained.run_id, trained.storage)
    plan.run.series["train/loss"][2] = (3, plan.run.series["train/loss"][2][1] + 1e-9)
    verdict = replay(plan, storage=trained.storage, progress=lambda line: None)
    assert verdict.first is not None
    assert verdict.first[:2] == (3, "train/loss")
    assert verdict.cause.startswith("packages: torch was 2.")
    assert verdict.cause.endswith("is 9.9")


def test_a_run_that_ended_early_is_compared_as_far_as_it_came(trained: TrainedRun) -> None:
    plan = plan_replay(trained.run_id, trained.storage)
    series = {
        key: kept
        for key, points in plan.run.series.items()
        if (kept := [point for point in points if point[0] <= 3])
    }
    run = dataclasses.replace(plan.run, status="FAILED", series=series)
    plan = dataclasses.replace(plan, run=run)
    verdict = replay(plan, storage=trained.storage, progress=lambda line: None)
    assert verdict.first is None
    assert verdict.compared == len(module.recorded_values(run)) > 0


@pytest.mark.slow
def test_a_run_resumed_with_another_logging_interval_is_compared_where_both_logged(
    trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_replay(trained.run_id, trained.storage)
    assert plan.one_interval
    starts = [{"command": "train.py", "log_every": number} for number in (1, 2, 1)]
    read = TrackedRun.read

    def resumed(run: TrackedRun, path: str) -> bytes | None:
        content = read(run, path)
        if path != "provenance.json" or content is None:
            return content
        return json.dumps({**json.loads(content), "starts": starts}).encode()

    monkeypatch.setattr(TrackedRun, "read", resumed)
    plan = plan_replay(trained.run_id, trained.storage)
    assert not plan.one_interval
    whole = len(module.recorded_values(plan.run))
    # As a start with log_every=2 leaves it: steps 1 and 3 were not logged.
    logged = [name for name in plan.run.series if name.startswith("train/")]
    for name in logged:
        plan.run.series[name] = [point for point in plan.run.series[name] if point[0] % 2 == 0]
    verdict = replay(plan, storage=trained.storage, progress=lambda line: None)
    assert verdict.first is None
    assert verdict.compared == whole - 2 * len(logged) > 10
    del plan.run.series["val/mIoU"][0]
    verdict = replay(plan, storage=trained.storage, progress=lambda line: None)
    assert verdict.first is not None and verdict.first[:3] == (2, "val/mIoU", None)


def test_variables_that_say_where_a_run_goes_are_no_difference(
    trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_of = json.loads((trained.folder / "journal/files/provenance.json").read_text())
    recorded = made_of["environment"].items()
    made_of["environment"] = {k: v for k, v in recorded if not k.startswith(("MLFLOW_", "RAY_"))}
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"]
    assert compare_provenance(made_of) == []
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    (found,) = compare_provenance(made_of)
    assert found.text == "CUBLAS_WORKSPACE_CONFIG was unset, is :16:8"


@pytest.mark.parametrize(
    ("artifact", "content", "message"),
    [
        ("provenance.json", b"", "provenance.json: no JSON"),
        ("provenance.json", b"[1]", "provenance.json: not an object"),
        ("config.yaml", b"seed: [", "config.yaml: "),
    ],
)
def test_an_artifact_that_cannot_be_read_is_named(
    trained: TrainedRun,
    monkeypatch: pytest.MonkeyPatch,
    artifact: str,
    content: bytes,
    message: str,
) -> None:
    read = TrackedRun.read
    monkeypatch.setattr(
        TrackedRun, "read", lambda run, path: content if path == artifact else read(run, path)
    )
    with pytest.raises(ConfigError, match=f"run {trained.run_id}: artifact {message}"):
        plan_replay(trained.run_id, trained.storage)


def test_a_run_from_before_untrained_networks_were_scored_is_compared_without_that() -> None:
    before = {(0, "val/baseline_majority"): 2.7, (5, "val/mIoU"): 30.0}
    now = {**before, (0, "val/mIoU"): 1.0, (0, "energy/mJ"): 0.2}
    assert leave_out_start(before, now) == before
    assert leave_out_start(now, {**now, (0, "energy/mJ"): 0.3})[0, "energy/mJ"] == 0.3


def test_the_first_difference_is_the_earliest_step() -> None:
    before = {(1, "a"): 1.0, (2, "b"): 2.0, (2, "a"): float("nan"), (3, "a"): 4.0}
    assert find_first_difference(before, dict(before)) is None
    assert find_first_difference(before, {**before, (3, "a"): 5.0}) == (3, "a", 4.0, 5.0)
    assert find_first_difference(before, {(1, "a"): 1.0}) is not None
    assert find_first_difference(before, {**before, (2, "b"): 2.5, (3, "a"): 5.0}) == (
        2,
        "b",
        2.0,
        2.5,
    )
    missing = {key: value for key, value in before.items() if key != (2, "b")}
    assert find_first_difference(before, missing) == (2, "b", 2.0, None)
    endless = {(1, "a"): float("-inf")}
    assert find_first_difference({(1, "a"): -sys.float_info.max}, endless) is None
    assert find_first_difference({(1, "a"): sys.float_info.max}, endless) is not None
    more = {**before, (2, "c"): 9.0}
    assert find_first_difference(before, more) == (2, "c", None, 9.0)


def test_missing_data_is_said_with_its_digest_and_may_lie_elsewhere(
    trained: TrainedRun, tmp_path: Path
) -> None:
    data = trained.storage / "shapes"
    moved = tmp_path / "moved"
    shutil.move(data, moved)
    try:
        with pytest.raises(ConfigError, match=r"missing: its data, digest [0-9a-f]{12}.*--data"):
            plan_replay(trained.run_id, trained.storage)
        plan = plan_replay(trained.run_id, trained.storage, data=str(moved))
    finally:
        shutil.move(moved, data)
    assert not [item for item in plan.differences if item.kind == "data"]
    assert plan.resolved.config.data.path == str(moved)


def test_threads_code_and_hardware_that_differ_are_named(
    trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(module, "code_digest", lambda: "0" * 64)
    monkeypatch.setattr(module, "git_state", lambda: {"git_sha": "1" * 40, "dirty": "true"})
    # A package that no result depends on comes last.
    monkeypatch.setattr(module, "packages", lambda: {**packages(), "aaa": "1"})
    monkeypatch.setattr(
        module,
        "hardware",
        lambda: dict.fromkeys(("processor", "capability", "gpus", "cuda", "cores"), "another"),
    )
    plan = plan_replay(trained.run_id, trained.storage)
    kinds = [item.kind for item in plan.differences]
    order = ["code", "threads", "hardware", "environment", "packages"]
    assert kinds == sorted(kinds, key=order.index)
    assert {"code", "threads", "hardware", "packages"} <= set(kinds)
    assert describe_cause(plan).startswith("code: was commit")
    assert describe_cause(plan).endswith("is commit 111111111111 with changes")


def test_a_run_without_its_configuration_cannot_be_repeated_and_that_is_said(
    trained: TrainedRun, tmp_path: Path
) -> None:
    from journals import open_journal

    from spikeseg.platform.tracking.tracking_uri import tracking_uri
    from spikeseg.platform.tracking.upload.uploader import sync

    journal = open_journal(tmp_path / "journal")
    run_id = sync(journal.folder, tracking_uri(trained.storage), "bare")
    with pytest.raises(ConfigError, match=r"missing: artifact config.yaml .* provenance.json"):
        plan_replay(run_id, trained.storage)


def test_a_run_without_a_metric_has_nothing_to_compare_with(
    trained: TrainedRun, tmp_path: Path
) -> None:
    plan = plan_replay(trained.run_id, trained.storage)
    empty = dataclasses.replace(plan, run=dataclasses.replace(plan.run, series={}))
    with pytest.raises(ConfigError, match="recorded no metric: nothing to compare with"):
        replay(empty, storage=tmp_path, progress=lambda line: None)
    assert not list(tmp_path.iterdir())
