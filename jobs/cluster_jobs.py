"""`spikeseg jobs`: what runs on a head, its logs, how it is stopped and continued."""

import time

import click

from .cli import run
from .options import address_option, env_option


@click.group("jobs")
def command() -> None:
    """List a head's jobs, show their logs, stop and resume them."""


def _tell(line: str) -> None:
    print(line, flush=True)


@command.command("list")
@address_option
def list_command(address: str | None) -> None:
    """List the head's jobs, the newest first."""
    from ..platform.cluster.job_control import list_jobs
    from ..platform.cluster.job_submission import choose_dashboard

    for row in list_jobs(choose_dashboard(address)):
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.started))
        _tell(f"{row.id}  {row.status:9}  {started}  {row.command}")


@command.command("logs")
@click.argument("job")
@address_option
@click.option("--follow", is_flag=True, help="Until the job ends; its exit code is returned.")
def logs(job: str, address: str | None, follow: bool) -> int:
    """Show the logs of JOB."""
    from ..platform.cluster.job_control import show_logs
    from ..platform.cluster.job_submission import choose_dashboard

    return show_logs(choose_dashboard(address), job, follow=follow, tell=_tell)


@command.command("stop")
@click.argument("job")
@address_option
@click.option("--limit", default=90.0, show_default=True, help="Seconds to wait until it left.")
def stop(job: str, address: str | None, limit: float) -> None:
    """Ask JOB to leave with a checkpoint; after a minute Ray ends it."""
    from ..platform.cluster.job_control import stop_job
    from ..platform.cluster.job_submission import choose_dashboard

    stop_job(choose_dashboard(address), job, limit=limit, tell=_tell)


@command.command("resume")
@click.argument("job")
@address_option
@env_option
@click.option("--no-wait", is_flag=True, help="Return once the job is accepted.")
def resume(job: str, address: str | None, names: tuple[str, ...], no_wait: bool) -> int:
    """Continue the training or sweep of JOB, which has ended, by a new job."""
    from ..platform.doctor.send_job import SendOptions, resume_job

    return resume_job(job, SendOptions(address, not no_wait, names), _tell)


if __name__ == "__main__":
    run(command)
