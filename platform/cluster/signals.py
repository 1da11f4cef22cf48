"""A handler for a process's first signal; the second one acts as before."""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from types import FrameType

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def first_signal(number: int, act: Callable[[], None]) -> Iterator[None]:
    """While the block runs, handle the first signal of a kind; the second one acts as before.

    Outside of the main thread, which alone may answer signals, all stays as it is.

    Args:
        number: The signal.
        act: The answer; it may raise into the block.
    """

    def handle(_: int, __: FrameType | None) -> None:
        signal.signal(number, before)
        act()

    try:
        before = signal.signal(number, handle)
    except ValueError:
        _log.debug("not the main thread: signals are left as they are")
        yield
        return
    try:
        yield
    finally:
        signal.signal(number, before)
