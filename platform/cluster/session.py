"""The only file that opens Ray: a local cluster, or the one that this job runs on."""

import contextlib
import logging
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ...datasets.cpu_count import count_usable_cpus
from .head_checks import check_head
from .loopback import host_of, is_loopback
from .room import Nodes, wait_for_room
from .token import ensure_token

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
# Off, Ray keeps 127.0.0.1 as the node's address, and every process of the node listens there
# alone; else it takes the machine's address and listens on all of them. No other node can join.
JOINABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_STARTS = 3
# Of `sockaddr_un`, without its last zero; and the longest that Ray makes in its folder.
_LONGEST_SOCKET = 107
_SOCKET = "session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"


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
        ValueError: Where the cluster can never offer so many CPUs, or its head is open, refuses
            this machine's token or runs another version of Ray.
        RuntimeError: Where no head answers, or Ray does not start here.
    """
    # Ray reads its authentication mode when it is first imported, so this comes before.
    os.environ.update(settings())
    import ray

    if ray.is_initialized():
        _require_cpus(cpus)
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    with contextlib.ExitStack() as opened:
        if address in ("", "local"):
            opened.enter_context(_on_loopback())
            _start_local(max(int(-(-cpus // 1)), count_usable_cpus()))
        else:
            head = _find_head(address)
            if _is_on_loopback(head):
                opened.enter_context(_on_loopback())
            check_head(head)
            _log.info("using the Ray head at %s", head)
            _connect(head)
        opened.callback(ray.shutdown)
        _require_cpus(cpus)
        yield


def _find_head(address: str) -> str:
    """HOST:PORT of the head that RAY_ADDRESS names."""
    if address == "auto":
        from ray._private import services

        heads = sorted(services.find_gcs_addresses())
        if len(heads) != 1:
            raise ValueError(
                f"RAY_ADDRESS auto: {len(heads)} heads run on this machine; name one (HOST:6379), "
                "or unset RAY_ADDRESS"
            )
        return heads[0]
    try:
        # An address without a port is none, and one with a wrong port raises.
        complete = "://" not in address and bool(urlsplit(f"//{address}").port)
    except ValueError:
        complete = False
    if not complete:
        raise ValueError(
            f"RAY_ADDRESS {address}: must be the head's own address (HOST:6379); a head behind "
            "a dashboard's or a client's address takes jobs by `spikeseg submit --address`"
        )
    return address


def _is_on_loopback(head: str) -> bool:
    """Whether a head listens on loopback alone, where Ray would look at the machine's address."""
    from ray._private import services

    port = head.rpartition(":")[2]
    if not is_loopback(host_of(head)):
        return False
    elsewhere = services.resolve_ip_for_localhost(host_of(head))
    with socket.socket(socket.AF_INET6 if ":" in elsewhere else socket.AF_INET) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((elsewhere, int(port))) != 0


def _connect(head: str) -> None:
    """Connect to a head that was checked."""
    import ray
    from ray.exceptions import RayError

    try:
        # RAY_ADDRESS would be taken instead of the argument.
        with _without_variables("RAY_ADDRESS"):
            ray.init(address=head, log_to_driver=False, logging_level=logging.WARNING)
    except (RuntimeError, ConnectionError, RayError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RuntimeError(f"RAY_ADDRESS {head}: Ray could not connect: {reason}") from error


@contextlib.contextmanager
def _without_variables(*names: str) -> Iterator[None]:
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """While the block runs, Ray takes 127.0.0.1 for this machine's address, and keeps to it."""
    from ray._private import ray_constants

    # Ray's other processes read the variable; this one read it when it imported Ray.
    before = os.environ.get(JOINABLE), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[JOINABLE] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        variable, ray_constants.ENABLE_RAY_CLUSTER = before
        if variable is None:
            del os.environ[JOINABLE]
        else:
            os.environ[JOINABLE] = variable


def _start_local(cpus: int) -> None:
    """Start a cluster of this machine alone; retried where a busy machine was too slow for Ray."""
    import ray

    _require_short_sockets()
    if os.environ.get(_AUTH, "token").lower() == "token":
        ensure_token()
    else:
        _log.warning(
            "%s=%s: the local cluster asks for no token, and every user of this machine can run "
            "code on it as this user",
            _AUTH,
            os.environ[_AUTH],
        )
    folder = make_ray_folder()
    for key, value in _LOCAL.items():
        os.environ.setdefault(key, value)
    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(
                address="local",
                # Ray opens its own folder to everyone, whatever the umask.
                _temp_dir=str(folder / "ray"),
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


def _ray_folder() -> Path:
    # Not TMPDIR, which batch systems make longer than the path of a socket may be.
    above = os.environ.get("RAY_TMPDIR") or "/tmp"
    return Path(above).absolute() / f"spikeseg-ray-{os.getuid()}"


def check_ray_folder() -> Path:
    """Check the folder of Ray's sockets and logs, which is made where Ray starts.

    Returns:
        The folder, which need not be there yet.

    Raises:
        ValueError: Where its path is too long for sockets, or somebody else made it.
    """
    _require_short_sockets()
    folder = _ray_folder()
    if folder.exists() or folder.is_symlink():
        _require_own_folder(folder)
    return folder


def _require_short_sockets() -> None:
    """Refuse a folder whose path is too long for sockets; Ray's own words would be an assertion.

    Raises:
        ValueError: Says by how many bytes, and what to set.
    """
    longest = os.fsencode(_ray_folder() / "ray" / _SOCKET)
    if len(longest) > _LONGEST_SOCKET:
        raise ValueError(
            f"RAY_TMPDIR {os.environ.get('RAY_TMPDIR')}: Ray's sockets below it would have paths "
            f"of {len(longest)} bytes, and the system takes {_LONGEST_SOCKET}: set it to a folder "
            f"with a path at least {len(longest) - _LONGEST_SOCKET} bytes shorter, or unset it"
        )


def make_ray_folder() -> Path:
    """Make the folder around Ray's sockets and logs, this user's alone: others could replace them.

    Returns:
        The folder.

    Raises:
        ValueError: Where somebody else made it.
    """
    folder = _ray_folder()
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    _require_own_folder(folder)
    folder.chmod(0o700)
    return folder


def _require_own_folder(folder: Path) -> None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise ValueError(
            f"{folder}: must be a folder of this user for Ray's sockets; have it removed, or set "
            "RAY_TMPDIR to another place (with a short path)"
        )


def offered_cpus() -> float:
    """Total CPUs of all living nodes."""
    import ray

    return float(ray.cluster_resources().get("CPU", 0.0))


def _require_cpus(cpus: float) -> None:
    def fit(nodes: Nodes) -> None:
        offered = sum(node.get("CPU", 0.0) for node in nodes)
        if cpus > offered:
            raise ValueError(
                f"the work needs {cpus:g} CPUs at once, the cluster has {offered:g}: it would wait "
                "for ever; ask for fewer workers or a smaller concurrency"
            )

    wait_for_room(fit, [{"CPU": 1.0}] * int(-(-cpus // 1)))


def worker_nodes() -> list[str]:
    """Ids of the living nodes with CPUs; empty where that is this process's node alone."""
    import ray

    ids = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) > 0]
    return [] if ids == [ray.get_runtime_context().get_node_id()] else ids
