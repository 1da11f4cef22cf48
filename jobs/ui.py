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
    default=5000,  # as `pages.page_links.LOCAL_SERVER`
    show_default=True,
    help="Port to listen on.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--open", "open_browser", is_flag=True, help="Open the runs in the browser.")
def command(storage: Path, port: int, host: str, open_browser: bool) -> None:
    """Serve MLflow's pages and print the one with the newest runs; Ctrl-C ends them."""
    from ..platform.tracking.mlflow_server import serve

    def announce(line: str) -> None:
        print(line, flush=True)

    serve(storage, host=host, port=port, announce=announce, open_browser=open_browser)


if __name__ == "__main__":
    run(command)
