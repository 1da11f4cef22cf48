"""What one training row costs, part by part, in processor time of one thread."""

import cProfile
import dataclasses
import pstats
import time
from pathlib import Path
from typing import Any, NamedTuple

from ...datasets.packed.reader import PackedDataset
from ...datasets.transforms import TransformConfig
from ...platform.loading.training_loader import LoaderOptions, TrainingRows
from .data_readers import read_processor_seconds

_BATCH = 8
# Part -> functions that it is made of: file and name. They do not call one another.
PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "read the record": (("reader.py", "_read_record"),),
    "decode the image": (("reader.py", "_decode_image"),),
    "decode the label": (("encoded_pixels.py", "decode_index"),),
    "resize and crop": (("transforms.py", "_resize_and_crop"),),
    "colours": (
        ("colour_jitter.py", "photometric_distortion"),
        ("colour_jitter.py", "jitter_colours"),
    ),
    "normalize": (("transforms.py", "normalize"),),
}
_WHOLE = ("training_loader.py", "_fill")


class RowCost(NamedTuple):
    """Cost of the training rows of one transform.

    Attributes:
        parts: Part -> processor milliseconds of a row, `the rest` among them.
        total: All of it, the profile's own cost included, in milliseconds.
        images_per_cpu_s: Images per second of processor time, without the profile, in two threads.
    """

    parts: dict[str, float]
    total: float
    images_per_cpu_s: float


def list_versions(transform: TransformConfig) -> dict[str, TransformConfig]:
    """The transform in each of its versions, by name."""
    listed = {
        "version 1": dataclasses.replace(transform, version=1, decode="full"),
        "version 2": dataclasses.replace(transform, version=2, decode="full"),
    }
    if transform.resize != "none":
        listed["version 2, reduced"] = dataclasses.replace(transform, version=2, decode="reduced")
    return listed


def measure_parts(
    path: Path, versions: dict[str, TransformConfig], rows: int, rounds: int
) -> dict[str, RowCost]:
    """Read the same training rows by each transform, in turns.

    Args:
        path: A packed data set.
        versions: Name -> transform.
        rows: Rows of a round.
        rounds: Rounds of each; the one that cost least counts, part by part.
    """
    dataset = PackedDataset.open(path)
    rates: dict[str, list[float]] = {name: [] for name in versions}
    profiles: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
    for _ in range(rounds):
        for name, transform in versions.items():
            rates[name].append(_measure_rate(dataset, transform, rows))
            profiles[name].append(_profile(dataset, transform, rows))
    costs: dict[str, RowCost] = {}
    for name, seen in profiles.items():
        least = {part: min(profile[part] for profile in seen) for part in seen[0]}
        total = least.pop("")
        least["the rest"] = total - sum(least.values())
        costs[name] = RowCost(least, total, max(rates[name]))
    return costs


def _measure_rate(dataset: PackedDataset, transform: TransformConfig, rows: int) -> float:
    """Images per second of processor time, as a training reads them: two threads, two ahead."""
    steps = max(1, rows // _BATCH)
    reads = _make_rows(dataset, transform, prefetch=2).steps(0, steps + 1, range(1))
    next(reads)
    before = read_processor_seconds()
    for _ in reads:
        pass
    return steps * _BATCH / (read_processor_seconds() - before)


def _profile(dataset: PackedDataset, transform: TransformConfig, rows: int) -> dict[str, float]:
    """Processor milliseconds of a row in each part; the whole under an empty name."""
    reader = _make_rows(dataset, transform, prefetch=0)
    steps = max(1, rows // _BATCH)
    # Files are opened and pages mapped before.
    for step in range(steps):
        reader.read(step, 0)
    profile = cProfile.Profile(time.process_time)
    profile.enable()
    for step in range(steps):
        reader.read(step, 0)
    profile.disable()
    # (file, line, function) -> calls, ..., seconds without and with what it calls.
    stats: dict[tuple[str, int, str], Any] = pstats.Stats(profile).stats  # pyright: ignore
    seconds: dict[tuple[str, str], float] = {}
    for (file, _, function), (_, _, _, cumulative, _) in stats.items():
        key = (Path(file).name, function)
        seconds[key] = seconds.get(key, 0.0) + cumulative
    count = steps * _BATCH / 1000
    parts = {
        part: sum(seconds.get(key, 0.0) for key in keys) / count for part, keys in PARTS.items()
    }
    return {**parts, "": seconds[_WHOLE] / count}


def _make_rows(
    dataset: PackedDataset, transform: TransformConfig, *, prefetch: int
) -> TrainingRows:
    options = LoaderOptions(
        seed=0, size=_BATCH, micro_batches=1, window=4096, prefetch=prefetch, threads=2
    )
    return TrainingRows(dataset, transform, options)
