"""Cityscapes: `leftImg8bit/` and `gtFine/`; labelIds are read, no conversion step is needed.

The test split has no labels that may be scored (they hold ego vehicle and border only), so it is
not packed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..images import read_image, read_index, to_train_ids
from ..spec import DataError, EncodedRow, LabelSpace, RawRow, load_label_space
from .image_label_pairs import find_root, list_stems, read_pair, require_equal_size
from .segments import Segment, make_segment_row

_SPLITS = ("train", "val")
_IMAGE = "_leftImg8bit.png"
_NOT_LABEL_IDS = ("_gtFine_labelTrainIds.png", "_gtFine_color.png")


class Cityscapes:
    """Semantic labels of the fine annotations, 19 classes."""

    needs_source = True
    official_rows: Mapping[str, int] = {"train": 2975, "val": 500}
    options: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.label_space = load_label_space("cityscapes")

    def rows(self, source: Path, *, partial: bool) -> Sequence[RawRow]:
        """Every image and labelIds file, city by city.

        Args:
            source: Folder of `leftImg8bit` and `gtFine`.
            partial: Accept a missing split.

        Raises:
            DataError: Where the folders or labelIds files are missing.
        """
        return _list_rows(source, "_gtFine_labelIds.png", partial)

    def read(self, row: RawRow) -> EncodedRow:
        """Decode and check one pair."""
        return read_pair(row, self.label_space)


class CityscapesPanoptic:
    """Segments from the 16-bit instanceIds; things without a number are a crowd.

    A value below 1000 is a labelId; from 1000 on it is labelId x 1000 + number. The result equals
    what the owners' converter writes.
    """

    needs_source = True
    official_rows: Mapping[str, int] = Cityscapes.official_rows
    options: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.label_space = load_label_space("cityscapes")

    def rows(self, source: Path, *, partial: bool) -> Sequence[RawRow]:
        """Every image and instanceIds file; as `Cityscapes.rows`."""
        return _list_rows(source, "_gtFine_instanceIds.png", partial)

    def read(self, row: RawRow) -> EncodedRow:
        """Decode and check one pair.

        Raises:
            DataError: Names the file and the rule it breaks.
        """
        data, image, verbatim = read_image(row.image)
        raw = read_index(row.label)
        if raw.dtype == np.uint8:
            raise DataError(
                f"{row.label}: instanceIds have 16 bits a pixel, got 8: they cannot number "
                "instances, as if labelIds had been renamed"
            )
        ids = raw.astype(np.int64)
        require_equal_size(row.image, image.shape, row.label, ids.shape)
        # The same label once per segment, so that the label space checks every value.
        label_ids = np.where(ids < 1000, ids, ids // 1000)
        label = to_train_ids(label_ids, self.label_space, row.label)
        segments = find_segments(ids, self.label_space)
        return EncodedRow(make_segment_row(row, image, label, ids, segments), data, verbatim)


def find_segments(ids: np.ndarray, space: LabelSpace) -> list[Segment]:
    """Find the segments of an instanceIds map.

    Args:
        ids: (H, W) values of the file.
        space: The Cityscapes label space.
    """
    assert space.is_thing is not None
    segments = []
    for value in np.flatnonzero(np.bincount(ids.ravel())).tolist():
        train_id = space.raw_to_train[value if value < 1000 else value // 1000]
        if train_id != space.ignore_label:
            crowd = value < 1000 and space.is_thing[train_id]
            segments.append(Segment(value, train_id, crowd))
    return segments


def _list_rows(source: Path, suffix: str, partial: bool) -> list[RawRow]:
    root = find_root(source, (".", "cityscapes"), "leftImg8bit")
    if not (root / "gtFine").is_dir():
        raise DataError(f"{root / 'gtFine'}: no such folder; it holds the labels")
    rows = []
    for split in _SPLITS:
        labels, images = root / "gtFine" / split, root / "leftImg8bit" / split
        if partial and not labels.is_dir() and not images.is_dir():
            continue
        label_stems = list_stems(labels, suffix, deep=True)
        if not label_stems:
            raise DataError(f"{labels}: no file ends with {suffix}{_name_other_labels(labels)}")
        # A label without image and an image without label are both bad rows: each is a pair.
        stems = sorted(set(label_stems) | set(list_stems(images, _IMAGE, deep=True)))
        rows += [
            RawRow(Path(s).name, split, images / f"{s}{_IMAGE}", labels / f"{s}{suffix}")
            for s in stems
        ]
    return rows


def _name_other_labels(labels: Path) -> str:
    others = [suffix for suffix in _NOT_LABEL_IDS if list_stems(labels, suffix, deep=True)]
    return f"; {others[0]} files are there, they are not read" if others else ""
