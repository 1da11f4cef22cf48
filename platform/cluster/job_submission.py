"""Send a verb to a cluster as a Ray job, together with this checkout's code."""

import asyncio
import os
import shlex
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

from .loopback import check_address, host_of, is_loopback
from .session import settings

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
    line = ["ray", "job", "submit", "--address", address, "--", "spikeseg", *arguments]
    return "RAY_AUTH_MODE=token " + shlex.join(line)


def submit(
    arguments: Sequence[str], *, address: str, wait: bool, tell: Callable[[str], None]
) -> int:
    """Submit a verb as a Ray job.

    Args:
        arguments: The verb and its arguments.
        address: The head's dashboard, such as http://127.0.0.1:8265.
        wait: Whether to stream logs until it ends.
        tell: Takes lines for a person.

    Returns:
        The job's own exit code; 0 where it is not waited for.

    Raises:
        ValueError: Where the address is not allowed.
        RuntimeError: Where the cluster is out of reach.
    """
    check_address(address)
    os.environ.update(settings())
    from ray.job_submission import JobStatus, JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
    except (ConnectionError, RuntimeError) as error:
        raise RuntimeError(f"{address}: no Ray head answers there: {error}") from error
    with tempfile.TemporaryDirectory(prefix="spikeseg-") as folder:
        package = copy_package(Path(folder))
        job = client.submit_job(
            entrypoint=entrypoint(address, arguments),
            runtime_env={
                "py_modules": [str(package)],
                "env_vars": {**settings(), "PYTHONUNBUFFERED": "1"},
            },
            metadata={"spikeseg": shlex.join(arguments)},
        )
    tell(f"job {job} at {address}")
    tell(f"the same by hand: {plain_command(address, arguments)}")
    if not wait:
        tell(f"logs: RAY_AUTH_MODE=token ray job logs --follow --address {address} {job}")
        return 0

    async def follow() -> None:
        async for lines in client.tail_job_logs(job):
            tell(lines.rstrip("\n"))

    try:
        asyncio.run(follow())
    except KeyboardInterrupt:
        tell(f"the job goes on; stop it with: ray job stop --address {address} {job}")
        return 130
    info = client.get_job_info(job)
    tell(f"job {job}: {info.status}")
    if info.driver_exit_code is not None:
        return int(info.driver_exit_code)
    if info.status == JobStatus.SUCCEEDED:
        return 0
    raise RuntimeError(f"job {job}: {info.message}")
