"""`spikeseg data`: pack raw data sets, look at packed ones."""

import json
import sys
from pathlib import Path
from typing import Literal, Unpack

import click

from .cli import NearestGroup, run
from .display.progress import open_progress
from .options import TypedPath
from .pack_folder import FolderSettings, folder_options, prepare_dataset


@click.group("data", cls=NearestGroup)
def command() -> None:
    """Pack raw data sets into Parquet shards, and look at packed ones."""


@command.command("pack")
@click.argument("name", required=False)
@click.option(
    "--source",
    type=TypedPath(),
    help="Raw files: a folder; of `folder` a .zip or .tar too.",
)
@click.option("--output", help="Folder to write: a path, or a URI (s3://...).")
@click.option(
    "--upgrade",
    metavar="DIR",
    help="Instead of packing: bring packed data of an earlier version to the newest, in place.",
)
@click.option("--allow-partial", is_flag=True, help="Accept a subset of the official splits.")
@click.option(
    "--on-bad-row",
    type=click.Choice(["refuse", "quarantine"]),
    default="refuse",
    show_default=True,
    help="Stop at the first bad row, or leave bad rows out and list them in quarantine.csv.",
)
@click.option(
    "--max-bad",
    type=click.FloatRange(0, 100),
    default=1.0,
    show_default=True,
    help="Largest share of rows that may be left out, in percent.",
)
@click.option("--rows-per-shard", type=click.IntRange(1), default=64, show_default=True)
@click.option("--workers", type=click.IntRange(1), help="Processes; one a core if not given.")
@click.option(
    "--where",
    type=click.Choice(["auto", "local", "ray"]),
    default="auto",
    show_default=True,
    help="This machine's processes or Ray tasks; auto takes Ray inside of a Ray job.",
)
@click.option("--class-order", help="pascal_context: order of the labels' values.")
@click.option("--size", type=(int, int), help="shapes: height and width.")
@click.option("--rows", type=(int, int, int), help="shapes: rows of train, val and test.")
@click.option("--seed", type=int, help="shapes, folder --split: seed.")
@click.option(
    "--level",
    type=click.Choice(["easy", "standard", "hard"]),
    help="shapes: how clearly objects stand out from the background; hard if not given.",
)
@folder_options
def pack(  # noqa: PLR0913
    name: str | None,
    source: Path | None,
    output: str | None,
    upgrade: str | None,
    allow_partial: bool,
    on_bad_row: Literal["refuse", "quarantine"],
    max_bad: float,
    rows_per_shard: int,
    workers: int | None,
    where: Literal["auto", "local", "ray"],
    class_order: str | None,
    size: tuple[int, int] | None,
    rows: tuple[int, int, int] | None,
    seed: int | None,
    level: str | None,
    **folder: Unpack[FolderSettings],
) -> None:
    """Pack data set NAME: decode every file once, check it, write shards and a manifest.

    NAME folder packs images of your own, with masks or annotation files (docs/own_images.md).
    """
    from ..datasets.layouts.catalog import make_dataset
    from ..datasets.packed.pack import PackingStoppedError
    from ..datasets.packed.plan import plan_pack
    from ..datasets.packed.reader import PackedDataset
    from ..datasets.printable_text import make_printable
    from ..platform.loading.pack_on_ray import pack_dataset
    from ..platform.train.progress import report_rows

    if upgrade is not None:
        if name is not None or output is not None or source is not None:
            raise click.UsageError("--upgrade DIR takes no NAME, --source or --output")
        _upgrade(upgrade, workers)
        return
    if name is None or output is None:
        raise click.UsageError("give NAME and --output, or --upgrade DIR")
    most = max_bad / 100 if on_bad_row == "quarantine" else 0.0
    settings: dict[str, object] = {
        "class_order": class_order,
        "size": size,
        "seed": seed,
        "level": level,
    }
    if rows is not None:
        settings |= dict(zip(("train", "val", "test"), rows, strict=True))
    options = {key: value for key, value in settings.items() if value is not None}
    dataset = prepare_dataset(name, source, folder, seed, most) or make_dataset(name, options)
    if dataset.needs_source and source is None:
        raise click.UsageError(f"{name} needs --source, the folder of its raw files")
    if not dataset.needs_source and source is not None:
        raise click.UsageError(f"{name} is generated and takes no --source")
    plan = plan_pack(
        name,
        dataset,
        source or Path(),
        rows_per_shard=rows_per_shard,
        on_bad_row=on_bad_row,
        max_bad_share=max_bad / 100,
        partial=allow_partial,
    )
    try:
        with open_progress() as display:
            digest = pack_dataset(
                plan, output, where=where, workers=workers, progress=report_rows(display)
            )
    except PackingStoppedError as error:
        # Work that failed has another exit code than a request that was wrong.
        raise RuntimeError(str(error)) from error
    packed = PackedDataset.open(output)
    counts = ", ".join(f"{split} {count}" for split, count in packed.splits.items())
    print(make_printable(f"{packed.path}: {name}, rows: {counts}, digest {digest}"))
    if packed.quarantined:
        print(f"{packed.quarantined} bad rows were left out: see quarantine.csv there")


