"""Trials no better than an answer that ignores the image: told everywhere, never crowned."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toy_sweep import listed, toy_plan

from spikeseg.platform.config.recipes import ConfigError
from spikeseg.platform.runs.find_run import find_run
from spikeseg.platform.search.study.trial_records import TrialRecord, TrialReport, Verdict
from spikeseg.platform.search.sweep_results import finish_sweep, why_no_result
from spikeseg.platform.search.sweep_standing import best_trial, front_trials, is_degenerate_trial
from spikeseg.platform.search.sweep_status import Watcher, summary

STEP = 4


def trial(number: int, miou: float, energy: float, **changes: Any) -> TrialRecord:
    metrics = {"val/mIoU": miou, "energy/mJ": energy}
    known = {"val/baseline_majority": 7.2, "val/baseline_position": 18.3}
    return TrialRecord(
        number,
        "COMPLETE",
        point={"model.neuron.levels": number},
        history={1: metrics, STEP: {**metrics, **changes.pop("baselines", known)}},
        step=STEP,
        values=(miou, energy),
        **changes,
    )


def numbered(*trials: TrialRecord) -> dict[int, TrialRecord]:
    return {item.number: item for item in trials}


class Journal:
    """A sweep's journal that keeps its tags."""

    def __init__(self) -> None:
        self.last: dict[str, str] = {}

    def tags(self, values: dict[str, str]) -> None:
        self.last |= values

    def metrics(self, *_: object) -> None: ...

    def text(self, *_: object) -> None: ...

    def picture(self, path: str, png: bytes) -> None:
        return

    def artifact(self, *_: object) -> None: ...


def finished(folder: Path, records: dict[int, TrialRecord]) -> tuple[list[dict[str, Any]], str]:
    """Rows and description of a sweep whose trials ended so."""
    plan = toy_plan(folder, **listed(1, 2, 4))
    keeper: Any = SimpleNamespace(records=records, finished=len(records), study=None)
    journal = Journal()
    record: Any = SimpleNamespace(journal=journal, record_ranks=lambda ranked: None)
    finish_sweep(plan, keeper, folder, record)
    rows = json.loads((folder / "results.json").read_text())
    return rows, journal.last["mlflow.note.content"]


def test_a_degenerate_trial_is_neither_best_nor_on_the_front_beside_one_that_learned(
    tmp_path: Path,
) -> None:
    # The cheapest of all is not beaten in energy, and is no result worth a place.
    records = numbered(trial(1, 19.0, 0.01), trial(2, 30.0, 0.2), trial(4, 25.0, 0.1))
    plan = toy_plan(tmp_path, **listed(1, 2, 4))
    assert [is_degenerate_trial(item) for item in records.values()] == [True, False, False]
    best = best_trial(plan, records)
    assert best is not None and best.number == 2
    assert [item.number for item in front_trials(plan, records)] == [2, 4]
    assert why_no_result(records) == ""
    rows, note = finished(tmp_path / "sweep", records)
    assert [row.get("degenerate", False) for row in rows] == [True, False, False]
    assert [row["front"] for row in rows] == [False, True, True]
    assert "3 COMPLETE, 1 finished and degenerate" in note
    assert "degenerate" in (tmp_path / "sweep" / "results.csv").read_text().splitlines()[0]


def test_where_all_are_degenerate_there_is_a_front_and_no_best(tmp_path: Path) -> None:
    records = numbered(trial(1, 7.2, 0.01), trial(2, 19.2, 0.2))
    plan = toy_plan(tmp_path / "run", **listed(1, 2))
    assert best_trial(plan, records) is None
    assert [item.number for item in front_trials(plan, records)] == [2, 1]
    why = why_no_result(records)
    assert why.startswith("no best trial: all 2 results are degenerate")
    assert "(majority 7.2, position 18.3, degenerate)" in why
    rows, note = finished(tmp_path / "run", records)
    assert all(row["degenerate"] and row["front"] for row in rows)
    assert "No best trial: all 2" in note
    assert not (tmp_path / "run" / "best.yaml").exists()
    (tmp_path / "run" / "plan.json").write_text(json.dumps({"recipe": plan.recipe.model_dump()}))
    with pytest.raises(ConfigError, match="better than an answer that ignores the image"):
        find_run("run/best", tmp_path)


def test_trials_of_an_earlier_version_are_not_judged(tmp_path: Path) -> None:
    records = numbered(trial(1, 7.2, 0.01, baselines={}), trial(2, 30.0, 0.2))
    plan = toy_plan(tmp_path, **listed(1, 2))
    assert [item.number for item in front_trials(plan, records)] == [2, 1]
    rows, note = finished(tmp_path / "sweep", records)
    assert all("degenerate" not in row for row in rows) and "degenerate" not in note


def test_a_trials_line_and_the_counts_say_it(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, **listed(1, 2))
    records = numbered(trial(1, 8.0, 0.01), trial(2, 30.0, 0.2))
    keeper: Any = SimpleNamespace(
        folder=tmp_path,
        trials=2,
        records=records,
        ended=list(records),
        running={},
        live_numbers=set(),
        finished=2,
    )
    watcher = Watcher(plan, keeper)
    lines = [
        watcher.line(number, TrialReport(STEP, item.history[STEP]), Verdict("COMPLETE", "", STEP))
        for number, item in records.items()
    ]
    assert "no better than (majority 7.2, position 18.3, degenerate)" in lines[0]
    assert "no better than" not in lines[1]
    assert "1 degenerate), best 30" in summary(watcher.status())
