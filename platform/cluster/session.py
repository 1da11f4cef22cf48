"""The only file that opens Ray: a local cluster of our own, or the one that a job runs on."""

import contextlib
import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..tracking.mlflow_server import is_loopback
from ..train.faults.preemption import first_signal

_log = logging.getLogger(__name__)

_AUTH = "RAY_AUTH_MODE"
_SETTINGS = {
    # Clients fail against a local cluster, which has a token by default, unless told to use it.
    _AUTH: "token",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    # Huge pages, where the kernel gives them to who asks: a step's tensors cost no page faults.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
# Of a local cluster: what nobody looks at there need not be gathered every few seconds, and no
# process is started before something asks for it: Tune's trials would take none of those.
_LOCAL = {
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_prestart_worker_first_driver": "0",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
}
_STARTS = 3
_PROBE_SECONDS = 120.0
_WATCH_SECONDS = 2.0
# Processes of a local cluster without which no call into it returns.
_NEEDED = ("raylet", "gcs_server")
# Of the signals that interrupt a wait inside of Ray, one that nobody else gives a meaning here.
_LOST = signal.SIGUSR2


def settings() -> dict[str, str]:
    """Environment of every process that talks to Ray; what is set already stays."""
    chosen = {key: os.environ.get(key, value) for key, value in _SETTINGS.items()}
    if "ray" in sys.modules and _AUTH not in os.environ:
        # Ray read its mode when the caller imported it: its servers would ask for a token that
        # this process does not send.
        del chosen[_AUTH]
    return chosen


@contextlib.contextmanager
def connected(*, cpus: float) -> Iterator[None]:
    """Ray while the block runs: the cluster of this job, else a local one on loopback.

    A cluster is only used where RAY_ADDRESS names it (as inside of a Ray job); a head that
    happens to run on this machine is left alone.

    Args:
        cpus: CPUs that the work needs; a local cluster offers at least these.

    Raises:
        ValueError: Where the cluster can never offer so many CPUs.
    """
    # Ray reads its authentication mode when it is first imported, so this comes before.
    os.environ.update(settings())
    import ray

    if ray.is_initialized():
        _require_cpus(cpus)
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    else:
        _start_local(max(int(-(-cpus // 1)), os.cpu_count() or 1))
    try:
        _require_cpus(cpus)
        yield
    finally:
        ray.shutdown()


def _start_local(cpus: int) -> None:
    """A cluster of this machine alone; tried again where a busy machine was too slow for Ray."""
    import ray

    for key, value in _LOCAL.items():
        os.environ.setdefault(key, value)
    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        except Exception as error:
            # Ray raises a bare Exception after its fixed 30 s.
            ray.shutdown()
            if attempt == _STARTS or "timed out during startup" not in str(error):
                raise RuntimeError(f"Ray did not start on this machine: {error}") from error
            _log.warning("Ray did not start in time (%d of %d tries)", attempt, _STARTS)
            continue
        return


def _offered_cpus() -> float:
    import ray

    return float(ray.cluster_resources().get("CPU", 0.0))


def _require_cpus(cpus: float) -> None:
    offered = _offered_cpus()
    if cpus > offered:
        raise ValueError(
            f"the work needs {cpus:g} CPUs at once, the cluster has {offered:g}: it would wait "
            "for ever; ask for fewer workers or a smaller concurrency"
        )


def worker_nodes() -> list[str]:
    """Ids of the living nodes that work can run on, if any of them is not this process's own."""
    import ray

    ids = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) > 0]
    return [] if ids == [ray.get_runtime_context().get_node_id()] else ids


def check_nodes(nodes: list[str], storage: Path, tracking: str) -> None:
    """Refuse what several nodes cannot share: a local folder, a tracking database in a file.

    Args:
        nodes: `worker_nodes()`.
        storage: Folder of all runs.
        tracking: MLflow's tracking URI.

    Raises:
        ValueError: Names node and folder, or the address, and what to use instead.
    """
    if not tracking.startswith(("http://", "https://")):
        raise ValueError(
            f"tracking {tracking}: not an HTTP address, and the cluster has {len(nodes)} nodes "
            "that may write to it at once; start `mlflow server` and set MLFLOW_TRACKING_URI"
        )
    check_storage(nodes, storage)


def check_storage(nodes: list[str], storage: Path) -> None:
    """Refuse a folder that some node does not see, or cannot write to.

    Args:
        nodes: `worker_nodes()`.
        storage: Folder of all runs.

    Raises:
        ValueError: Names node and folder, and what to use instead.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    token = uuid.uuid4().hex
    probe = storage / f".probe-{token}"
    probe.write_text(token)
    task = ray.remote(num_cpus=0)(_sees)
    try:
        for node in nodes:
            strategy = NodeAffinitySchedulingStrategy(node, soft=False)
            # A Path would be read with the driver's own working directory in mind; text is not.
            seen = task.options(scheduling_strategy=strategy).remote(str(probe), token)
            reason = ray.get(seen, timeout=_PROBE_SECONDS)
            if reason:
                raise ValueError(
                    f"storage {storage}: node {node[:12]} does not see it ({reason}); work on "
                    "several nodes needs a folder on a shared file system"
                )
    finally:
        probe.unlink(missing_ok=True)


def _sees(probe: str, token: str) -> str:
    """Why a node does not see the driver's file, or cannot write beside it; empty where it can."""
    path = Path(probe)
    try:
        if path.read_text() != token:
            return "another file lies there"
        beside = path.with_name(f"{path.name}-{uuid.uuid4().hex}")
        beside.write_text(token)
        beside.unlink()
    except OSError as error:
        return str(error.strerror)
    return ""


@contextlib.contextmanager
def told_while_waiting(*, cpus: float, progress: Callable[[str], None]) -> Iterator[None]:
    """While the block runs, say when the cluster has too few CPUs for the work, and when enough.

    Args:
        cpus: CPUs without which the work stands still.
        progress: Takes a line for a person.
    """
    stop = threading.Event()

    def watch() -> None:
        waiting = False
        while not stop.wait(_WATCH_SECONDS):
            try:
                offered = _offered_cpus()
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
def interrupted_when_lost() -> Iterator[None]:
    """While the block runs, end it where a local cluster that this process started is gone.

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


def leaving() -> bool:
    """Whether Ray told this Ray Train worker that a node of its group will be taken away."""
    # The public call is a barrier between all workers; the flag behind it is what we sum anyway.
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info is not None


def check_address(address: str) -> None:
    """Refuse a cluster's address that is open to others, unless a token guards it.

    Args:
        address: Such as http://127.0.0.1:8265.

    Raises:
        ValueError: Where it is neither loopback nor guarded.
    """
    if not is_loopback(host_of(address)) and not has_token():
        raise ValueError(
            f"--address {address}: not a loopback address, and no token is set (RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH); whoever reaches an open head can run code on it"
        )


def host_of(address: str) -> str:
    """Host of an address such as http://127.0.0.1:8265; empty where it names none."""
    return urlsplit(address if "://" in address else f"//{address}").hostname or ""


def has_token() -> bool:
    """Whether the user gave Ray a token."""
    return bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))
