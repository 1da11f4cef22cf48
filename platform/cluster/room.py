"""Room for work on a cluster that can grow: waited for with a line, refused after a limit."""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

_log = logging.getLogger(__name__)

MAX_NODES = "SPIKESEG_MAX_NODES"
"""Nodes that a cluster may grow to, where its own report does not say."""
LIMIT = "SPIKESEG_ROOM_TIMEOUT_S"
"""Seconds that room is waited for."""
_LIMIT_S = 900.0
_EVERY_S = 2.0
Nodes = Sequence[Mapping[str, float]]
_Fit = TypeVar("_Fit")


def wait_for_room(
    fit: Callable[[Nodes], _Fit],
    demand: Sequence[Mapping[str, float]],
    *,
    tell: Callable[[str], None] = _log.warning,
) -> _Fit:
    """Fit work on the connected cluster's nodes, once it has grown where it can.

    Args:
        fit: Takes `CPU` and `GPU` of every node; returns what fits, and raises ValueError with the
            sum where nothing does.
        demand: Resources of each worker, which the cluster is asked for.
        tell: Takes a line for a person where room is waited for.

    Returns:
        What `fit` returned.

    Raises:
        ValueError: Where the work fits neither now nor on what the cluster may grow to, or it has
            not grown within the limit.
    """
    nodes = _read_nodes()
    try:
        return fit(nodes)
    except ValueError as refusal:
        grown = _read_grown(nodes)
        if grown is not None:
            # Raises where even the grown cluster has no room.
            fit(grown)
        elif not _has_autoscaler():
            raise
        return _wait(fit, demand, refusal, tell)


def _wait(
    fit: Callable[[Nodes], _Fit],
    demand: Sequence[Mapping[str, float]],
    refusal: ValueError,
    tell: Callable[[str], None],
) -> _Fit:
    limit = _read_limit()
    tell(f"no room yet, waiting up to {limit:g} s for the cluster to grow ({refusal})")
    _ask_for(demand)
    until = time.monotonic() + limit
    try:
        while time.monotonic() < until:
            try:
                return fit(_read_nodes())
            except ValueError as error:
                refusal = error
            if _is_infeasible(len(demand)):
                raise ValueError(f"the cluster cannot grow so far, says its autoscaler: {refusal}")
            time.sleep(_EVERY_S)
    finally:
        _ask_for([])
    raise ValueError(f"the cluster has not grown within {limit:g} s ({LIMIT}): {refusal}")


def _read_limit() -> float:
    text = os.environ.get(LIMIT, str(_LIMIT_S))
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise ValueError(f"{LIMIT}: must be seconds, at least 0, got {text!r}")
    return limit


def _read_grown(nodes: Nodes) -> list[Mapping[str, float]] | None:
    """Nodes that the cluster may grow to; None where it cannot grow.

    Raises:
        ValueError: Where the variable is no number of nodes.
    """
    text = os.environ.get(MAX_NODES)
    if text:
        if not text.isdigit() or int(text) < 1:
            raise ValueError(f"{MAX_NODES}: must be a number of nodes, at least 1, got {text!r}")
        largest = max(nodes, key=lambda node: node.get("CPU", 0.0), default={})
        return [*nodes, *[largest] * (int(text) - len(nodes))]
    groups = _read_groups()
    return None if not groups else [*nodes, *groups]


def _read_groups() -> list[Mapping[str, float]]:
    """Nodes that the autoscaler's own report allows, each group as often as it may be."""
    import ray
    from ray._private.state import state

    if not ray.is_initialized():
        return []
    config: Any = state.get_cluster_config()
    if config is None:
        return []
    return [
        dict(group.resources)
        for group in config.node_group_configs
        # Groups without a bound say -1.
        for _ in range(group.max_count if 0 <= group.max_count < 1000 else 1000)
    ]


def _has_autoscaler() -> bool:
    """Whether the connected cluster has an autoscaler that may start machines."""
    import ray

    if not ray.is_initialized():
        return False
    # No public call says so.
    from ray._private import ray_constants
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get

    if is_autoscaler_v2():
        return True
    status = _internal_kv_get(ray_constants.DEBUG_AUTOSCALING_STATUS)
    return starts_machines(json.loads(status).get("autoscaler_report") if status else None)


def starts_machines(report: Any) -> bool:
    """Whether a report of Ray's older autoscaler is of one that may start machines.

    Every head has one; that of a head without a configuration calls each node's type by the node.

    Args:
        report: Its part `autoscaler_report`; anything else is of none.
    """
    types = report.get("node_type_mapping") if isinstance(report, dict) else None
    return isinstance(types, dict) and any(types[node] != f"node_{node}" for node in types)


def _is_infeasible(count: int) -> bool:
    """Whether Ray's newer autoscaler answers that it can never have all that was asked for.

    Args:
        count: Bundles that were asked for; another driver may have asked for others.
    """
    import ray
    from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.core.generated import autoscaler_pb2

    if not is_autoscaler_v2():
        return False
    client = GcsClient(address=ray.get_runtime_context().gcs_address)
    messages: Any = autoscaler_pb2
    reply = messages.GetClusterStatusReply.FromString(client.get_cluster_status())
    return any(
        sum(request.count for request in constraint.resource_requests) == count
        for constraint in reply.autoscaling_state.infeasible_cluster_resource_constraints
    )


def _read_nodes() -> list[dict[str, float]]:
    """Resources of the connected cluster's living nodes."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _ask_for(demand: Sequence[Mapping[str, float]]) -> None:
    """Ask the autoscaler for room, or take the wish back."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[dict(bundle) for bundle in demand])
