"""Measurements of packing, decoding and reading; `spikeseg benchmark data` prints them."""

import io
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ...datasets.encoded_pixels import decode_image, decode_index
from ...datasets.layouts.shapes import Shapes, ShapesOptions
from ...datasets.packed.pack import pack
from ...datasets.packed.reader import PackedDataset
from ...datasets.shuffle import RowOrder
from ...datasets.spec import RawDataset, RawRow, Row
from ...datasets.transforms import TransformConfig, row_generator, train_transform
from ...platform.loading.training_loader import LoaderOptions, TrainingRows

# The published recipe's transforms at CamVid's size.
CAMVID_TRANSFORM = TransformConfig(
    crop=(360, 480), resize="range", box=(360, 480), ratio_range=(0.5, 2.0)
)
_SEED = 0


@dataclass(frozen=True)
class Reading:
    """Throughput of one reader, medians over some rounds.

    Attributes:
        name: What read.
        images_per_s: Median of the rounds, by the clock.
        images_per_cpu_s: Median of the rounds, by the processor time of all its processes.
        first_batch_s: Median time until the first batch.
    """

    name: str
    images_per_s: float
    images_per_cpu_s: float
    first_batch_s: float


class RawFiles(Dataset[tuple[Tensor, Tensor]]):
    """The plain way: decode the raw files of a row, check nothing, transform.

    Args:
        dataset: Reader of the raw layout; only its label space is used.
        rows: The raw rows of training.
        order: Which row a position is.
        transform: Augmentation.
    """

    def __init__(
        self,
        dataset: RawDataset,
        rows: Sequence[RawRow],
        order: RowOrder,
        transform: TransformConfig,
    ) -> None:
        self._rows = rows
        self._order = order
        self._transform = transform
        self._table = np.full(256, 255, np.uint8)
        raw = dataset.label_space.raw_to_train
        self._table[list(raw)] = list(raw.values())

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        raw = self._rows[self._order.row(position)]
        image = decode_image(raw.image.read_bytes())
        label = self._table[decode_index(raw.label.read_bytes())]
        generator = row_generator(_SEED, self._order.epoch(position), raw.id)
        pixels, target = train_transform(self._transform, Row(raw.id, image, label), generator)
        return torch.from_numpy(pixels), torch.from_numpy(target).long()


class _Positions(Sampler[int]):
    def __init__(self, first: int, count: int) -> None:
        self._range = range(first, first + count)

    def __iter__(self) -> Any:
        return iter(self._range)

    def __len__(self) -> int:
        return len(self._range)


class ReadPlan(NamedTuple):
    """How much is read, and by how many.

    Attributes:
        workers: Decoding threads of ours, worker processes of the DataLoader.
        batch: Rows of a batch.
        batches: Batches of a round.
        rounds: Rounds of each reader; they alternate.
    """

    workers: int
    batch: int
    batches: int
    rounds: int


