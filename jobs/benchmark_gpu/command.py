"""`spikeseg benchmark gpu`: everything that only a GPU can tell, within a quarter of an hour.

Every step is a process with a time limit of its own. Rows are written as they come, so that a
step that fails or is late costs its own rest and nothing else.
"""

import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
from packaging.requirements import Requirement

from ...datasets.packed.files import place_file, write_file
from ..cli import run
from .report import write_page
from .step import ROWS

_LOG = "log.txt"
_SUMMARY = "summary.json"
_PAGE = "report.html"
_ARCHIVE = "rest.tar.gz"
# What stays beside the archive: eight files with it.
_KEPT = (ROWS, _LOG, _SUMMARY, _PAGE, "classes.csv", "contact_sheet.png", "curves.png")
_LONGEST_MINUTES = 9.0
_LEAST_SECONDS = 5.0
# What the steps need beside torch; Ray, MLflow and Optuna are needed by none.
_NOT_NEEDED = ("ray", "mlflow", "optuna", "playwright", "pyright", "ruff", "pre-commit")
_ON_A_GPU = ("cupy-cuda13x", "nvidia-cuda-nvrtc", "pytest")


class StepPlan(NamedTuple):
    """A step and its limit.

    Attributes:
        number: As given to `--steps`.
        name: Its module.
        seconds: Its limit on a GPU; None takes what is left.
        rehearsed: Its limit in a rehearsal.
    """

    number: int
    name: str
    seconds: float | None
    rehearsed: float


STEPS = (
    StepPlan(1, "smoke", 30, 40),
    StepPlan(2, "correctness", 90, 180),
    StepPlan(3, "neurons", 90, 120),
    StepPlan(4, "network", 120, 60),
    StepPlan(5, "training", None, 60),
)
_REPORT_STEP = 6


@click.command("gpu")
@click.argument("overrides", nargs=-1, metavar="[data.path=DIR]")
@click.option("--steps", default="1,2,3,4,5,6", show_default=True, help="Steps, in their order.")
@click.option(
    "--minutes",
    type=click.FloatRange(0, _LONGEST_MINUTES, min_open=True),
    default=_LONGEST_MINUTES,
    show_default=True,
    help="End after this many minutes.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("benchmark-gpu"),
    show_default=True,
    help="Folder of all results; rows of an earlier call are kept.",
)
@click.option("--rehearse", is_flag=True, help="Run every step on this CPU in tiny sizes.")
@click.option("--wheels", is_flag=True, help="Print what this machine lacks, and measure nothing.")
def command(
    overrides: tuple[str, ...],
    steps: str,
    minutes: float,
    output: Path,
    rehearse: bool,
    wheels: bool,
) -> int:
    """Check and measure on a GPU: kernels, training, neurons, the 34 M network, CamVid, a page.

    Steps: 1 smoke, 2 correctness, 3 neurons, 4 network, 5 training of camvid_gpu for the rest of
    the time (on data.path=DIR, else on generated data), 6 the report page. Ends with exit code 1
    where a step failed or was late.
    """
    if wheels:
        missing = list_missing_packages(_read_requirements())
        print("\n".join(missing) if missing else "nothing is missing")
        return 0
    chosen = parse_steps(steps)
    data = _parse_data(overrides)
    device = "cpu" if rehearse else _require_gpu()
    output.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * minutes
    common = ["--device", device, "--folder", str(output.absolute())]
    common += ["--rehearse"] * rehearse + (["--data", str(data)] if data else [])
    results: list[dict[str, Any]] = []
    earlier = output / _SUMMARY
    before = json.loads(earlier.read_text()) if earlier.is_file() else []
    for plan in STEPS:
        if plan.number not in chosen:
            continue
        limit = plan.rehearsed if rehearse else plan.seconds
        left = until - time.monotonic()
        limit = left if limit is None else min(limit, left)
        module = f"{__package__}.{plan.name}"
        words = [sys.executable, "-m", module, "--seconds", f"{limit:.0f}", *common]
        results.append({"step": plan.name} | run_limited(words, limit, output / _LOG))
        write_file(output / _SUMMARY, json.dumps([*before, *results], indent=1))
    if _REPORT_STEP in chosen:
        write_page(output / ROWS, [*before, *results], output / _PAGE)
        pack_rest(output)
        print(f"report: {output / _PAGE}")
    return 0 if all(result["state"] == "done" for result in results) else 1


