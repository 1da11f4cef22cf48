"""A whole sweep in this process: study, MLflow and result table agree, whatever interrupted it."""

import csv
import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import run_contents
from mlflow import MlflowClient
from toy_sweep import Killed, check_sweep, listed, run_toys, silent, toy_plan
from toy_trials import NAN, RAISES

from spikeseg.platform.config.recipes import ConfigError, load_experiment
from spikeseg.platform.runs.replay import plan_replay
from spikeseg.platform.search.sweep import SweepOptions, sweep
from spikeseg.platform.search.sweep_status import SweepStatus, summary
from spikeseg.platform.search.trials.trial import reports
from spikeseg.platform.tracking.metric_table import METRICS, evaluation_metrics
from spikeseg.platform.tracking.pages.run_page import NOTE, SHEET, STRIP
from spikeseg.platform.tracking.tracking_uri import tracking_uri

TINY = (
    "trainer.max_steps=2",
    "trainer.evaluate_every=1",
    "trainer.micro_batch_size=2",
    "trainer.micro_batches=2",
    "data.transform.crop=[32, 32]",
    "trainer.energy_images=1",
    "tracking.images=0",
)


def children(storage: Path) -> list[Any]:
    """MLflow's runs of the sweep's trials, by trial number."""
    client = MlflowClient(tracking_uri(storage))
    experiment = client.get_experiment_by_name("shapes")
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000))
    parents = [run for run in runs if "trial" not in run.data.tags]
    assert len(parents) == 1, "one sweep, one parent"
    trials = [run for run in runs if "trial" in run.data.tags]
    for run in trials:
        assert run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
    return sorted(trials, key=lambda run: int(run.data.tags["trial"]))


def agree(storage: Path, plan: Any) -> None:
    """Study, MLflow and result table, one to one."""
    folder = storage / "toy"
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{folder / 'study.db'}")
    check_sweep(plan, folder, study)
    table = list(csv.DictReader((folder / "results.csv").open()))
    runs = children(storage)
    assert len(study.trials) == len(table) == len(runs)
    ended = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
    for trial, row, run in zip(study.trials, table, runs, strict=True):
        verdict = trial.user_attrs["verdict"]
        assert int(row["trial"]) == int(run.data.tags["trial"]) == trial.number
        assert row["state"] == run.data.tags["state"] == trial.state.name
        assert row["reason"] == run.data.tags["reason"] == verdict["reason"]
        assert int(row["step"]) == verdict["step"]
        assert run.info.status == ended[trial.state.name]
        for key, value in trial.params.items():
            assert row[key] == run.data.params[key] == str(value)
        if trial.state.name == "COMPLETE":
            for name, value in zip(("val/mIoU", "energy/mJ"), trial.values, strict=False):
                assert float(row[name]) == run.data.metrics[name] == value


def test_an_interrupted_sweep_ends_with_study_mlflow_and_table_in_agreement(
    tmp_path: Path, data: Path
) -> None:
    changes = listed(4, NAN, 1, RAISES, 8, pruner={"rule": "non_dominated", "minimum": 2})
    plan = toy_plan(tmp_path, **changes)
    told = 0

    def killing(line: str) -> None:
        nonlocal told
        told += 1
        if told in (3, 8):
            raise Killed

    with pytest.raises(Killed):
        run_toys(data, tmp_path, killing, name="toy")
    with pytest.raises(Killed):
        run_toys(data, tmp_path, killing, resume="toy")
    seen: list[SweepStatus] = []
    outcome = run_toys(data, tmp_path, killing, resume="toy", show=seen.append)
    agree(tmp_path, plan)
    assert outcome.counts["FAIL"] == 2
    assert seen[-1].done == seen[-1].total == 5
    assert seen[-1].eta_seconds == 0
    again = run_toys(data, tmp_path, killing, resume="toy")
    assert again.counts == outcome.counts
    agree(tmp_path, plan)


