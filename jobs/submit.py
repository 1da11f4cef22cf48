"""`spikeseg submit`: run a verb on a cluster with this checkout's code."""

import click

from .cli import run


@click.command("submit", context_settings={"ignore_unknown_options": True})
@click.option(
    "--address",
    help="The head's dashboard; else RAY_API_SERVER_ADDRESS, RAY_ADDRESS, http://127.0.0.1:8265.",
)
@click.option("--no-wait", is_flag=True, help="Return once the job is accepted.")
@click.argument("arguments", nargs=-1, required=True, metavar="-- VERB [ARGUMENTS]...")
def command(address: str | None, no_wait: bool, arguments: tuple[str, ...]) -> int:
    """Submit VERB as a Ray job, stream its logs, return its exit code."""
    from ..platform.cluster.job_submission import submit
    from ..platform.tracking.job_names import job_arguments, job_variables

    def tell(line: str) -> None:
        print(line, flush=True)

    variables = job_variables(tell)
    return submit(
        job_arguments(arguments),
        address=address,
        wait=not no_wait,
        tell=tell,
        variables=variables,
    )


if __name__ == "__main__":
    run(command)
