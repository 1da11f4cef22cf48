"""`spikeseg predict`: label maps and overlays of image files."""

from pathlib import Path

import click

from .cli import run
from .options import plain_logging, run_argument, storage_option


@click.command("predict")
@run_argument
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@storage_option
def command(word: str, images: tuple[Path, ...], output: Path, storage: Path) -> None:
    """Predict IMAGES with RUN: a palette PNG of class ids and an overlay PNG for each."""
    from ..platform.runs.find_run import find_run
    from ..platform.runs.predict_images import predict

    plain_logging()
    for written in predict(find_run(word, storage).weights, images, output):
        print(written)


if __name__ == "__main__":
    run(command)
