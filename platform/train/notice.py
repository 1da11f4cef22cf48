"""Notices that this process will soon be taken away: a signal, or a node that is drained."""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from types import FrameType

_log = logging.getLogger(__name__)


class Notice:
    """Whether this process was told to leave.

    Attributes:
        leave: Whether training ends once its checkpoint is written. A worker on a drained node
            goes on instead: Ray moves it when the node is taken, and until then every step counts.
    """

    leave = False

    def __init__(self) -> None:
        self._sources: list[Callable[[], bool]] = []
        self._signalled = False

    def given(self) -> bool:
        """Whether a notice has come."""
        return self._signalled or any(source() for source in self._sources)

    def watch(self, source: Callable[[], bool]) -> None:
        """Ask a further source, such as Ray about this worker's node."""
        self._sources.append(source)

    @contextlib.contextmanager
    def on_signal(self, number: int = signal.SIGTERM) -> Iterator[None]:
        """While the block runs, take a signal as notice and leave; needs the main thread."""

        def take(_: int, __: FrameType | None) -> None:
            self._signalled = self.leave = True

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
            self._signalled = self.leave = False


NOTICE = Notice()
