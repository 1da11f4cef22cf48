"""Rows to device batches for one worker: the same micro-batches whatever the number of workers."""

import functools
import logging
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from ...datasets.cpu_count import count_usable_cpus
from ...datasets.packed.plan import BadRowPolicy
from ...datasets.packed.reader import PackedDataset
from ...datasets.segment_targets import encode_segments
from ...datasets.shuffle import RowOrder
from ...datasets.spec import DataError, Row, StorageAwayError
from ...datasets.transforms import TransformConfig, augment, find_reduction, row_generator
from ...model.loss.matcher import SEGMENT_STRIDE
from ..config.phases import Phase, list_phases, phase_at
from ..config.schema import ExperimentConfig

log = logging.getLogger(__name__)

_MOST_BAD_ROWS = 10


class MicroBatch(NamedTuple):
    """What one forward pass sees.

    Attributes:
        images: (B, C, H, W) float32, normalized.
        targets: (B, H, W) int64 train ids; with segments, train id + SEGMENT_STRIDE x number.
        ids: Row ids, B of them.
    """

    images: Tensor
    targets: Tensor
    ids: list[str]


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """How training rows are ordered, batched and read.

    Attributes:
        seed: The experiment's seed; with epoch and row id it decides the augmentation.
        size: Rows of one micro-batch.
        micro_batches: Micro-batches of one step, over all workers.
        window: Rows among which the order is shuffled.
        prefetch: Micro-batches decoded ahead in threads; 0 decodes when asked.
        threads: Threads that decode and augment rows; by cores if not given.
        on_bad_row: What happens to a row that cannot be read any more: `refuse` raises;
            `quarantine` reads the next row in its place, says so, and raises from the
            eleventh such row on. Every reader counts the rows that it met itself: each worker
            its own share, and again from 0 after a restart.
        pin_memory: Whether images go to memory that a GPU copies from beside its work.
        segments: Whether targets tell segments of one class apart.
    """

    seed: int
    size: int
    micro_batches: int
    window: int
    prefetch: int
    threads: int | None = None
    on_bad_row: BadRowPolicy = "refuse"
    pin_memory: bool = False
    segments: bool = False


