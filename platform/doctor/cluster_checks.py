"""Checks of Ray's token, of a head, and of what its nodes see."""

import contextlib
import stat
import time
from email.utils import parsedate_to_datetime
from typing import Any

from ..cluster.head_checks import HeadUnreachableError, check_dashboard, check_head
from ..cluster.head_nodes import HeadNode, may_grow, read_head_nodes
from ..cluster.job_submission import choose_dashboard
from ..cluster.loopback import host_of, is_loopback
from ..cluster.node_checks import SKEW_S
from ..cluster.token import token_file
from ..search.sweep_file.schema import Resources
from ..search.trials.capacity import trials_at_once
from ..tracking.code_state import code_digest
from ..tracking.tracking_uri import tracking_uri
from .findings import Finding, fail, ok, skipped, warn
from .subject import Subject

_NO_HEAD = "no head was named (--address)"
_MODES = ("token", "disabled")


def check_token(subject: Subject) -> Finding:
    """Ray's token can be read by this user alone, and is not empty."""
    if subject.environment.get("RAY_AUTH_TOKEN", "").strip():
        return ok("RAY_AUTH_TOKEN holds the token")
    file = token_file()
    if not file.is_file():
        if subject.environment.get("RAY_AUTH_TOKEN_PATH"):
            return fail(f"RAY_AUTH_TOKEN_PATH: {file}: no such file", "copy the head's token there")
        return ok(f"{file}: is made when Ray first starts here")
    try:
        status, text = file.stat(), file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        return fail(f"{file}: cannot be read ({error})", "copy the head's token there, mode 0600")
    if not text.strip():
        return fail(f"{file}: holds no token", f"rm {file}: a new one is made")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        return warn(
            f"{file}: mode {mode:04o}, others can read it, and with it run code as you",
            f"chmod 600 {file}; if others use this machine, make a new token",
        )
    return ok(f"{file}: mode {mode:04o}")


def check_token_mode(subject: Subject) -> Finding:
    """RAY_AUTH_MODE lets nobody in without a token."""
    mode = subject.environment.get("RAY_AUTH_MODE", "token").lower()
    if mode not in _MODES:
        return fail(f"RAY_AUTH_MODE={mode!r} is none of Ray's", "export RAY_AUTH_MODE=token")
    if mode == "disabled":
        return warn(
            "RAY_AUTH_MODE=disabled: every user of this machine can run code on a local cluster",
            "export RAY_AUTH_MODE=token",
        )
    return ok("RAY_AUTH_MODE=token")


def check_cluster_address(subject: Subject) -> Finding:
    """The head that RAY_ADDRESS names answers, with our token and our version of Ray."""
    address = subject.environment.get("RAY_ADDRESS", "")
    if address in ("", "local", "auto"):
        return skipped("RAY_ADDRESS names no head")
    if "://" in address:
        if subject.address is None:
            return fail(
                f"RAY_ADDRESS {address}: a dashboard's address, and train and sweep need HOST:6379",
                "unset RAY_ADDRESS and use spikeseg submit --address",
            )
        return ok("RAY_ADDRESS names a dashboard; jobs are submitted")
    try:
        check_head(address)
    except (ValueError, HeadUnreachableError) as error:
        return fail(str(error), "start the head, name another one, or unset RAY_ADDRESS")
    return ok(f"RAY_ADDRESS {address} answers")


def check_head_answers(subject: Subject) -> Finding:
    """The head of --address asks for a token, takes ours, and runs our version of Ray."""
    if subject.address is None:
        return skipped(_NO_HEAD)
    try:
        check_dashboard(choose_dashboard(subject.address))
    except (ValueError, HeadUnreachableError) as error:
        return fail(str(error), "docs/clusters.md says how a head is started")
    return ok(f"{subject.address}: takes our token, runs our Ray")


def _read_nodes(subject: Subject) -> list[HeadNode] | Finding:
    if subject.address is None:
        return skipped(_NO_HEAD)
    try:
        return read_head_nodes(choose_dashboard(subject.address))
    except (ValueError, HeadUnreachableError):
        return skipped("the head does not answer")


def check_head_resources(subject: Subject) -> Finding:
    """The head's living nodes have the CPUs and GPUs that the request takes at once."""
    nodes = _read_nodes(subject)
    if isinstance(nodes, Finding):
        return nodes
    offered = [node.resources for node in nodes]
    total = {kind: sum(node.get(kind, 0.0) for node in offered) for kind in ("CPU", "GPU")}
    seen = f"{len(nodes)} nodes with {total['CPU']:g} CPU + {total['GPU']:g} GPU"
    refusal = find_missing_room(subject, offered)
    if refusal and subject.address is not None and may_grow(choose_dashboard(subject.address)):
        return warn(
            f"{refusal}; the cluster may grow",
            "nothing: room is waited for (SPIKESEG_ROOM_TIMEOUT_S), and refused after that",
        )
    if refusal:
        return fail(refusal, "fewer workers or trials at once, or more nodes")
    return ok(seen)


