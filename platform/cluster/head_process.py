"""A Ray node that a person starts for jobs: what it listens on, what was started, how it ends.

Ray's own `ray stop` ends every Ray process of the user. Here a node is a session of processes,
written down in a file of this user, and only that session is ended.
"""

import contextlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...datasets.packed.files import write_file
from .head_checks import check_head
from .loopback import host_of, is_loopback
from .session import JOINABLE, check_ray_folder, make_ray_folder, settings
from .token import ensure_token, find_token

_log = logging.getLogger(__name__)

_FOLDER = "nodes"
_START_S, _STOP_S = 90.0, 15.0
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class StartedNode:
    """A node that this user started on this machine.

    Attributes:
        session: Id of the session of its processes.
        started: Clock ticks since the machine's start at which its first process began.
        head: HOST:PORT of the cluster's head, as RAY_ADDRESS names it.
        dashboard: Address of the dashboard; None of a node that joined a head elsewhere.
        host: Address that it listens on; the loopback one for a cluster of this machine alone.
    """

    session: int
    started: int
    head: str
    dashboard: str | None
    host: str

    @property
    def alone(self) -> bool:
        """Whether nobody else can join."""
        return is_loopback(self.host)


class NodeStartError(RuntimeError):
    """Ray did not start a node."""


@dataclass(frozen=True)
class NodeRequest:
    """What is to be started.

    Attributes:
        join: HOST:PORT of a head; None to start a head.
        host: Address on which others reach this node; None for loopback, or, of a node that joins,
            the address from which this machine reaches the head.
        port: Of a head.
        dashboard_port: Of a head.
        cpus: CPUs that it offers; None for those that may be used here.
    """

    join: str | None = None
    host: str | None = None
    port: int = 6379
    dashboard_port: int = 8265
    cpus: int | None = None


def start_node(request: NodeRequest) -> StartedNode:
    """Start a head, or a node that joins one, in the background.

    Raises:
        ValueError: Where a port is taken, the token is missing or refused, the address is none, or
            the head there is open or runs another version of Ray.
        HeadUnreachableError: Where no head is there to join.
        NodeStartError: Where Ray does not start; has the last line that it said.
    """
    host = _choose_host(request)
    check_ray_folder()
    if request.join is None:
        ensure_token()
        for port, flag in ((request.port, "--port"), (request.dashboard_port, "--dashboard-port")):
            _require_free(host, port, flag)
    elif find_token() is None:
        raise ValueError(
            f"--join {request.join}: nodes need the head's token: copy its ~/.ray/auth_token to "
            "~/.ray/auth_token here (mode 0600), or set RAY_AUTH_TOKEN_PATH"
        )
    else:
        check_head(request.join, "--join")
    folder = make_ray_folder()
    log = folder / f"node-{time.time_ns()}.log"
    # Others could otherwise read what a job's processes print here.
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
        process = subprocess.Popen(
            _command(request, host, folder),
            env=_environment(host),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=Path.home(),
        )
    node = StartedNode(
        session=process.pid,
        started=_read_start(process.pid) or 0,
        head=request.join or f"{host}:{request.port}",
        dashboard=None if request.join else f"http://{host}:{request.dashboard_port}",
        host=host,
    )
    record = _folder() / f"{node.session}.json"
    write_file(record, json.dumps(asdict(node)))
    try:
        _wait_until_up(process, node, log)
    except BaseException:
        _end_session(node)
        record.unlink(missing_ok=True)
        raise
    return node


def _choose_host(request: NodeRequest) -> str:
    if request.join is None:
        return request.host or _LOOPBACK
    name, _, port = request.join.rpartition(":")
    if "://" in request.join or not name or not port.isdigit():
        raise ValueError(f"--join {request.join}: must be the head's own address, HOST:6379")
    if is_loopback(host_of(request.join)):
        raise ValueError(
            f"--join {request.join}: a head on loopback is one of its machine alone, and takes no "
            "node; start it with `spikeseg cluster start --host ADDRESS`"
        )
    if request.host is not None:
        return request.host
    # The address of this machine on the way to the head; nothing is sent.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host_of(request.join), int(port)))
        except OSError as error:
            raise ValueError(f"--join {request.join}: no way there ({error.strerror})") from error
        return probe.getsockname()[0]


def _require_free(host: str, port: int, flag: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"{flag} {port}: cannot be opened on {host} ({error.strerror}); give another one, "
                "or end what listens there (`spikeseg cluster status`)"
            ) from error


