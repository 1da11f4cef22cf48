"""Jobs that a head knows: list them, show logs, stop one, read what one was asked to do."""

import json
import shlex
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from .head_checks import Dashboard, check_dashboard
from .job_submission import (
    ARGUMENTS,
    FILES,
    RUN,
    STORAGE,
    Job,
    explain_errors,
    follow_job,
    open_client,
)


class JobRow(NamedTuple):
    """A job as a list shows it.

    Attributes:
        id: Ray's id of it.
        status: Such as RUNNING.
        started: Seconds since the epoch.
        command: The verb and its arguments; what it was started with, where not by spikeseg.
    """

    id: str
    status: str
    started: float
    command: str


def list_jobs(dashboard: Dashboard) -> list[JobRow]:
    """List a head's jobs, the newest first.

    Args:
        dashboard: Of the head, which is checked first.
    """
    with explain_errors(dashboard.address):
        jobs = _open(dashboard).list_jobs()
    rows = [
        JobRow(
            job.submission_id or job.job_id or "",
            str(job.status.value),
            (job.start_time or 0) / 1000,
            (job.metadata or {}).get(ARGUMENTS) or job.entrypoint,
        )
        for job in jobs
        if job.submission_id
    ]
    return sorted(rows, key=lambda row: row.started, reverse=True)


def show_logs(dashboard: Dashboard, job: str, *, follow: bool, tell: Callable[[str], None]) -> int:
    """Show a job's logs, until it ends where they are followed.

    Returns:
        The job's exit code where it is followed, else 0.

    Raises:
        ValueError: Where the head knows no such job.
    """
    with explain_errors(dashboard.address):
        client = _open(dashboard)
        _require(client, job)
        if follow:
            return follow_job(client, job, tell)
        tell(client.get_job_logs(job).rstrip("\n"))
    return 0


def stop_job(dashboard: Dashboard, job: str, *, limit: float, tell: Callable[[str], None]) -> None:
    """Ask a job to leave with a checkpoint, and wait until it has.

    Args:
        dashboard: Of the head.
        job: Its id.
        limit: Seconds to wait.
        tell: Takes lines for a person.

    Raises:
        ValueError: Where the head knows no such job.
        RuntimeError: Where it has not left in time.
    """
    with explain_errors(dashboard.address):
        client = _open(dashboard)
        _require(client, job)
        if not client.stop_job(job):
            tell(f"job {job}: has ended already ({client.get_job_status(job).value})")
            return
        until = time.monotonic() + limit
        while not (status := client.get_job_status(job)).is_terminal():
            if time.monotonic() > until:
                raise RuntimeError(f"job {job}: has not left within {limit:g} s")
            time.sleep(0.5)
    tell(f"job {job}: {status.value}")


def read_job_to_resume(dashboard: Dashboard, job: str) -> Job:
    """What continues the training or sweep of a job that has ended.

    Args:
        dashboard: Of the head.
        job: The job's id.

    Raises:
        ValueError: Where the head knows no such job, it still runs, or it was neither.
    """
    with explain_errors(dashboard.address):
        info = _require(_open(dashboard), job)
    metadata = info.metadata or {}
    arguments = shlex.split(metadata.get(ARGUMENTS, ""))
    name, storage = metadata.get(RUN, ""), metadata.get(STORAGE, "")
    if not name or not arguments:
        raise ValueError(f"job {job}: is no training and no sweep that `spikeseg submit` sent")
    if not info.status.is_terminal():
        raise ValueError(
            f"job {job}: still {info.status.value}; stop it first (spikeseg jobs stop)"
        )
    if arguments[0] == "train":
        continued, files = ["train", "--resume", name, "--storage", storage], {}
    else:
        continued, files = _with_resume(arguments, name), json.loads(metadata.get(FILES, "{}"))
    sent: dict[str, Any] = (info.runtime_env or {}).get("env_vars", {})
    kept = {key: str(value) for key, value in sent.items() if key in _KEPT}
    return Job(continued, kept, files, name, storage)


_KEPT = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "SPIKESEG_STORAGE",
    "SPIKESEG_STUDY",
    "SPIKESEG_TRACEBACK",
    "SPIKESEG_MAX_NODES",
)


def _with_resume(arguments: list[str], name: str) -> list[str]:
    """A sweep's arguments, with --resume in the place of --name."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in ("--name", "--resume"):
            next(words, None)
        elif not word.startswith(("--name=", "--resume=")):
            kept.append(word)
    return [*kept, "--resume", name]


def _open(dashboard: Dashboard) -> Any:
    return open_client(dashboard.address, check_dashboard(dashboard))


def _require(client: Any, job: str) -> Any:
    """A job's record."""
    for info in client.list_jobs():
        if job in (info.submission_id, info.job_id):
            return info
    raise ValueError(f"job {job}: the head knows no such job; spikeseg jobs list shows all")
