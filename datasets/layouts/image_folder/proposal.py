"""Classes proposed from what masks or annotations hold, for a person to confirm."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import ImageColor

from ...spec import DataError
from .class_table import By, ClassDefinition, ClassTable, choose_palette, colour_distance
from .decode import format_colour
from .survey import Survey, count_all

_MOST_CLASSES = 255
_MOST_CODES = 65536
# A colour is taken for a trace of compression or smoothing where it is this rare and this near.
_STRAY_SHARE = 0.002
_VOID = 255


class ClassShare(NamedTuple):
    """A line of the table that is shown.

    Attributes:
        name: The class; `ignored` for what is left out.
        codes: Numbers, colours or words that mean it.
        share: Share of all labelled images' pixels, in [0, 1].
        files: Labels that hold it.
    """

    name: str
    codes: str
    share: float
    files: int


class Stray(NamedTuple):
    """Colours that were not taken for classes.

    Attributes:
        colours: How many.
        pixels: Pixels that have them.
        files: Masks that hold some.
        example: One of the masks.
    """

    colours: int
    pixels: int
    files: int
    example: str


def propose_classes(surveys: Sequence[Survey], root: Path) -> tuple[ClassTable, Stray | None]:
    """Propose a class for each number, colour or word.

    Numbers are taken where every mask has some and palettes agree, else colours.

    Args:
        surveys: What the labels hold.
        root: Named in errors.

    Returns:
        The classes, and the rare colours beside others that are none.

    Raises:
        DataError: Where there are too many, or masks hold colours and others numbers that are none.
    """
    good = [survey for survey in surveys if not survey.item.problem]
    if not good:
        first = surveys[0].item.problem
        raise DataError(f"{root}: no pair of image and label can be read; the first: {first}")
    if good[0].words is not None:
        return _propose_by_words(good), None
    by = _choose_kind(good, root)
    pixels, _ = count_all(good, by)
    if len(pixels) > _MOST_CODES:
        raise DataError(f"{root}: {len(pixels)} {by}s in the masks: these are no masks of classes")
    strays = _find_strays(pixels) if by == "colour" else set()
    codes = sorted(pixels.keys() - strays)
    ignore = _find_void(pixels) if by == "value" else []
    codes = [code for code in codes if code not in ignore]
    if len(codes) > _MOST_CLASSES:
        raise DataError(
            f"{root}: {len(codes)} {by}s in the masks, at most {_MOST_CLASSES} can be classes; "
            "write classes.yaml, where several may mean one class"
        )
    # The most frequent is drawn black and stands first where zero or black is not among them.
    palette = next((survey.palette for survey in good if survey.palette is not None), None)
    classes = [
        _propose_class(index, code, by, _merge_palettes(good) if palette else {})
        for index, code in enumerate(codes)
    ]
    return ClassTable("classes", by, tuple(classes), tuple(ignore)), _describe(strays, good)


def list_shares(surveys: Sequence[Survey], table: ClassTable) -> list[ClassShare]:
    """Share of pixels and number of files of each class, and of what is ignored."""
    good = [survey for survey in surveys if not survey.item.problem]
    total = max(1, sum(survey.pixels for survey in good))
    pixels: Mapping[Any, int]
    files: Mapping[Any, int]
    if table.by == "label":
        counted: Counter[str] = Counter()
        seen: Counter[str] = Counter()
        for survey in good:
            counted.update(survey.words or {})
            seen.update((survey.words or {}).keys())
        pixels, files = dict[Any, int](counted), dict[Any, int](seen)
    else:
        by_code = count_all(good, table.by)
        pixels, files = dict[Any, int](by_code[0]), dict[Any, int](by_code[1])
    covered = sum(survey.covered for survey in good)
    shares = []
    for item in table.classes:
        members: Sequence[Any] = item.labels if table.by == "label" else item.codes
        count = sum(pixels.get(member, 0) for member in members)
        held = max((files.get(member, 0) for member in members), default=0)
        if table.background == item.name:
            count += total - covered
            held = len(good)
        shown = [table.format_code(m) if isinstance(m, int) else str(m) for m in members]
        shares.append(ClassShare(item.name, ", ".join(shown[:4]), count / total, held))
    left = 1 - sum(share.share for share in shares)
    if left > 1e-9:
        codes = [table.format_code(code) for code in table.ignore] + list(table.ignored_labels)
        shares.append(ClassShare("(ignored)", ", ".join(codes[:4]), left, 0))
    return shares


def format_shares(shares: Sequence[ClassShare]) -> str:
    """The table as lines for a terminal."""
    name = max(5, *(len(share.name) for share in shares))
    codes = max(12, *(len(share.codes) for share in shares))
    lines = [f"{'class'.ljust(name)}  {'in the masks'.ljust(codes)}  % of pixels  files"]
    for share in shares:
        lines.append(
            f"{share.name.ljust(name)}  {share.codes.ljust(codes)}  {100 * share.share:11.3f}  "
            f"{share.files or '-':>5}"
        )
    return "\n".join(lines)


def _choose_kind(good: Sequence[Survey], root: Path) -> By:
    by_value = all(survey.values is not None for survey in good)
    if by_value and _palettes_agree(good):
        return "value"
    for survey in good:
        if survey.colours is None:
            raise DataError(
                f"{root / survey.item.label}: holds numbers without colours, and other masks hold "
                "colours: one kind of mask is packed at a time"
            )
    return "colour"


def _palettes_agree(good: Sequence[Survey]) -> bool:
    merged: dict[int, int] = {}
    for survey in good:
        for value, colour in (survey.palette or {}).items():
            if merged.setdefault(value, colour) != colour:
                return False
    return len(set(merged.values())) == len(merged)


def _merge_palettes(good: Sequence[Survey]) -> dict[int, int]:
    merged: dict[int, int] = {}
    for survey in good:
        merged |= survey.palette or {}
    return merged


def _find_strays(pixels: Counter[int]) -> set[int]:
    """Rare colours while there are frequent ones: what smoothing and compression leave."""
    total = sum(pixels.values())
    frequent = {code for code, count in pixels.items() if count >= _STRAY_SHARE * total}
    rare = pixels.keys() - frequent
    # A few rare colours that are far from every other may be small classes.
    if len(rare) <= 16:
        return {code for code in rare if min(colour_distance(code, c) for c in frequent) <= 32}
    return set(rare)


def _find_void(pixels: Counter[int]) -> list[int]:
    """255 beside at least two other numbers marks what is not labelled, by a wide custom."""
    return [_VOID] if _VOID in pixels and len(pixels) > 2 else []


def _propose_class(index: int, code: int, by: By, palette: Mapping[int, int]) -> ClassDefinition:
    if by == "colour":
        drawn = (code >> 16, (code >> 8) & 255, code & 255)
        name = name_colour(code)
    else:
        colour = palette.get(code)
        drawn = (
            choose_palette(index)
            if colour is None
            else (colour >> 16, (colour >> 8) & 255, colour & 255)
        )
        name = "background" if code == 0 else f"class_{code}".replace("-", "minus_")
    return ClassDefinition(name, (code,), (), drawn)


def name_colour(code: int) -> str:
    """The web's name of a colour, `colour_rrggbb` where it has none; black is the background.

    Args:
        code: Red, green and blue, a byte each, red the highest.
    """
    if code == 0:
        return "background"
    text = format_colour(code)
    # Pillow keeps a colour as text, and as a tuple once somebody has asked for it.
    rgb = ImageColor.getrgb(text)
    named = (name for name in ImageColor.colormap if ImageColor.getrgb(name) == rgb)
    return next(named, f"colour_{text[1:]}")


def _propose_by_words(good: Sequence[Survey]) -> ClassTable:
    words = sorted({word for survey in good for word in survey.words or ()})
    free = any(survey.covered < survey.pixels for survey in good)
    background = "background" if free else None
    names = [background] if background and background not in words else []
    names += words
    classes = tuple(
        ClassDefinition(name, (), (name,), choose_palette(index))
        for index, name in enumerate(names)
    )
    return ClassTable("classes", "label", classes, background=background)


def _describe(strays: set[int], good: Sequence[Survey]) -> Stray | None:
    if not strays:
        return None
    holders = [survey for survey in good if strays & (survey.colours or {}).keys()]
    pixels = sum(
        count
        for survey in holders
        for code, count in (survey.colours or {}).items()
        if code in strays
    )
    return Stray(len(strays), pixels, len(holders), holders[0].item.label)