def parse_steps(text: str) -> list[int]:
    """The numbers of `--steps`, such as `1,2,3`.

    Raises:
        ValueError: Where one is no step.
    """
    known = [*(plan.number for plan in STEPS), _REPORT_STEP]
    chosen = []
    for item in text.split(","):
        if not item.strip().isdecimal() or int(item) not in known:
            raise ValueError(f"--steps: {item.strip()!r} is no step; there are {known}")
        chosen.append(int(item))
    return chosen


def run_limited(words: Sequence[str], limit: float, log: Path) -> dict[str, Any]:
    """Run a command in a session of its own, and end all of it at its limit.

    Args:
        words: The command.
        limit: Seconds.
        log: Its output is appended here and printed.

    Returns:
        `state` (done, failed, late or no time left), `seconds`, `limit` and `exit_code`.
    """
    name = words[2].rpartition(".")[2]
    if limit < _LEAST_SECONDS:
        print(f"{name}: no time left", flush=True)
        return {"state": "no time left", "seconds": 0.0, "limit": limit, "exit_code": None}
    print(f"{name}: at most {limit:.0f} s", flush=True)
    started = time.monotonic()
    with log.open("ab") as file:
        start = file.tell()
        process = subprocess.Popen(
            words, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        code = None
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Children of a step that ended badly must not take the next one's device.
            _end_session(process)
    seconds = round(time.monotonic() - started, 1)
    state = "late" if code is None else "failed" if code else "done"
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    shown = [line for line in lines if line.startswith(f"{name}: ")] if state == "done" else lines
    print("\n".join(shown[-40:]), flush=True)
    print(f"{name}: {state} after {seconds} s", flush=True)
    return {"state": state, "seconds": seconds, "limit": round(limit, 1), "exit_code": code}


def _end_session(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def pack_rest(folder: Path) -> None:
    """Move everything but the files that people open into one archive, an earlier one included."""
    rest = sorted(path for path in folder.iterdir() if path.name not in _KEPT)
    partial = folder / "packing.tar.gz"
    with tarfile.open(partial, "w:gz") as archive:
        for path in rest:
            archive.add(path, arcname=f"earlier-{_ARCHIVE}" if path.name == _ARCHIVE else path.name)
    place_file(partial, folder / _ARCHIVE)
    for path in rest:
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _ARCHIVE:
            path.unlink()


def list_missing_packages(requirements: Sequence[str]) -> list[str]:
    """Requirements that are not installed here, or in another version.

    Args:
        requirements: As in pyproject.toml.
    """
    missing = []
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            missing.append(text)
    return missing


def _read_requirements() -> list[str]:
    """What the steps import, from the project's own list."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    listed = tomllib.loads(project.read_text())["project"]["dependencies"]
    needed = [text for text in listed if Requirement(text).name not in _NOT_NEEDED]
    return [*needed, *_ON_A_GPU]


def _parse_data(overrides: Sequence[str]) -> Path | None:
    data = None
    for item in overrides:
        key, _, value = item.partition("=")
        if key != "data.path" or not value:
            raise ValueError(f"{item!r}: only data.path=DIR may be given here")
        data = Path(value).absolute()
        if not (data / "manifest.json").is_file():
            raise ValueError(f"data.path={value}: no packed data there (no manifest.json)")
    return data


def _require_gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        raise ValueError("torch sees no GPU on this machine; --rehearse runs every step on a CPU")
    return "cuda"


if __name__ == "__main__":
    run(command)
