"""What a head says of its nodes, over its dashboard: names, addresses, resources."""

import json
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from .head_checks import Dashboard, HeadUnreachableError, ask_head, check_dashboard
from .job_submission import explain_errors, open_client
from .loopback import host_of, is_loopback
from .room import starts_machines
from .session import settings

_PROBE = Path(__file__).with_name("node_probe.py")
_REPORTS = "NODES "


class HeadNode(NamedTuple):
    """A living node of a cluster.

    Attributes:
        id: Ray's id of it.
        host: Its address.
        resources: Total of each resource, such as `CPU` and `GPU`.
    """

    id: str
    host: str
    resources: dict[str, float]


def read_head_nodes(dashboard: Dashboard) -> list[HeadNode]:
    """Read a head's living nodes.

    Args:
        dashboard: Of the head, which is checked first.

    Raises:
        ValueError: As `check_dashboard`.
        HeadUnreachableError: Where no head answers, or not with nodes.
    """
    token = check_dashboard(dashboard)
    page = "/api/v0/nodes?detail=True&limit=1000"
    answer = ask_head(dashboard.address, page, {"Authorization": f"Bearer {token}"})
    rows = (answer or {}).get("data", {})
    rows = rows.get("result", {}) if isinstance(rows, dict) else {}
    rows = rows.get("result") if isinstance(rows, dict) else None
    if not isinstance(rows, list):
        raise HeadUnreachableError(f"{dashboard.address}: the head does not list its nodes")
    return [_read_node(row) for row in rows if row.get("state") == "ALIVE"]


def may_grow(dashboard: Dashboard) -> bool:
    """Whether a head has an autoscaler that may start machines.

    Ray's newer autoscaler leaves no report where this looks: it may.

    Args:
        dashboard: Of the head, which is checked first.
    """
    token = check_dashboard(dashboard)
    page, header = "/api/cluster_status", {"Authorization": f"Bearer {token}"}
    data = (ask_head(dashboard.address, page, header) or {}).get("data")
    if not isinstance(data, dict) or "clusterStatus" not in data:
        return False
    status = data["clusterStatus"]
    if not status:
        return True
    report = status.get("autoscalerReport") if isinstance(status, dict) else None
    if isinstance(report, dict):
        report = {"node_type_mapping": report.get("nodeTypeMapping")}
    return starts_machines(report)


def _read_node(row: dict[str, Any]) -> HeadNode:
    resources = row.get("resources_total") or {}
    numbers = {kind: float(v) for kind, v in resources.items() if isinstance(v, int | float)}
    return HeadNode(str(row.get("node_id", "")), str(row.get("node_ip", "")), numbers)


def probe_nodes(
    dashboard: Dashboard, *, storage: Path, tracker: str, limit: float
) -> list[dict[str, Any]]:
    """Ask every node of a cluster what it sees, by a small job that needs Ray alone.

    Args:
        dashboard: Of the head, which is checked first.
        storage: Folder of all runs.
        tracker: HTTP address of the tracker; empty for none.
        limit: Seconds to wait for the job.

    Returns:
        What `node_probe.describe_node` says of each, with `node` and `ahead_s`.

    Raises:
        ValueError: As `check_dashboard`.
        RuntimeError: Where the job does not end, or fails.
    """
    token = check_dashboard(dashboard)
    python = sys.executable if is_loopback(host_of(dashboard.address)) else "python"
    request = json.dumps({"storage": str(storage), "tracker": tracker})
    with explain_errors(dashboard.address), tempfile.TemporaryDirectory() as folder:
        shutil.copy(_PROBE, folder)
        client = open_client(dashboard.address, token)
        job = client.submit_job(
            entrypoint=shlex.join([python, _PROBE.name, request]),
            runtime_env={"working_dir": folder, "env_vars": settings()},
            metadata={"spikeseg": "doctor"},
        )
        until = time.monotonic() + limit
        while not (status := client.get_job_status(job)).is_terminal():
            if time.monotonic() > until:
                client.stop_job(job)
                raise RuntimeError(f"the nodes did not answer within {limit:g} s")
            time.sleep(0.3)
        logs = client.get_job_logs(job)
    for line in logs.splitlines():
        if line.startswith(_REPORTS):
            return json.loads(line.removeprefix(_REPORTS))
    last = logs.strip().splitlines()[-1:] or [str(status)]
    raise RuntimeError(f"the job that asks the nodes failed: {last[0]}")
