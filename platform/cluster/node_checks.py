"""Checks that every node of a cluster can do the same work, before it starts."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import node_probe

_PROBE_SECONDS = 120.0
_ROOT = Path(__file__).resolve().parents[2]
SKEW_S = 5.0
"""Seconds by which clocks may be apart without a word."""


def check_nodes(
    nodes: list[str], storage: Path, tracking: str | None, tell: Callable[[str], None]
) -> None:
    """Refuse nodes that run other code, do not see the storage, or alone miss the tracker.

    A tracker that nobody reaches is no reason: what is recorded waits in the journal.

    Args:
        nodes: `worker_nodes()`.
        storage: Folder of all runs.
        tracking: MLflow's tracking URI, where workers send to it; None where only this process
            does.
        tell: Takes a line for a person: clocks that are apart, a node that was lost meanwhile.

    Raises:
        ValueError: Names node and folder, address or code, and what to do instead.
        RuntimeError: Where a node does not answer.
    """
    if tracking is not None and not tracking.startswith(("http://", "https://")):
        raise ValueError(
            f"tracking {tracking}: not an HTTP address, and the cluster has {len(nodes)} nodes "
            "that may write to it at once; start `mlflow server` and set MLFLOW_TRACKING_URI"
        )
    reports = _ask_nodes(nodes, storage, tracking or "", tell)
    _require_same_code(reports)
    for name, report in reports.items():
        if report["storage"]:
            raise ValueError(
                f"storage {storage}: node {name} does not see it ({report['storage']}); work on "
                "several nodes needs a folder on a shared file system"
            )
    if tracking is not None:
        _require_same_way(reports, tracking)
    for name, report in reports.items():
        ahead = report["ahead_s"]
        if abs(ahead) > SKEW_S:
            tell(
                f"node {name}: its clock is {abs(ahead):.0f} s "
                f"{'ahead of' if ahead > 0 else 'behind'} this machine's: times of records and "
                "logs do not fit together; start chrony or systemd-timesyncd on both"
            )


def _require_same_code(reports: Mapping[str, Mapping[str, Any]]) -> None:
    ours = node_probe.digest_package(_ROOT)
    for name, report in reports.items():
        if report["code"] != ours:
            there = "none" if report["code"] is None else f"another one (code {report['code'][:12]}"
            there += "" if report["code"] is None else f", here {ours[:12]})"
            raise ValueError(
                f"spikeseg: node {name} has {there}, and would run that; install the same there, "
                "or send the work by `spikeseg submit`, which brings this code to every node"
            )


def _require_same_way(reports: Mapping[str, Mapping[str, Any]], tracking: str) -> None:
    """Refuse a tracker that some machines reach and others do not."""
    without = {name: report["tracker"] for name, report in reports.items() if report["tracker"]}
    if not without:
        return
    if len(without) < len(reports) or not node_probe.describe_way(tracking):
        name, reason = next(iter(without.items()))
        raise ValueError(
            f"tracking {node_probe.hide_user(tracking)}: node {name} does not reach it ({reason}), "
            "and the worker that records may run there; give an address that all nodes reach, in "
            "MLFLOW_TRACKING_URI"
        )


def _ask_nodes(
    nodes: Sequence[str], storage: Path, tracker: str, tell: Callable[[str], None]
) -> dict[str, Mapping[str, Any]]:
    """What `describe_node` says of each node, with `ahead_s`, by address and id."""
    import ray
    from ray import cloudpickle
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    token = uuid.uuid4().hex
    probe = storage / f".probe-{token}"
    probe.write_text(token)
    addresses = {node["NodeID"]: node.get("NodeManagerAddress", "") for node in ray.nodes()}
    reports: dict[str, Mapping[str, Any]] = {}
    # By value: a node with another spikeseg, or with none, is to say so.
    cloudpickle.register_pickle_by_value(node_probe)
    try:
        task: Any = ray.remote(num_cpus=0, max_retries=0)(node_probe.describe_node)
        asked = time.time()
        answers = [
            # A Path would be read with the driver's own working directory in mind; text is not.
            task.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
            ).remote(str(storage), tracker, token)
            for node in nodes
        ]
        for node, answer in zip(nodes, answers, strict=True):
            name = f"{addresses.get(node, '')} ({node[:12]})".strip()
            try:
                report: Any = ray.get(answer, timeout=_PROBE_SECONDS)
            except RayError as error:
                if not _is_alive(node):
                    tell(f"node {name}: was lost before work started")
                    continue
                reason = str(error).strip().splitlines() or [type(error).__name__]
                raise RuntimeError(f"node {name}: does not answer ({reason[-1]})") from error
            ahead = node_probe.read_ahead(report["time"], asked)
            reports[name] = {**report, "ahead_s": ahead}
    finally:
        cloudpickle.unregister_pickle_by_value(node_probe)
        probe.unlink(missing_ok=True)
    return reports


def _is_alive(node: str) -> bool:
    import ray

    return any(known["NodeID"] == node and known["Alive"] for known in ray.nodes())
