"""Classes of a user's data, and masks mapped to their train ids."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ...spec import DataError, LabelSpace
from .decode import Mask, format_colour

IGNORE = 255
# What a label space takes for a raw value.
_LARGEST_RAW = 0xFFFF

By = Literal["value", "colour", "label"]
# Colours for classes that have none: far apart, in an order that starts with dark for background.
_PALETTE = (
    (0, 0, 0), (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48),
    (145, 30, 180), (70, 240, 240), (240, 50, 230), (210, 245, 60), (250, 190, 212),
    (0, 128, 128), (220, 190, 255), (170, 110, 40), (255, 250, 200), (128, 0, 0),
    (170, 255, 195), (128, 128, 0), (255, 215, 180), (0, 0, 128), (128, 128, 128),
)  # fmt: skip


@dataclass(frozen=True)
class ClassDefinition:
    """One class.

    Attributes:
        name: Its name.
        codes: Numbers, or colours as 65536 R + 256 G + B, that mean it in a mask.
        labels: Words that mean it in an annotation file.
        palette: RGB that it is drawn in.
    """

    name: str
    codes: tuple[int, ...]
    labels: tuple[str, ...]
    palette: tuple[int, int, int]


@dataclass(frozen=True)
class ClassTable:
    """All classes of a data set.

    Attributes:
        name: Name of the label space.
        by: What means a class: the `value` or the `colour` of a mask's pixel, or a `label`.
        classes: The classes; the index is the train id.
        ignore: Numbers or colours that are never trained on or scored.
        ignored_labels: The same for words of annotation files.
        background: Class of pixels that no annotation covers; None ignores them. Masks have none.
        tolerance: Largest difference of a colour channel to exactly one class's colour at which a
            pixel counts as this class; 0 takes exact colours alone.
        unknown: What happens to a number or colour that is none of these: `refuse` names it and
            stops, `ignore` leaves its pixels out of training and scores.
    """

    name: str
    by: By
    classes: tuple[ClassDefinition, ...]
    ignore: tuple[int, ...] = ()
    ignored_labels: tuple[str, ...] = ()
    background: str | None = None
    tolerance: int = 0
    unknown: str = "refuse"

    @property
    def ignores_unknown(self) -> bool:
        """Whether pixels of other numbers or colours are ignored."""
        return self.unknown == "ignore"

    def label_space(self) -> LabelSpace:
        """The label space that is stored with the packed data."""
        raw: dict[int, int] = self.code_ids()
        if self.by != "value" or not all(0 <= code <= _LARGEST_RAW for code in raw):
            # Colours and words are recorded with the packing's options: raw values are numbers.
            raw = {index: index for index in (*range(len(self.classes)), IGNORE)}
        return LabelSpace(
            name=self.name,
            classes=tuple(item.name for item in self.classes),
            palette=tuple(item.palette for item in self.classes),
            ignore_label=IGNORE,
            raw_to_train=raw,
        )

    def code_ids(self) -> dict[int, int]:
        """Number or colour of a mask -> train id, or the ignore label."""
        ids = {code: index for index, item in enumerate(self.classes) for code in item.codes}
        return ids | dict.fromkeys(self.ignore, IGNORE)

    def describe(self) -> dict[str, list[str]]:
        """Class -> what means it, as it stands in a class file; recorded with the packed data."""
        described = {
            item.name: [self.format_code(code) for code in item.codes] + list(item.labels)
            for item in self.classes
        }
        ignored = [self.format_code(code) for code in self.ignore] + list(self.ignored_labels)
        ignored += ["every other"] if self.ignores_unknown else []
        return described | ({"(ignored)": ignored} if ignored else {})

    def label_ids(self) -> dict[str, int]:
        """Word of an annotation file -> train id, or the ignore label."""
        ids = {word: index for index, item in enumerate(self.classes) for word in item.labels}
        return ids | dict.fromkeys(self.ignored_labels, IGNORE)

    def background_id(self) -> int:
        """Train id of pixels that no annotation covers."""
        names = [item.name for item in self.classes]
        return IGNORE if self.background is None else names.index(self.background)

    def format_code(self, code: int) -> str:
        """A number or colour as it stands in the class file."""
        return format_colour(code) if self.by == "colour" else str(code)


def choose_palette(index: int) -> tuple[int, int, int]:
    """A colour for the class of an index, where nothing else says one."""
    if index < len(_PALETTE):
        return _PALETTE[index]
    # Multiples of the golden ratio spread; nothing here has to look well.
    mixed = (index * 0x9E3779B1) & 0xFFFFFF
    return mixed >> 16, (mixed >> 8) & 255, mixed & 255


def map_mask(mask: Mask, table: ClassTable, where: Path) -> np.ndarray:
    """Map a mask's numbers or colours to train ids.

    Args:
        mask: The decoded mask.
        table: The classes.
        where: Named in errors.

    Returns:
        (H, W) uint8.

    Raises:
        DataError: Where a number or colour is none of the classes; names them with counts.
    """
    codes = select_codes(mask, table.by, where)
    known = table.code_ids()
    order = np.array(sorted(known), np.int32)
    ids = np.array([known[code] for code in sorted(known)], np.uint8)
    slots = np.minimum(np.searchsorted(order, codes), len(order) - 1)
    label = ids[slots]
    strange = order[slots] != codes
    if strange.any():
        values, counts = np.unique(codes[strange], return_counts=True)
        extra = {int(value): match_code(int(value), table) for value in values}
        unknown = dict(zip(values.tolist(), counts.tolist(), strict=True))
        require_known(
            {v: n for v, n in unknown.items() if extra[v] is None},
            table,
            lossy=mask.lossy,
            where=where,
        )
        label[strange] = IGNORE
        for value, train_id in extra.items():
            if train_id not in (None, IGNORE):
                label[codes == value] = train_id
    return label


def select_codes(mask: Mask, by: By, where: Path) -> np.ndarray:
    """The numbers or the colours of a mask.

    Raises:
        DataError: Where it has none of these.
    """
    codes = mask.values if by == "value" else mask.colours
    if codes is None:
        kinds = ("numbers", "colours") if by == "value" else ("colours", "numbers")
        raise DataError(f"{where}: the classes are told by {kinds[0]}, the mask holds {kinds[1]}")
    return codes


def match_code(code: int, table: ClassTable) -> int | None:
    """Train id of a number or colour; None where it is none of the classes and is refused."""
    known = table.code_ids()
    if code in known:
        return known[code]
    other = IGNORE if table.ignores_unknown else None
    if table.by != "colour" or not table.tolerance:
        return other
    near = {
        train_id
        for colour, train_id in known.items()
        if colour_distance(colour, code) <= table.tolerance
    }
    return near.pop() if len(near) == 1 else other


def colour_distance(first: int, second: int) -> int:
    """Largest difference of a channel of two colours, 0..255."""
    return max(abs(((first >> bits) & 255) - ((second >> bits) & 255)) for bits in (16, 8, 0))


def require_known(
    unknown: Mapping[int, int], table: ClassTable, *, lossy: bool, where: Path
) -> None:
    """Check that no number or colour is left that is none of the classes.

    Args:
        unknown: Such numbers or colours -> pixels.
        table: The classes.
        lossy: Whether they are of a format that changes values.
        where: Named in the error.

    Raises:
        DataError: Where there are some; names the first, how near they are, and what to do.
    """
    if not unknown:
        return
    common = sorted(unknown, key=lambda code: (-unknown[code], code))
    listed = ", ".join(f"{table.format_code(code)} ({unknown[code]} pixels)" for code in common[:5])
    what = "colours" if table.by == "colour" else "values"
    more = f" and {len(common) - 5} more" if len(common) > 5 else ""
    hint = ""
    if table.by == "colour":
        known = [code for item in table.classes for code in item.codes]
        distance = max(min(colour_distance(code, other) for other in known) for code in common)
        hint = f"; none is further than {distance} a channel from a class (tolerance)"
    hint += "; unknown: ignore in the class file leaves such pixels out"
    if lossy:
        hint += "; JPEG changes colours: save masks as PNG"
    raise DataError(
        f"{where}: {sum(unknown.values())} pixels of {len(common)} {what} that are none of the "
        f"classes: {listed}{more}{hint}"
    )
