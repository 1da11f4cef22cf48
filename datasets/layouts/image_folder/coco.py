"""COCO's JSON files, instance and panoptic: polygons, run lengths, crowds, empty images."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...spec import DataError
from .image_names import ImageNames, find_split, make_key
from .regions import Region, Runs, decode_run_text
from .source_files import SourceFiles
from .survey import Item

_JSON_LIMIT = 1 << 29


def read_coco(source: SourceFiles, names: Sequence[str]) -> list[Item]:
    """Every image of every COCO file of a source.

    A file is one of COCO where it has `images`, `annotations` and `categories`; its split is a word
    of its path (`instances_train2017.json`, `train/_annotations.coco.json`).

    Raises:
        DataError: Names the file and the entry that breaks a rule.
    """
    finder = ImageNames(names, source.root)
    items: list[Item] = []
    for name in names:
        if name.lower().endswith(".json"):
            content = _parse(source, name)
            if content is not None:
                items += _read_file(content, name, source, finder)
    if not items:
        raise DataError(
            f"{source.root}: no COCO file found: a .json with images, annotations and categories"
        )
    return items


def _parse(source: SourceFiles, name: str) -> Mapping[str, Any] | None:
    try:
        content = json.loads(source.read(name))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source.root / name}: not a readable JSON file ({error})") from error
    keys = ("images", "annotations", "categories")
    whole = isinstance(content, dict) and all(isinstance(content.get(key), list) for key in keys)
    return content if whole else None


def _read_file(
    content: Mapping[str, Any], name: str, source: SourceFiles, finder: ImageNames
) -> list[Item]:
    where = source.root / name
    split = find_split(name)
    words = _read_categories(content["categories"], where)
    labels = {file.rpartition("/")[2]: file for file in finder.images}
    by_image: dict[Any, list[Mapping[str, Any]]] = {}
    for number, entry in enumerate(content["annotations"]):
        if not isinstance(entry, dict) or "image_id" not in entry:
            raise DataError(f"{where}: annotations[{number}] has no image_id")
        by_image.setdefault(entry["image_id"], []).append(entry)
    items = []
    for number, image in enumerate(content["images"]):
        try:
            file, identity = str(image["file_name"]), image["id"]
        except (KeyError, TypeError) as error:
            raise DataError(f"{where}: images[{number}] needs id and file_name") from error
        size = _read_size(image, f"{where}: images[{number}]")
        entries = by_image.pop(identity, [])
        path = finder.find(file, name, split)
        item = Item(make_key(path or file), split, path, name, (), size)
        if not path:
            item = Item(
                make_key(file), split, "", name, (), size, f"{where}: image {file} is not there"
            )
        elif entries and "segments_info" in entries[0]:
            item = _make_panoptic(item, entries, words, labels, where)
        else:
            regions = tuple(_read_region(e, words, size, where) for e in entries)
            item = Item(item.key, split, path, name, regions, size)
        items.append(item)
    if by_image:
        raise DataError(
            f"{where}: image {next(iter(by_image))!r} is annotated, and not among its images"
        )
    return items


def _read_categories(categories: Sequence[Any], where: Path) -> dict[Any, str]:
    words: dict[Any, str] = {}
    for number, category in enumerate(categories):
        try:
            word, identity = str(category["name"]), category["id"]
        except (KeyError, TypeError) as error:
            raise DataError(f"{where}: categories[{number}] needs id and name") from error
        if identity in words:
            raise DataError(f"{where}: categories[{number}]: id {identity!r} is given twice")
        words[identity] = word
    return words


def _read_size(image: Mapping[str, Any], at: str) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    if height is None or width is None:
        return None
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise DataError(f"{at}: height and width must be whole numbers, got {height!r}, {width!r}")
    return height, width


def _read_region(
    entry: Mapping[str, Any], words: Mapping[Any, str], size: tuple[int, int] | None, where: Path
) -> Region:
    at = f"{where}: annotation {entry.get('id')!r}"
    category = entry.get("category_id")
    if category not in words:
        raise DataError(f"{at}: category_id {category!r} is none of its categories")
    crowd = bool(entry.get("iscrowd", 0))
    stated = entry.get("segmentation")
    if isinstance(stated, list) and stated:
        polygons = tuple(read_points(part, at) for part in stated)
        return Region(words[category], polygons, crowd=crowd)
    if isinstance(stated, dict):
        return Region(words[category], runs=_read_runs(stated, at), crowd=crowd)
    raise DataError(f"{at}: segmentation must be polygons or run lengths, got {stated!r:.40}")


def read_points(part: Any, at: str) -> np.ndarray:
    """Read x, y, x, y, ... of three points or more; (N, 2) float64.

    Raises:
        DataError: Names `at` where these are no such numbers.
    """
    numbers = isinstance(part, list) and all(
        isinstance(value, int | float) and math.isfinite(value) for value in part
    )
    if not numbers or len(part) < 6 or len(part) % 2:
        raise DataError(
            f"{at}: a polygon is a list x, y, x, y, ... of at least three points, got {part!r:.60}"
        )
    return np.array(part, np.float64).reshape(-1, 2)


def _read_runs(stated: Mapping[str, Any], at: str) -> Runs:
    try:
        height, width = (int(value) for value in stated["size"])
        counts = stated["counts"]
        lengths = (
            decode_run_text(counts)
            if isinstance(counts, str)
            else tuple(int(value) for value in counts)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{at}: run lengths need size and counts ({error})") from error
    if min(height, width) < 1 or sum(lengths) != height * width or min(lengths, default=0) < 0:
        raise DataError(
            f"{at}: run lengths come to {sum(lengths)}, {width} x {height} pixels are "
            f"{height * width}"
        )
    return Runs(height, width, lengths)


def _make_panoptic(
    item: Item,
    entries: Sequence[Mapping[str, Any]],
    words: Mapping[Any, str],
    labels: Mapping[str, str],
    where: Path,
) -> Item:
    if len(entries) != 1:
        raise DataError(f"{where}: {item.image} has {len(entries)} panoptic annotations")
    entry = entries[0]
    file = str(entry.get("file_name"))
    segments = []
    for segment in entry["segments_info"]:
        try:
            number, category = int(segment["id"]), segment["category_id"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{where}: a segment of {item.image} needs id and category_id"
            ) from error
        if category not in words:
            raise DataError(f"{where}: segment {number}: category_id {category!r} is none of its")
        segments.append((number, words[category]))
    label = labels.get(file.rpartition("/")[2], "")
    problem = "" if label else f"{where}: {file}, the segments of {item.image}, is not there"
    return Item(
        item.key,
        item.split,
        item.image,
        label or item.label,
        None,
        item.size,
        problem,
        tuple(segments),
    )
