"""Rows of a split to evaluation batches: every row once, sizes kept, spread over workers."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...datasets.packed.reader import PackedDataset
from ...datasets.segment_targets import LabelledSegments, number_segments
from ...datasets.transforms import TransformConfig, test_transform
from .training_loader import count_decode_threads


class EvaluationBatch(NamedTuple):
    """Rows of equal sizes in their order.

    Attributes:
        images: (B, 3, h, w) float32 at the network's input size.
        targets: (B, H, W) int64 train ids at the label's own size.
        indices: Row numbers within the split.
        segments: Labelled segments of each row; empty where they were not asked for.
    """

    images: Tensor
    targets: Tensor
    indices: list[int]
    segments: list[LabelledSegments]


class _Prepared(NamedTuple):
    number: int
    image: np.ndarray
    label: np.ndarray
    segments: LabelledSegments | None


def read_evaluation_batches(
    dataset: PackedDataset,
    split: str,
    transform: TransformConfig,
    indices: Iterable[int],
    size: int,
    *,
    segments: bool = False,
) -> Iterator[EvaluationBatch]:
    """Read rows without augmentation, batched as long as image and label sizes stay equal.

    Args:
        dataset: The packed data.
        split: Name of the split.
        transform: Test-time resizing and normalization.
        indices: Row numbers to read, in this order.
        size: Largest batch.
        segments: Whether the labelled segments are given too.

    Raises:
        DataError: Where a row cannot be read: a score over fewer rows would be another score.
    """

    def read(index: int) -> _Prepared:
        row = dataset.row(split, index)
        labelled = number_segments(row, transform.ignore_label) if segments else None
        return _Prepared(index, test_transform(transform, row), row.label, labelled)

    def rows() -> Iterator[_Prepared]:
        threads = count_decode_threads()
        waiting: deque[Future[_Prepared]] = deque()
        with ThreadPoolExecutor(threads, "decode") as pool:
            try:
                for index in indices:
                    waiting.append(pool.submit(read, index))
                    if len(waiting) > 2 * threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    for _, group in groupby(rows(), key=lambda item: (item.image.shape, item.label.shape)):
        batch: list[_Prepared] = []
        for item in group:
            batch.append(item)
            if len(batch) == size:
                yield _stack(batch)
                batch = []
        if batch:
            yield _stack(batch)


def _stack(batch: list[_Prepared]) -> EvaluationBatch:
    return EvaluationBatch(
        torch.from_numpy(np.stack([item.image for item in batch])),
        torch.from_numpy(np.stack([item.label for item in batch])).long(),
        [item.number for item in batch],
        [item.segments for item in batch if item.segments is not None],
    )
