"""Send a verb to a cluster as a Ray job, together with this checkout's code."""

import asyncio
import contextlib
import os
import shlex
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .head_checks import Dashboard, check_dashboard
from .loopback import host_of, is_loopback
from .session import settings

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_DEFAULT = "http://127.0.0.1:8265"
_DASHBOARD = "RAY_API_SERVER_ADDRESS"
_CLUSTER = "RAY_ADDRESS"
_ROOT = Path(__file__).resolve().parents[2]
# What the package is made of; pyproject.toml ships the same kinds in the wheel.
PACKAGE_SUFFIXES = (".py", ".yaml", ".json", ".cu", ".cuh", ".h", ".j2", ".typed")


def copy_package(target: Path) -> Path:
    """Copy the package's own files into a folder named `spikeseg`, which Ray hashes by content.

    The repository's root is never sent: it holds data, runs and the environment.

    Args:
        target: Folder to make it in.

    Returns:
        The folder.
    """
    package = target / "spikeseg"
    folders = [_ROOT]
    project = _ROOT / "pyproject.toml"
    if project.is_file():
        names = tomllib.loads(project.read_text())["tool"]["setuptools"]["packages"]
        folders = [_ROOT.joinpath(*name.split(".")[1:]) for name in names]
    else:
        folders += [
            entry
            for top in ("model", "datasets", "platform", "jobs")
            for entry in (_ROOT / top, *(_ROOT / top).rglob("*"))
            if entry.is_dir() and entry.name != "__pycache__"
        ]
    for folder in folders:
        copied = package / folder.relative_to(_ROOT)
        copied.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            hidden = file.name.startswith(".")
            if file.is_file() and file.suffix in PACKAGE_SUFFIXES and not hidden:
                shutil.copy(file, copied / file.name)
    return package


def entrypoint(address: str, arguments: Sequence[str]) -> str:
    """Build the command that a job runs for a verb and its arguments.

    A head on loopback is this machine: its job runs this interpreter, whatever the PATH that the
    head was started with. Elsewhere it is the `python` of the node's own PATH.
    """
    python = sys.executable if is_loopback(host_of(address)) else "python"
    return shlex.join([python, "-m", "spikeseg.jobs.cli", *arguments])


def plain_command(address: str, arguments: Sequence[str]) -> str:
    """The `ray job submit` line that does the same where spikeseg is installed on the nodes."""
    return _ray_job(address, "submit", "--", "spikeseg", *arguments)


def _ray_job(address: str, verb: str, *arguments: str) -> str:
    """A `ray job` line for an address, which no other variable of the shell overrides."""
    variables = f"RAY_AUTH_MODE=token {_DASHBOARD}={shlex.quote(address)}"
    return f"{variables} {shlex.join(['ray', 'job', verb, '--address', address, *arguments])}"


def choose_dashboard(address: str | None) -> Dashboard:
    """Take the flag's address, else RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or this machine's.

    Args:
        address: Of the flag; None where it was not given.

    Raises:
        ValueError: Where it is not the address of a dashboard.
    """
    for source, named in (
        ("--address", address),
        (_DASHBOARD, os.environ.get(_DASHBOARD)),
        (_CLUSTER, os.environ.get(_CLUSTER)),
    ):
        if named:
            return Dashboard(_check_form(named, source), source)
    return Dashboard(_DEFAULT, "the default")


