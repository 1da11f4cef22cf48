"""`spikeseg sweep` beside its own commands: what runs a recipe, what steers, what is refused."""

from pathlib import Path

import pytest
from command import spikeseg

Capture = pytest.CaptureFixture[str]


def test_a_misspelt_command_names_the_nearest(capsys: Capture) -> None:
    ran = spikeseg(capsys, "sweep", "stauts", "x")
    assert ran.code == 2
    assert "no sweep and no command 'stauts', did you mean 'status'?" in ran.err


def test_a_file_called_like_a_command_is_refused(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stop").write_text("name: x\n")
    ran = spikeseg(capsys, "sweep", "stop", "x")
    assert ran.code == 2
    assert "'stop' is a command and a file here; give the file as ./stop" in ran.err


def test_a_recipe_is_still_run_whatever_stands_first(capsys: Capture) -> None:
    for words in (("dmeo",), ("--trials", "3", "dmeo"), ("./status",)):
        ran = spikeseg(capsys, "sweep", *words)
        assert ran.code == 2
        assert "is neither a shipped sweep nor a file" in ran.err


def test_a_dry_run_is_of_a_new_sweep(capsys: Capture) -> None:
    ran = spikeseg(capsys, "sweep", "demo", "--resume", "x", "--dry-run")
    assert ran.code == 2
    assert "--dry-run is of a new sweep" in ran.err


def test_an_unknown_sweep_is_not_steered(capsys: Capture, tmp_path: Path) -> None:
    for verb in (("status", "x"), ("stop", "x"), ("add", "x", "a=1")):
        ran = spikeseg(capsys, "sweep", *verb, "--storage", str(tmp_path))
        assert ran.code == 2
        assert "x: no such sweep" in ran.err
