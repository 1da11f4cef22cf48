"""A sweep that is told to end: trials end their step with a checkpoint, then the driver goes."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ...cluster.signals import first_of_signals, first_signal
from ...train.faults.preemption import LEAVE_SIGNALS, Notice

_LOOK_SECONDS = 0.2
# A step and its checkpoint take less; a second signal does not wait for them either.
_LONGEST_SECONDS = 300.0
# Nobody else gives it a meaning; `cluster_loss` has the one before.
_ALL_LEFT = signal.SIGRTMIN + 6


class StoppedError(RuntimeError):
    """The block was interrupted by a signal.

    Args:
        number: The signal.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.number = number


def mark_left(leave: Path, number: int) -> None:
    """Say that a trial has ended its step and kept its checkpoint.

    Args:
        leave: The sweep's order to leave.
        number: The trial.
    """
    _mark(leave, number).touch()


def _mark(leave: Path, number: int) -> Path:
    return leave.with_name(f"{leave.name}.{number}")


@contextlib.contextmanager
def left_by_signals(leave: Path, live: Callable[[], set[int]]) -> Iterator[None]:
    """While trials run, a signal has each end its step with a checkpoint; then the block ends.

    Any of `LEAVE_SIGNALS` does. The second signal does what it did before: it ends the process.

    Args:
        leave: File that tells the trials; it is there from the signal until the block's end.
        live: Numbers of the trials that run now.

    Raises:
        StoppedError: Where a signal ended the block.
    """
    received: list[int] = []
    done = threading.Event()

    def wait_for_trials() -> None:
        until = time.monotonic() + _LONGEST_SECONDS
        while time.monotonic() < until and not done.wait(_LOOK_SECONDS):
            if all(_mark(leave, number).exists() for number in live()):
                break
        if not done.is_set():
            os.kill(os.getpid(), _ALL_LEFT)

    def begin(number: int) -> None:
        received.append(number)
        threading.Thread(target=wait_for_trials, daemon=True, name="trials-leave").start()

    def interrupt() -> None:
        raise KeyboardInterrupt

    try:
        with first_signal(_ALL_LEFT, interrupt), Notice().on_signal(order=leave, also=begin):
            yield
    except KeyboardInterrupt as stop:
        number = signal.Signals(received[0]) if received else signal.SIGINT
        raise StoppedError(number) from stop
    finally:
        done.set()
        for mark in leave.parent.glob(f"{leave.name}.*"):
            mark.unlink(missing_ok=True)
    if received:
        raise StoppedError(signal.Signals(received[0]))


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """While the block runs, and no trial does, any of `LEAVE_SIGNALS` interrupts it.

    Ray's own answer to SIGTERM, which it takes when it starts, ends the process in an abort.

    Raises:
        StoppedError: Where the block was interrupted.
    """
    received = [signal.SIGINT]

    def interrupt(number: int) -> None:
        # Ray raises an interrupt of its own for Ctrl-C: it carries no number.
        received.append(signal.Signals(number))
        raise KeyboardInterrupt

    try:
        with first_of_signals(LEAVE_SIGNALS, interrupt):
            yield
    except KeyboardInterrupt as stop:
        raise StoppedError(received[-1]) from stop
