"""Notices that this process will soon be taken away: a signal, or a node that is drained."""

import contextlib
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ...cluster.signals import first_of_signals

_LOOK_SECONDS = 0.5
# A scheduler's end (SIGTERM), Slurm's and submitit's notices before it (SIGUSR1, SIGUSR2), Ctrl-C
# (SIGINT), a terminal or connection that closes (SIGHUP).
LEAVE_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)


class Notice:
    """Whether this process was told to leave: by a signal, its driver, or a drained node."""

    def __init__(self) -> None:
        self._sources: list[Callable[[], bool]] = []
        self._order: Path | None = None
        self._looked = 0.0
        self._leave = False

    def received(self) -> bool:
        """Whether a notice has come: training writes a checkpoint."""
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self.must_leave()
        return self._leave or any(source() for source in self._sources)

    def must_leave(self) -> bool:
        """Whether training also ends once its checkpoint is written.

        A worker on a drained node goes on instead: Ray moves it when the node is taken, and until
        then every step counts.
        """
        self._looked = time.monotonic()
        self._leave = self._leave or (self._order is not None and self._order.exists())
        return self._leave

    def watch(self, source: Callable[[], bool], order: Path) -> None:
        """Add sources of a notice.

        Args:
            source: Whether this worker's node will be taken away, as Ray announces it.
            order: A file that the driver makes where training is to end.
        """
        self._sources.append(source)
        self._order = order

    @contextlib.contextmanager
    def on_signal(
        self, *, order: Path | None = None, also: Callable[[int], None] = lambda number: None
    ) -> Iterator[None]:
        """While the block runs, treat any of `LEAVE_SIGNALS` as a notice to leave.

        The second signal, of whichever kind, does what it did before: it ends the process. Needs
        the main thread.

        Args:
            order: File to make at the signal, for workers that `watch` it.
            also: Called with the signal's number, after the file was made.
        """

        def handle(number: int) -> None:
            self._leave = True
            if order is not None:
                order.touch()
            if number == signal.SIGHUP:
                _drop_terminal()
            _say(
                f"spikeseg: {signal.Signals(number).name}: ends after this step with its "
                "checkpoint; a second signal ends at once\n"
            )
            also(number)

        try:
            with first_of_signals(LEAVE_SIGNALS, handle):
                yield
        finally:
            self._leave = False
            if order is not None:
                order.unlink(missing_ok=True)


def _drop_terminal() -> None:
    """Send what is printed nowhere: writing to a terminal that is gone would be an error."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


def _say(line: str) -> None:
    # Not `print`: the signal may have come in the middle of one, whose buffer is not ours.
    with contextlib.suppress(OSError):
        os.write(2, line.encode())
