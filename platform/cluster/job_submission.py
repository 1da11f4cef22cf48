"""Send a verb to a cluster as a Ray job, together with this checkout's code."""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shlex
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from .head_checks import Dashboard, check_dashboard
from .loopback import host_of, is_loopback
from .node_probe import PACKAGE_SUFFIXES
from .session import settings

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_DEFAULT = "http://127.0.0.1:8265"
_DASHBOARD = "RAY_API_SERVER_ADDRESS"
_CLUSTER = "RAY_ADDRESS"
ARGUMENTS, RUN, STORAGE, FILES = (
    "spikeseg",
    "spikeseg_run",
    "spikeseg_storage",
    "spikeseg_files",
)
"""Keys of a job's metadata: what it runs, the run's name, its storage, its own files (JSON)."""
_JOB = {
    "PYTHONUNBUFFERED": "1",
    # A job that is stopped has this long for its checkpoint; Ray's own 3 s are too few.
    "RAY_JOB_STOP_WAIT_TIME_S": "60",
}
_ROOT = Path(__file__).resolve().parents[2]


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


def plain_command(
    address: str, arguments: Sequence[str], variables: Mapping[str, str] = MappingProxyType({})
) -> str:
    """The `ray job submit` line that does the same where spikeseg is installed on the nodes.

    No other variable of the shell overrides its address. A head on loopback is this machine, whose
    PATH need not have this environment: there the program is named by its path.

    Args:
        address: Of the head's dashboard.
        arguments: The verb and its arguments.
        variables: Of the job; what may be a secret is left out.
    """
    shell = f"RAY_AUTH_MODE=token {_DASHBOARD}={shlex.quote(address)}"
    shown = {k: v for k, v in variables.items() if k.startswith(("MLFLOW_TRACKING_U", "SPIKESEG_"))}
    shown.pop("MLFLOW_TRACKING_USERNAME", None)
    options = ["--runtime-env-json", json.dumps({"env_vars": shown})] if shown else []
    program = Path(sys.executable).with_name("spikeseg")
    named = str(program) if is_loopback(host_of(address)) and program.is_file() else "spikeseg"
    words = [_find_program("ray"), "job", "submit", "--address", address, *options, "--", named]
    return f"{shell} {shlex.join([*words, *arguments])}"


def jobs_line(address: str, verb: str, *arguments: str) -> str:
    """A `spikeseg jobs` line about a job, that can be pasted into this shell.

    Args:
        address: Of the head's dashboard.
        verb: `logs`, `stop` or `resume`.
        *arguments: The job's id, and flags.
    """
    program = _find_program("spikeseg")
    words = [program] if program != "spikeseg" or shutil.which(program) else []
    words = words or [sys.executable, "-m", "spikeseg.jobs.cli"]
    return shlex.join([*words, "jobs", verb, *arguments, "--address", address])


def _find_program(name: str) -> str:
    """A program of this environment: its name where the PATH finds it, else its path."""
    beside = Path(sys.executable).with_name(name)
    return name if shutil.which(name) or not beside.is_file() else str(beside)


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


class Job(NamedTuple):
    """A job as it is sent.

    Attributes:
        arguments: The verb and its arguments.
        variables: Environment variables of the job.
        files: Text by name of files beside which it runs.
        name: Of the run or sweep that it makes or continues; empty for other verbs.
        storage: Folder of all runs; empty for other verbs.
    """

    arguments: Sequence[str]
    variables: Mapping[str, str]
    files: Mapping[str, str]
    name: str = ""
    storage: str = ""


def submit(job: Job, dashboard: Dashboard, *, wait: bool, tell: Callable[[str], None]) -> int:
    """Submit a verb as a Ray job.

    Args:
        job: What to run.
        dashboard: Of the head, which is checked first.
        wait: Whether to stream logs until it ends.
        tell: Takes lines for a person.

    Returns:
        The job's own exit code; 0 where it is not waited for.

    Raises:
        ValueError: Where the head must not be used (`check_dashboard`).
        RuntimeError: Where the cluster is out of reach, or refuses the job.
    """
    address = dashboard.address
    os.environ.update(settings())
    token = check_dashboard(dashboard)
    with explain_errors(address):
        client = open_client(address, token)
        sent = _send(client, address, job)
    tell(f"job {sent} at {address}")
    tell(f"dashboard: {address}/#/jobs/{sent}")
    tell(f"logs:      {jobs_line(address, 'logs', sent, '--follow')}")
    tell(f"stop:      {jobs_line(address, 'stop', sent)}")
    if job.name:
        tell(f"resume:    {jobs_line(address, 'resume', sent)}")
    if not job.files:
        tell(f"the same by hand: {plain_command(address, job.arguments, job.variables)}")
    if not wait:
        return 0
    try:
        with explain_errors(address):
            return follow_job(client, sent, tell)
    except KeyboardInterrupt:
        tell(f"the job goes on; stop it with: {jobs_line(address, 'stop', sent)}")
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
        client = JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"})
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
        if before[_DASHBOARD] is None:
            del os.environ[_DASHBOARD]
    # A line for each package that it makes, and for the end of the logs, is no news.
    for name in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.WARNING)
    return client


def _send(client: "JobSubmissionClient", address: str, job: Job) -> str:
    """Send the package, the files and the command; returns the job's id."""
    with tempfile.TemporaryDirectory(prefix="spikeseg-") as folder:
        package = copy_package(Path(folder))
        environment: dict[str, Any] = {
            "py_modules": [str(package)],
            "env_vars": {**settings(), **_JOB, **job.variables},
        }
        if job.files:
            beside = Path(folder) / "files"
            beside.mkdir()
            for name, text in job.files.items():
                (beside / name).write_text(text)
            environment["working_dir"] = str(beside)
        return client.submit_job(
            entrypoint=entrypoint(address, job.arguments),
            submission_id=f"{job.name}-{secrets.token_hex(3)}" if job.name else None,
            runtime_env=environment,
            metadata={
                "job_name": job.name or f"spikeseg {job.arguments[0]}",
                ARGUMENTS: shlex.join(job.arguments),
                RUN: job.name,
                STORAGE: job.storage,
                FILES: json.dumps(dict(job.files)),
            },
        )


def follow_job(client: "JobSubmissionClient", job: str, tell: Callable[[str], None]) -> int:
    """Show a job's logs until it ends.

    Args:
        client: Of the head.
        job: Its id.
        tell: Takes lines for a person.

    Returns:
        Its exit code.

    Raises:
        RuntimeError: Where it ended without one.
    """
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
