"""`spikeseg submit`: run a verb on a cluster with this checkout's code."""

from typing import Any

import click

from .cli import root, run
from .options import address_option, env_option


@click.command("submit", context_settings={"ignore_unknown_options": True})
@address_option
@env_option
@click.option("--no-wait", is_flag=True, help="Return once the job is accepted.")
@click.option(
    "--max-nodes",
    type=click.IntRange(1),
    help="Nodes that the cluster may grow to; room on these is waited for.",
)
@click.argument("arguments", nargs=-1, required=True, metavar="-- VERB [ARGUMENTS]...")
def command(
    address: str | None,
    names: tuple[str, ...],
    no_wait: bool,
    max_nodes: int | None,
    arguments: tuple[str, ...],
) -> int:
    """Submit VERB as a Ray job, stream its logs, return its exit code.

    The request is checked here first. Recipe and sweep files of your own travel with the job.
    """
    from ..platform.doctor.send_job import SendOptions, send_job

    def tell(line: str) -> None:
        print(line, flush=True)

    options = SendOptions(address, not no_wait, names, max_nodes)
    return send_job(arguments, _parse(arguments), options, tell)


def _parse(arguments: tuple[str, ...]) -> dict[str, Any]:
    """What a verb's command line says; a wrong one ends here as it would there."""
    command: click.Command = root
    words, parent, given = list(arguments), None, {}
    name = "spikeseg"
    while True:
        context = command.make_context(name, words, parent=parent)
        given |= context.params
        if not isinstance(command, click.Group):
            return given
        name, found, words = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert found is not None
        assert name is not None
        command, parent = found, context


if __name__ == "__main__":
    run(command)
