"""`spikeseg ui`: MLflow's pages over the storage folder, on loopback."""

from pathlib import Path

import click

from .cli import run
from .options import storage_option


@click.command("ui")
@storage_option
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=5000,
    show_default=True,
    help="Port to listen on.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
def command(storage: Path, port: int, host: str) -> None:
    """Open MLflow's pages; Ctrl-C ends them."""
    from ..platform.tracking.mlflow_server import serve

    serve(storage, host=host, port=port, announce=print)


if __name__ == "__main__":
    run(command)
