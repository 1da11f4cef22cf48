"""What a sweep leaves of its best trial in MLflow, and how results are ranked."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from trained_run import TrainedRun

from spikeseg.platform.config.recipes import load_resolved
from spikeseg.platform.search.study.trial_records import TrialRecord
from spikeseg.platform.search.sweep_results import _leave_model, rank_results
from spikeseg.platform.tracking.journal_lines import read_records


def test_the_best_trial_s_journal_gets_its_model_once(trained: TrainedRun, tmp_path: Path) -> None:
    trial = tmp_path / "0"
    shutil.copytree(trained.folder, trial)
    step = max(int(p.name[5:]) for p in (trial / "checkpoints").glob("step-*"))
    before = [r for r in read_records(trial / "journal") if r["kind"] == "model"]
    resolved = load_resolved((trial / "config.yaml").read_text())
    named = resolved.config.tracking.model_copy(update={"register": "best"})
    config = resolved.config.model_copy(update={"tracking": named})
    plan = cast("Any", SimpleNamespace(experiment=lambda point: SimpleNamespace(config=config)))
    for _ in range(2):
        _leave_model(plan, TrialRecord(0, "COMPLETE", step=step), trial)
    records = [r for r in read_records(trial / "journal") if r["kind"] == "model"]
    assert len(records) == len(before) + 1
    assert (records[-1]["step"], records[-1]["register"]) == (step, "best")


def test_equal_results_share_a_place() -> None:
    objectives = [SimpleNamespace(sign=-1), SimpleNamespace(sign=1)]
    plan = cast("Any", SimpleNamespace(recipe=SimpleNamespace(objectives=objectives)))
    values = {0: (20.0, 1.0), 1: (30.0, 2.0), 2: (30.0, 1.0), 3: (10.0, 0.1)}
    records = {n: TrialRecord(n, "COMPLETE", values=v) for n, v in values.items()}
    records[4] = TrialRecord(4, "FAIL")
    places = [(place, item.number) for place, item in rank_results(plan, records)]
    assert places == [(1, 2), (1, 1), (3, 0), (4, 3)]
