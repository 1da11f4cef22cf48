"""CVAT's "images 1.1" XML: polygons, boxes and masks, with an order of their own."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence

import numpy as np

from ...spec import DataError
from .image_names import ImageNames, find_split, make_key
from .labelme import encode_runs
from .pairing import SPLIT_NAMES
from .regions import Region
from .source_files import SourceFiles
from .survey import Item


def read_cvat(source: SourceFiles, names: Sequence[str]) -> list[Item]:
    """Every image of every CVAT file; a higher `z_order` lies on top, then what comes later.

    The split of an image is its `subset`, where it has one.

    Raises:
        DataError: Names the file, and the image whose shapes break a rule.
    """
    finder = ImageNames(names, source.root)
    items: list[Item] = []
    for name in names:
        if name.lower().endswith(".xml"):
            items += _read_file(source, name, finder)
    if not items:
        raise DataError(f"{source.root}: no CVAT file found: an .xml of the format images 1.1")
    return items


def _read_file(source: SourceFiles, name: str, finder: ImageNames) -> list[Item]:
    where = source.root / name
    text = source.read(name)
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise DataError(f"{where}: a CVAT file declares no document type and no entities")
    try:
        tree = ET.fromstring(text)
    except ET.ParseError as error:
        raise DataError(f"{where}: not a readable XML file ({error})") from error
    return [_read_image(image, name, source, finder) for image in tree.iter("image")]


def _read_image(image: ET.Element, name: str, source: SourceFiles, finder: ImageNames) -> Item:
    where = source.root / name
    file = image.get("name", "")
    subset = image.get("subset", "").lower()
    split = SPLIT_NAMES.get(subset) or find_split(name)
    try:
        size = int(image.get("height", "")), int(image.get("width", ""))
    except ValueError as error:
        raise DataError(f"{where}: image {file!r} needs whole width and height") from error
    path = finder.find(file, name, split)
    if not path:
        return Item(make_key(file), split, "", name, (), size, f"{where}: {file} is not there")
    try:
        regions = tuple(
            _read_shape(shape, number, f"{where}: {file}", size)
            for number, shape in enumerate(image)
            if shape.tag not in ("tag", "attribute")
        )
    except DataError as error:
        return Item(make_key(path), split, path, name, (), size, str(error))
    return Item(make_key(path), split, path, name, regions, size)


def _read_shape(shape: ET.Element, number: int, at: str, size: tuple[int, int]) -> Region:
    label = shape.get("label")
    if not label:
        raise DataError(f"{at}: a {shape.tag} has no label")
    try:
        order = int(shape.get("z_order", "0")) * 1_000_000 + number
        if shape.tag == "polygon":
            pairs = [point.split(",") for point in shape.get("points", "").split(";")]
            points = np.array([[float(x), float(y)] for x, y in pairs])
            if len(points) < 3 or not np.isfinite(points).all():
                raise ValueError("a polygon has at least three points")
            return Region(label, (points,), order=order)
        if shape.tag == "box":
            left, top, right, bottom = (
                float(shape.get(k, "")) for k in ("xtl", "ytl", "xbr", "ybr")
            )
            corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
            if not np.isfinite(corners).all():
                raise ValueError("corners must be numbers")
            return Region(label, (corners,), order=order)
        if shape.tag == "mask":
            return Region(label, runs=encode_runs(_read_mask(shape, size)), order=order)
    except ValueError as error:
        raise DataError(f"{at}: {shape.tag} of {label!r}: {error}") from error
    raise DataError(f"{at}: a {shape.tag} covers no pixels; polygon, box and mask are read")


def _read_mask(shape: ET.Element, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool of run lengths, row by row inside the mask's box, the first run outside."""
    left, top, width, height = (int(shape.get(k, "")) for k in ("left", "top", "width", "height"))
    counts = np.array([int(part) for part in shape.get("rle", "").split(",")], np.int64)
    if (
        min(left, top) < 0
        or min(width, height) < 1
        or left + width > size[1]
        or top + height > size[0]
    ):
        raise ValueError("the box reaches beyond the image")
    if (counts < 0).any() or int(counts.sum()) != width * height:
        raise ValueError(f"run lengths come to {int(counts.sum())}, the box has {width * height}")
    whole = np.zeros(size, bool)
    inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    whole[top : top + height, left : left + width] = inside.reshape(height, width)
    return whole