class TrainingRows:
    """Augmented micro-batches by (step, index); any position is reached without reading others.

    Args:
        dataset: The packed data.
        transform: Augmentation, of every step or by phases.
        options: Order, batches and threads.
    """

    def __init__(
        self,
        dataset: PackedDataset,
        transform: TransformConfig | Sequence[Phase],
        options: LoaderOptions,
    ) -> None:
        self._dataset = dataset
        if isinstance(transform, TransformConfig):
            transform = [Phase(0, transform, 1.0)]
        self._phases = transform
        self._options = options
        self._order = RowOrder(dataset.splits["train"], options.seed, options.window)
        self._window = min(options.window, self._order.num_rows)
        self._bad: dict[int, str] = {}

    @classmethod
    def from_config(
        cls,
        dataset: PackedDataset,
        config: ExperimentConfig,
        *,
        size: int,
        micro_batches: int,
        pin_memory: bool,
    ) -> Self:
        """The training rows of an experiment.

        Args:
            dataset: The packed data.
            config: The experiment.
            size: Rows of one micro-batch now; running out of memory may have halved it.
            micro_batches: Micro-batches of one step now.
            pin_memory: As in the constructor.
        """
        options = LoaderOptions(
            seed=config.seed,
            size=size,
            micro_batches=micro_batches,
            window=config.data.shuffle_window,
            prefetch=config.data.prefetch,
            on_bad_row=config.data.on_bad_row,
            pin_memory=pin_memory,
            segments=config.data.task == "panoptic",
        )
        data = config.data
        phases = list_phases(data.transform, data.phases, config.trainer.max_steps)
        return cls(dataset, phases, options)

    @property
    def bad_rows(self) -> dict[int, str]:
        """Rows that were replaced so far, and why."""
        return dict(self._bad)

    def read(self, step: int, index: int, offset: int = 0) -> MicroBatch:
        """Micro-batch `index` of a step, read and augmented now.

        Args:
            step: Optimizer steps done before; they decide the phase.
            index: Which of the step's micro-batches.
            offset: Steps' worth of rows that were jumped over.
        """
        transform = phase_at(self._phases, step).transform
        batch = self._allocate(transform)
        for slot, position in enumerate(self._positions(step + offset, index)):
            self._fill(batch, slot, position, transform)
        return _check_filled(batch)

    def steps(
        self, first: int, last: int, share: range, offset: int = 0
    ) -> Generator[list[MicroBatch], None, None]:
        """This worker's micro-batches of each step, decoded ahead beside training.

        Args:
            first: First step.
            last: Step after the last one.
            share: Indices of the micro-batches that are this worker's.
            offset: Steps' worth of rows that were jumped over before the first.

        Raises:
            DataError: Names the shard and row that cannot be read, where `on_bad_row` says so.
        """
        indices = [(step, index) for step in range(first, last) for index in share]
        if self._options.prefetch:
            reads = self._read_ahead(indices, offset)
        else:
            reads = (self.read(step, index, offset) for step, index in indices)
        for _ in range(first, last):
            yield [next(reads) for _ in share]

    def _read_ahead(self, indices: Iterable[tuple[int, int]], offset: int) -> Iterator[MicroBatch]:
        waiting: deque[tuple[MicroBatch, list[Future[None]]]] = deque()
        with ExitStack() as stack:
            threads = self._options.threads or count_decode_threads()
            pool = stack.enter_context(ThreadPoolExecutor(threads, "decode"))
            fetcher = None
            if self._dataset.remote:
                fetcher = stack.enter_context(ThreadPoolExecutor(1, "fetch"))
            stack.callback(lambda: [f.cancel() for _, rows in waiting for f in rows])
            # Nobody waits for shards that no row is read from: only the one on its way comes in.
            done = threading.Event()
            stack.callback(done.set)
            fetched = 0
            for step, index in indices:
                positions = self._positions(step + offset, index)
                if fetcher is not None and positions.stop > fetched - self._window // 2:
                    fetched = max(fetched, positions.start)
                    fetcher.submit(self._fetch, range(fetched, fetched + self._window), done)
                    fetched += self._window
                transform = phase_at(self._phases, step).transform
                batch = self._allocate(transform)
                rows = [
                    pool.submit(self._fill, batch, slot, position, transform)
                    for slot, position in enumerate(positions)
                ]
                waiting.append((batch, rows))
                if len(waiting) > self._options.prefetch:
                    yield _wait_for(*waiting.popleft())
            while waiting:
                yield _wait_for(*waiting.popleft())

    def _positions(self, step: int, index: int) -> range:
        first = (step * self._options.micro_batches + index) * self._options.size
        return range(first, first + self._options.size)

    def _allocate(self, transform: TransformConfig) -> MicroBatch:
        height, width = transform.crop
        size, pin = self._options.size, self._options.pin_memory
        images = torch.empty(size, len(transform.mean), height, width, pin_memory=pin)
        targets = torch.empty(size, height, width, dtype=torch.int64, pin_memory=pin)
        return MicroBatch(images, targets, [""] * size)

    def _fill(
        self, batch: MicroBatch, slot: int, position: int, transform: TransformConfig
    ) -> None:
        row = self._read_row(self._order.row(position), transform)
        generator = row_generator(self._options.seed, self._order.epoch(position), row.id)
        image = batch.images[slot].numpy()
        _, target, instances = augment(transform, row, generator, image)
        if self._options.segments:
            target = encode_segments(
                target,
                _require_instances(instances),
                row,
                ignore_label=transform.ignore_label,
                stride=SEGMENT_STRIDE,
            )
        batch.targets[slot] = torch.from_numpy(target)
        batch.ids[slot] = row.id

    def _read_row(self, index: int, transform: TransformConfig) -> Row:
        """Read a row, or the next good one where it is bad and may be replaced."""
        reduction = functools.partial(find_reduction, transform)
        for shift in range(self._order.num_rows):
            number = (index + shift) % self._order.num_rows
            try:
                return self._dataset.row("train", number, reduction)
            except DataError as error:
                if self._options.on_bad_row == "refuse":
                    raise
                if number not in self._bad:
                    self._bad[number] = str(error)
                    log.warning("row %d is bad, the next one takes its place: %s", number, error)
                if len(self._bad) > _MOST_BAD_ROWS:
                    raise DataError(
                        f"{len(self._bad)} rows cannot be read, {_MOST_BAD_ROWS} may be replaced: "
                        f"{error}"
                    ) from error
        raise DataError(f"{self._dataset.path}: no row of the training split can be read")

    def _fetch(self, positions: range, done: threading.Event) -> None:
        """Fetch the shards of some positions into the local cache, in order of first use."""
        seen: set[int] = set()
        for position in positions:
            if done.is_set():
                return
            index = self._order.row(position)
            shard = self._dataset.shard_number("train", index)
            if shard not in seen:
                seen.add(shard)
                try:
                    self._dataset.fetch("train", index)
                except (DataError, StorageAwayError) as error:
                    # The row's own reader meets the same and follows the policy.
                    log.warning("%s", error)
                    return


def count_decode_threads() -> int:
    """Count the threads to decode with: half of this process's cores, one to eight."""
    return max(1, min(8, count_usable_cpus() // 2))


def _require_instances(instances: np.ndarray | None) -> np.ndarray:
    assert instances is not None, "data with segments has them in every row"
    return instances


def _wait_for(batch: MicroBatch, rows: Iterable[Future[None]]) -> MicroBatch:
    for row in rows:
        row.result()
    return _check_filled(batch)


def _check_filled(batch: MicroBatch) -> MicroBatch:
    assert all(batch.ids), "every row of a micro-batch is filled"
    return batch