def test_a_finished_sweep_leaves_front_figures_and_a_recipe(tmp_path: Path, data: Path) -> None:
    objectives = [
        {"metric": "val/mIoU", "direction": "maximize", "reference": 0.0},
        {"metric": "energy/mJ", "direction": "minimize", "reference": 5.0},
    ]
    overrides = ["trainer.max_steps=4", "trainer.evaluate_every=1", "trainer.test=false"]
    toy_plan(tmp_path, **listed(4, 1, 8, 2, 6, objectives=objectives, overrides=overrides))
    seen: list[SweepStatus] = []
    outcome = run_toys(data, tmp_path, name="toy", show=seen.append)
    assert seen[0].counts == {"RUNNING": 1}, "the table begins with the first trial"
    front = json.loads((outcome.folder / "front.json").read_text())
    assert [row["model.neuron.levels"] for row in front] == [8, 6, 4, 2, 1]
    assert outcome.best is not None and outcome.best.params["model.neuron.levels"] == 8
    best = load_experiment(str(outcome.folder / "best.yaml")).config
    assert best.model.neuron.levels == 8
    assert best.trainer.workers == 0
    assert best.trainer.test and best.tracking.first_step is None, "a training has all of it"
    names = {path.name for path in (outcome.folder / "figures").iterdir()}
    assert names == {"parallel.png", "front.png", "hypervolume.png"}
    shares = json.loads((outcome.folder / "importance.json").read_text())
    assert shares == {}, "five trials say too little of importance"
    page = (outcome.folder / "report.html").read_text()
    assert "Importance is not estimated: 5 completed trials say too little" in page
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{outcome.folder / 'study.db'}")
    assert study.metric_names == ["val/mIoU", "energy/mJ"], "for optuna-dashboard"
    client = MlflowClient(tracking_uri(tmp_path))
    parent = children(tmp_path)[0].data.tags["mlflow.parentRunId"]
    volumes = client.get_metric_history(parent, "sweep/hypervolume")
    assert [point.step for point in volumes] == [1, 2, 3, 4, 5]
    assert volumes[-1].value >= volumes[0].value > 0
    note = client.get_run(parent).data.tags["mlflow.note.content"]
    assert "| 2 | 1 | 8 | 20 |" in note
    kept = {item.path for item in client.list_artifacts(parent)}
    assert {"results.csv", "front.csv", "best.yaml", "report.html", "figures"} <= kept
    assert "provenance.json" in kept
    assert "code.diff" not in kept
    assert len(client.get_run(parent).data.tags["code_digest"]) == 64


def test_a_broken_constraint_is_seen_wherever_the_trial_is(tmp_path: Path, data: Path) -> None:
    limit = [{"metric": "energy/mJ", "at_most": 0.5}]
    toy_plan(tmp_path, **listed(4, 8, 2, constraints=limit))
    lines: list[str] = []
    seen: list[SweepStatus] = []
    outcome = run_toys(data, tmp_path, lines.append, name="toy", show=seen.append)
    assert outcome.best is not None and outcome.best.params["model.neuron.levels"] == 4
    told = "COMPLETE (full budget, breaks energy/mJ <= 0.5)"
    assert [told in line for line in lines if "COMPLETE" in line] == [False, True, False]
    assert "3/3 done (1 broke a constraint), best" in summary(seen[-1])
    by_trial = {run.data.tags["trial"]: run.data.tags for run in children(tmp_path)}
    assert by_trial["1"]["violations"] == "energy/mJ <= 0.5"
    assert "violations" not in by_trial["0"]
    client = MlflowClient(tracking_uri(tmp_path))
    parent = client.get_run(by_trial["0"]["mlflow.parentRunId"])
    assert parent.data.params["sweep.constraints"] == "energy/mJ <= 0.5"
    assert (
        "3 COMPLETE, 1 of them finished and broke a constraint (`energy/mJ <= 0.5`);"
        in (parent.data.tags["mlflow.note.content"])
    )


def test_two_drivers_cannot_work_on_one_sweep(tmp_path: Path, data: Path) -> None:
    toy_plan(tmp_path, **listed(4, 2))

    seen: list[str] = []

    def second(line: str) -> None:
        if not seen:
            with pytest.raises(ConfigError, match="another driver is at work on this sweep"):
                run_toys(data, tmp_path, resume="toy")
        seen.append(line)

    run_toys(data, tmp_path, second, name="toy")
    assert seen


@pytest.mark.slow
def test_a_sweep_cannot_be_resumed_with_another_recipe(tmp_path: Path, data: Path) -> None:
    toy_plan(tmp_path, **listed(4))
    run_toys(data, tmp_path, name="toy")
    with pytest.raises(ConfigError, match="there is a sweep of this name"):
        run_toys(data, tmp_path, name="toy")
    toy_plan(tmp_path, **listed(4, 5))
    differs = "its recipe differs from the one it began with: first was "
    with pytest.raises(ConfigError, match=differs):
        run_toys(data, tmp_path, resume="toy")
    with pytest.raises(ConfigError, match=r"no such sweep in .*; there are: toy"):
        run_toys(data, tmp_path, resume="tyo")
    with pytest.raises(ConfigError, match=r"--resume: got 't+… \(300 characters\): a name"):
        run_toys(data, tmp_path, resume="t" * 300)


