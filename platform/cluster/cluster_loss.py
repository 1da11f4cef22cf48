"""What happens when a cluster shrinks or dies: progress lines, or an interruption."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from .session import offered_cpus
from .signals import first_signal

_log = logging.getLogger(__name__)


_WATCH_SECONDS = 2.0
# Processes of a local cluster without which no call into it returns.
_NEEDED = ("raylet", "gcs_server")
# Of the signals that interrupt a wait inside of Ray, one that nobody else gives a meaning.
_LOST = signal.SIGRTMIN + 5


@contextlib.contextmanager
def report_missing_cpus(*, cpus: float, progress: Callable[[str], None]) -> Iterator[None]:
    """While the block runs, report when the cluster has too few CPUs for the work.

    Args:
        cpus: CPUs without which the work stands still.
        progress: Takes a line for a person.
    """
    stop = threading.Event()

    def watch() -> None:
        waiting = False
        while not stop.wait(_WATCH_SECONDS):
            try:
                offered = offered_cpus()
            except Exception as error:
                _log.debug("the cluster does not answer: %s", error)
                continue
            if offered < cpus and not waiting:
                progress(
                    f"waiting: the work needs {cpus:g} CPUs, the cluster has {offered:g}; it goes "
                    "on from its newest checkpoint when a node joins"
                )
            elif offered >= cpus and waiting:
                progress(f"the cluster has {offered:g} CPUs again")
            waiting = offered < cpus

    thread = threading.Thread(target=watch, daemon=True, name="cluster-watch")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class ClusterLostError(RuntimeError):
    """The local cluster that this process started is gone."""


@contextlib.contextmanager
def interrupt_when_lost() -> Iterator[None]:
    """Interrupt the block if the local cluster that this process started dies.

    Calls into a dead cluster never return. On a cluster of others, Ray replaces what it loses.
    Needs the main thread, which alone can be interrupted; in others the block runs as it is.

    Raises:
        ClusterLostError: Names the process of Ray's that ended.
    """
    from ray._private import worker

    # No public call says that the processes which `ray.init` started are still there.
    node: Any = worker._global_node
    if node is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    lost: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(_WATCH_SECONDS):
            lost.extend(kind for kind, _ in node.dead_processes() if kind in _NEEDED)
            if lost:
                os.kill(os.getpid(), _LOST)
                return

    def interrupt() -> None:
        raise KeyboardInterrupt

    thread = threading.Thread(target=watch, daemon=True, name="cluster-watch")
    try:
        with first_signal(_LOST, interrupt):
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()
    except KeyboardInterrupt:
        if not lost:
            raise
        raise ClusterLostError(f"Ray's {lost[0]} on this machine ended") from None


def is_node_draining() -> bool:
    """Whether Ray announced that a node of this Ray Train group will be taken away."""
    # The public call is a barrier between all workers; the flag behind it is what we sum anyway.
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info is not None
