"""The file of curves holds what the journals of trainings measured, once each."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import spikeseg

from spikeseg.platform.tracking.journal_lines import record_line

RUN: dict[str, Any] = {"kind": "run", "id": "0" * 32, "name": "one", "parent": None}


def evaluation(step: int, score: float, time: int) -> dict[str, Any]:
    values = {"val/mIoU": score, "energy/mJ": 0.1, "best/val_mIoU": score}
    return {"kind": "metrics", "step": step, "time": time, "values": values}


def write_journal(folder: Path, *records: dict[str, Any]) -> None:
    (folder / "journal").mkdir(parents=True)
    (folder / "journal" / "records.jsonl").write_bytes(b"".join(map(record_line, records)))


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    storage = tmp_path / "runs"
    write_journal(
        storage / "one",
        RUN | {"time": 1000},
        {"kind": "params", "values": {"seed": "3", "data.path": "/here"}},
        {"kind": "tags", "values": {"git_sha": "abc", "dirty": "false", "data_digest": "d1"}},
        {"kind": "metrics", "step": 5, "time": 1500, "values": {"train/loss": 2.0}},
        evaluation(10, 20.0, 3000),
        # A restart from the checkpoint of step 5, which evaluates step 10 once more.
        RUN | {"time": 9000},
        evaluation(10, 21.0, 11000),
        evaluation(20, 30.0, 13000),
        {"kind": "metrics", "step": 20, "time": 14000, "values": {"test/mIoU": 29.0}},
    )
    sweep = storage / "sweep-some"
    for number in (0, 1, 10):
        trial = RUN | {"time": 0, "name": str(number)}
        write_journal(sweep / "trials" / str(number), trial, evaluation(4, float(number), 500))
    (sweep / "plan.json").write_text("{}")
    return storage


def read(path: Path) -> dict[str, dict[str, Any]]:
    curves = json.loads(path.read_text())
    named = {curve["run"]: curve for curve in curves}
    assert len(named) == len(curves)
    return named


def test_a_run_has_every_evaluation_once_and_its_test_scores(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "curves.json"
    line = ("benchmark", "curves", "one", "--storage", str(storage), "--output", str(output))
    ran = spikeseg(capsys, *line)
    assert ran.code == 0, ran.err
    assert read(output)["one"] == {
        "run": "one",
        "commit": "abc",
        "dirty": False,
        "data": "d1",
        "params": {"seed": "3"},
        "evaluations": [
            {"step": 10, "elapsed_s": 10.0, "val/mIoU": 21.0, "energy/mJ": 0.1},
            {"step": 20, "elapsed_s": 12.0, "val/mIoU": 30.0, "energy/mJ": 0.1},
        ],
        "test": {"test/mIoU": 29.0},
    }


def test_a_sweep_adds_its_trials_to_what_the_file_holds(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "curves.json"
    for word in ("one", "sweep-some", "sweep-some/1"):
        line = ("benchmark", "curves", word, "--storage", str(storage), "--output", str(output))
        assert spikeseg(capsys, *line).code == 0
    curves = read(output)
    assert list(curves) == ["one", "sweep-some/0", "sweep-some/1", "sweep-some/10"]
    assert [curve["evaluations"][-1]["val/mIoU"] for curve in curves.values()] == [30.0, 0, 1, 10]


def test_an_unknown_run_is_refused_and_the_file_left_as_it_is(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "curves.json"
    output.write_text("[]")
    line = ("benchmark", "curves", "two", "--storage", str(storage), "--output", str(output))
    ran = spikeseg(capsys, *line)
    assert ran.code == 2
    assert "two" in ran.err
    assert output.read_text() == "[]"
