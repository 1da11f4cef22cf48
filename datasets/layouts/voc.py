"""PASCAL VOC 2012, and its augmented form with the labels of SBD."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..images import read_image, to_train_ids
from ..spec import DataError, EncodedRow, RawRow, Row, load_label_space
from .image_label_pairs import find_root, read_pair, read_stems, require_equal_size
from .matlab import read_matlab, require_whole_numbers

_LISTS = Path("ImageSets/Segmentation")


class PascalVOC:
    """The 1464 and 1449 images of the challenge; palette labels, 255 is the boundary."""

    needs_source = True
    official_rows: Mapping[str, int] = {"train": 1464, "val": 1449}
    options: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.label_space = load_label_space("pascal_voc12")

    def rows(self, source: Path, *, partial: bool) -> Sequence[RawRow]:
        """Every pair of the lists.

        Args:
            source: Folder of `VOCdevkit`, or `VOC2012` itself.
            partial: Accept a missing list.

        Raises:
            DataError: Names a missing folder or list, or an entry of another form.
        """
        root = find_root(source, ("VOCdevkit/VOC2012", "VOC2012", "."), "JPEGImages")
        return _list_rows(root, "train", partial) + _list_rows(root, "val", partial)

    def read(self, row: RawRow) -> EncodedRow:
        """Decode and check one pair."""
        return read_pair(row, self.label_space)


class PascalVOCAug:
    """Training on VOC train and the 9118 images that SBD adds; validation as VOC.

    SBD labels are read from `SegmentationClassAug/*.png` or, where these were not made, from
    `VOCaug/dataset/cls/*.mat`. Which images are added says `aug.txt`, else `trainaug.txt` less
    `train.txt`, else SBD's own lists less VOC train and val.
    """

    needs_source = True
    official_rows: Mapping[str, int] = {"train": 10582, "val": 1449}
    options: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.label_space = load_label_space("pascal_voc12")

    def rows(self, source: Path, *, partial: bool) -> Sequence[RawRow]:
        """Every pair of the lists; as `PascalVOC.rows`, but `val.txt` may never be missing.

        Raises:
            DataError: Also where an added image is one of VOC val.
        """
        root = find_root(source, ("VOCdevkit/VOC2012", "VOC2012", "."), "JPEGImages")
        sbd = root.parent / "VOCaug" / "dataset"
        # Also of a subset: without it nothing would tell SBD's images of VOC val.
        train, val = _list_rows(root, "train", partial), _list_rows(root, "val", partial=False)
        added, listing = _list_added(root, sbd, {row.id for row in train}, {row.id for row in val})
        known = {row.id: row.split for row in (*train, *val)}
        for stem in added:
            if stem in known:
                raise DataError(f"{listing}: {stem} is an image of VOC {known[stem]}")
        return [*train, *(_make_added_row(root, sbd, stem) for stem in added), *val]

    def read(self, row: RawRow) -> EncodedRow:
        """Decode and check one pair; the label may be a .mat file of SBD.

        Raises:
            DataError: Names the file and the rule it breaks.
        """
        if row.label.suffix != ".mat":
            return read_pair(row, self.label_space)
        data, image, verbatim = read_image(row.image)
        label = to_train_ids(_read_sbd_label(row.label), self.label_space, row.label)
        require_equal_size(row.image, image.shape, row.label, label.shape)
        return EncodedRow(Row(row.id, image, label), data, verbatim)


def _list_rows(root: Path, split: str, partial: bool) -> list[RawRow]:
    listing = root / _LISTS / f"{split}.txt"
    if partial and not listing.is_file():
        return []
    return [
        RawRow(
            stem,
            split,
            root / "JPEGImages" / f"{stem}.jpg",
            root / "SegmentationClass" / f"{stem}.png",
        )
        for stem in read_stems(listing)
    ]


def _list_added(root: Path, sbd: Path, train: set[str], val: set[str]) -> tuple[list[str], Path]:
    """List the stems that SBD adds to VOC train, and the file that says so."""
    aug, trainaug = root / _LISTS / "aug.txt", root / _LISTS / "trainaug.txt"
    if aug.is_file():
        return read_stems(aug), aug
    if trainaug.is_file():
        return [stem for stem in read_stems(trainaug) if stem not in train], trainaug
    lists = [sbd / "train.txt", sbd / "val.txt"]
    if not all(path.is_file() for path in lists):
        raise DataError(
            f"{aug}: the list of added images is missing; so are {trainaug.name} and the lists of "
            f"SBD in {sbd}"
        )
    stems = {stem for path in lists for stem in read_stems(path)}
    return sorted(stems - train - val), sbd


def _make_added_row(root: Path, sbd: Path, stem: str) -> RawRow:
    label = root / "SegmentationClassAug" / f"{stem}.png"
    original = sbd / "cls" / f"{stem}.mat"
    if not label.is_file() and original.is_file():
        label = original
    return RawRow(stem, "train", root / "JPEGImages" / f"{stem}.jpg", label)


def _read_sbd_label(path: Path) -> np.ndarray:
    content = read_matlab(path, "GTcls")["GTcls"]
    try:
        values = content["Segmentation"][0, 0]
    except (ValueError, IndexError, TypeError) as error:
        raise DataError(f"{path}: no GTcls.Segmentation in it; not a label file of SBD") from error
    return require_whole_numbers(path, "GTcls.Segmentation", values)
