"""ADE20K in its 150-class form (SceneParse150, `ADEChallengeData2016`), semantic and panoptic."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..images import read_colours, read_image, read_label
from ..spec import DataError, EncodedRow, RawRow, load_label_space
from .image_label_pairs import (
    find_root,
    list_stems,
    list_visible,
    read_pair,
    require_equal_size,
)
from .segments import Segment, make_segment_row

_FOLDERS = {"train": "training", "val": "validation"}


class ADE20K:
    """Semantic labels; value 0 is other and ignored, 1..150 are the classes."""

    needs_source = True
    official_rows: Mapping[str, int] = {"train": 20210, "val": 2000}
    options: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.label_space = load_label_space("ade20k")

    def rows(self, source: Path, *, partial: bool) -> Sequence[RawRow]:
        """Every image or label of the two folders.

        Args:
            source: Folder of `ADEChallengeData2016`, or that folder itself.
            partial: Accept a missing split.

        Raises:
            DataError: Names a missing folder, or says that this is the full ADE20K release.
        """
        return _list_rows(source, partial, panoptic=False)

    def read(self, row: RawRow) -> EncodedRow:
        """Decode and check one pair."""
        return read_pair(row, self.label_space)


class ADE20KPanoptic:
    """Segments from `annotations` (stuff) and `annotations_instance` (things).

    In an instance file the red value is the instance category 1..100 and the green value numbers
    the instances. Things cover stuff; a thing's pixel without an instance belongs to no segment.
    Areas are those of the resulting map, so that a covered stuff segment shrinks or vanishes.
    """

    needs_source = True
    official_rows: Mapping[str, int] = ADE20K.official_rows
    options: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.label_space = load_label_space("ade20k")
        assert self.label_space.is_thing is not None
        self._things = np.flatnonzero(self.label_space.is_thing)

    def rows(self, source: Path, *, partial: bool) -> Sequence[RawRow]:
        """Every image, label and instance file; as `ADE20K.rows`."""
        return _list_rows(source, partial, panoptic=True)

    def read(self, row: RawRow) -> EncodedRow:
        """Decode and check one row of three files.

        Raises:
            DataError: Names the file and the rule it breaks.
        """
        assert row.instances is not None
        data, image, verbatim = read_image(row.image)
        semantic = read_label(row.label, self.label_space)
        colours = read_colours(row.instances).astype(np.int64)
        require_equal_size(row.image, image.shape, row.label, semantic.shape)
        require_equal_size(row.image, image.shape, row.instances, colours.shape)
        category = colours[..., 0]
        if int(category.max()) > len(self._things):
            raise DataError(
                f"{row.instances}: instance category {int(category.max())}, they are 1.."
                f"{len(self._things)}"
            )
        stuff = ~np.isin(semantic, self._things) & (semantic != self.label_space.ignore_label)
        # Ids of one image: stuff 1 + class, things from 256 on.
        ids = np.where(stuff, semantic.astype(np.int64) + 1, 0)
        thing = category > 0
        ids[thing] = 256 * category[thing] + colours[..., 1][thing]
        segments = [self._make_segment(value) for value in np.unique(ids[ids != 0]).tolist()]
        label = np.full(ids.shape, self.label_space.ignore_label, np.uint8)
        for segment in segments:
            label[ids == segment.id] = segment.train_id
        return EncodedRow(make_segment_row(row, image, label, ids, segments), data, verbatim)

    def _make_segment(self, value: int) -> Segment:
        train_id = value - 1 if value < 256 else int(self._things[value // 256 - 1])
        return Segment(value, train_id, crowd=False)


def _list_rows(source: Path, partial: bool, *, panoptic: bool) -> list[RawRow]:
    if any((source / place).is_dir() for place in ("images/ADE", "index_ade20k.mat")) or any(
        list_visible(source, "**/*_seg.png")
    ):
        raise DataError(
            f"{source}: this is a full ADE20K release, whose _seg.png hold other codes; the "
            "150-class set is ADEChallengeData2016"
        )
    root = find_root(source, ("ADEChallengeData2016", "."), "annotations")
    rows = []
    for split, name in _FOLDERS.items():
        images, labels = root / "images" / name, root / "annotations" / name
        instances = root / "annotations_instance" / name
        if partial and not images.is_dir() and not labels.is_dir():
            continue
        label_stems = list_stems(labels, ".png")
        if not label_stems:
            raise DataError(f"{labels}: no labels in it")
        if panoptic and not instances.is_dir():
            raise DataError(
                f"{instances}: no such folder; panoptic labels need the download of the instances"
            )
        rows += [
            RawRow(
                stem,
                split,
                images / f"{stem}.jpg",
                labels / f"{stem}.png",
                instances / f"{stem}.png" if panoptic else None,
            )
            for stem in sorted(set(label_stems) | set(list_stems(images, ".jpg")))
        ]
    return rows