def find_missing_room(subject: Subject, nodes: list[dict[str, float]]) -> str:
    """Why the request does not fit on nodes; empty where it does.

    Args:
        subject: With the experiment or the sweep.
        nodes: `CPU` and `GPU` of each node.
    """
    if subject.plan is not None:
        recipe = subject.plan.recipe
        wanted = subject.concurrency or recipe.concurrency
        resources, workers = recipe.resources, recipe.workers_per_trial
    elif subject.config is not None:
        trainer = subject.config.trainer
        wanted, workers = 1, trainer.min_workers or max(1, trainer.workers)
        resources = Resources(cpu=1.0, gpu=1.0 if trainer.device == "cuda" else 0.0)
    else:
        return ""
    try:
        trials_at_once(resources, workers=workers, wanted=wanted, nodes=nodes)
    except ValueError as error:
        if subject.plan is not None:
            return str(error)
        total = sum(node.get("CPU", 0.0) for node in nodes)
        return (
            f"trainer.workers: {workers} workers need {workers * resources.cpu:g} CPU + "
            f"{workers * resources.gpu:g} GPU at once, the cluster's {len(nodes)} nodes have "
            f"{total:g} CPU: they would wait for ever"
        )
    return ""


def check_tracker_is_shared(subject: Subject) -> Finding:
    """The tracker's address and the storage mean the same on the head as here."""
    if subject.address is None:
        return skipped(_NO_HEAD)
    uri = tracking_uri(subject.storage)
    elsewhere = not is_loopback(host_of(choose_dashboard(subject.address).address))
    if uri.startswith(("http://", "https://")) and elsewhere and is_loopback(host_of(uri)):
        return fail(
            f"MLFLOW_TRACKING_URI {uri} is this machine's, and the head is another one",
            "start the server with a host that the nodes reach, and name that",
        )
    nodes = _read_nodes(subject)
    if isinstance(nodes, Finding):
        return nodes
    config = subject.config
    # Of a sweep only the driver talks to it, and a training without workers is one process.
    alone = subject.plan is not None or (config is not None and config.trainer.workers == 0)
    if len(nodes) > 1 and not alone and not uri.startswith(("http://", "https://")):
        return (warn if config is None else fail)(
            f"tracking {uri}: a file, and the cluster has {len(nodes)} nodes that a training's "
            "workers may write from",
            "start mlflow server and set MLFLOW_TRACKING_URI",
        )
    return ok("the tracker's address means the same on the head")


def check_nodes_see(subject: Subject) -> Finding:
    """Every node sees the storage and reaches the tracker, and has our code or none."""
    reports = subject.node_reports
    if isinstance(reports, str):
        return skipped(reports)
    for report in reports:
        node = f"node {report['node'][:12]} ({report['host']})"
        if report["storage"]:
            return fail(
                f"{node} does not see {subject.storage} ({report['storage']})",
                "a --storage on a file system that all nodes mount",
            )
        if report["tracker"]:
            return fail(
                f"{node} does not reach the tracker ({report['tracker']})",
                "a tracker's address that all nodes reach, or a firewall's rule",
            )
    for report in reports:
        if report["code"] not in (None, code_digest()):
            return warn(
                f"node {report['node'][:12]} ({report['host']}) has another spikeseg (code "
                f"{report['code'][:12]}, here {code_digest()[:12]})",
                "`spikeseg submit` brings this one; for `ray job submit` install the same there",
            )
    return ok(f"{len(reports)} nodes see the storage and reach the tracker")


def check_node_versions(subject: Subject) -> Finding:
    """Nodes run one Python, and torch of one version."""
    reports = subject.node_reports
    if isinstance(reports, str):
        return skipped(reports)
    for key in ("python", "torch"):
        seen: dict[Any, str] = {}
        for report in reports:
            seen.setdefault(report[key], report["host"])
        if len(seen) > 1:
            said = ", ".join(f"{value} on {host}" for value, host in seen.items())
            return fail(f"nodes differ in {key}: {said}", "install the same on all nodes")
        if seen and next(iter(seen)) is None:
            return fail(f"nodes lack {key}", f"install {key} there")
    return ok(f"{len(reports)} nodes run the same Python and torch")


def check_clocks(subject: Subject) -> Finding:
    """Clocks of the head, of its nodes and of the tracker show the time that this machine shows."""
    clocks = {}
    uri = tracking_uri(subject.storage)
    if uri.startswith(("http://", "https://")):
        clocks["the tracker"] = read_clock(uri)
    if subject.address is not None:
        clocks["the head"] = read_clock(choose_dashboard(subject.address).address)
    here = time.time()
    apart = {name: shown - here for name, shown in clocks.items() if shown is not None}
    reports = subject.node_reports
    if not isinstance(reports, str):
        apart |= {f"node {r['host']}": r["ahead_s"] for r in reports}
    if not apart:
        return skipped("no other machine takes part")
    name = max(apart, key=lambda key: abs(apart[key]))
    if abs(apart[name]) > SKEW_S:
        return warn(
            f"the clock of {name} is {abs(apart[name]):.0f} s "
            f"{'ahead of' if apart[name] > 0 else 'behind'} this machine's: curves of two "
            "machines do not fit on one time axis",
            "start chrony or systemd-timesyncd on both",
        )
    return ok(f"{', '.join(apart)}: at most {abs(apart[name]):.1f} s apart")


def read_clock(address: str) -> float | None:
    """Seconds since the epoch that an HTTP server shows, to the second; None where it does not.

    Args:
        address: Of any page.
    """
    import requests

    with contextlib.suppress(requests.RequestException, TypeError, ValueError):
        answer = requests.head(address, timeout=5, allow_redirects=False)
        return parsedate_to_datetime(answer.headers["Date"]).timestamp()
    return None