def compare_readers(
    packed: PackedDataset, dataset: RawDataset, source: Path, plan: ReadPlan
) -> tuple[list[Reading], bool]:
    """Read the same augmented batches from packed shards and from raw files, in turns.

    Args:
        packed: The packed form of the source.
        dataset: Reader of the raw layout.
        source: Folder of the raw files.
        plan: How much is read.

    Returns:
        Both readings, and whether all batches of the first round were equal.
    """
    batch, batches = plan.batch, plan.batches
    rows = [row for row in dataset.rows(source, partial=True) if row.split == "train"]
    order = RowOrder(len(rows), _SEED, 4096)

    def ours(first: int) -> Any:
        options = LoaderOptions(
            seed=_SEED,
            size=batch,
            micro_batches=1,
            window=4096,
            prefetch=2,
            threads=plan.workers,
        )
        reader = TrainingRows(packed, CAMVID_TRANSFORM, options)
        return (
            (step[0].images, step[0].targets)
            for step in reader.steps(first // batch, first // batch + batches, range(1))
        )

    def plain(first: int) -> Any:
        files = RawFiles(dataset, rows, order, CAMVID_TRANSFORM)
        return iter(
            DataLoader(
                files,
                batch_size=batch,
                sampler=_Positions(first, batch * batches),
                num_workers=plan.workers,
                prefetch_factor=2,
            )
        )

    equal = all(
        torch.equal(a, c) and torch.equal(b, d)
        for (a, b), (c, d) in zip(ours(0), plain(0), strict=True)
    )
    ways: dict[str, Callable[[int], Any]] = {
        f"packed, {plan.workers} threads": ours,
        f"raw files, DataLoader with {plan.workers} workers": plain,
    }
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for number in range(plan.rounds):
        names = list(ways) if number % 2 == 0 else list(ways)[::-1]
        for name in names:
            times[name].append(_time_round(ways[name], number * batch * batches))
    images = batch * batches
    readings = [
        Reading(
            name,
            median(images / wall for wall, _, _ in rounds),
            median(images / cpu for _, cpu, _ in rounds),
            median(first for _, _, first in rounds),
        )
        for name, rounds in times.items()
    ]
    return readings, equal


def _time_round(way: Callable[[int], Any], first: int) -> tuple[float, float, float]:
    """Wall and processor seconds of a round, and seconds until its first batch."""
    before, started = read_processor_seconds(), time.perf_counter()
    batches = way(first)
    next(batches)
    until_first = time.perf_counter() - started
    for _ in batches:
        pass
    wall = time.perf_counter() - started
    # Worker processes are counted once they are waited for.
    del batches
    return wall, read_processor_seconds() - before, until_first


def read_processor_seconds() -> float:
    """User and system seconds of this process and of the children it has waited for."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def read_peak_memory_mb() -> float:
    """Most memory that this process ever held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass(frozen=True)
class Seek:
    """Time to the first batch of a training that starts at some position.

    Attributes:
        share: Where, as a share of the first epoch.
        first_batch_s: Median seconds until the first batch, data set opened anew each time.
    """

    share: float
    first_batch_s: float


def measure_seeks(path: Path, transform: TransformConfig, shares: Sequence[float]) -> list[Seek]:
    """Time to the first batch of 8 at some positions.

    Args:
        path: A packed data set.
        transform: Augmentation.
        shares: Positions as shares of an epoch.
    """
    options = LoaderOptions(seed=_SEED, size=8, micro_batches=1, window=4096, prefetch=0)
    times: dict[float, list[float]] = {share: [] for share in shares}
    for _ in range(5):
        for share in shares:
            started = time.perf_counter()
            dataset = PackedDataset.open(path)
            reader = TrainingRows(dataset, transform, options)
            reader.read(int(share * dataset.splits["train"]) // 8, 0)
            times[share].append(time.perf_counter() - started)
    return [Seek(share, median(seconds)) for share, seconds in times.items()]


def pack_many(output: Path, rows: int) -> tuple[float, float]:
    """Pack generated rows in this process.

    Args:
        output: Folder to write.
        rows: Rows of the training split.

    Returns:
        Rows per second of processor time, and the peak memory of this process in MB.
    """
    options = ShapesOptions(size=(32, 32), train=rows, val=16, test=16)
    before = read_processor_seconds()
    pack("shapes", Shapes(options), Path(), output, workers=1)
    return (rows + 32) / (read_processor_seconds() - before), read_peak_memory_mb()


@dataclass(frozen=True)
class OrderQuality:
    """How well one epoch's order is mixed.

    Attributes:
        name: What made the order.
        rank_correlation: Of position and row; 0 for a full shuffle.
        serial_correlation: Of a row and the one after it; 0 for a full shuffle.
        median_gap: Between a row and the one after it, over N; 0.293 for a full shuffle.
        near: Share of rows followed by one less than 64 away.
    """

    name: str
    rank_correlation: float
    serial_correlation: float
    median_gap: float
    near: float


def measure_order(rows: int, windows: Sequence[int], epochs: int) -> list[OrderQuality]:
    """Mean absolute figures of some epochs, beside a full shuffle.

    Args:
        rows: N.
        windows: Shuffle windows.
        epochs: Epochs of each.
    """
    generator = np.random.default_rng(_SEED)
    drawn: dict[str, list[np.ndarray]] = {
        "full shuffle": [generator.permutation(rows) for _ in range(epochs)]
    }
    for window in windows:
        order = RowOrder(rows, _SEED, window)
        drawn[f"window {window}"] = [
            np.array([order.row(position) for position in range(e * rows, (e + 1) * rows)])
            for e in range(epochs)
        ]

    def mean(values: list[Any]) -> float:
        return float(np.mean(np.abs(values)))

    return [
        OrderQuality(
            name,
            mean([np.corrcoef(np.arange(rows), order)[0, 1] for order in orders]),
            mean([np.corrcoef(order[1:], order[:-1])[0, 1] for order in orders]),
            mean([np.median(np.abs(np.diff(order))) / rows for order in orders]),
            mean([np.mean(np.abs(np.diff(order)) < 64) for order in orders]),
        )
        for name, orders in drawn.items()
    ]


def compare_libraries(image: bytes, size: tuple[int, int], rounds: int) -> dict[str, float]:
    """Processor milliseconds to decode one image to RGB and to resize it, in turns.

    Args:
        image: An encoded image.
        size: Height and width to resize to.
        rounds: Rounds of each.

    Returns:
        What was done -> median milliseconds.
    """
    array = decode_image(image)
    picture = Image.fromarray(array)
    height, width = size
    bilinear = Image.Resampling.BILINEAR
    ways: dict[str, Callable[[], Any]] = {
        "decode, OpenCV": lambda: decode_image(image),
        "decode, Pillow": lambda: np.asarray(Image.open(io.BytesIO(image)).convert("RGB")),
        "resize, OpenCV": lambda: cv2.resize(array, (width, height)),
        "resize, Pillow": lambda: np.asarray(picture.resize((width, height), bilinear)),
        "resize labels, OpenCV": lambda: cv2.resize(
            array[..., 0], (width, height), interpolation=cv2.INTER_NEAREST
        ),
        "resize labels, Pillow": lambda: np.asarray(
            Image.fromarray(array[..., 0]).resize((width, height), Image.Resampling.NEAREST)
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            way()
            times[name].append(1000 * (time.process_time() - started))
    return {name: median(seconds) for name, seconds in times.items()}
