"""How sweeps of toys are started, refused, stopped and continued; nothing is sent to a tracker."""

import contextlib
import json
import os
import shlex
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest
import ray
import torch
from toy_sweep import listed, run_toys, toy_plan
from toy_trials import RAISES
from toy_trials import toy as toy_work

from spikeseg.jobs import sweep as job
from spikeseg.model.segmentor import build_uncalibrated_segmentor
from spikeseg.platform.config.recipes import ConfigError
from spikeseg.platform.search import sweep as tuner
from spikeseg.platform.search import sweep_results as outcome
from spikeseg.platform.search.study.study import Keeper
from spikeseg.platform.search.study.trial_records import TrialRecord
from spikeseg.platform.search.sweep import SweepOutcome, SweepUnfinishedError
from spikeseg.platform.search.sweep_results import why_no_result
from spikeseg.platform.search.trials import ray_tune as faces
from spikeseg.platform.search.trials.engine import TrialQueue
from spikeseg.platform.search.trials.trial import reports
from spikeseg.platform.tracking.journal import append_model, read_records


@pytest.fixture(autouse=True)
def starts_are_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases of MLflow's and dozens of models take seconds; other tests look at them."""
    monkeypatch.setattr(tuner, "check_trials", lambda plan: None)
    monkeypatch.setattr("spikeseg.platform.tracking.upload.uploader.sync", lambda *given: None)


def cluster(monkeypatch: pytest.MonkeyPatch, *nodes: str) -> None:
    """Ray as `_engine` sees it: nodes of 2 CPUs each, more than one of them far away."""
    resources = [{"Alive": True, "Resources": {"CPU": 2.0}} for _ in nodes]
    monkeypatch.setattr(tuner, "connected", lambda cpus: contextlib.nullcontext())
    monkeypatch.setattr(tuner, "worker_nodes", lambda: list(nodes) if len(nodes) > 1 else [])
    monkeypatch.setattr(ray, "nodes", lambda: resources)
    monkeypatch.setattr(faces, "run_on_tune", lambda *given, **named: pytest.fail("it started"))


def tags(folder: Path) -> dict[str, str]:
    """The last value of each tag of a sweep's own journal."""
    kept: dict[str, str] = {}
    for record in read_records(folder / "journal"):
        if record["kind"] == "tags":
            kept |= record["values"]
    return kept


def interrupted(data: Path, storage: Path, number: int, **given: Any) -> SweepUnfinishedError:
    """A sweep that gets a signal with its first report."""

    def kill(line: str) -> None:
        if line.startswith("trial"):
            os.kill(os.getpid(), number)

    with pytest.raises(SweepUnfinishedError) as caught:
        run_toys(data, storage, kill, name="toy", **given)
    return caught.value


