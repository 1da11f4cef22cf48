"""The only file that opens Ray: a local cluster, or the one that this job runs on."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

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


def settings() -> dict[str, str]:
    """Environment variables of every process that uses Ray; those already set stay."""
    chosen = {key: os.environ.get(key, value) for key, value in _SETTINGS.items()}
    if "ray" in sys.modules and _AUTH not in os.environ:
        # Ray read its mode when the caller imported it: its servers would ask for a token that
        # this process does not send.
        del chosen[_AUTH]
    return chosen


@contextlib.contextmanager
def connected(*, cpus: float) -> Iterator[None]:
    """Connect to Ray while the block runs: this job's cluster, else a local one on loopback.

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
    """Start a cluster of this machine alone; retried where a busy machine was too slow for Ray."""
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


def offered_cpus() -> float:
    """Total CPUs of all living nodes."""
    import ray

    return float(ray.cluster_resources().get("CPU", 0.0))


def _require_cpus(cpus: float) -> None:
    offered = offered_cpus()
    if cpus > offered:
        raise ValueError(
            f"the work needs {cpus:g} CPUs at once, the cluster has {offered:g}: it would wait "
            "for ever; ask for fewer workers or a smaller concurrency"
        )


def worker_nodes() -> list[str]:
    """Ids of the living nodes with CPUs; empty where that is this process's node alone."""
    import ray

    ids = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) > 0]
    return [] if ids == [ray.get_runtime_context().get_node_id()] else ids
