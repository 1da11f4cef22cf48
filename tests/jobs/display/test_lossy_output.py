"""A reader that leaves loses what is printed afterwards, and ends no work."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, time
from spikeseg.jobs.display.lossy_output import keep_working_without_readers
with keep_working_without_readers():
    for number in range(2000):
        print("line", number, flush={flush})
    open(sys.argv[1], "w").write("done")
"""


@pytest.mark.parametrize("flush", [True, False], ids=["each line", "by the buffer"])
def test_work_goes_on_where_the_output_has_no_reader(tmp_path: Path, flush: bool) -> None:
    end = tmp_path / "end"
    command = [sys.executable, "-c", SCRIPT.format(flush=flush), str(end)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "line 0\n"
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(60) == 0
    assert end.read_text() == "done"
    assert errors.count("nobody reads the output any more; the work goes on") <= 1
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors


def test_a_command_ends_without_a_word_of_python(tmp_path: Path) -> None:
    command = f"{sys.executable} -m spikeseg.jobs.cli config show shapes_tiny data.path=x | head -2"
    ran = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0
    assert len(ran.stdout.splitlines()) == 2
    assert "Traceback" not in ran.stderr