def test_nodes_that_do_not_see_the_storage_are_refused_before_anything_is_made(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(nodes: list[str], storage: Path, *given: Any) -> None:
        raise ValueError(f"storage {storage}: node {nodes[1]} does not see it")

    toy_plan(tmp_path, **listed(4))
    cluster(monkeypatch, "near", "far")
    monkeypatch.setattr(tuner, "check_nodes", blind)
    with pytest.raises(ValueError, match="node far does not see it"):
        run_toys(data, tmp_path, name="toy", here=False)
    assert not (tmp_path / "toy").exists()


def test_a_concurrency_that_does_not_fit_leaves_no_folder(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_plan(tmp_path, **listed(4))
    cluster(monkeypatch, "near")
    with pytest.raises(ConfigError, match="3 trials at once"):
        run_toys(data, tmp_path, name="toy", here=False, concurrency=3)
    assert not (tmp_path / "toy").exists()


def test_trials_at_once_are_refused_without_ray(tmp_path: Path, data: Path) -> None:
    toy_plan(tmp_path, **listed(4))
    with pytest.raises(ConfigError, match="concurrency: got 5: without Ray"):
        run_toys(data, tmp_path, name="toy", concurrency=5)


def test_tune_saves_nothing_at_a_trials_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where such a save fails (another disk, a node that goes), Tune runs the trial again."""
    seen: dict[str, Any] = {}

    class Tuner:
        def __init__(self, trainable: Any, **given: Any) -> None:
            seen.update(given)

        def fit(self) -> None:
            """Run nothing."""

    plan = toy_plan(tmp_path, **listed(4))
    keeper = Keeper(plan, tmp_path, storage=f"{tmp_path / 'study.log'}", trials=1)
    orders = TrialQueue(keeper, lambda proposal: {}, lambda *told: None, toy_work)
    monkeypatch.setattr(faces.tune, "Tuner", Tuner)
    faces.run_on_tune(
        orders,
        folder=tmp_path,
        resources=plan.recipe.resources,
        workers=1,
        at_once=1,
        max_failures=1,
    )
    assert seen["run_config"].checkpoint_config.checkpoint_at_end is False


def test_a_trial_that_has_ended_refuses_to_train(tmp_path: Path, data: Path) -> None:
    toy_plan(tmp_path, **listed(4))
    trial = run_toys(data, tmp_path, name="toy").folder / "trials" / "0"
    assert json.loads((trial / "verdict.json").read_text())["state"] == "COMPLETE"
    told = list(reports({"folder": str(trial)}))
    assert len(told) == 1
    assert told[0].failure is not None and "this trial has ended" in told[0].failure


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_signal_stops_a_sweep_that_can_be_continued(
    tmp_path: Path, data: Path, number: signal.Signals, code: int
) -> None:
    toy_plan(tmp_path, **listed(4, 2))
    # Whoever starts the tests in the background may have left Ctrl-C ignored.
    before = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    outside = signal.signal(number, before)
    try:
        error = interrupted(data, tmp_path, number)
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, outside)
    assert (error.name, error.code) == ("toy", code)
    assert str(error) == f"toy: stopped by {number.name}, 0 of 2 trials have ended"
    assert run_toys(data, tmp_path, resume="toy").counts == {"COMPLETE": 2}


def test_a_signal_while_results_are_written_can_be_continued(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_plan(tmp_path, **listed(4, 2))
    drawn = outcome.draw_sweep

    def stopped(*given: Any) -> dict[str, bytes]:
        signal.raise_signal(signal.SIGTERM)
        return {}

    monkeypatch.setattr(outcome, "draw_sweep", stopped)
    with pytest.raises(SweepUnfinishedError) as caught:
        run_toys(data, tmp_path, name="toy")
    assert (caught.value.name, caught.value.code) == ("toy", 143)
    assert str(caught.value) == "toy: stopped by SIGTERM, 2 of 2 trials have ended"
    monkeypatch.setattr(outcome, "draw_sweep", drawn)
    again = run_toys(data, tmp_path, resume="toy")
    assert again.counts == {"COMPLETE": 2}
    assert (again.folder / "figures" / "front.png").is_file()


def test_a_finished_sweep_that_is_resumed_leaves_the_ends_of_its_trials_as_they_were(
    tmp_path: Path, data: Path
) -> None:
    toy_plan(tmp_path, **listed(4, 2))
    folder = run_toys(data, tmp_path, name="toy").folder
    journals = sorted(folder.glob("trials/*/journal"))
    # As a sweep's best trial has it, behind its end.
    texts = {"name": "toy", "folder": "model", "example": "[]", "dataset": "shapes"}
    values = {"params": {}, "tags": {}, "digests": {}}
    append_model(journals[0], {**texts, **values, "step": 4, "files": [], "register": None})

    def list_ends() -> list[int]:
        return [r["time"] for path in journals for r in read_records(path) if r["kind"] == "status"]

    before = list_ends()
    assert len(before) == 2
    run_toys(data, tmp_path, resume="toy")
    assert list_ends() == before, "MLflow takes a trial's duration from its last end"


def test_a_sweep_whose_engine_fails_can_be_continued(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `ValueError` would read as a wrong request, before any trial."""

    def fail(orders: TrialQueue) -> None:
        orders.next()
        raise ValueError("no such actor\nand pages of it")

    toy_plan(tmp_path, **listed(4, 2))
    works = tuner.run_here
    monkeypatch.setattr(tuner, "run_here", fail)
    with pytest.raises(SweepUnfinishedError) as caught:
        run_toys(data, tmp_path, name="toy")
    assert (caught.value.name, caught.value.code) == ("toy", 1)
    assert str(caught.value) == (
        "toy: the engine failed (ValueError: no such actor), 0 of 2 trials have ended"
    )
    monkeypatch.setattr(tuner, "run_here", works)
    assert run_toys(data, tmp_path, resume="toy").counts == {"COMPLETE": 2}


def test_a_resume_with_fewer_trials_than_were_started_leaves_none_running(
    tmp_path: Path, data: Path
) -> None:
    toy_plan(tmp_path, trials=4)
    interrupted(data, tmp_path, signal.SIGTERM)
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path / 'toy/study.db'}")
    study.ask()
    lines: list[str] = []
    outcome = run_toys(data, tmp_path, lines.append, resume="toy", trials=1)
    assert outcome.counts == {"COMPLETE": 2}
    assert "2 trials were started already, more than the 1 asked for" in lines[0]


def test_an_extended_sweep_shows_its_new_best_and_its_new_number(
    tmp_path: Path, data: Path
) -> None:
    levels = {"model.neuron.levels": {"choices": [1, 2, 8]}}
    toy_plan(tmp_path, trials=None, sampler={"name": "grid", "seed": 1}, space=levels)
    lines: list[str] = []
    folder = run_toys(data, tmp_path, lines.append, name="toy", trials=2).folder
    assert not any("asked for" in line for line in lines)
    assert (tags(folder)["trials"], tags(folder)["best_trial"]) == ("2", "1")
    run_toys(data, tmp_path, lines.append, resume="toy", trials=9)
    assert "9 trials were asked for, and after 3 no point is left (grid)" in "".join(lines)
    assert (tags(folder)["trials"], tags(folder)["best_trial"]) == ("3", "2")
    assert json.loads(tags(folder)["best_point"]) == {"model.neuron.levels": 8}


def test_a_setting_that_differs_at_a_resume_is_named_with_both_values(
    tmp_path: Path, data: Path
) -> None:
    toy_plan(tmp_path, **listed(4))
    run_toys(data, tmp_path, name="toy")
    toy_plan(tmp_path, steps=3, **listed(4))
    with pytest.raises(ConfigError) as caught:
        run_toys(data, tmp_path, resume="toy")
    assert "overrides was" in str(caught.value)
    toy_plan(tmp_path, **listed(4))
    options = tuner.SweepOptions(storage=tmp_path, resume="toy", here=True)
    overrides = [f"data.path={data}", "loss.dice_weight=9.0"]
    with pytest.raises(ConfigError, match=r"overrides differs .*: loss\.dice_weight was .*is 9\.0"):
        tuner.sweep(str(tmp_path / "toy.yaml"), overrides, options, progress=print)


def test_the_printed_command_continues_from_any_folder(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_plan(tmp_path, **listed(4))
    monkeypatch.chdir(tmp_path)
    model = build_uncalibrated_segmentor(toy_plan(tmp_path, **listed(4)).base.config.model)
    torch.save(model.backbone.state_dict(), "weights.pth")
    overrides = [
        f"data.path={os.path.relpath(data)}",
        "init.backbone=weights.pth",
        "loss.dice_weight=9.0",
    ]
    options = tuner.SweepOptions(storage=Path("runs"), name="toy", here=True)
    tuner.sweep("toy.yaml", overrides, options, progress=print, work=toy_work)
    line = job.continuation("toy.yaml", overrides, "toy", Path("runs"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    _, verb, recipe, *items, flag, name, option, storage = shlex.split(line)
    assert (verb, flag, option) == ("sweep", "--resume", "--storage")
    options = tuner.SweepOptions(storage=Path(storage), resume=name, here=True)
    tuner.sweep(recipe, items, options, progress=print, work=toy_work)
    plain = "spikeseg sweep demo --resume n --storage /r"
    assert job.continuation("demo", [], "n", Path("/r")) == plain
    monkeypatch.setenv("SPIKESEG_STUDY", "postgresql://me:secret@host/studies")
    assert job.continuation("demo", [], "n", Path("/r")) == plain
    for study, absolute in [("all.log", "{}/all.log"), ("sqlite:///all.db", "sqlite:///{}/all.db")]:
        monkeypatch.setenv("SPIKESEG_STUDY", study)
        line = job.continuation("demo", [], "n", Path("/r"))
        assert line == f"SPIKESEG_STUDY={absolute.format(elsewhere)} {plain}"


def test_a_sweep_without_a_result_says_why(tmp_path: Path, data: Path) -> None:
    energy = [{"metric": "energy/mJ", "at_most": 0.01}]
    toy_plan(tmp_path, **listed(4, RAISES, 2, constraints=energy))
    ended = run_toys(data, tmp_path, name="toy")
    assert ended.best is None
    assert ended.missing == (
        "no result: of 3 trials 1 failed (trial 1: RuntimeError: a toy that raises), "
        "2 broke energy/mJ <= 0.01"
    )
    assert why_no_result({0: TrialRecord(0, "COMPLETE", values=(1.0,))}) == ""
    note = tags(ended.folder)["mlflow.note.content"]
    assert "\n\nN" + ended.missing.removeprefix("n") + ".\n" in note
    head = (ended.folder / "front.csv").read_text()
    assert head.startswith("trial,state,model.neuron.timesteps,")


@pytest.mark.parametrize(("counts", "code"), [({"FAIL": 2}, 1), ({"COMPLETE": 1, "FAIL": 1}, 0)])
def test_the_command_fails_where_every_trial_failed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    counts: dict[str, int],
    code: int,
) -> None:
    ended = SweepOutcome("toy", tmp_path, None, [], counts, "no result: because")
    monkeypatch.setattr(tuner, "sweep", lambda *given, **named: ended)
    with pytest.raises(SystemExit) as left:
        job.run(job.command, ["demo", "--storage", str(tmp_path)])
    assert left.value.code == code
    assert "no result: because" in capsys.readouterr().out


def test_a_sweep_is_continued_by_its_name_alone(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_plan(tmp_path, **listed(4))
    monkeypatch.chdir(tmp_path)
    options = tuner.SweepOptions(storage=tmp_path / "runs", name="toy", here=True)
    overrides = [f"data.path={os.path.relpath(data)}", "loss.dice_weight=9.0"]
    tuner.sweep("toy.yaml", overrides, options, progress=print, work=toy_work)
    asked: list[Any] = []

    def record(recipe: str, items: list[str], options: Any, **_: Any) -> Any:
        asked.extend([recipe, list(items), options.resume])
        raise SweepUnfinishedError("seen", "toy", 3)

    monkeypatch.setattr(tuner, "sweep", record)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(SystemExit):
        job.run(job.command, ["--resume", "toy", "--storage", str(tmp_path / "runs")])
    recipe, (path, weight), name = asked
    assert Path(path.removeprefix("data.path=")).resolve() == data.resolve()
    assert (recipe, weight, name) == (str(tmp_path / "toy.yaml"), "loss.dice_weight=9.0", "toy")


def test_without_what_was_asked_for_the_recipe_has_to_be_given(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_plan(tmp_path, **listed(4))
    run_toys(data, tmp_path, name="toy")
    path = tmp_path / "toy" / "plan.json"
    plan = json.loads(path.read_text())
    del plan["request"]
    path.write_text(json.dumps(plan))
    for arguments in (["--resume", "toy"], []):
        with pytest.raises(SystemExit) as left:
            job.run(job.command, [*arguments, "--storage", str(tmp_path)])
        assert left.value.code == 2
    told = capsys.readouterr().err
    assert "did not keep what was asked for; give its recipe" in told
    assert "give a recipe, or --resume SWEEP" in told


@pytest.mark.parametrize("engine", [[], ["--here"], ["--concurrency", "3"]], ids=" ".join)
def test_the_command_says_how_to_continue_a_stopped_sweep(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    engine: list[str],
) -> None:
    def stopped(*given: Any, **named: Any) -> None:
        raise SweepUnfinishedError("toy: stopped by SIGTERM", "toy", 143)

    monkeypatch.setattr(tuner, "sweep", stopped)
    with pytest.raises(SystemExit) as left:
        job.run(job.command, ["demo", "data.path=/d", "--storage", str(tmp_path), *engine])
    assert left.value.code == 143
    told = capsys.readouterr().err
    line = ["spikeseg sweep demo data.path=/d --resume toy", *engine, "--storage", str(tmp_path)]
    assert f"continue: {' '.join(line)}\n" in told


@pytest.mark.parametrize("before", [[], ["--resume", "toy"]], ids=["new", "resumed"])
@pytest.mark.parametrize("how", ["SIGTERM", "SIGTERM, answered by Ray", "SIGINT"])
def test_a_signal_while_no_trial_runs_is_told_with_its_own_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: str,
    before: list[str],
) -> None:
    name, _, answered = how.partition(", ")

    def stopped(*given: Any, **named: Any) -> None:
        if answered:
            raise SystemExit(signal.SIGTERM.value)
        if name == "SIGINT":
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(tuner, "sweep", stopped)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "plan.json").write_text("{}")
    with pytest.raises(SystemExit) as left:
        job.run(job.command, ["demo", *before, "--storage", str(tmp_path)])
    assert left.value.code == 128 + signal.Signals[name]
    told = capsys.readouterr().err
    assert told.startswith(f"spikeseg: stopped by {name}, no trial was running\n")
    assert ("continue: spikeseg sweep demo --resume toy " in told) == bool(before)
