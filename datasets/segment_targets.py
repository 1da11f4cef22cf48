"""Labelled segments as one map: what panoptic training and panoptic scores are taken of."""

from typing import NamedTuple

import numpy as np

from .spec import Row


class LabelledSegments(NamedTuple):
    """Segments of one image.

    Attributes:
        numbers: (H, W) int64; 0 is void, 1 + s is segment s.
        classes: (S,) int64 train ids.
        crowd: (S,) bool; whether it is a group that is never matched.
    """

    numbers: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray


def segment_map(
    target: np.ndarray, instances: np.ndarray, row: Row, *, ignore_label: int, stride: int
) -> np.ndarray:
    """One value for each segment that is visible: class + stride x its number in the row.

    Labelled pixels of no segment count as one segment of their class; crowds are ignored.

    Args:
        target: (H, W) uint8 train ids, as augmented.
        instances: (H, W) uint16 segment numbers, augmented together with them.
        row: The row that they come from; its crowd flags are read.
        ignore_label: Train id that belongs to no segment, and value of ignored pixels.
        stride: Larger than every train id.

    Returns:
        (H, W) int64.
    """
    values = _values(target, instances, ignore_label, stride)
    values[_crowd_table(row)[instances]] = ignore_label
    return values


def labelled_segments(row: Row, ignore_label: int) -> LabelledSegments:
    """The segments of a row, numbered anew; labelled pixels of no segment are one per class.

    Args:
        row: A row with instances.
        ignore_label: Train id that belongs to no segment.
    """
    assert row.instances is not None
    stride = 256
    values = _values(row.label, row.instances, ignore_label, stride)
    found, inverse = np.unique(values, return_inverse=True)
    kept = found != ignore_label
    number = np.where(kept, np.cumsum(kept), 0)
    return LabelledSegments(
        number[inverse].reshape(values.shape),
        found[kept] % stride,
        _crowd_table(row)[found[kept] // stride],
    )


def _values(
    target: np.ndarray, instances: np.ndarray, ignore_label: int, stride: int
) -> np.ndarray:
    values = target.astype(np.int64) + stride * instances.astype(np.int64)
    values[target == ignore_label] = ignore_label
    return values


def _crowd_table(row: Row) -> np.ndarray:
    """(S + 1,) whether a segment number is a crowd; 0 is no segment."""
    return np.array([False, *(row.crowd or (False,) * len(row.segments))], bool)
