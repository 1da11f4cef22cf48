"""Answering a process's first signal; the second does what it did before."""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from types import FrameType

_log = logging.getLogger(__name__)


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
