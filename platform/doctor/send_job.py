"""Send a verb to a cluster: request and head are checked here before anything leaves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..cluster.job_control import read_job_to_resume
from ..cluster.job_submission import Job, choose_dashboard, submit
from ..cluster.loopback import host_of
from ..tracking.job_names import job_variables
from .job_request import check_room, prepare_job


class SendOptions(NamedTuple):
    """How a job is sent.

    Attributes:
        address: Of the head's dashboard; None as the environment names it, or this machine's.
        wait: Whether to stream logs until it ends.
        named: Variables that a person named to be sent.
        max_nodes: Nodes that the cluster may grow to; None where nobody said.
    """

    address: str | None
    wait: bool
    named: Sequence[str] = ()
    max_nodes: int | None = None


def send_job(
    arguments: Sequence[str],
    parameters: Mapping[str, Any],
    options: SendOptions,
    tell: Callable[[str], None],
) -> int:
    """Check a request and the head, and send the job.

    Args:
        arguments: The verb and its arguments, as typed.
        parameters: What the verb's command line says.
        options: How it is sent.
        tell: Takes lines for a person.

    Returns:
        The job's own exit code; 0 where it is not waited for.

    Raises:
        ValueError: Where request or head are wrong; nothing was sent.
        RuntimeError: Where the cluster is out of reach, or refuses the job.
    """
    dashboard = choose_dashboard(options.address)
    tell(f"head {dashboard.address} ({dashboard.source})")
    variables = job_variables(tell, named=options.named, head=host_of(dashboard.address))
    request = prepare_job(arguments, parameters, dashboard, tell)
    check_room(request, dashboard, options.max_nodes, tell)
    if options.max_nodes is not None:
        variables["SPIKESEG_MAX_NODES"] = str(options.max_nodes)
    job = Job(request.arguments, variables, request.files, request.name, request.storage)
    return submit(job, dashboard, wait=options.wait, tell=tell)


def resume_job(job: str, options: SendOptions, tell: Callable[[str], None]) -> int:
    """Continue the training or the sweep of a job that has ended, by a new job.

    Args:
        job: Its id.
        options: How the new one is sent.
        tell: Takes lines for a person.

    Returns:
        As `send_job`.

    Raises:
        ValueError: Where there is no such job, it still runs, or it was neither.
        RuntimeError: As `send_job`.
    """
    dashboard = choose_dashboard(options.address)
    tell(f"head {dashboard.address} ({dashboard.source})")
    continued = read_job_to_resume(dashboard, job)
    secrets = job_variables(lambda line: None, named=options.named) if options.named else {}
    sent = {name: secrets[name] for name in options.named}
    variables = {**continued.variables, **sent}
    return submit(continued._replace(variables=variables), dashboard, wait=options.wait, tell=tell)