@command.command("inspect")
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--html", type=TypedPath(dir_okay=False), help="Write it as one page.")
@click.option("--sheet", type=TypedPath(dir_okay=False), help="Write the pictures as PNG.")
@click.option(
    "--augmented",
    metavar="RECIPE",
    help="Draw training rows as this recipe augments them, not as they are stored.",
)
@click.option("--images", type=click.IntRange(1), default=4, show_default=True, help="Per split.")
@click.option("--verify", is_flag=True, help="Read every shard whole and compare its hash.")
def inspect(  # noqa: PLR0913
    path: str,
    as_json: bool,
    html: Path | None,
    sheet: Path | None,
    augmented: str | None,
    images: int,
    verify: bool,
) -> int:
    """Counts, sizes, class frequencies, pictures and warnings of packed data."""
    from ..datasets.inspection.contact_sheet import draw_augmented_sheet, draw_contact_sheet
    from ..datasets.inspection.html_page import render_report
    from ..datasets.inspection.report import format_report, inspect_packed
    from ..datasets.packed.files import write_file
    from ..datasets.packed.reader import PackedDataset
    from ..datasets.printable_text import make_printable
    from ..platform.config.recipes import load_experiment
    from ..platform.config.stored_json import to_json

    # The data that is looked at also decides what a recipe leaves to its data.
    items = [f"data.path={json.dumps(path)}"]
    resolved = None if augmented is None else load_experiment(augmented, items)
    dataset = PackedDataset.open(path)
    report = inspect_packed(dataset)
    text = to_json(report.to_json()) if as_json else format_report(report)
    print(make_printable(text))
    if html is not None or sheet is not None:
        if resolved is None:
            pictures = draw_contact_sheet(dataset, rows_per_split=images)
        else:
            config = resolved.config
            pictures = draw_augmented_sheet(
                dataset, config.data.transform, seed=config.seed, count=4 * images
            )
        if html is not None:
            write_file(html, render_report(report, dataset.label_space.palette, pictures))
        if sheet is not None:
            pictures.save(sheet, "PNG")
    damaged = list(dataset.verify()) if verify else []
    for line in damaged:
        print(f"damaged: {line}", file=sys.stderr)
    return 1 if damaged else 0


def _upgrade(location: str, workers: int | None) -> None:
    from ..datasets.packed.manifest import SCHEMA_VERSION
    from ..datasets.packed.upgrade import upgrade_packed
    from ..datasets.printable_text import make_printable
    from ..platform.train.progress import report_rows

    with open_progress() as display:
        progress = report_rows(display, "counted")
        changed = upgrade_packed(location, workers=workers, progress=progress)
    state = "upgraded to" if changed else "is already of"
    print(make_printable(f"{location}: {state} version {SCHEMA_VERSION}"))


if __name__ == "__main__":
    run(command)
