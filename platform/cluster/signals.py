"""A handler for the first signal of some kinds; the second one acts as before."""

import contextlib
import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

_log = logging.getLogger(__name__)

# A terminal that closes sends its hangup twice, by the kernel and by the shell.
_SAME_HANGUP_SECONDS = 2.0


@contextlib.contextmanager
def first_signal(number: int, act: Callable[[], None]) -> Iterator[None]:
    """While the block runs, handle the first signal of a kind; the second one acts as before.

    Outside of the main thread, which alone may answer signals, all stays as it is.

    Args:
        number: The signal.
        act: The answer; it may raise into the block.
    """
    with first_of_signals((number,), lambda _: act()):
        yield


@contextlib.contextmanager
def first_of_signals(numbers: Sequence[int], act: Callable[[int], None]) -> Iterator[None]:
    """While the block runs, handle the first signal of several kinds; the second acts as before.

    The second may be of another kind than the first. A signal that the process ignores, as
    `nohup` has it ignore SIGHUP, stays ignored. Outside of the main thread, which alone may answer
    signals, all stays as it is.

    Args:
        numbers: The signals.
        act: The answer, which is given the signal's number; it may raise into the block.
    """
    before: dict[int, signal._HANDLER] = {}
    received: list[float] = []

    def restore(keep: int | None = None) -> None:
        for number, handler in before.items():
            if number != keep:
                signal.signal(number, handler)

    def handle(number: int, _: FrameType | None) -> None:
        if received:
            if time.monotonic() - received[0] > _SAME_HANGUP_SECONDS:
                signal.signal(number, before[number])
                signal.raise_signal(number)
            return
        received.append(time.monotonic())
        restore(keep=signal.SIGHUP)
        act(number)

    try:
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    except ValueError:
        _log.debug("not the main thread: signals are left as they are")
        yield
        return
    try:
        yield
    finally:
        restore()
