"""The only file that opens Ray: a local cluster of our own, or the one that a job runs on."""

import contextlib
import logging
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

from .server import is_loopback

_SETTINGS = {
    # Clients fail against a local cluster, which has a token by default, unless told to use it.
    "RAY_AUTH_MODE": "token",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


def settings() -> dict[str, str]:
    """Environment of every process that talks to Ray; what is set already stays."""
    return {key: os.environ.get(key, value) for key, value in _SETTINGS.items()}


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
        ray.init(
            address="local",
            num_cpus=max(int(-(-cpus // 1)), os.cpu_count() or 1),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    try:
        _require_cpus(cpus)
        yield
    finally:
        ray.shutdown()


def _require_cpus(cpus: float) -> None:
    import ray

    offered = ray.cluster_resources().get("CPU", 0.0)
    if cpus > offered:
        raise ValueError(
            f"the work needs {cpus:g} CPUs at once, the cluster has {offered:g}: it would wait "
            "for ever; ask for fewer workers or a smaller concurrency"
        )


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
