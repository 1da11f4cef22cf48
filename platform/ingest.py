"""Rows to device batches for one worker: the same micro-batches whatever the number of workers."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..datasets.order import RowOrder
from ..datasets.reader import PackedDataset
from ..datasets.transforms import TransformConfig, row_generator, test_transform, train_transform


class MicroBatch(NamedTuple):
    """What one forward pass sees.

    Attributes:
        images: (B, 3, H, W) float32, normalized.
        targets: (B, H, W) int64 train ids.
        ids: Row ids, B of them.
    """

    images: Tensor
    targets: Tensor
    ids: list[str]


class TrainingRows:
    """Augmented micro-batches by (step, index); any position is reached without reading others.

    Args:
        dataset: The packed data.
        transform: Augmentation.
        seed: The experiment's seed; with epoch and row id it decides the augmentation.
        size: Rows of one micro-batch.
        micro_batches: Micro-batches of one step, over all workers.
        window: Rows among which the order is shuffled.
        prefetch: Micro-batches decoded ahead in a thread; 0 decodes when asked.
    """

    def __init__(
        self,
        dataset: PackedDataset,
        transform: TransformConfig,
        *,
        seed: int,
        size: int,
        micro_batches: int,
        window: int,
        prefetch: int,
    ) -> None:
        self._dataset = dataset
        self._transform = transform
        self._seed = seed
        self._size = size
        self._micro_batches = micro_batches
        self._order = RowOrder(dataset.splits["train"], seed, window)
        self._prefetch = prefetch

    def read(self, step: int, index: int) -> MicroBatch:
        """Micro-batch `index` of a step, read and augmented now."""
        first = (step * self._micro_batches + index) * self._size
        images, targets, ids = [], [], []
        for position in range(first, first + self._size):
            row = self._dataset.row("train", self._order.row(position))
            generator = row_generator(self._seed, self._order.epoch(position), row.id)
            image, target = train_transform(self._transform, row, generator)
            images.append(image)
            targets.append(target)
            ids.append(row.id)
        return MicroBatch(
            torch.from_numpy(np.stack(images)),
            torch.from_numpy(np.stack(targets)).long(),
            ids,
        )

    def steps(self, first: int, last: int, share: range) -> Iterator[list[MicroBatch]]:
        """This worker's micro-batches of each step, decoded ahead beside training.

        Args:
            first: First step.
            last: Step after the last one.
            share: Indices of the micro-batches that are this worker's.
        """
        places = [(step, index) for step in range(first, last) for index in share]
        reads = self._ahead(places) if self._prefetch else (self.read(*place) for place in places)
        for _ in range(first, last):
            yield [next(reads) for _ in share]

    def _ahead(self, places: Iterable[tuple[int, int]]) -> Iterator[MicroBatch]:
        with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
            waiting: list[Future[MicroBatch]] = []
            try:
                for place in places:
                    waiting.append(pool.submit(self.read, *place))
                    if len(waiting) > self._prefetch:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                for future in waiting:
                    future.cancel()


class EvaluationBatch(NamedTuple):
    """Rows of equal sizes in their order.

    Attributes:
        images: (B, 3, h, w) float32 at the network's input size.
        targets: (B, H, W) int64 train ids at the label's own size.
        indices: Row numbers within the split.
    """

    images: Tensor
    targets: Tensor
    indices: list[int]


def evaluation_batches(
    dataset: PackedDataset,
    split: str,
    transform: TransformConfig,
    indices: Iterable[int],
    size: int,
) -> Iterator[EvaluationBatch]:
    """Rows without augmentation, batched as long as image and label sizes stay equal.

    Args:
        dataset: The packed data.
        split: Name of the split.
        transform: Test-time resizing and normalization.
        indices: Row numbers to read, in this order.
        size: Largest batch.
    """

    def rows() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        for index in indices:
            row = dataset.row(split, index)
            yield index, test_transform(transform, row), row.label

    for _, group in groupby(rows(), key=lambda item: (item[1].shape, item[2].shape)):
        batch: list[tuple[int, np.ndarray, np.ndarray]] = []
        for item in group:
            batch.append(item)
            if len(batch) == size:
                yield _stack(batch)
                batch = []
        if batch:
            yield _stack(batch)


def _stack(batch: list[tuple[int, np.ndarray, np.ndarray]]) -> EvaluationBatch:
    return EvaluationBatch(
        torch.from_numpy(np.stack([image for _, image, _ in batch])),
        torch.from_numpy(np.stack([label for _, _, label in batch])).long(),
        [index for index, _, _ in batch],
    )
