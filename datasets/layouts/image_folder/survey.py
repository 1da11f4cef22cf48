"""Every file of a source looked at before anything is written: sizes, masks, equal pictures."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...cpu_count import count_usable_cpus
from ...spec import DataError
from .bands import read_bands
from .class_table import ClassTable, match_code, require_known
from .decode import count_codes, read_mask, read_size
from .regions import Drawn, Region, draw_regions
from .source_files import SourceFiles

_MOST_WORDS = 254


@dataclass(frozen=True)
class Item:
    """An image with what labels it.

    Attributes:
        key: Id of its row.
        split: `train`, `val` or `test`; None where nothing says it yet.
        image: Path of the image, relative to the source; empty where there is none.
        label: Path of the mask or annotation file; empty where there is none.
        regions: What the annotation file says of the image; None where the label is a mask.
        size: Height and width that the annotation file says; None where it says none.
        problem: Why it cannot be packed; empty where nothing is known against it.
        segments: Number in the label's colours (R + 256 G + 65536 B) and word of each segment,
            where an annotation file lists these; None elsewhere.
    """

    key: str
    split: str | None
    image: str
    label: str
    regions: tuple[Region, ...] | None = None
    size: tuple[int, int] | None = None
    problem: str = ""
    segments: tuple[tuple[int, str], ...] | None = None

    def name(self) -> str:
        """The file that a message names."""
        return self.label if self.problem and not self.image else self.image or self.label


class Survey(NamedTuple):
    """What one image and its label hold.

    Attributes:
        item: The pair, with its problem where one was found.
        picture: Hash of the image's bytes; empty where it could not be read.
        values: Number -> pixels of the mask; None where it holds colours.
        colours: Colour -> pixels; None where it holds numbers.
        palette: Colour of each number, where the mask has a palette.
        words: Word -> pixels of the annotation.
        pixels: Pixels of the image.
        covered: Pixels that annotations cover.
        contested: Pixels that annotations of two or more classes cover.
        lossy: Whether the mask is a JPEG.
    """

    item: Item
    picture: bytes = b""
    values: Mapping[int, int] | None = None
    colours: Mapping[int, int] | None = None
    palette: Mapping[int, int] | None = None
    words: Mapping[str, int] | None = None
    pixels: int = 0
    covered: int = 0
    contested: int = 0
    lossy: bool = False


def survey_items(items: Sequence[Item], source: SourceFiles, channels: int = 3) -> list[Survey]:
    """Look at every image and label: headers and ends of images, every pixel of masks.

    Args:
        items: What was paired.
        source: Where the files are.
        channels: Channels that every image must have; of 3, RGB, grey ones are taken too.

    Returns:
        One for each item, in their order; a file that breaks a rule is its item's problem.
    """
    words = sorted(
        {region.label for item in items for region in item.regions or ()}
        | {word for item in items for _, word in item.segments or ()}
    )
    if len(words) > _MOST_WORDS:
        raise DataError(f"{source.root}: {len(words)} labels, at most {_MOST_WORDS} can be classes")
    ids = {word: index for index, word in enumerate(words)}
    with ThreadPoolExecutor(count_usable_cpus()) as pool:
        return list(pool.map(lambda item: _survey_item(item, source, ids, channels), items))


def draw_item(
    item: Item, source: SourceFiles, size: tuple[int, int], ids: Mapping[str, int], background: int
) -> Drawn:
    """Draw the label map of an annotated image.

    Args:
        item: The image with its regions or segments.
        source: Where the files are.
        size: Height and width of the image.
        ids: Word -> train id.
        background: Train id of pixels that nothing covers.

    Raises:
        DataError: Where the label's size or numbers are not those of the annotation.
    """
    if item.regions is not None:
        return draw_regions(item.regions, size, ids, background)
    assert item.segments is not None
    where = source.root / item.label
    colours = read_mask(source.read(item.label), where).colours
    if colours is None:
        raise DataError(f"{where}: segments are numbered by colours, and this file has none")
    _require_size(item, source, (colours.shape[0], colours.shape[1]), size)
    label = np.full(size, background, np.uint8)
    numbers = (colours >> 16) | (colours & 0xFF00) | ((colours & 255) << 16)
    covered = numbers != 0
    known = dict(item.segments)
    for number in np.unique(numbers[covered]).tolist():
        if number not in known:
            raise DataError(f"{where}: segment {number} is not in the annotation file")
        label[numbers == number] = ids[known[number]]
    return Drawn(label, int(covered.sum()), 0)


def find_unknown(surveys: Iterable[Survey], table: ClassTable, source: SourceFiles) -> list[Survey]:
    """Compare what masks hold with the classes; what is none of them is its item's problem.

    Args:
        surveys: As `survey_items` returned them.
        table: The classes.
        source: Named in problems.
    """
    known: dict[int, bool] = {}
    labels = table.label_ids()
    checked = []
    for survey in surveys:
        problem = survey.item.problem
        if not problem and table.by == "label":
            strange = sorted(set(survey.words or ()) - labels.keys())
            if strange:
                problem = f"label {strange[0]!r} is none of the classes"
            elif survey.words is None:
                problem = "the classes are told by labels, and this is a mask"
        elif not problem:
            problem = _compare_codes(survey, table, known, source)
        checked.append(survey._replace(item=replace(survey.item, problem=problem)))
    return checked


def find_equal_pictures(surveys: Sequence[Survey]) -> list[tuple[str, ...]]:
    """Groups of images whose files hold the same bytes."""
    groups: dict[bytes, list[str]] = {}
    for survey in surveys:
        if survey.picture:
            groups.setdefault(survey.picture, []).append(survey.item.image)
    return [tuple(names) for names in groups.values() if len(names) > 1]


def count_all(surveys: Iterable[Survey], by: str) -> tuple[Counter[int], Counter[int]]:
    """Pixels and files of every number or colour.

    Args:
        surveys: As `survey_items` returned them.
        by: `value` or `colour`.
    """
    pixels: Counter[int] = Counter()
    files: Counter[int] = Counter()
    for survey in surveys:
        counts = survey.values if by == "value" else survey.colours
        pixels.update(counts or {})
        files.update((counts or {}).keys())
    return pixels, files


def _survey_item(item: Item, source: SourceFiles, ids: Mapping[str, int], channels: int) -> Survey:
    if item.problem:
        return Survey(item)
    try:
        return _look_at(item, source, ids, channels)
    except DataError as error:
        # The file is named once, by whoever shows the problem.
        return Survey(replace(item, problem=str(error)))
    except ValueError as error:
        return Survey(replace(item, problem=f"{source.root / item.label}: {error}"))


def _look_at(item: Item, source: SourceFiles, ids: Mapping[str, int], channels: int) -> Survey:
    data = source.read(item.image)
    size = _read_size(data, source.root / item.image, channels)
    picture = hashlib.sha256(data).digest()
    pixels = size[0] * size[1]
    where = source.root / item.label
    if item.regions is not None or item.segments is not None:
        if item.regions is not None:
            _require_size(item, source, item.size or size, size)
        drawn = draw_item(item, source, size, ids, 255)
        counts = count_codes(drawn.label)
        # Words of regions without a pixel are words of the file too.
        listed = [region.label for region in item.regions or ()]
        listed += [word for _, word in item.segments or ()]
        words = dict.fromkeys(listed, 0)
        words |= {word: counts[index] for word, index in ids.items() if index in counts}
        return Survey(
            item, picture, words=words, pixels=pixels, covered=drawn.covered,
            contested=drawn.contested,
        )  # fmt: skip
    mask = read_mask(source.read(item.label), where)
    codes = mask.values if mask.values is not None else mask.colours
    assert codes is not None
    _require_size(item, source, (codes.shape[0], codes.shape[1]), size)
    values = None if mask.values is None else count_codes(mask.values)
    return Survey(
        item,
        picture,
        values=values,
        colours=_count_colours(values, mask.palette, mask.colours),
        palette=mask.palette,
        pixels=pixels,
        lossy=mask.lossy,
    )


def _read_size(data: bytes, where: Path, channels: int) -> tuple[int, int]:
    if channels == 3:
        return read_size(data, where)
    # Headers of many bands differ too much between tools to be believed.
    bands = read_bands(data, where, channels)
    return bands.shape[0], bands.shape[1]


def _count_colours(
    values: Mapping[int, int] | None,
    palette: Mapping[int, int] | None,
    colours: np.ndarray | None,
) -> dict[int, int] | None:
    """Count colours by the numbers where there are some: these are counted already."""
    if colours is None:
        return None
    if values is None:
        return count_codes(colours)
    counts: Counter[int] = Counter()
    for value, count in values.items():
        counts[palette[value] if palette is not None else value * 0x010101] += count
    return dict(counts)


def _require_size(
    item: Item, source: SourceFiles, label: tuple[int, int], image: tuple[int, int]
) -> None:
    if label != image:
        raise DataError(
            f"{source.root / item.label}: the label is {label[1]} x {label[0]}, its image "
            f"{item.image} is {image[1]} x {image[0]}: sizes must be equal"
        )


def _compare_codes(
    survey: Survey, table: ClassTable, known: dict[int, bool], source: SourceFiles
) -> str:
    counts = survey.values if table.by == "value" else survey.colours
    where = source.root / survey.item.label
    if counts is None:
        what = "numbers" if table.by == "value" else "colours"
        return f"{where}: the classes are told by {what}, which the mask has none of"
    for code in counts:
        if code not in known:
            known[code] = match_code(code, table) is not None
    unknown = {code: count for code, count in counts.items() if not known[code]}
    try:
        require_known(unknown, table, lossy=survey.lossy, where=where)
    except DataError as error:
        return str(error)
    return ""
