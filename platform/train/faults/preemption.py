"""Notices that this process will soon be taken away: a signal, or a node that is drained."""

import contextlib
import logging
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5


@contextlib.contextmanager
def first_signal(number: int, act: Callable[[], None]) -> Iterator[None]:
    """While the block runs, answer the first signal of a kind; the second does what it did before.

    Outside of the main thread, which alone may answer signals, all stays as it is.

    Args:
        number: The signal.
        act: The answer; it may raise into the block.
    """

    def take(_: int, __: FrameType | None) -> None:
        signal.signal(number, before)
        act()

    try:
        before = signal.signal(number, take)
    except ValueError:
        _log.debug("not the main thread: signals are left as they are")
        yield
        return
    try:
        yield
    finally:
        signal.signal(number, before)


class Notice:
    """Whether this process was told to leave."""

    def __init__(self) -> None:
        self._sources: list[Callable[[], bool]] = []
        self._order: Path | None = None
        self._looked = 0.0
        self._leave = False

    def given(self) -> bool:
        """Whether a notice has come."""
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self.leaves()
        return self._leave or any(source() for source in self._sources)

    def leaves(self) -> bool:
        """Whether training ends once its checkpoint is written.

        A worker on a drained node goes on instead: Ray moves it when the node is taken, and until
        then every step counts.
        """
        self._looked = time.monotonic()
        self._leave = self._leave or (self._order is not None and self._order.exists())
        return self._leave

    def watch(self, source: Callable[[], bool], order: Path) -> None:
        """Ask further sources.

        Args:
            source: Whether this worker's node will be taken away, such as Ray says it.
            order: A file that the driver makes where training is to end.
        """
        self._sources.append(source)
        self._order = order

    @contextlib.contextmanager
    def on_signal(
        self, number: int = signal.SIGTERM, *, order: Path | None = None
    ) -> Iterator[None]:
        """While the block runs, take a signal as notice and leave; needs the main thread.

        The second signal does what the signal did before.

        Args:
            number: The signal.
            order: File to make at the signal, for workers that `watch` it.
        """

        def take() -> None:
            self._leave = True
            if order is not None:
                order.touch()

        try:
            with first_signal(number, take):
                yield
        finally:
            self._leave = False
            if order is not None:
                order.unlink(missing_ok=True)


NOTICE = Notice()