def _check_form(address: str, source: str) -> str:
    """The address with its scheme; HOST:PORT of RAY_ADDRESS is a head's, not its dashboard's."""
    whole = f"http://{address}" if "://" not in address and source != _CLUSTER else address
    parts = urlsplit(whole)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"{source} {address}: not the address of a head's dashboard, such as "
            "http://HOST:8265; --address takes one"
        )
    if parts.username or parts.password or parts.query:
        raise ValueError(
            f"{source}: {parts.scheme}://{parts.hostname}: the address may hold neither user nor "
            "query; a token goes by RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        )
    return whole.rstrip("/")


def submit(
    arguments: Sequence[str],
    *,
    address: str | None,
    wait: bool,
    tell: Callable[[str], None],
    variables: Mapping[str, str],
) -> int:
    """Submit a verb as a Ray job.

    Args:
        arguments: The verb and its arguments.
        address: The head's dashboard, such as http://127.0.0.1:8265; as the environment names it,
            or this machine's, if not given.
        wait: Whether to stream logs until it ends.
        tell: Takes lines for a person.
        variables: Environment variables of the job.

    Returns:
        The job's own exit code; 0 where it is not waited for.

    Raises:
        ValueError: Where the address is none of a dashboard, or its head must not be used
            (`check_dashboard`).
        RuntimeError: Where the cluster is out of reach, or refuses the job.
    """
    dashboard = choose_dashboard(address)
    tell(f"head {dashboard.address} ({dashboard.source})")
    os.environ.update(settings())
    token = check_dashboard(dashboard)
    with explain_errors(dashboard.address):
        client = open_client(dashboard.address, token)
        job = _send(client, dashboard.address, arguments, variables)
    tell(f"job {job} at {dashboard.address}")
    tell(f"the same by hand: {plain_command(dashboard.address, arguments)}")
    if not wait:
        tell(f"logs: {_ray_job(dashboard.address, 'logs', '--follow', job)}")
        return 0
    try:
        with explain_errors(dashboard.address):
            return _follow(client, job, tell)
    except KeyboardInterrupt:
        tell(f"the job goes on; stop it with: {_ray_job(dashboard.address, 'stop', job)}")
        return 130


def open_client(address: str, token: str) -> "JobSubmissionClient":
    """Open Ray's client for jobs, to exactly the head that was checked.

    Args:
        address: Of the head's dashboard.
        token: That the head took.
    """
    from ray.job_submission import JobSubmissionClient

    # Ray's client takes the variables instead of its argument, and reads the token once a process.
    before = {name: os.environ.get(name) for name in (_DASHBOARD, _CLUSTER)}
    os.environ[_DASHBOARD] = address
    try:
        return JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"})
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
        if before[_DASHBOARD] is None:
            del os.environ[_DASHBOARD]


def _send(
    client: "JobSubmissionClient",
    address: str,
    arguments: Sequence[str],
    variables: Mapping[str, str],
) -> str:
    """Send the package and the command; returns the job's id."""
    with tempfile.TemporaryDirectory(prefix="spikeseg-") as folder:
        package = copy_package(Path(folder))
        return client.submit_job(
            entrypoint=entrypoint(address, arguments),
            runtime_env={
                "py_modules": [str(package)],
                "env_vars": {**settings(), "PYTHONUNBUFFERED": "1", **variables},
            },
            metadata={"spikeseg": shlex.join(arguments)},
        )


def _follow(client: "JobSubmissionClient", job: str, tell: Callable[[str], None]) -> int:
    """Show a job's logs until it ends; returns its exit code."""
    from ray.job_submission import JobStatus

    async def follow() -> None:
        async for lines in client.tail_job_logs(job):
            tell(lines.rstrip("\n"))

    asyncio.run(follow())
    info = client.get_job_info(job)
    tell(f"job {job}: {info.status}")
    if info.driver_exit_code is not None:
        return int(info.driver_exit_code)
    if info.status == JobStatus.SUCCEEDED:
        return 0
    raise RuntimeError(f"job {job}: {info.message}")


@contextlib.contextmanager
def explain_errors(address: str) -> Iterator[None]:
    """Turn what goes wrong with a head that was checked into one sentence.

    Args:
        address: Of the head's dashboard.

    Raises:
        RuntimeError: Where Ray's client raised.
    """
    import aiohttp
    import requests
    from ray.exceptions import RayError

    try:
        yield
    except (RayError, requests.RequestException, aiohttp.ClientError, OSError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise RuntimeError(f"{address}: the head stopped answering: {reason[0]}") from error
