"""Progress of a training: status lines with speed and time left, sent from rank 0 to the driver.

Ray Train calls its own report callbacks in the controller's process, which may be on another
machine than the person's terminal; the run's folder is where both can read and write.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import psutil
import torch

from ..config.schema import TrainerConfig

_MEGABYTE = 2**20


class StatusLine(str):
    """A line of progress that the next one of the same task replaces; a plain string for others.

    Attributes:
        task: What advances, such as `training`.
        done: Units done.
        total: Units in all.
        detail: What a bar with rate and time left does not show.
    """

    task: str
    done: float
    total: float
    detail: str

    def __new__(cls, text: str, *, task: str, done: float, total: float, detail: str = "") -> Self:
        """Make the line from its text and from what a bar shows."""
        line = super().__new__(cls, text)
        line.task, line.done, line.total, line.detail = task, done, total, detail
        return line


class Meter:
    """Rate since the last evaluation, time left by everything so far, memory of this process.

    Args:
        trainer: Lengths and sizes.
        step: Steps done before this process began.
        device: Where the model is.
    """

    def __init__(self, trainer: TrainerConfig, *, step: int, device: torch.device) -> None:
        self._trainer = trainer
        self._images = trainer.micro_batch_size * trainer.micro_batches
        self._device = device
        self._first = self._from = step
        self._started = self._since = time.monotonic()

    def begin(self, step: int) -> None:
        """Start measuring the rate here, so that an evaluation's time is left out."""
        self._from, self._since = step, time.monotonic()

    def metrics(self, step: int) -> dict[str, float]:
        """`perf/images_per_s` over all workers and `perf/memory_mb` of this one."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        if self._device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(self._device)
        else:
            memory = psutil.Process().memory_info().rss
        return {
            "perf/images_per_s": (step - self._from) * self._images / seconds,
            "perf/memory_mb": memory / _MEGABYTE,
        }

    def line(self, step: int, metrics: Mapping[str, float], next_checkpoint: int) -> StatusLine:
        """Format one line of progress.

        Args:
            step: Steps done.
            metrics: `train/…` and `perf/…` of this step.
            next_checkpoint: Step of the next checkpoint.
        """
        trainer = self._trainer
        each = (time.monotonic() - self._started) / max(1, step - self._first)
        detail = (
            f"loss {metrics['train/loss']:.3f}  "
            f"grad {metrics['train/grad_norm']:.3g}  lr {metrics['train/lr']:.2e}  "
            f"{metrics['perf/images_per_s']:.1f} images/s  {metrics['perf/memory_mb']:.0f} MB  "
            f"checkpoint at {next_checkpoint}"
        )
        left = format_clock(each * (trainer.max_steps - step))
        return StatusLine(
            f"step {step}/{trainer.max_steps}  {detail}  ETA {left}",
            task="training",
            done=step,
            total=trainer.max_steps,
            detail=detail,
        )


def format_clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def report_rows(
    progress: Callable[[str], None], verb: str = "packed"
) -> Callable[[int, int], None]:
    """Make a callback that turns rows done and rows in all into a status line.

    Args:
        progress: Takes a line for a person.
        verb: What is done with the rows, in the past tense.
    """
    started = time.monotonic()

    def report(done: int, total: int) -> None:
        rate = done / max(1e-9, time.monotonic() - started)
        detail = f"{rate:.0f} rows/s"
        left = format_clock((total - done) / max(1e-9, rate))
        text = f"{verb} {done}/{total} rows, {detail}, ETA {left}"
        progress(StatusLine(text, task=f"rows {verb}", done=done, total=total, detail=detail))

    return report


def write_log_line(line: str) -> str:
    """A line of progress as one line of a log: a status is followed by a tab and its parts."""
    if not isinstance(line, StatusLine):
        return line
    return f"{line}\t{json.dumps(vars(line))}"


def read_log_line(text: str) -> str:
    """The line of progress that `write_log_line` wrote."""
    line, tab, parts = text.partition("\t{")
    return StatusLine(line, **json.loads("{" + parts)) if tab else line


class FollowedLog:
    """Hands on the lines that rank 0 appends to a file while the block runs."""

    def __init__(self, path: Path, progress: Callable[[str], None]) -> None:
        self._path = path
        self._progress = progress
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True, name="progress")

    def __enter__(self) -> None:
        self._path.touch()
        self._offset = self._path.stat().st_size
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(0.5):
            self._pass_on()
        self._pass_on()

    def _pass_on(self) -> None:
        with self._path.open() as file:
            file.seek(self._offset)
            for line in file:
                if line.endswith("\n"):
                    self._progress(read_log_line(line.rstrip("\n")))
                    self._offset += len(line.encode())
