"""`train` and `sweep` run the doctor's cheap checks by themselves, by the same functions."""

from pathlib import Path

import pytest
from command import spikeseg
from mistakes import SMALL, pack_good

Capture = pytest.CaptureFixture[str]
TOO_MUCH = ("trainer.max_steps=100000000", "trainer.keep_every=1", "trainer.workers=0")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_good(tmp_path_factory.mktemp("packed") / "shapes")


def test_a_training_that_the_disk_has_no_room_for_is_refused(
    capsys: Capture, data: Path, tmp_path: Path
) -> None:
    given = ("shapes_tiny", f"data.path={data}", *SMALL, *TOO_MUCH)
    ran = spikeseg(capsys, "train", *given, "--storage", str(tmp_path))
    assert ran.code == 2
    assert ran.err.startswith("spikeseg: disk: some ")
    assert "free room" in ran.err
    assert not any(tmp_path.iterdir()), "nothing was started"


def test_a_sweep_that_the_disk_has_no_room_for_is_refused(
    capsys: Capture, data: Path, tmp_path: Path
) -> None:
    given = ("demo", f"data.path={data}", *SMALL, "--trials", "1")
    many = ("trainer.max_steps=100000000", "trainer.keep_every=1", "optimizer.warmup_steps=1")
    ran = spikeseg(capsys, "sweep", *given, *many, "--here", "--storage", str(tmp_path))
    assert ran.code == 2
    assert "spikeseg: disk: some " in ran.err
    assert not any(tmp_path.iterdir())


def test_what_only_costs_something_is_a_line_and_the_work_goes_on(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "999")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///mlruns")
    given = ("shapes_tiny", f"data.path={data}", *SMALL, "trainer.workers=0")
    ran = spikeseg(capsys, "train", *given, "--storage", str(tmp_path))
    warning, refusal = ran.err.splitlines()
    assert warning.startswith("spikeseg: warning: thread settings: OMP_NUM_THREADS=999")
    assert "MLFLOW_TRACKING_URI" in refusal
