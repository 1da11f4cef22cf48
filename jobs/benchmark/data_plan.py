"""What packed data costs by its size alone: opening many shards, planning many rows."""

import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...datasets.layouts.shapes import Shapes, ShapesOptions
from ...datasets.packed.label_counts import LabelCounts
from ...datasets.packed.plan import plan_pack
from ...datasets.packed.reader import PackedDataset
from ...datasets.packed.shard import ShardEntry
from ...datasets.packed.shard_table import ShardTable
from ...datasets.packed.storage import Storage
from ...datasets.packed.write_manifest import ManifestHead, hash_shards, write_manifest
from ...datasets.spec import load_label_space

_SHARD_BYTES = b"none"
_ROWS_PER_SHARD = 1000
# A label space of the usual largest size.
_LABEL_SPACE = "ade20k"


class Cost(NamedTuple):
    """What one step took in a process of its own.

    Attributes:
        seconds: By the clock.
        cpu_seconds: Of processor time.
        before_mb: Peak memory of the process before it, the libraries in it, in MB.
        peak_mb: Peak memory of the process after it, in MB.
        shards: Shards that were opened or planned.
    """

    seconds: float
    cpu_seconds: float
    before_mb: float
    peak_mb: float
    shards: int


def measure_open(folder: Path, shards: int) -> Cost:
    """Open a made folder of many shards.

    Args:
        folder: Where it is made; missing.
        shards: Files of a few bytes that stand for shards: opening does not read them.
    """
    write_many_shards(folder, shards)
    return _measure_alone(_open, folder)


def measure_plan(rows: int) -> Cost:
    """Plan generated rows, 1000 a shard; none is drawn.

    Args:
        rows: Rows of the training split.
    """
    return _measure_alone(_plan, rows)


def write_many_shards(folder: Path, shards: int) -> None:
    """Write table and manifest of many shards, and files of their sizes."""
    folder.mkdir(parents=True)
    space = load_label_space(_LABEL_SPACE)
    splits = {"train": shards - shards // 10, "val": shards // 10}
    entries = [
        ShardEntry(
            file=f"{split}-{number:05d}.parquet",
            split=split,
            rows=_ROWS_PER_SHARD,
            bytes=len(_SHARD_BYTES),
            sha256=f"{number:064x}",
            content=f"{number:064x}",
        )
        for split, count in splits.items()
        for number in range(count)
    ]
    for entry in entries:
        (folder / entry.file).write_bytes(_SHARD_BYTES)
    table = ShardTable.from_entries(entries)
    digest, split_digests = hash_shards(space, table)
    counts = {split: LabelCounts(len(space.classes)) for split in splits}
    for part in counts.values():
        part.add_label(np.zeros((32, 32), np.uint8))
    head = ManifestHead(
        name=_LABEL_SPACE,
        digest=digest,
        split_digests=split_digests,
        plan="",
        options={},
        splits={split: _ROWS_PER_SHARD * count for split, count in splits.items()},
        quarantined=0,
        label_space=space,
    )
    write_manifest(Storage.at(folder), head, table, counts)


def _open(folder: Path) -> int:
    dataset = PackedDataset.open(folder)
    return sum(dataset.num_shards(split) for split in dataset.splits)


def _plan(rows: int) -> int:
    dataset = Shapes(ShapesOptions(train=rows, val=1, test=1))
    return len(plan_pack("shapes", dataset, Path(), rows_per_shard=_ROWS_PER_SHARD).shards)


def _measure_alone(step: Callable[[Any], int], argument: Any) -> Cost:
    # Peak memory is the process's own only where it is not a copy of this one.
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=_run_step, args=(step, argument, answers))
    process.start()
    # The answer fits into the pipe: a step that failed leaves it empty instead of a wait.
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the measured process ended with exit code {process.exitcode}")
    return Cost(*json.loads(answers.get()))


def _run_step(step: Callable[[Any], int], argument: Any, answers: Any) -> None:
    before = _read_peak_mb()
    started, cpu = time.perf_counter(), time.process_time()
    shards = step(argument)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    answers.put(json.dumps([seconds, cpu, before, _read_peak_mb(), shards]))


def _read_peak_mb() -> float:
    # Not getrusage: its peak is also that of the process that this one was started by.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6
