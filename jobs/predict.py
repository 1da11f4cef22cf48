"""`spikeseg predict`: label maps and overlays of image files."""

from pathlib import Path

import click

from .cli import run
from .options import plain_logging


@click.command("predict")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder to write.")
def command(checkpoint: Path, images: tuple[Path, ...], output: Path) -> None:
    """Predict IMAGES with CHECKPOINT: a palette PNG and an overlay PNG for each."""
    from ..platform.runs.predict_images import predict

    plain_logging()
    for written in predict(checkpoint, images, output):
        print(written)


if __name__ == "__main__":
    run(command)
