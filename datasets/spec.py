"""Types of a data set: label space, raw rows, decoded rows, and the reader of a raw layout."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .printable_text import is_printable, make_printable

MOST_CHANNELS = 16
"""Channels that an image may have at most."""
_LARGEST_LABEL = 255
_LARGEST_RAW = 0xFFFF
LABEL_SPACES = Path(__file__).parent / "label_spaces"


class DataError(ValueError):
    """Data that breaks a rule; the message names the file and the rule.

    Args:
        message: Names and values of others may be in it: it is made safe for a terminal.
    """

    def __init__(self, message: str) -> None:
        super().__init__(make_printable(message))


class StorageAwayError(OSError):
    """Storage does not answer; the data may be intact, and another try may work."""


@dataclass(frozen=True)
class LabelSpace:
    """Classes of a data set, and how raw label values map to them.

    Attributes:
        name: Name of the space.
        classes: K names; the index is the train id.
        palette: K colours, RGB.
        ignore_label: Train id of pixels that are never trained on or scored.
        raw_to_train: Every raw value that may occur -> train id or `ignore_label`.
        is_thing: K flags, where things and stuff are told apart.
        categories: K names of coarser groups, where the owners score those too.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_label: int
    raw_to_train: Mapping[int, int]
    is_thing: tuple[bool, ...] | None = None
    categories: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """The space as JSON types; `from_json` reads it back."""
        content: dict[str, Any] = {
            "name": self.name,
            "classes": list(self.classes),
            "palette": [list(colour) for colour in self.palette],
            "ignore_label": self.ignore_label,
            "raw_to_train": {str(raw): train for raw, train in self.raw_to_train.items()},
            "is_thing": None if self.is_thing is None else list(self.is_thing),
        }
        # Only where there are some: digests of the other label spaces stay what they were.
        if self.categories is not None:
            content["categories"] = list(self.categories)
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "LabelSpace":
        """Read what `to_json` returned.

        Raises:
            DataError: Where names, colours, flags and categories differ in number, a name cannot
                be printed, or a number is outside of its range.
        """
        classes = tuple(content["classes"])
        palette = tuple((int(r), int(g), int(b)) for r, g, b in content["palette"])
        things, categories = content.get("is_thing"), content.get("categories")
        for what, values in (
            ("colours", palette),
            ("thing flags", things),
            ("categories", categories),
        ):
            if values is not None and len(values) != len(classes):
                raise DataError(
                    f"label space {content['name']}: {len(classes)} classes and {len(values)} "
                    f"{what}: numbers must agree"
                )
        space = cls(
            name=content["name"],
            classes=classes,
            palette=palette,
            ignore_label=int(content["ignore_label"]),
            raw_to_train={int(raw): int(train) for raw, train in content["raw_to_train"].items()},
            is_thing=None if things is None else tuple(bool(flag) for flag in things),
            categories=None if categories is None else tuple(categories),
        )
        _check_ranges(space)
        return space


def _check_ranges(space: LabelSpace) -> None:
    """Refuse what no 8-bit label can have, and names that a terminal would obey."""
    for name in (space.name, *space.classes, *(space.categories or ())):
        if not isinstance(name, str) or not is_printable(name):
            raise DataError(f"label space: name {name!r:.80} must be printable text")
    last = len(space.classes) - 1
    if not 0 <= last < space.ignore_label <= _LARGEST_LABEL:
        raise DataError(
            f"label space {space.name}: ignore_label {space.ignore_label!s:.40} of {last + 1} "
            f"classes: it must be behind one class at least, and at most {_LARGEST_LABEL}"
        )
    for raw, train in space.raw_to_train.items():
        if not 0 <= raw <= _LARGEST_RAW or not (0 <= train <= last or train == space.ignore_label):
            raise DataError(
                f"label space {space.name}: raw value {raw!s:.40} -> {train!s:.40}: must be "
                f"0..{_LARGEST_RAW} -> 0..{last} or {space.ignore_label}"
            )
    if not all(0 <= value <= _LARGEST_LABEL for colour in space.palette for value in colour):
        raise DataError(f"label space {space.name}: colours must be 0..{_LARGEST_LABEL}")


def load_label_space(name: str) -> LabelSpace:
    """Read one of the label spaces that ship with the code."""
    path = LABEL_SPACES / f"{name}.json"
    return LabelSpace.from_json(json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class RawRow:
    """One image-label pair of a raw data set, not decoded yet.

    Attributes:
        id: Unique within the split.
        split: `train`, `val` or `test`.
        image: File of the image; for generated sets a name for messages.
        label: File of the label map; likewise.
        instances: Second label file, where a data set keeps its instances apart.
        segments: (S, 4) int64 of segment id, category id, crowd flag and area, where an annotation
            file lists the segments of the label.
        sources: Image and label as paths relative to the source, where a layout's ids do not tell
            them; written to `sources.csv` beside the packed rows.
        archive: File on disk that holds image and label, where they are no files themselves.
        details: What the layout's `read` needs besides; it travels with the row.
    """

    id: str
    split: str
    image: Path
    label: Path
    instances: Path | None = None
    segments: np.ndarray | None = None
    sources: tuple[str, ...] = ()
    archive: Path | None = None
    details: Any = None

    def files(self) -> tuple[Path, ...]:
        """Every file on disk that the row is read from."""
        if self.archive is not None:
            return (self.archive,)
        return tuple(path for path in (self.image, self.label, self.instances) if path is not None)


@dataclass(frozen=True)
class Row:
    """One image with its label map, decoded.

    Attributes:
        id: Unique within the split.
        image: (H, W, C) uint8, RGB where C is 3; with a reduction, H and W over it, rounded up.
        label: (H, W) uint8 train ids.
        instances: (H, W) uint16, 0 for none, else 1 + index into `segments`; None where the data
            set has none.
        segments: Class of each segment.
        crowd: For each segment whether it is a group that is never matched; empty for none.
        reduction: Divisor of the sides at which the image was decoded.
    """

    id: str
    image: np.ndarray
    label: np.ndarray
    instances: np.ndarray | None = None
    segments: tuple[int, ...] = ()
    crowd: tuple[bool, ...] = ()
    reduction: int = 1


@dataclass(frozen=True)
class EncodedRow:
    """One row as it is stored.

    Attributes:
        row: The decoded row, checked.
        image: Bytes of an encoded image: JPEG or PNG, or `images.encode_bands` where C is not 3.
        verbatim: Whether these are the raw file's own bytes.
    """

    row: Row
    image: bytes
    verbatim: bool


class RawDataset(Protocol):
    """A reader of one raw layout; `catalog.py` lists them.

    Attributes:
        label_space: Its classes and raw values.
        needs_source: Whether it reads files, and does not generate.
        official_rows: Rows of each split of the whole data set; empty where nobody counts them.
        options: What was chosen besides the source; recorded with the packed data.
    """

    label_space: LabelSpace
    needs_source: bool
    official_rows: Mapping[str, int]
    options: Mapping[str, Any]

    def rows(self, source: Path, *, partial: bool) -> Sequence[RawRow]:
        """Every pair of every split, in the data set's own order.

        Args:
            source: Folder of the raw files.
            partial: Accept a source that has not every split.

        Raises:
            DataError: Names a missing folder or list, or an entry of another form.
        """
        ...

    def read(self, row: RawRow) -> EncodedRow:
        """Decode and check one pair.

        Raises:
            DataError: Names the file and the rule it breaks.
        """
        ...


def find_duplicates(names: Sequence[str]) -> Iterator[str]:
    """Yield the names that occur more than once."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield name
        seen.add(name)
