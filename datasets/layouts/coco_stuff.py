"""COCO-Stuff: 10k with .mat labels (version 1.1) and 164k with the pixel maps, 171 classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..images import read_image, to_train_ids
from ..spec import DataError, EncodedRow, RawRow, Row, load_label_space
from .image_label_pairs import find_root, list_stems, read_pair, read_stems, require_equal_size
from .matlab import read_matlab, require_whole_numbers

_NAMES_OF_OLD_VERSION = 172
_CONVERTED = "_labelTrainIds"


class COCOStuff10k:
    """9000 training images and 1000 that the owners call test; they are our validation split."""

    needs_source = True
    official_rows: Mapping[str, int] = {"train": 9000, "val": 1000}
    options: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.label_space = load_label_space("coco_stuff10k")

    def rows(self, source: Path, *, partial: bool) -> Sequence[RawRow]:
        """Every pair of the two lists.

        Args:
            source: Folder of `images`, `annotations` and `imageLists`.
            partial: Accept a missing list.

        Raises:
            DataError: Names a missing folder or list, or an entry of another form.
        """
        root = find_root(source, (".", "cocostuff-10k-v1.1"), "imageLists")
        rows = []
        for split, name in (("train", "train"), ("val", "test")):
            listing = root / "imageLists" / f"{name}.txt"
            if partial and not listing.is_file():
                continue
            rows += [
                RawRow(
                    stem,
                    split,
                    root / "images" / f"{stem}.jpg",
                    root / "annotations" / f"{stem}.mat",
                )
                for stem in read_stems(listing)
            ]
        return rows

    def read(self, row: RawRow) -> EncodedRow:
        """Decode and check one pair.

        Raises:
            DataError: Names the file and the rule it breaks.
        """
        data, image, verbatim = read_image(row.image)
        label = to_train_ids(_read_matlab_label(row.label), self.label_space, row.label)
        require_equal_size(row.image, image.shape, row.label, label.shape)
        return EncodedRow(Row(row.id, image, label), data, verbatim)


class COCOStuff164k:
    """COCO 2017 with the stuff-things pixel maps (raw values 0..181, 255 unlabelled)."""

    needs_source = True
    official_rows: Mapping[str, int] = {"train": 118287, "val": 5000}
    options: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.label_space = load_label_space("coco_stuff164k")

    def rows(self, source: Path, *, partial: bool) -> Sequence[RawRow]:
        """Every image or label of the two folders; converted labels beside them are not read.

        Args:
            source: Folder of `images` and `annotations`.
            partial: Accept a missing split.

        Raises:
            DataError: Names a folder without raw labels.
        """
        root = find_root(source, (".", "coco_stuff164k"), "annotations")
        rows = []
        for split in self.official_rows:
            images, labels = root / "images" / f"{split}2017", root / "annotations" / f"{split}2017"
            if partial and not images.is_dir() and not labels.is_dir():
                continue
            stems = list_stems(labels, ".png")
            raw_stems = [stem for stem in stems if not stem.endswith(_CONVERTED)]
            if not raw_stems:
                hint = f"; {_CONVERTED}.png files are there, they are not read" if stems else ""
                raise DataError(f"{labels}: no raw labels (<image>.png) in it{hint}")
            rows += [
                RawRow(stem, split, images / f"{stem}.jpg", labels / f"{stem}.png")
                for stem in sorted(set(raw_stems) | set(list_stems(images, ".jpg")))
            ]
        return rows

    def read(self, row: RawRow) -> EncodedRow:
        """Decode and check one pair."""
        return read_pair(row, self.label_space)


def _read_matlab_label(path: Path) -> np.ndarray:
    content = read_matlab(path, "S")
    names = content.get("names")
    if names is not None and np.size(names) == _NAMES_OF_OLD_VERSION:
        raise DataError(
            f"{path}: its {np.size(names)} names are those of version 1.0, whose ids differ; "
            "version 1.1 is read"
        )
    return require_whole_numbers(path, "S", content["S"])
