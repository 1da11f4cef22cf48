"""A trace of some optimizer steps by torch's profiler, as an artifact of the run."""

import contextlib
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from ...datasets.packed.files import write_file
from .journal import Journal

_log = logging.getLogger(__name__)

FOLDER = "profile"
"""Folder of a run, and of its artifacts, that traces lie in."""
VIEWER = "https://ui.perfetto.dev"
"""Page that shows a trace; the file stays in the browser."""
_COUNT = 2
# The first steps of a process choose kernels and grow memory pools.
_SKIPPED = 2
# A step of a small network is ten thousand events.
_MOST = 10
_ROWS = 40


class TracedSteps(NamedTuple):
    """Which steps are traced.

    Attributes:
        first: Number of the first one, from 1; None for the third of the process that trains.
        number: How many, at least 1.
    """

    first: int | None = None
    number: int = _COUNT

    def resolve(self, done: int, max_steps: int) -> tuple[int, int]:
        """First and last step to trace, moved towards the start where few steps are left.

        Args:
            done: Optimizer steps done before this process began.
            max_steps: Of the whole training.
        """
        first = self.first
        if first is None:
            first = max(done + 1, min(done + 1 + _SKIPPED, max_steps - self.number + 1))
        return first, min(first + self.number - 1, max_steps)


def parse_steps(text: str, source: str) -> TracedSteps:
    """Read `FIRST-LAST`, or the number of one step.

    Args:
        text: What a person typed.
        source: Names the option in errors.

    Raises:
        ValueError: Where it is no range of at most 10 steps from 1 on.
    """
    match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", text)
    first = int(match[1]) if match else 0
    last = int(match[2] or match[1]) if match else 0
    if not 1 <= first <= last or last - first >= _MOST:
        raise ValueError(
            f"{source} {text}: must be FIRST-LAST, numbers of at most {_MOST} steps from 1 on, "
            "such as 101-103"
        )
    return TracedSteps(first, last - first + 1)


def check_steps(steps: TracedSteps, max_steps: int) -> None:
    """Refuse steps that a training does not have.

    Raises:
        ValueError: Where the first of them comes after the last step.
    """
    if steps.first is not None and steps.first > max_steps:
        raise ValueError(
            f"profile of step {steps.first}: the training has {max_steps} steps "
            "(trainer.max_steps); give earlier ones"
        )


class StepTrace:
    """Traces a range of steps of this process, and leaves trace and table in the run's folder.

    Args:
        steps: First and last step, from 1.
        folder: The run's folder.
        journal: The run's journal, which has both as artifacts.
        tell: Takes a line for a person.
    """

    def __init__(
        self, steps: tuple[int, int], folder: Path, journal: Journal, tell: Callable[[str], None]
    ) -> None:
        self._first, self._last = steps
        self._folder = folder / FOLDER
        self._journal = journal
        self._tell = tell
        self._profile: profile | None = None
        self._traced: list[int] = []
        self._done = False

    @contextlib.contextmanager
    def around(self, done: int) -> Iterator[None]:
        """Trace the step that runs in the block, if it is one of those.

        Args:
            done: Optimizer steps done before it.
        """
        step = done + 1
        if self._done or not self._first - 1 <= step <= self._last:
            yield
            return
        if self._profile is None:
            self._begin(warm_up=step < self._first)
        assert self._profile is not None
        with record_function(f"step {step}"):
            yield
        if step >= self._first:
            self._traced.append(step)
        # A training that is rolled back does steps of its trace again.
        if len(self._traced) > self._last - self._first:
            self.close()
        else:
            self._profile.step()

    def _begin(self, *, warm_up: bool) -> None:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_initialized():
            activities.append(ProfilerActivity.CUDA)
        count = self._last - self._first + 1
        with warnings.catch_warnings():
            # Where no step comes before, there is none to warm up with.
            warnings.filterwarnings("ignore", "Profiler won't be using warmup")
            steps = schedule(wait=0, warmup=int(warm_up), active=count, repeat=1)
        # torch's tracer would write lines of its own among the progress.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        self._profile = profile(activities=activities, schedule=steps)
        self._profile.start()

    def close(self) -> None:
        """Write what was traced; a training that ends early has fewer steps in its trace."""
        if self._profile is None or self._done:
            return
        self._done = True
        try:
            self._profile.stop()
            if self._traced:
                self._write(self._profile)
        except (OSError, RuntimeError) as error:
            # A trace must never cost a training.
            _log.warning("the profile could not be written: %s", error)
            self._tell(f"the profile could not be written: {error}")

    def _write(self, traced: profile) -> None:
        first, last = min(self._traced), max(self._traced)
        name = f"steps-{first}-{last}"
        self._folder.mkdir(exist_ok=True)
        trace = self._folder / f"{name}.json.gz"
        traced.export_chrome_trace(str(trace))
        table = traced.key_averages().table(
            sort_by="self_cuda_time_total"
            if torch.cuda.is_initialized()
            else "self_cpu_time_total",
            row_limit=_ROWS,
            max_name_column_width=80,
        )
        text = self._folder / f"{name}.txt"
        write_file(text, table)
        for file in (trace, text):
            self._journal.artifact(f"{FOLDER}/{file.name}", file)
        self._tell(
            f"profile of steps {first} to {last}: {trace} ({trace.stat().st_size / 1e6:.1f} MB), "
            f"opens at {VIEWER}; the same as a table: {text.name} beside it; both are artifacts of "
            "the run"
        )


def list_traces(folder: Path) -> list[Path]:
    """Traces that lie in a run's folder."""
    return sorted((folder / FOLDER).glob("*.json.gz"))
