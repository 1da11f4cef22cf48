"""Pascal Context: 59 classes on VOC 2010 images, in either of the two orders that circulate."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..spec import LABEL_SPACES, DataError, EncodedRow, LabelSpace, RawRow, load_label_space
from .image_label_pairs import find_root, read_pair, read_stems

CLASS_ORDERS = ("alphabetical", "voc_first")


class PascalContext:
    """Pascal Context on VOC 2010 images, with background (60) or without (59).

    Two orders of the same classes circulate, and a label does not say which one it has: the order
    of the files is a required choice. Packed labels always have the alphabetical order.

    Args:
        num_classes: 60, or 59 to ignore background.
        class_order: Order of the values in the files, `alphabetical` or `voc_first`.

    Raises:
        DataError: Where the order is not one of the two.
    """

    needs_source = True
    official_rows: Mapping[str, int] = {"train": 4998, "val": 5105}

    def __init__(self, num_classes: int, class_order: str | None = None) -> None:
        self.label_space = load_context_space(num_classes, class_order)
        self.options: Mapping[str, Any] = {"class_order": class_order}

    def rows(self, source: Path, *, partial: bool) -> Sequence[RawRow]:
        """Every pair of the lists.

        Args:
            source: Folder of `VOCdevkit`, or `VOC2010` itself.
            partial: Accept a missing list.

        Raises:
            DataError: Names a missing folder or list, or an entry of another form.
        """
        root = find_root(source, ("VOCdevkit/VOC2010", "VOC2010", "."), "JPEGImages")
        rows = []
        for split in self.official_rows:
            listing = root / "ImageSets" / "SegmentationContext" / f"{split}.txt"
            if not (partial and not listing.is_file()):
                rows += [_make_row(root, split, stem) for stem in read_stems(listing)]
        return rows

    def read(self, row: RawRow) -> EncodedRow:
        """Decode and check one pair."""
        return read_pair(row, self.label_space)


def load_context_space(num_classes: int, class_order: str | None) -> LabelSpace:
    """Load the label space for raw values of one class order.

    Args:
        num_classes: 60 or 59.
        class_order: `alphabetical` or `voc_first`.

    Raises:
        DataError: Where the order is not one of the two.
    """
    if class_order not in CLASS_ORDERS:
        raise DataError(
            f"the class order of the labels must be one of {', '.join(CLASS_ORDERS)}, got "
            f"{class_order!r}: two circulate, and a label does not say which it has"
        )
    space = load_label_space(f"pascal_context_{num_classes}")
    if class_order == "alphabetical":
        return space
    path = LABEL_SPACES / f"pascal_context_{num_classes}.json"
    order = json.loads(path.read_text(encoding="utf-8"))["voc_first_order"]
    train_id = {name: index for index, name in enumerate(space.classes)}
    raw = {value: train_id.get(name, space.ignore_label) for value, name in enumerate(order)}
    return replace(space, raw_to_train=raw)


def _make_row(root: Path, split: str, stem: str) -> RawRow:
    label = root / "SegmentationClassContext" / f"{stem}.png"
    return RawRow(stem, split, root / "JPEGImages" / f"{stem}.jpg", label)