def _free_ports(host: str, count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as opened:
        probes = [opened.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((host, 0))
        return [probe.getsockname()[1] for probe in probes]


def _command(request: NodeRequest, host: str, folder: Path) -> list[str]:
    agent, grpc, client = map(str, _free_ports(host, 3))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    command += ["--disable-usage-stats", f"--node-ip-address={host}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}"]
    # Ray's own range for workers may hold the head's ports: the system chooses.
    command += ["--min-worker-port=0", "--max-worker-port=0"]
    if request.cpus is not None:
        command.append(f"--num-cpus={request.cpus}")
    if request.join is not None:
        return [*command, f"--address={request.join}"]
    command += ["--head", f"--port={request.port}", f"--ray-client-server-port={client}"]
    command += [f"--dashboard-host={host}", f"--dashboard-port={request.dashboard_port}"]
    return [*command, f"--temp-dir={folder / 'ray'}"]


def _environment(host: str) -> dict[str, str]:
    """Variables of the node: token asked for, this environment's programs first on the PATH."""
    ours = str(Path(sys.executable).parent)
    variables = {**os.environ, **settings(), "RAY_AUTH_MODE": "token"}
    variables["PATH"] = f"{ours}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", JOINABLE):
        variables.pop(name, None)
    if is_loopback(host):
        variables[JOINABLE] = "0"
    return variables


def _wait_until_up(process: "subprocess.Popen[bytes]", node: StartedNode, log: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            errors = [line for line in lines if re.match(r"[\w.]*Error: ", line)]
            said = (errors or lines or [f"exit code {process.returncode}"])[-1].strip()
            raise NodeStartError(f"Ray did not start ({said}); all that it said: {log}")
        if _is_up(node, log):
            return
        time.sleep(0.3)
    raise NodeStartError(f"Ray did not start within {_START_S:g} s; what it said: {log}")


def _is_up(node: StartedNode, log: Path) -> bool:
    # The dashboard answers before the node takes work.
    if "Ray runtime started" not in log.read_text(errors="replace"):
        return False
    if node.dashboard is None:
        return True
    port = int(node.dashboard.rpartition(":")[2])
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((node.host, port)) == 0


def list_nodes() -> list[StartedNode]:
    """Nodes that this user started on this machine and that still run; records of others go."""
    running = []
    for record in sorted(_folder().glob("*.json")):
        try:
            node = StartedNode(**json.loads(record.read_text()))
        except (ValueError, TypeError):
            _log.warning("%s: is no record of a node and is passed over", record)
            continue
        if any(_members(node)):
            running.append(node)
        else:
            record.unlink(missing_ok=True)
    return running


def stop_node(node: StartedNode) -> int:
    """End the processes of a node that was started here, and no other.

    Returns:
        How many processes were ended.
    """
    ended = _end_session(node)
    (_folder() / f"{node.session}.json").unlink(missing_ok=True)
    return ended


def _end_session(node: StartedNode) -> int:
    """Ask the session's processes to end, then end those that are left."""
    seen: set[int] = set()
    until = time.monotonic() + _STOP_S
    for number in (signal.SIGTERM, signal.SIGKILL):
        while members := list(_members(node)):
            for pid in members:
                if number == signal.SIGKILL or pid not in seen:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            seen.update(members)
            if number == signal.SIGTERM and time.monotonic() > until:
                break
            time.sleep(0.1)
    return len(seen)


def _members(node: StartedNode) -> Iterator[int]:
    """Processes of a node's session that still run.

    A session's id is not given to another process while one of the session is there; where its
    first process is gone and the number was taken by somebody else, its start says so.
    """
    started = _read_start(node.session)
    if started is not None and started != node.started:
        return
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        fields = _read_stat(int(entry.name))
        if fields and fields[0] != "Z" and int(fields[3]) == node.session:
            yield int(entry.name)


def _read_stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _read_start(pid: int) -> int | None:
    fields = _read_stat(pid)
    return int(fields[19]) if fields else None


def describe_listeners(node: StartedNode) -> list[str]:
    """What a node listens on: a line each of process, address and port, from the system's table."""
    import psutil

    lines: dict[str, None] = {}
    for pid in _members(node):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            for connection in process.net_connections(kind="inet"):
                address: Any = connection.laddr
                if connection.status == psutil.CONN_LISTEN:
                    lines[f"{address.ip}:{address.port}  {_name(process)}"] = None
    return sorted(lines)


def _name(process: Any) -> str:
    words = [Path(word).name for word in process.cmdline() if not word.startswith("-")]
    known = ("gcs_server", "raylet", "dashboard.py", "agent.py", "main.py", "log_monitor.py")
    return next((word for word in words if word in known), process.name())


def _folder() -> Path:
    folder = make_ray_folder() / _FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
