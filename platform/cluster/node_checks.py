"""Checks that every node sees the storage and reaches the tracker, before work starts."""

import uuid
from pathlib import Path

_PROBE_SECONDS = 120.0


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
    task = ray.remote(num_cpus=0)(_describe_access)
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


def _describe_access(probe: str, token: str) -> str:
    """Why this node cannot read the driver's file or write beside it; empty where it can."""
    path = Path(probe)
    try:
        if path.read_text() != token:
            return "another file lies there"
        neighbour = path.with_name(f"{path.name}-{uuid.uuid4().hex}")
        neighbour.write_text(token)
        neighbour.unlink()
    except OSError as error:
        return str(error.strerror)
    return ""
