"""A job of its own that asks every node what it sees; run on a head, it needs Ray alone.

Its one argument is JSON: `storage` (a folder), `tracker` (an address, or empty). It prints a line
of JSON: a list with a report of each node.
"""

import json
import socket
import sys
import time
import uuid
from pathlib import Path
from typing import Any

_SECONDS = 20.0


def describe_node(storage: str, tracker: str) -> dict[str, Any]:
    """What this node sees.

    Args:
        storage: Folder of all runs, which the driver made.
        tracker: HTTP address of the tracker; empty for none.

    Returns:
        `storage` and `tracker`: why they cannot be used, empty where they can; `time`: seconds
        since the epoch; versions of Python and torch.
    """
    import importlib.metadata
    import platform
    import urllib.error
    import urllib.request

    report: dict[str, Any] = {"time": time.time(), "storage": "", "tracker": ""}
    report["host"] = socket.gethostname()
    report["python"] = platform.python_version()
    try:
        report["torch"] = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        report["torch"] = None
    try:
        probe = Path(storage) / f".probe-{uuid.uuid4().hex}"
        if not Path(storage).is_dir():
            raise FileNotFoundError(2, "No such file or directory")
        probe.touch()
        probe.unlink()
    except OSError as error:
        report["storage"] = str(error.strerror)
    if tracker:
        try:
            urllib.request.urlopen(tracker, timeout=5).close()
        except urllib.error.HTTPError:
            pass  # It answers, if only with a refusal.
        except (OSError, ValueError) as error:
            report["tracker"] = str(getattr(error, "reason", error))
    return report


def main() -> None:
    """Ask every node, print the reports."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    request = json.loads(sys.argv[1])
    ray.init(log_to_driver=False)
    task = ray.remote(num_cpus=0)(describe_node)
    asked: dict[str, Any] = {}
    started = time.time()
    for node in ray.nodes():
        if node["Alive"]:
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            call = task.options(scheduling_strategy=strategy, max_retries=0)
            asked[node["NodeID"]] = call.remote(request["storage"], request["tracker"])
    reports = []
    for node, answer in asked.items():
        described: Any = ray.get(answer, timeout=_SECONDS)
        report = {**described, "node": node}
        # How long the task waited for its worker is not known: what lies between is no difference.
        shown = report["time"]
        report["ahead_s"] = shown - min(max(shown, started), time.time())
        reports.append(report)
    print("NODES " + json.dumps(reports), flush=True)


if __name__ == "__main__":
    main()
