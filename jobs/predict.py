"""`spikeseg predict`: label maps and overlays of images and videos."""

import sys
from pathlib import Path
from typing import Any, TypedDict, Unpack

import click

from .cli import run
from .display.progress import open_progress
from .options import (
    TypedPath,
    machine_options,
    plain_logging,
    pool_options,
    run_argument,
    runtime_options,
    storage_option,
)


class _Options(TypedDict):
    lists: tuple[Path, ...]
    split: str | None
    output: Path
    outputs: tuple[str, ...]
    tile: int | None
    batch: int
    skip_existing: bool
    table: Any
    processes: int
    on_ray: bool
    folded: bool | None
    runtime: Any
    exported: Path | None
    device: str | None
    threads: int | None
    storage: Path


@click.command("predict")
@run_argument
@click.argument("images", nargs=-1)
@click.option(
    "--list",
    "lists",
    multiple=True,
    type=TypedPath(),
    help="File with one image a line, relative to its own folder.",
)
@click.option("--split", help="Split to take where IMAGES is a folder of packed data.")
@click.option("--output", required=True, type=TypedPath(), help="Folder to write.")
@click.option(
    "--write",
    "outputs",
    multiple=True,
    type=click.Choice(["label", "overlay", "probabilities", "panoptic", "coco"]),
    help="What to write; may be repeated.  [default: label, overlay, of a panoptic run panoptic]",
)
@click.option(
    "--tile",
    type=int,
    help="Cut images into equal overlapping tiles of these sides.  [default: 1024 where the image "
    "has more than 4096 x 4096 pixels, else whole]",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Images of one size in one forward pass.",
)
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Leave out what the same checkpoint and settings have predicted already.",
)
@click.option(
    "--table",
    type=click.Choice(["csv", "parquet"]),
    default="csv",
    show_default=True,
    help="Format of the table beside the results.",
)
@click.option(
    "--folded/--trained",
    default=None,
    help="Form that torch runs: weights folded, which is faster, or as training left them.  "
    "[default: folded]",
)
@runtime_options
@pool_options
@machine_options
@storage_option
def command(word: str, images: tuple[str, ...], **options: Unpack[_Options]) -> int:
    """Predict IMAGES with RUN: a palette PNG of class ids and an overlay PNG for each.

    IMAGES are files, folders (with all below them), patterns, videos, folders of packed data with
    --split, or - for names on standard input. A source that cannot be predicted is named, the
    others go on, and the exit code is 1.
    """
    from ..platform.cluster.task_pool import PoolSize
    from ..platform.prediction.network_forms import choose_form
    from ..platform.prediction.predict_many import PredictRequest, predict_many
    from ..platform.prediction.predictor import PredictSettings, choose_outputs
    from ..platform.prediction.report_results import ResultReporter
    from ..platform.prediction.sources import SourceList
    from ..platform.runs.find_run import find_run
    from ..platform.runs.predict_images import Machine

    plain_logging()
    weights = find_run(word, options["storage"]).weights
    form = choose_form(options["folded"], options["runtime"], options["exported"])
    outputs = options["outputs"] or choose_outputs(weights)
    request = PredictRequest(
        weights,
        options["output"],
        PredictSettings(outputs, options["tile"], form),
        Machine(options["device"], options["threads"]),
        options["batch"],
        PoolSize(options["processes"], options["on_ray"], options["threads"] or 1),
    )
    sources = SourceList(images, lists=options["lists"], split=options["split"], pipe=sys.stdin)
    with open_progress() as progress:
        summary = predict_many(
            request,
            sources,
            skip_existing=options["skip_existing"],
            table=options["table"],
            on_result=ResultReporter(sources.count(), progress),
        )
    print(f"predicted {summary.done}, kept {summary.kept}, failed {summary.failed}")
    print(f"table: {summary.table}")
    return 1 if summary.failed else 0


if __name__ == "__main__":
    run(command)
