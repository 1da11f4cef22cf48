"""Works that take turns on one machine: what else it does meanwhile falls on all alike."""

import contextlib
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import SpawnProcess
from typing import Any

import psutil

Call = tuple[Callable[..., object], tuple[Any, ...]]


def take_turns(works: Mapping[str, Call], *, seconds: float) -> dict[str, float]:
    """Run works in process trees of their own, one at a time, the others being stopped.

    A work's processes are stopped and continued all together by signals, so its own clocks see
    pauses; what waits longer than the others' turns must not be a timeout. It needs the main
    thread: SIGTERM ends all works with this process.

    Args:
        works: Name -> function of a module and its arguments, in the order of their turns.
        seconds: Length of a turn.

    Returns:
        Name -> seconds that the work had the machine, from its first import to its end.

    Raises:
        RuntimeError: Where a work ended with an error.
    """
    context = multiprocessing.get_context("spawn")
    left = {name: context.Process(target=work, args=args) for name, (work, args) in works.items()}
    spent = dict.fromkeys(works, 0.0)
    # Whoever ends this process must not leave stopped ones behind.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        while left:
            for name, process in list(left.items()):
                began = time.monotonic()
                if process.pid is None:
                    process.start()
                else:
                    _signal(process, signal.SIGCONT)
                process.join(seconds if len(left) > 1 else None)
                spent[name] += time.monotonic() - began
                if process.exitcode is None:
                    _signal(process, signal.SIGSTOP)
                    continue
                del left[name]
                if process.exitcode:
                    raise RuntimeError(f"{name} ended with code {process.exitcode}")
        return spent
    finally:
        signal.signal(signal.SIGTERM, before)
        for process in left.values():
            if process.pid is not None:
                _signal(process, signal.SIGKILL)
                process.join()


def _signal(process: SpawnProcess, number: signal.Signals) -> None:
    """Signal a process and all below it, those that start meanwhile included."""
    reached: set[int] = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        while new := [p for p in (root, *root.children(True)) if p.pid not in reached]:
            for member in new:
                reached.add(member.pid)
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.send_signal(number)
