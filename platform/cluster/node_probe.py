"""A job of its own that asks every node what it sees; run on a head, it needs Ray alone.

Its one argument is JSON: `storage` (a folder), `tracker` (an address, or empty). It prints a line
of JSON: a list with a report of each node.
"""

import hashlib
import http.client
import importlib.metadata
import importlib.util
import json
import platform
import socket
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# What the package is made of; pyproject.toml ships the same kinds in the wheel.
PACKAGE_SUFFIXES = (".py", ".yaml", ".json", ".cu", ".cuh", ".h", ".j2", ".typed")
PACKAGE_FOLDERS = ("model", "datasets", "platform", "jobs")
_SECONDS = 20.0


def digest_package(root: Path) -> str:
    """SHA-256 over the files of the package in a folder, which names its code.

    Args:
        root: Folder of the package.
    """
    digest = hashlib.sha256()
    for top in PACKAGE_FOLDERS:
        for path in sorted((root / top).rglob("*")):
            if path.suffix in PACKAGE_SUFFIXES:
                digest.update(f"{path.relative_to(root)}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def describe_node(storage: str, tracker: str, token: str = "") -> dict[str, Any]:
    """What this node sees.

    Args:
        storage: Folder of all runs, which the driver made.
        tracker: HTTP address of the tracker; empty for none.
        token: Content of the file `.probe-TOKEN` that the driver made there; empty for none.

    Returns:
        `storage` and `tracker`: why they cannot be used, empty where they can; `time`: seconds
        since the epoch; versions of Python and torch; `code`: digest of the spikeseg that is
        installed there, None without one.
    """
    report: dict[str, Any] = {"time": time.time(), "host": socket.gethostname()}
    report["python"] = platform.python_version()
    try:
        report["torch"] = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        report["torch"] = None
    package = importlib.util.find_spec("spikeseg")
    origin = None if package is None else package.origin
    report["code"] = None if origin is None else digest_package(Path(origin).parent)
    report["storage"] = _describe_access(Path(storage), token)
    report["tracker"] = describe_way(tracker) if tracker else ""
    return report


def describe_way(address: str) -> str:
    """Why this process does not reach an HTTP server; empty where it does.

    Args:
        address: Of the server; a user in it is not sent.
    """
    try:
        urllib.request.urlopen(hide_user(address), timeout=5).close()
    except urllib.error.HTTPError:
        pass  # It answers, if only with a refusal.
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    return ""


def hide_user(address: str) -> str:
    """An address without the user and the password that it may hold."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _describe_access(storage: Path, token: str) -> str:
    """Why this node cannot read the driver's file there, or write; empty where it can."""
    try:
        if token and (storage / f".probe-{token}").read_text() != token:
            return "another file lies there"
        if not storage.is_dir():
            raise FileNotFoundError(2, "No such file or directory")
        probe = storage / f".probe-{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return str(error.strerror)
    return ""


def read_ahead(shown: float, asked: float) -> float:
    """Seconds by which another clock is ahead of this one, 0 where the waiting may explain it.

    Args:
        shown: What it showed at some time since it was asked.
        asked: What this one showed then.
    """
    return shown - min(max(shown, asked), time.time())


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
        ahead = read_ahead(described["time"], started)
        reports.append({**described, "node": node, "ahead_s": ahead})
    print("NODES " + json.dumps(reports), flush=True)


if __name__ == "__main__":
    main()
