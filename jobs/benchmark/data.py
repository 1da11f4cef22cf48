"""`spikeseg benchmark data`: packing, image libraries, reading, what a row is made of."""

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..cli import run

if TYPE_CHECKING:
    from .data_readers import ReadPlan


@click.command("data")
@click.option(
    "--source", type=click.Path(path_type=Path, exists=True), help="Raw CamVid; packs and reads it."
)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True)
@click.option("--batches", type=click.IntRange(2), default=12, show_default=True, help="A round.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--plan", is_flag=True, help="Open many shards and plan many rows: time, memory.")
@click.option("--plan-shards", type=click.IntRange(20), default=100_000, show_default=True)
@click.option("--plan-rows", type=click.IntRange(1), default=100_000_000, show_default=True)
@click.option(
    "--parts",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Packed data: what each part of a training row costs, by --recipe.",
)
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    default=("camvid_sdtv2",),
    show_default=True,
    help="Whose transform; several.",
)
@click.option("--order", is_flag=True, help="How well the order of 20000 rows is mixed.")
@click.option(
    "--many", type=click.IntRange(0), default=0, help="Rows of a generated set to pack and seek in."
)
def command(  # noqa: PLR0913
    source: Path | None,
    workers: int,
    batch: int,
    batches: int,
    rounds: int,
    plan: bool,
    plan_shards: int,
    plan_rows: int,
    parts: Path | None,
    recipes: tuple[str, ...],
    order: bool,
    many: int,
) -> None:
    """Measure reading with --source and --parts, order with --order, size with --many, --plan."""
    if source is None and parts is None and not (many or order or plan):
        raise click.UsageError(
            "give --source, the folder of raw CamVid, --parts DIR, --many ROWS, --plan or --order"
        )
    if order:
        _print_order()
    if parts is not None:
        _print_parts(parts, recipes, rows=batch * batches, rounds=rounds)
    with tempfile.TemporaryDirectory() as folder:
        if plan:
            _print_plan(Path(folder) / "shards", plan_shards, plan_rows)
        if many:
            _print_many(Path(folder) / "many", many)
        if source is not None:
            from .data_readers import ReadPlan

            reading = ReadPlan(workers, batch, batches, rounds)
            _print_reading(source, Path(folder) / "camvid", reading)


def _print_reading(source: Path, output: Path, plan: "ReadPlan") -> None:
    from ...datasets.layouts.camvid import CamVid
    from ...datasets.packed.plan import plan_pack
    from ...datasets.packed.reader import PackedDataset
    from ...platform.loading.pack_on_ray import pack_dataset
    from . import data_readers

    started, cpu = time.perf_counter(), data_readers.read_processor_seconds()
    pack_plan = plan_pack("camvid", CamVid(), source)
    pack_dataset(pack_plan, output, where="local", workers=plan.workers)
    wall, cpu = time.perf_counter() - started, data_readers.read_processor_seconds() - cpu
    packed = PackedDataset.open(output)
    rows = sum(packed.splits.values())
    rate = f"{rows / wall:.0f} pairs/s by the clock"
    print(f"packed {rows} pairs with {plan.workers} processes: {rate},")
    print(f"  {rows / cpu:.0f} pairs per second of processor time")
    image = next(packed.columns("train", ["image"]))["image"]
    print("\none image of CamVid (480 x 360), milliseconds of processor time")
    for name, milliseconds in data_readers.compare_libraries(image, (540, 720), 200).items():
        print(f"  {name:24}{milliseconds:7.2f}")
    readings, equal = data_readers.compare_readers(packed, CamVid(), source, plan)
    print(
        f"\nreading augmented batches of {plan.batch}, {plan.rounds} rounds of {plan.batches} "
        "in turns"
    )
    print(f"batches equal: {'yes' if equal else 'NO'}")
    print(f"{'':40}images/s  images/CPU s  first batch s")
    for item in readings:
        print(
            f"{item.name:40}{item.images_per_s:8.1f}{item.images_per_cpu_s:14.1f}"
            f"{item.first_batch_s:15.2f}"
        )
    ours, plain = readings
    print(
        f"packed over raw: {ours.images_per_s / plain.images_per_s:.2f} by the clock, "
        f"{ours.images_per_cpu_s / plain.images_per_cpu_s:.2f} by processor time"
    )
    print(f"peak memory of this process: {data_readers.read_peak_memory_mb():.0f} MB")


def _print_parts(path: Path, recipes: tuple[str, ...], *, rows: int, rounds: int) -> None:
    from ...platform.config.recipes import load_experiment
    from .data_parts import list_versions, measure_parts

    for recipe in recipes:
        config = load_experiment(recipe, [f"data.path={path}"]).config
        costs = measure_parts(path, list_versions(config.data.transform), rows, rounds)
        print(f"{recipe}, {rows} rows, best of {rounds} rounds: processor milliseconds a row")
        print(f"{'':24}" + "".join(f"{name:>20}" for name in costs))
        for part in next(iter(costs.values())).parts:
            print(f"{part:24}" + "".join(f"{cost.parts[part]:20.3f}" for cost in costs.values()))
        print(f"{'all':24}" + "".join(f"{cost.total:20.3f}" for cost in costs.values()))
        rates = "".join(f"{cost.images_per_cpu_s:20.1f}" for cost in costs.values())
        print(f"{'images per CPU second':24}{rates}\n", flush=True)


def _print_order() -> None:
    from . import data_readers

    print("20000 rows, mean absolute figures of 4 epochs")
    print(f"{'':16}rank corr.  serial corr.  median gap  next is near")
    for item in data_readers.measure_order(20000, (512, 4096), 4):
        print(
            f"{item.name:16}{item.rank_correlation:10.3f}{item.serial_correlation:14.3f}"
            f"{item.median_gap:12.3f}{item.near:14.3f}"
        )
    print()


def _print_plan(folder: Path, shards: int, rows: int) -> None:
    from .data_plan import measure_open, measure_plan

    print(f"{'':42}seconds  CPU s  MB before  MB peak  MB more")
    for name, cost in (
        (f"open {shards} shards", measure_open(folder, shards)),
        (f"plan {rows} rows of generated shapes", measure_plan(rows)),
    ):
        more = cost.peak_mb - cost.before_mb
        print(
            f"{name:42}{cost.seconds:7.2f}{cost.cpu_seconds:7.2f}{cost.before_mb:11.0f}{cost.peak_mb:9.0f}{more:9.0f}"
            f"  ({cost.shards} shards)",
            flush=True,
        )
    print()


def _print_many(output: Path, rows: int) -> None:
    from ...datasets.transforms import TransformConfig
    from . import data_readers

    rate, peak = data_readers.pack_many(output, rows)
    print(f"packed {rows + 32} generated rows: {rate:.0f} rows per second of processor time,")
    print(f"  peak memory {peak:.0f} MB")
    seeks = data_readers.measure_seeks(output, TransformConfig(crop=(32, 32)), (0.0, 0.1, 0.5, 0.9))
    for seek in seeks:
        milliseconds = 1000 * seek.first_batch_s
        print(f"  open and first batch at {100 * seek.share:2.0f} %: {milliseconds:6.1f} ms")
    print()


if __name__ == "__main__":
    run(command)
