"""A sweep that an earlier version left is continued: nothing lost, nothing doubled."""

import csv
import json
import sqlite3
from pathlib import Path

import pytest
from command import Ran, spikeseg
from stored_examples import Stored


def continued(
    stored: Stored, capsys: pytest.CaptureFixture[str], sweep: Path, *further: str
) -> Ran:
    """Continue a sweep in this process."""
    recipe = str(stored.storage.parent / "sweep.yaml")
    given = ("--resume", sweep.name, "--here", "--storage", str(stored.storage))
    return spikeseg(capsys, "sweep", recipe, stored.data_here, *further, *given)


def results(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "results.csv").open() as file:
        return list(csv.DictReader(file))


def without_front(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Rows without what further trials may change: their place, and a column that is new."""
    changing = ("front", "degenerate")
    return [{key: value for key, value in row.items() if key not in changing} for row in rows]


def trained_steps(trial: Path) -> list[list[int]]:
    """The optimizer steps of each attempt, from 0."""
    return [
        sorted({json.loads(line)[0] for line in path.read_text().splitlines()})
        for path in sorted(trial.glob("ledger/*.jsonl"))
    ]


def states(sweep: Path) -> list[str]:
    """What the study knows of its trials."""
    with sqlite3.connect(sweep / "study.db") as study:
        rows = study.execute("select state from trials order by number").fetchall()
    return [state for (state,) in rows]


def test_a_killed_trial_goes_on_from_its_checkpoint_and_ended_ones_stay(
    stored: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = stored.move_sweep("stored")
    before = results(sweep)
    assert states(sweep) == ["COMPLETE", "COMPLETE", "RUNNING"]
    ran = continued(stored, capsys, sweep)
    assert ran.code == 0, ran.err

    assert f"{sweep.name}: 3 COMPLETE" in ran.out
    assert states(sweep) == 3 * ["COMPLETE"]
    after = results(sweep)
    assert len(before) == 2
    assert without_front(after)[:2] == without_front(before)
    assert [row["attempts"] for row in after] == ["1", "1", "2"]
    assert 0 <= float(after[2]["val/mIoU"]) <= 100
    assert float(after[2]["energy/mJ"]) > 0
    # The first attempt may have come further than its checkpoint, which is of step 2.
    first, second = trained_steps(sweep / "trials" / "2")
    assert first[:2] == [0, 1]
    assert second == [2, 3]


@pytest.mark.slow
def test_a_sweep_gets_more_trials(stored: Stored, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = stored.move_sweep("stored")
    before = results(sweep)
    ran = continued(stored, capsys, sweep, "--trials", "4")
    assert ran.code == 0, ran.err

    assert f"{sweep.name}: 4 COMPLETE" in ran.out
    assert states(sweep) == 4 * ["COMPLETE"]
    after = results(sweep)
    assert without_front(after)[:2] == without_front(before)
    assert trained_steps(sweep / "trials" / "3") == [[0, 1, 2, 3]]
    points = {(row["model.neuron.levels"], row["loss.mask_weight"]) for row in after}
    assert len(points) == 4


def test_a_sweep_whose_study_lies_in_a_journal_is_read_to_its_end(
    stored: Stored, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = stored.move_sweep("in_a_journal")
    before = results(sweep)
    monkeypatch.setenv("SPIKESEG_STUDY", str(stored.storage / "study.log"))
    ran = continued(stored, capsys, sweep, "sweep.name=in_a_journal")
    assert ran.code == 0, ran.err

    assert f"{sweep.name}: 1 COMPLETE" in ran.out
    assert f"highest: {sweep.name}/0" in ran.out
    assert results(sweep) == before


def test_a_plan_of_other_settings_is_still_told_apart(
    stored: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = stored.move_sweep("stored")
    ran = continued(stored, capsys, sweep, "optimizer.lr=1e-3")
    assert ran.code == 2
    assert "optimizer.lr was 0.03, is 0.001" in ran.err


def test_the_best_trial_is_a_recipe(stored: Stored, capsys: pytest.CaptureFixture[str]) -> None:
    best = stored.sweep / "best.yaml"
    ran = spikeseg(capsys, "config", "check", str(best), stored.data_here)
    assert ran.code == 0, ran.err
    shown = spikeseg(capsys, "config", "show", str(best), "--origins")
    (front,) = [row for row in results(stored.sweep) if row["front"] == "True"]
    assert f"model.neuron.levels = {front['model.neuron.levels']} " in shown.out
