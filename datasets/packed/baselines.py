"""Image-blind baselines: what a predictor scores that never looks at an image."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..spec import DataError
from .label_counts import LabelCounts
from .manifest import Manifest, read_manifest
from .reader import PackedDataset
from .storage import Storage

LEARNED_ON = "train"


@dataclass(frozen=True)
class Baselines:
    """Scores of two predictors that know only the labels of the training split.

    Attributes:
        majority: mIoU in percent of the most frequent class of the training split, predicted for
            every pixel.
        position: mIoU in percent of the most frequent class of each cell of a 32 x 32 grid of
            relative position, predicted for the cell's pixels.
        majority_class: Name of the class that `majority` predicts.
    """

    majority: float
    position: float
    majority_class: str


def read_baselines(packed: str | Path | Manifest | PackedDataset, split: str) -> Baselines | None:
    """Read the baselines of a split, as they were computed when it was packed.

    Args:
        packed: Folder of packed data, a path or a URI; or its manifest; or the opened data.
        split: The split that was scored, `val` or `test`.

    Returns:
        The baselines; None of the training split, of data without one, of a split without a
        labelled pixel, and of data that an earlier version packed and that was not upgraded.

    Raises:
        DataError: Where the folder holds no packed data, or has no such split.
    """
    if isinstance(packed, str | Path):
        packed = read_manifest(Storage.at(packed))
    if split not in packed.splits:
        raise DataError(f"no split {split!r}; there are: {', '.join(packed.splits)}")
    stored = packed.baselines.get(split)
    return None if stored is None else Baselines(**stored)


def compute_baselines(
    counts: Mapping[str, LabelCounts], classes: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Score both predictors on every split but the one that they learn from.

    Of equally frequent classes the first is predicted; in a cell without a labelled pixel of the
    training split, the most frequent class of all cells.

    Args:
        counts: Split -> counts of its labels.
        classes: Names of the K classes.

    Returns:
        Split -> fields of `Baselines`, as the manifest stores them.
    """
    if LEARNED_ON not in counts or not counts[LEARNED_ON].cells.any():
        return {}
    learned = counts[LEARNED_ON]
    majority = int(learned.pixels.argmax())
    position = np.where(learned.cells.any(-1), learned.cells.argmax(-1), majority)
    return {
        split: asdict(
            Baselines(
                majority=_score_cells(part.cells, np.full_like(position, majority)),
                position=_score_cells(part.cells, position),
                majority_class=classes[majority],
            )
        )
        for split, part in counts.items()
        if split != LEARNED_ON and part.cells.any()
    }


def count_packed_labels(dataset: PackedDataset, split: str) -> LabelCounts:
    """Count the labels of a packed split; images are not decoded.

    Args:
        dataset: The packed data.
        split: Name of the split.

    Raises:
        DataError: Names shard and row of a label that cannot be read.
    """
    counts = LabelCounts(len(dataset.label_space.classes))
    for number in range(dataset.num_shards(split)):
        counts.add(count_shard_labels(dataset, split, number)[0])
    return counts


def count_shard_labels(dataset: PackedDataset, split: str, number: int) -> tuple[LabelCounts, int]:
    """Count the labels of one shard of a split, as `count_packed_labels`; also gives its rows."""
    counts = LabelCounts(len(dataset.label_space.classes))
    rows = 0
    for label in dataset.shard_labels(split, number):
        counts.add_label(label)
        rows += 1
    return counts, rows


def _score_cells(cells: np.ndarray, predicted: np.ndarray) -> float:
    """Score one class a cell: mIoU in percent, as `model/metrics/segmentation.py` defines it.

    A class that is neither labelled nor predicted is left out of the mean; what is ignored is not
    in the counts.

    Args:
        cells: (32, 32, K) labelled pixels of the split.
        predicted: (32, 32) class of each cell.
    """
    classes = cells.shape[-1]
    in_cell = cells.sum(-1)
    labelled = cells.sum((0, 1))
    hit = np.zeros(classes, np.int64)
    np.add.at(hit, predicted, np.take_along_axis(cells, predicted[..., None], -1)[..., 0])
    pixels = np.zeros(classes, np.int64)
    np.add.at(pixels, predicted, in_cell)
    union = labelled + pixels - hit
    ious = [int(hit[k]) / int(union[k]) for k in range(classes) if union[k]]
    return 100 * math.fsum(ious) / len(ious)
