"""Notices that this process will soon be taken away: a signal, or a node that is drained."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ...cluster.signals import first_signal

_LOOK_SECONDS = 0.5


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
        self, number: int = signal.SIGTERM, *, order: Path | None = None
    ) -> Iterator[None]:
        """While the block runs, treat a signal as a notice to leave; needs the main thread.

        The second signal does what the signal did before.

        Args:
            number: The signal.
            order: File to make at the signal, for workers that `watch` it.
        """

        def handle() -> None:
            self._leave = True
            if order is not None:
                order.touch()

        try:
            with first_signal(number, handle):
                yield
        finally:
            self._leave = False
            if order is not None:
                order.unlink(missing_ok=True)
