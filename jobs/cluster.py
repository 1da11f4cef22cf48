"""`spikeseg cluster`: start a Ray node for jobs, see what runs and listens, end it."""

from collections.abc import Callable
from pathlib import Path

import click

from ..platform.config.command_lines import command_line
from .cli import run
from .options import plain_logging


@click.group("cluster")
def command() -> None:
    """Start, show and stop a Ray head of this machine, or a node that joins one."""


@command.command("start")
@click.option("--join", metavar="HOST:PORT", help="Join the head there instead of starting one.")
@click.option(
    "--host", help="Address on which other machines reach this one; loopback if not given."
)
@click.option("--port", type=click.IntRange(1, 65535), default=6379, show_default=True)
@click.option("--dashboard-port", type=click.IntRange(1, 65535), default=8265, show_default=True)
@click.option("--cpus", type=click.IntRange(0), help="CPUs that it offers; all if not given.")
def start(
    join: str | None, host: str | None, port: int, dashboard_port: int, cpus: int | None
) -> None:
    """Start a head on loopback, with a token; with --host one that others can join."""
    from ..platform.cluster.head_process import NodeRequest, start_node

    plain_logging()
    node = start_node(NodeRequest(join, host, port, dashboard_port, cpus))
    _describe(node, print)
    if node.dashboard is not None:
        print(f"doctor:  {command_line('doctor', '--address', node.dashboard)}")
        print(f"submit:  {command_line('submit', '--address', node.dashboard, '--', 'doctor')}")
        if not node.alone:
            line = command_line("cluster", "start", "--join", node.head)
            print(f"join:    {line}    # on another machine, with this token")
    print(f"stop:    {command_line('cluster', 'stop')}")


@command.command("status")
def status() -> int:
    """Show what `cluster start` started here and what it listens on; 1 where nothing runs."""
    from ..platform.cluster.head_process import list_nodes

    plain_logging()
    nodes = list_nodes()
    for node in nodes:
        _describe(node, print)
    if not nodes:
        print("no node that `spikeseg cluster start` started runs here")
    return 0 if nodes else 1


@command.command("stop")
def stop() -> int:
    """End what `cluster start` started here, and no other process; 1 where nothing runs."""
    from ..platform.cluster.head_process import list_nodes, stop_node

    plain_logging()
    nodes = list_nodes()
    for node in nodes:
        print(f"{node.head}: {stop_node(node)} processes ended")
    if not nodes:
        print("no node that `spikeseg cluster start` started runs here")
    return 0 if nodes else 1


def _describe(node: object, tell: Callable[[str], None]) -> None:
    from ..platform.cluster.head_process import StartedNode, describe_listeners
    from ..platform.cluster.token import token_file

    assert isinstance(node, StartedNode)
    if node.dashboard is None:
        tell(f"node of the head {node.head}, processes of session {node.session}")
    else:
        tell(f"head {node.head}, dashboard {node.dashboard}, processes of session {node.session}")
    if node.alone:
        tell("listens on loopback alone: no other machine reaches it, and none can join")
    else:
        tell(
            "listens on every interface, nothing is encrypted: keep it in a network that you trust"
        )
    tell(f"token:   {_short(token_file())}; who has it can run code here")
    for line in describe_listeners(node):
        tell(f"listens: {line}")


def _short(path: Path) -> str:
    home = str(Path.home())
    return str(path).replace(home, "~", 1) if str(path).startswith(f"{home}/") else str(path)


if __name__ == "__main__":
    run(command)
