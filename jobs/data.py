"""`spikeseg data`: pack raw data sets, look at packed ones."""

import json
import sys
import time
from pathlib import Path

import click

from .cli import run


@click.group("data")
def command() -> None:
    """Pack raw data sets into Parquet shards, and look at packed ones."""


@command.command("pack")
@click.argument("name")
@click.option("--source", type=click.Path(path_type=Path), help="Folder of the raw files.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--size", type=(int, int), help="shapes: height and width.")
@click.option("--rows", type=(int, int, int), help="shapes: rows of train, val and test.")
@click.option("--seed", type=int, help="shapes: seed.")
def pack(
    name: str,
    source: Path | None,
    output: Path,
    size: tuple[int, int] | None,
    rows: tuple[int, int, int] | None,
    seed: int | None,
) -> None:
    """Pack data set NAME: decode every file once, check it, write shards and a manifest."""
    from ..datasets.catalog import CATALOG
    from ..datasets.pack import pack as pack_rows
    from ..datasets.shapes import Shapes, ShapesOptions

    if name not in CATALOG:
        raise click.UsageError(f"no data set {name!r}; there are: {', '.join(CATALOG)}")
    given = {"size": size, "seed": seed}
    if rows is not None:
        given |= dict(zip(("train", "val", "test"), rows, strict=True))
    options = {key: value for key, value in given.items() if value is not None}
    if options and name != "shapes":
        raise click.UsageError(f"--{next(iter(options))} belongs to shapes, not to {name}")
    dataset = Shapes(ShapesOptions(**options)) if name == "shapes" else CATALOG[name]()
    if dataset.needs_source and source is None:
        raise click.UsageError(f"{name} needs --source, the folder of its raw files")
    started = time.monotonic()

    def progress(done: int, total: int) -> None:
        rate = done / (time.monotonic() - started)
        ending = "\n" if done == total or not sys.stdout.isatty() else "\r"
        line = f"packed {done}/{total} rows, {rate:.0f} rows/s, ETA {(total - done) / rate:.0f} s"
        print(line, end=ending, flush=True)

    digest = pack_rows(name, dataset, source or Path(), output, progress=progress)
    print(f"{output}: {name}, digest {digest}")


@command.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(path: Path, as_json: bool) -> None:
    """Counts, sizes and class frequencies of a packed data set."""
    from ..datasets.reader import PackedDataset

    dataset = PackedDataset.open(path)
    classes = dataset.label_space.classes
    shares = {}
    for split in dataset.splits:
        pixels = dataset.class_pixels(split)
        shares[split] = {
            name: count / max(1, sum(pixels)) for name, count in zip(classes, pixels, strict=True)
        }
    if as_json:
        report = {"name": dataset.name, "digest": dataset.digest, "splits": dataset.splits}
        print(json.dumps({**report, "class_shares": shares}, indent=1))
        return
    print(f"{path}: {dataset.name}, {len(classes)} classes, digest {dataset.digest}")
    print("rows: " + ", ".join(f"{split} {rows}" for split, rows in dataset.splits.items()))
    width = max(len(name) for name in classes)
    print(f"{'% of labelled pixels'.ljust(width)}  " + "  ".join(f"{s:>7}" for s in shares))
    for name in classes:
        cells = "  ".join(f"{100 * shares[split][name]:7.3f}" for split in shares)
        print(f"{name.ljust(width)}  {cells}")


if __name__ == "__main__":
    run(command)
