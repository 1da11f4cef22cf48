"""Numbered segments of panoptic labels, as every panoptic reader checks and stores them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..spec import DataError, RawRow, Row

_MOST = 0xFFFF


class Segment(NamedTuple):
    """One segment of an image.

    Attributes:
        id: Its number in the raw label, unique within the image.
        train_id: Its class.
        crowd: Whether it is a group that is never matched.
    """

    id: int
    train_id: int
    crowd: bool


def make_segment_row(
    row: RawRow,
    image: np.ndarray,
    label: np.ndarray,
    ids: np.ndarray,
    segments: Sequence[Segment],
) -> Row:
    """Make a row whose instance map numbers the segments 1, 2, ... in their given order.

    Args:
        row: The raw row.
        image: (H, W, 3) uint8.
        label: (H, W) uint8 train ids.
        ids: (H, W) raw segment ids; ids of no segment become 0.
        segments: The segments.

    Raises:
        DataError: Where there are too many.
    """
    if len(segments) > _MOST:
        raise DataError(f"{row.label}: {len(segments)} segments, at most {_MOST} can be stored")
    values, inverse = np.unique(ids, return_inverse=True)
    number = {segment.id: index for index, segment in enumerate(segments, start=1)}
    table = np.array([number.get(int(value), 0) for value in values], np.uint16)
    return Row(
        id=row.id,
        image=image,
        label=label,
        instances=table[inverse].reshape(ids.shape),
        segments=tuple(segment.train_id for segment in segments),
        crowd=tuple(segment.crowd for segment in segments),
    )


def require_same_segments(
    path: Path, ids: np.ndarray, listed: np.ndarray, *, check_areas: bool
) -> None:
    """Check that a label and its annotation speak of the same segments.

    Args:
        path: Named in errors.
        ids: (H, W) segment ids of the label, 0 for none.
        listed: (S, 4) of id, category, crowd flag and area, as annotated.
        check_areas: Whether the annotated areas must be the label's.

    Raises:
        DataError: Names the first ids that only one of them has, or whose area differs.
    """
    values, counts = np.unique(ids[ids != 0], return_counts=True)
    known = listed[:, 0]
    if len(np.unique(known)) != len(known):
        raise DataError(f"{path}: its annotation lists a segment id twice")
    unlisted = np.setdiff1d(values, known)
    if unlisted.size:
        raise DataError(
            f"{path}: segment ids {unlisted[:5].tolist()} are not in its annotation: labels of "
            "another kind, or of another annotation file"
        )
    unseen = np.setdiff1d(known, values)
    if unseen.size:
        raise DataError(f"{path}: annotated segments {unseen[:5].tolist()} have no pixel in it")
    if check_areas:
        area = dict(zip(values.tolist(), counts.tolist(), strict=True))
        for segment, _, _, annotated in listed.tolist():
            if area[segment] != annotated:
                raise DataError(
                    f"{path}: segment {segment} has {area[segment]} pixels, its annotation says "
                    f"{annotated}"
                )
