"""How progress is shown: one live display on a terminal, plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from ...platform.train.progress import StatusLine

_SHORTEST = 1.0
_LONGEST = 10.0


def open_progress(*, quiet: bool = False) -> "LiveProgress | PlainProgress":
    """The display that standard output allows; use it as a context manager.

    Args:
        quiet: Show nothing, where standard output is for something else.
    """
    if quiet:
        return PlainProgress(write=lambda line: None)
    return LiveProgress() if sys.stdout.isatty() else PlainProgress()


class PlainProgress:
    """Prints lines with the seconds since the start.

    Of one task's status lines at most one a second is printed, and the last one again where
    nothing was printed for ten seconds, so that a log shows that the work goes on.

    Args:
        write: Takes a line; prints it if not given.
        clock: Seconds, from any moment on.
    """

    def __init__(
        self,
        write: Callable[[str], None] = lambda line: print(line, flush=True),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._clock = clock
        self._started = self._printed = clock()
        self._printed_of: dict[str, float] = {}
        self._waiting: dict[str, StatusLine] = {}
        self._last: StatusLine | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="progress")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with self._lock:
            for line in self._waiting.values():
                self._print(line)

    def __call__(self, line: str) -> None:
        """Print a line; a status line may wait, and be replaced by the next of its task."""
        with self._lock:
            if not isinstance(line, StatusLine):
                self._print(line)
                return
            since = self._clock() - self._printed_of.get(line.task, -_SHORTEST + self._started)
            if line.done < line.total and since < _SHORTEST:
                self._waiting[line.task] = line
                return
            self._print_status(line)

    def show(self, status: Any) -> None:
        """A table needs a terminal; here its counts are lines already."""

    def tick(self) -> None:
        """Print status lines that have waited long enough, or the last one after ten seconds."""
        with self._lock:
            now = self._clock()
            for task, line in list(self._waiting.items()):
                if now - self._printed_of[task] >= _SHORTEST:
                    self._print_status(line)
            last = self._last
            if last is not None and last.done < last.total and now - self._printed >= _LONGEST:
                self._print(last)

    def _watch(self) -> None:
        while not self._stop.wait(_SHORTEST):
            self.tick()

    def _print_status(self, line: StatusLine) -> None:
        self._waiting.pop(line.task, None)
        self._printed_of[line.task] = self._clock()
        self._last = line
        self._print(line)

    def _print(self, line: str) -> None:
        self._printed = self._clock()
        self._write(f"[{self._printed - self._started:6.1f} s] {line}")


class LiveProgress:
    """Draws a bar with rate and time left per task, and prints other lines above the bars."""

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._console = console or Console()
        self._started = time.monotonic()
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=self._console,
        )
        self._table: Any = ""
        self._tasks: dict[str, Any] = {}
        self._live = Live(
            console=self._console, get_renderable=self._draw, transient=True, refresh_per_second=4
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, line: str) -> None:
        """Print a line above the display; a status line moves its task's bar."""
        if isinstance(line, StatusLine):
            self._move(line)
        else:
            seconds = time.monotonic() - self._started
            text = f"[{seconds:6.1f} s] {line}"
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, status: Any) -> None:
        """Draw the table of a sweep (`SweepStatus`) below the bars."""
        from .sweep_table import sweep_table

        self._table = sweep_table(status)

    def _move(self, line: StatusLine) -> None:
        if line.task not in self._tasks:
            self._tasks[line.task] = self._bars.add_task(line.task, total=line.total, detail="")
        task = self._tasks[line.task]
        self._bars.update(task, completed=line.done, total=line.total, detail=line.detail)
        if line.done >= line.total:
            self._bars.remove_task(self._tasks.pop(line.task))

    def _draw(self) -> Any:
        from rich.console import Group

        return Group(self._bars, self._table)
