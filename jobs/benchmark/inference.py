"""`spikeseg benchmark inference`: images a second and memory of predict and evaluate."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import psutil

from ..cli import run
from ..options import run_argument, storage_option

_SAMPLE_S = 0.05


@click.command("inference")
@run_argument
@click.argument("images", type=click.Path(path_type=Path, exists=True))
@click.option("--count", default=500, show_default=True, help="Pictures to predict, three broken.")
@click.option("--processes", default="1,2", show_default=True, help="Numbers of processes.")
@click.option("--evaluate/--no-evaluate", default=True, help="Evaluate the test split, too.")
@storage_option
def command(
    word: str, images: Path, count: int, processes: str, evaluate: bool, storage: Path
) -> None:
    """Time RUN on COUNT copies of the pictures in IMAGES, and on its own test split.

    Peak memory is the sum over a command's processes, looked at every 50 ms; that of a tenth of the
    pictures stands beside it.
    """
    numbers = [int(part) for part in processes.split(",")]
    print("| command | processes | images | seconds | images/s | peak RSS in MB |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for share in (count // 10, count):
            _copy_pictures(images, folder / str(share), share)
        for number in numbers:
            for share in (count // 10, count):
                target = folder / f"out-{number}-{share}"
                line = ["predict", word, str(folder / str(share)), "--output", str(target)]
                _report(line, number, share, storage)
        if evaluate:
            for number in numbers:
                _report(["evaluate", word], number, None, storage)


def _copy_pictures(source: Path, folder: Path, count: int) -> None:
    """Copies under other names; the last three are cut off in the middle."""
    pictures = sorted(path for path in source.iterdir() if path.suffix in (".png", ".jpg"))
    if not pictures:
        raise ValueError(f"{source}: has no .png or .jpg")
    folder.mkdir()
    for number in range(count):
        original = pictures[number % len(pictures)]
        copy = folder / f"{number:05d}{original.suffix}"
        shutil.copy(original, copy)
        if number >= count - 3:
            copy.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])


def _report(line: list[str], processes: int, images: int | None, storage: Path) -> None:
    full = [sys.executable, "-m", "spikeseg.jobs.cli", *line, "--processes", str(processes)]
    started = time.monotonic()
    code, output, peak = _watch([*full, "--storage", str(storage)])
    seconds = time.monotonic() - started
    expected = 0 if images is None else 1
    if code != expected:
        raise RuntimeError(f"{' '.join(line)}: exit code {code}, {expected} expected:\n{output}")
    count = images or _read_rows(output)
    cells = (line[0], processes, count, f"{seconds:.1f}", f"{count / seconds:.1f}", f"{peak:.0f}")
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def _read_rows(output: str) -> int:
    head = next(line for line in output.splitlines() if line.endswith(" rows"))
    return int(head.split()[-2])


def _watch(line: list[str]) -> tuple[int, str, float]:
    """Run a command; returns its exit code, its output, and its processes' largest memory in MB."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(line, stdout=output, stderr=subprocess.STDOUT)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, _measure(process.pid))
            time.sleep(_SAMPLE_S)
        output.seek(0)
        return process.returncode, output.read(), peak / 2**20


def _measure(pid: int) -> float:
    """Bytes in memory of a process and those that it started."""
    total = 0.0
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return total
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


if __name__ == "__main__":
    run(command)
