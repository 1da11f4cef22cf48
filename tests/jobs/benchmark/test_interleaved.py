"""Works that take turns: one at a time, each with all of its processes, its own time counted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spikeseg.jobs.benchmark.interleaved import take_turns

_TICK = (
    "import sys, time\n"
    "for _ in range({ticks}):\n"
    "    open(sys.argv[1], 'a').write(f'{{time.monotonic()}}\\n')\n"
    "    time.sleep(0.02)\n"
)


def tick(path: Path, ticks: int) -> None:
    """Write the time, from a process below this one, again and again."""
    code = _TICK.format(ticks=ticks)
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def fail() -> None:
    """End with a code of its own."""
    os._exit(3)


def test_works_run_one_at_a_time_and_their_own_time_is_counted(tmp_path: Path) -> None:
    begun = time.monotonic()
    spent = take_turns(
        {"a": (tick, (tmp_path / "a", 100)), "b": (tick, (tmp_path / "b", 100))}, seconds=0.5
    )
    whole = time.monotonic() - begun
    times = {
        name: [float(line) for line in (tmp_path / name).read_text().splitlines()] for name in "ab"
    }
    assert all(len(found) == 100 for found in times.values())
    # Each work saw the other's turns as pauses: at least one of half a second, nobody in between.
    for own, other in (("a", "b"), ("b", "a")):
        gaps = [(x, y) for x, y in zip(times[own], times[own][1:], strict=False) if y - x > 0.3]
        assert gaps, own
        busy = [t for t in times[other] if any(x < t < y for x, y in gaps)]
        assert len(busy) > 10
    assert sum(spent.values()) <= whole
    assert min(spent.values()) >= 2.0


def test_a_work_that_fails_ends_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="b ended with code 3"):
        take_turns({"a": (tick, (tmp_path / "a", 3000)), "b": (fail, ())}, seconds=0.5)
    before = (tmp_path / "a").stat().st_size
    time.sleep(0.3)
    assert (tmp_path / "a").stat().st_size == before


def test_a_signal_ends_the_works_too(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from test_interleaved import take_turns, tick\n"
        "if __name__ == '__main__':\n"
        "    work = (tick, (Path(sys.argv[1]), 3000))\n"
        "    take_turns({'a': work, 'b': work}, seconds=0.2)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "a")], env={**os.environ, "PYTHONPATH": path}
    )
    end = time.monotonic() + 60
    while not (tmp_path / "a").exists() and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    before = (tmp_path / "a").stat().st_size
    time.sleep(0.3)
    assert before and (tmp_path / "a").stat().st_size == before