def test_a_point_that_the_model_refuses_fails_as_a_trial_and_the_sweep_goes_on(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = toy_plan(tmp_path, **listed(4, 2, 8))
    real = type(plan).experiment

    def refuses(self: Any, point: Any) -> Any:
        if point["model.neuron.levels"] == 2:
            raise ConfigError("sweep: no such model")
        return real(self, point)

    monkeypatch.setattr("spikeseg.platform.search.sweep.check_trials", lambda plan: None)
    monkeypatch.setattr(type(plan), "experiment", refuses)
    outcome = run_toys(data, tmp_path, name="toy")
    assert outcome.counts == {"COMPLETE": 2, "FAIL": 1}
    rows = json.loads((outcome.folder / "results.json").read_text())
    assert rows[1]["reason"] == "refused: sweep: no such model"
    assert [run.data.tags["state"] for run in children(tmp_path)] == [
        "COMPLETE",
        "FAIL",
        "COMPLETE",
    ]


def test_a_sweep_and_its_trial_hold_the_names_of_their_lists(tmp_path: Path, data: Path) -> None:
    toy_plan(tmp_path, **listed(1))
    overrides = [f"data.path={data}", *TINY, "tracking.images=2"]
    options = SweepOptions(storage=tmp_path, here=True, name="toy")
    sweep(str(tmp_path / "toy.yaml"), overrides, options, progress=silent)
    trial = children(tmp_path)[0]
    client = MlflowClient(tracking_uri(tmp_path))
    parent = client.get_run(trial.data.tags["mlflow.parentRunId"])

    def ours(run: Any) -> set[str]:
        return {k for k in run.data.tags if not k.startswith(("mlflow.", "version.", "spikeseg."))}

    of_a_trial = run_contents.names("Tags of a trial besides")
    assert ours(trial) <= run_contents.names("Tags") | of_a_trial
    of_others = {"violations", "cause", "configuration"}
    assert of_a_trial | {"sweep", "trial", "data_digest"} <= ours(trial) | of_others
    assert set(trial.data.metrics) <= {name for name in METRICS if not name.startswith("test/")}
    assert "system/cpu_utilization_percentage" in trial.data.metrics
    kept = {item.path for item in client.list_artifacts(trial.info.run_id)}
    wanted = {name.partition("/")[0] for name in run_contents.names("Artifacts")}
    assert kept == wanted - {"checkpoints"}
    assert len(trial.data.params) <= 20 and len(parent.data.params) <= 20
    figures = {item.path for item in client.list_artifacts(trial.info.run_id, "figures")}
    assert {STRIP, SHEET, "figures/classes.png", "figures/curves.png"} <= figures
    assert trial.info.run_name == "T1 D1 levels #0" and trial.data.tags["run"] == "toy/0"
    note = trial.data.tags[NOTE]
    assert f"{trial.data.metrics['val/mIoU']:.1f} % mIoU on val" in note
    assert "spikeseg replay toy/0 --execute" in note
    names = {item.dataset.name for item in trial.inputs.dataset_inputs}
    assert names == {"shapes-train", "shapes-val", "shapes-test"}
    of_a_sweep = run_contents.names("Tags of a sweep")
    assert ours(parent) <= of_a_sweep
    # Two steps learn nothing, so that there is no best trial.
    of_the_best = {"best_trial", "best_point", "best", "configuration"}
    assert of_a_sweep - ours(parent) <= {"git_sha", "dirty", "code_diff_digest"} | of_the_best
    names = {name.partition("/")[0] for name in run_contents.names("Metrics of a sweep")}
    assert {name.partition("/")[0] for name in parent.data.metrics} <= names
    found = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert run_contents.names("Artifacts of a sweep") <= found | {
        "best.yaml",
        "groups.csv",
        "groups.json",
        "importance_intervals.json",
    }
    with pytest.raises(ConfigError, match="is a sweep: give the id of one of its trials"):
        plan_replay(parent.info.run_id, tmp_path)


@pytest.mark.parametrize("task", ["semantic", "panoptic"])
def test_a_trial_measures_what_objectives_and_limits_may_name(
    tmp_path: Path, data: Path, task: str
) -> None:
    matching = "model.query.matching=hungarian"
    overrides = [f"data.path={data}", f"data.task={task}", matching, *TINY]
    resolved = load_experiment("shapes_tiny", overrides)
    given = {
        "config": resolved.config.model_dump_json(),
        "origins": {},
        "folder": str(tmp_path / "0"),
        "parent": None,
        "tags": {},
        "workers": 1,
    }
    first = list(reports(given))
    assert [report.failure for report in first] == [None, None]
    assert [(report.step, report.final, report.replayed) for report in first] == [
        (1, False, False),
        (2, True, False),
    ]
    beside = {name for name, metric in METRICS.items() if metric.measured == "start"}
    measured = set(evaluation_metrics(task)) - {"val/category_mIoU"}
    assert set(first[-1].metrics) == measured | beside
    assert 0 <= first[-1].metrics["snn/dead_layers"] <= 1
    assert first[-1].metrics["snn/dead_fraction"] <= 1
    again = list(reports(given))
    assert [report.replayed for report in again] == [True, True]
    assert [report.metrics for report in again] == [report.metrics for report in first]
    assert [report.attempt for report in again] == [2, 2]
