"""How `spikeseg train` ends: code 0 only where everything that was to be kept is kept."""

from pathlib import Path
from typing import Any

import pytest
from command import spikeseg
from tiny import experiment, pack_shapes

from spikeseg.platform.config.recipes import Resolved
from spikeseg.platform.tracking.journal import Journal
from spikeseg.platform.train import trainer
from spikeseg.platform.train.trainer import TrainOutcome, train


def ended(folder: Path, **differences: Any) -> TrainOutcome:
    """A training that is over."""
    classes = [{"class": "a", "IoU": 50.0, "Acc": None}]
    kept: dict[str, Any] = {
        "name": "run-1",
        "folder": folder,
        "best_step": 2,
        "metrics": {"val/mIoU": 50.0},
        "classes": classes,
        "split": "val",
        "contact_sheet": folder / "sheet.png",
        "tracking_uri": "http://h",
    }
    return TrainOutcome(**kept, **differences)


@pytest.mark.parametrize(
    ("differences", "code", "last"),
    [
        ({}, 0, "compare:"),
        ({"unsent": True}, 0, "all of it is kept: spikeseg track sync run-1 --storage"),
        ({"lost": ("3 records could not be kept: metrics: the disk is full",)}, 1, "LOST: 3 rec"),
        ({"mirror_lacks": "mirror s3://b lacks the checkpoint of step 2"}, 1, "mirror s3://b"),
        ({"unsent": True, "lost": ("not every figure could be kept: x",)}, 1, "LOST: not every"),
    ],
    ids=["all kept", "unsent", "records", "mirror", "both"],
)
def test_the_last_line_and_the_code_say_what_is_lost(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    differences: dict[str, Any],
    code: int,
    last: str,
) -> None:
    monkeypatch.setattr(trainer, "train", lambda *_, **__: ended(tmp_path, **differences))
    ran = spikeseg(capsys, "train", "shapes_tiny", "data.path=d", "--storage", str(tmp_path))
    assert ran.code == code, ran.err
    assert last in ran.out.splitlines()[-1]


@pytest.mark.slow
def test_records_that_find_no_room_are_counted_in_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(Journal, "picture", lambda self, path, png: self._drop(f"{path}: no room"))
    data = pack_shapes(tmp_path / "data")
    config = experiment(data, max_steps=3)
    outcome = train(Resolved(config, {}), storage=tmp_path / "runs")
    assert len(outcome.lost) == 1
    assert "records could not be kept: figures/" in outcome.lost[0]
    assert outcome.unsent
