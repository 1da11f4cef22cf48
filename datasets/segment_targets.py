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


def encode_segments(
    target: np.ndarray, instances: np.ndarray, row: Row, *, ignore_label: int, stride: int
) -> np.ndarray:
    """Encode class and segment of each pixel in one value: class + stride x segment number.

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
    values = _combine(target, instances, ignore_label, stride)
    values[_list_crowds(row)[instances]] = ignore_label
    return values


def number_segments(row: Row, ignore_label: int) -> LabelledSegments:
    """Number the segments of a row anew; labelled pixels of no segment are one per class.

    Args:
        row: A row with instances.
        ignore_label: Train id that belongs to no segment.
    """
    assert row.instances is not None
    stride = 256
    values = _combine(row.label, row.instances, ignore_label, stride)
    values_present, inverse = np.unique(values, return_inverse=True)
    is_segment = values_present != ignore_label
    number = np.where(is_segment, np.cumsum(is_segment), 0)
    return LabelledSegments(
        number[inverse].reshape(values.shape),
        values_present[is_segment] % stride,
        _list_crowds(row)[values_present[is_segment] // stride],
    )


def _combine(
    target: np.ndarray, instances: np.ndarray, ignore_label: int, stride: int
) -> np.ndarray:
    values = target.astype(np.int64) + stride * instances.astype(np.int64)
    values[target == ignore_label] = ignore_label
    return values


def _list_crowds(row: Row) -> np.ndarray:
    """(S + 1,) whether a segment number is a crowd; 0 is no segment."""
    return np.array([False, *(row.crowd or (False,) * len(row.segments))], bool)
