"""The GPU benchmark's own machinery, which must hold before a GPU is at hand."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import spikeseg

from spikeseg.jobs.benchmark_gpu.command import (
    list_missing_packages,
    pack_rest,
    parse_steps,
    run_limited,
)
from spikeseg.jobs.benchmark_gpu.correctness import read_test_report
from spikeseg.jobs.benchmark_gpu.report import write_page
from spikeseg.jobs.benchmark_gpu.step import Step

_SLEEPING_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
time.sleep(600)
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_late_step_is_ended_with_its_children_and_keeps_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spikeseg.jobs.benchmark_gpu.command._LEAST_SECONDS", 0)
    log = tmp_path / "log.txt"
    result = run_limited([sys.executable, "-c", _SLEEPING_CHILD], 2.0, log)
    assert result["state"] == "late"
    assert result["exit_code"] is None
    child = int(log.read_text().split()[1])
    deadline = time.monotonic() + 20
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)


@pytest.mark.parametrize(("code", "state"), [(0, "done"), (3, "failed"), (-9, "failed")])
def test_the_end_of_a_step_is_told_apart(tmp_path: Path, code: int, state: str) -> None:
    ending = (
        f"import os; os.kill(os.getpid(), {-code})" if code < 0 else f"raise SystemExit({code})"
    )
    result = run_limited([sys.executable, "-c", ending], 60.0, tmp_path / "log.txt")
    assert (result["state"], result["exit_code"]) == (state, code)


def test_without_time_no_step_is_started(tmp_path: Path) -> None:
    result = run_limited([sys.executable, "-c", "print(1)"], 1.0, tmp_path / "log.txt")
    assert result["state"] == "no time left"
    assert not (tmp_path / "log.txt").exists()


def test_steps_are_numbers_of_the_list() -> None:
    assert parse_steps("1,2, 3") == [1, 2, 3]
    for wrong in ("7", "x", "", "1,,2"):
        with pytest.raises(ValueError, match="is no step"):
            parse_steps(wrong)


def test_what_is_not_installed_or_too_old_is_missing() -> None:
    assert list_missing_packages(["torch>=2", "no-such-package>=1", "pytest>=999"]) == [
        "no-such-package>=1",
        "pytest>=999",
    ]
    assert list_missing_packages(["no-such-package; sys_platform == 'win32'"]) == []


def test_a_check_that_fails_is_a_row_and_the_next_one_runs(tmp_path: Path) -> None:
    step = Step("smoke", "cpu", 60, tmp_path, True, None)

    def fail() -> None:
        raise RuntimeError("kernel <b>x</b>\nsecond line")

    assert not step.try_check("bad", fail)
    assert step.try_check("good", lambda: {"figure": 3})
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["check"], row["ok"]) for row in rows] == [("bad", False), ("good", True)]
    assert rows[0]["error"] == "RuntimeError: kernel <b>x</b>"
    late = {"step": "smoke", "state": "late", "seconds": 30.0, "limit": 30}
    write_page(tmp_path / "rows.jsonl", [late], tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text()
    assert "kernel &lt;b&gt;x" in page
    assert 'class="bad"' in page


def test_failing_tests_keep_their_names_and_first_lines(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2, 'one is\\nnot two'\n"
        "def test_skipped(): pytest.skip('no')\n"
    )
    report = tmp_path / "report.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        f"--junitxml={report}",
        "-p",
        "no:cacheprovider",
    ]
    subprocess.run([*command, "test_it.py"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    columns = read_test_report(report)
    assert (columns["passed"], columns["failed"], columns["skipped_tests"]) == (1, 1, 1)
    assert columns["failures"] == {"test_it::test_bad": "AssertionError: one is"}


def test_at_most_eight_files_are_left_and_an_earlier_archive_is_kept(tmp_path: Path) -> None:
    for _ in range(2):
        (tmp_path / "training" / "checkpoints").mkdir(parents=True)
        (tmp_path / "training" / "checkpoints" / "x").write_text("weights")
        (tmp_path / "rows.jsonl").write_text("{}\n")
        pack_rest(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["rest.tar.gz", "rows.jsonl"]
    done = subprocess.run(
        ["tar", "tzf", str(tmp_path / "rest.tar.gz")], capture_output=True, text=True, check=True
    )
    names = done.stdout.split()
    assert "training/checkpoints/x" in names
    assert "earlier-rest.tar.gz" in names


@pytest.mark.slow
def test_the_whole_command_is_rehearsed_on_a_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "gpu"
    done = spikeseg(capsys, "benchmark", "gpu", "--rehearse", "--output", str(output))
    assert done.code == 0, done.out + done.err
    rows = [json.loads(line) for line in (output / "rows.jsonl").read_text().splitlines()]
    checks = [row for row in rows if row.get("case") == "check"]
    assert len(checks) > 15
    assert all(row["ok"] for row in checks)
    forms = {row["form"] for row in rows if row.get("case") == "network" and "ms" in row}
    assert {"ours, kernels", "ours, torch", "published order"} <= forms
    assert {row["case"] for row in rows if row.get("step") == "training"} >= {"evaluation", "test"}
    assert any(row.get("who") == "ours" for row in rows)
    assert len(list(output.iterdir())) == 8
