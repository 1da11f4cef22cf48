"""`spikeseg runs`: a table for people, columns and JSON for programs, and removal on a yes."""

import io
import json
import sys
from pathlib import Path

import pytest
from command import spikeseg
from run_folders import end, grow_old, make_run, make_sweep, result_row

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    end(make_run(tmp_path / "one", started=1.0), "FAILED")
    end(make_sweep(tmp_path / "sweep-one", [result_row(0, 20.0, 0.4)]), "FINISHED")
    grow_old(tmp_path)
    return tmp_path


def test_runs_are_columns_where_the_output_is_no_terminal(storage: Path, capsys: Capture) -> None:
    ran = spikeseg(capsys, "runs", "--storage", str(storage))
    assert ran.code == 0, ran.err
    head, one, sweep = ran.out.splitlines()
    assert head.split()[:5] == ["run", "recipe", "T", "D", "normalization"]
    assert one.split()[:7] == ["one", "toy", "2", "4", "levels", "30.00", "-"]
    # It was recorded without a version of the rule.
    assert one.split()[7:11] == ["0.2000", "(earlier", "rule)", "failed"]
    assert sweep.startswith("sweep-one  search  2  4  levels         20.00")


def test_the_trials_of_a_sweep_as_json_carry_the_word_that_evaluate_takes(
    storage: Path, capsys: Capture
) -> None:
    ran = spikeseg(capsys, "runs", "--sweep", "sweep", "--json", "--storage", str(storage))
    (trial,) = json.loads(ran.out)
    assert (trial["word"], trial["metrics"]["val/mIoU"]) == ("sweep-one/0", 20.0)


def test_a_terminal_gets_a_table(
    storage: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "160")
    spikeseg(capsys, "runs", "--storage", str(storage))
    assert "one" in terminal.getvalue() and "─" in terminal.getvalue()


def test_an_empty_storage_says_so(tmp_path: Path, capsys: Capture) -> None:
    ran = spikeseg(capsys, "runs", "--storage", str(tmp_path / "none"))
    assert (ran.code, ran.out) == (0, f"no runs: there is no folder {tmp_path / 'none'}\n")


def test_removing_asks_first_and_says_what_it_frees(
    storage: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    line = ("runs", "remove", "one", "sweep", "--storage", str(storage))
    ran = spikeseg(capsys, *line)
    assert ran.code == 130
    assert f"one: 0.0 MB in {storage / 'one'}; " in ran.out
    assert (storage / "one").is_dir()
    ran = spikeseg(capsys, *line, "--yes")
    assert ran.code == 0 and "freed 0.0 MB" in ran.out
    assert list(storage.iterdir()) == []


def test_what_cannot_be_removed_ends_with_a_sentence(storage: Path, capsys: Capture) -> None:
    ran = spikeseg(capsys, "runs", "remove", "sweep-one/0", "--yes", "--storage", str(storage))
    assert ran.code == 2
    assert "a sweep is removed whole: spikeseg runs remove sweep-one" in ran.err
