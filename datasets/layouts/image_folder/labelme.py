"""labelme's JSON files, one beside each image: polygons, rectangles, circles, masks."""

import base64
import binascii
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from ...spec import DataError
from .coco import read_points
from .image_names import ImageNames, find_split, make_key
from .regions import Region, Runs
from .source_files import SourceFiles
from .survey import Item

_CIRCLE_POINTS = 64
_MOST_MASK_PIXELS = 1 << 27


def read_labelme(source: SourceFiles, names: Sequence[str]) -> list[Item]:
    """Every image that has a labelme file; later shapes of a file lie on top of earlier ones.

    Raises:
        DataError: Names the file and the shape that breaks a rule.
    """
    finder = ImageNames(names, source.root)
    items = []
    for name in names:
        if not name.lower().endswith(".json"):
            continue
        where = source.root / name
        try:
            content = json.loads(source.read(name))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not a readable JSON file ({error})") from error
        if isinstance(content, dict) and isinstance(content.get("shapes"), list):
            items.append(_read_file(content, name, source, finder))
    if not items:
        raise DataError(f"{source.root}: no labelme file found: a .json with shapes and imagePath")
    return items


def _read_file(
    content: Mapping[str, Any], name: str, source: SourceFiles, finder: ImageNames
) -> Item:
    where = source.root / name
    split = find_split(name)
    wanted = str(content.get("imagePath") or "")
    image = finder.find(wanted, name, split) if wanted else ""
    if not image:
        stem = str(PurePosixPath(name).with_suffix(""))
        image = next((path for path in finder.images if make_key(path) == stem), "")
    height, width = content.get("imageHeight"), content.get("imageWidth")
    size = (height, width) if type(height) is int and type(width) is int else None
    if not image:
        problem = f"{where}: its image {wanted!r} is not there"
        return Item(make_key(name), split, "", name, (), size, problem)
    try:
        regions = tuple(
            _read_shape(shape, number, where, size)
            for number, shape in enumerate(content["shapes"])
        )
    except DataError as error:
        return Item(make_key(image), split, image, name, (), size, str(error))
    return Item(make_key(image), split, image, name, regions, size)


def _read_shape(shape: Any, number: int, where: Path, size: tuple[int, int] | None) -> Region:
    at = f"{where}: shapes[{number}]"
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
        raise DataError(f"{at} needs a label")
    label, kind = shape["label"], shape.get("shape_type") or "polygon"
    points = shape.get("points")
    flat = [value for point in points for value in point] if isinstance(points, list) else None
    if kind == "polygon":
        return Region(label, (read_points(flat, at),), order=number)
    if kind in ("rectangle", "circle", "mask"):
        if not isinstance(flat, list) or len(flat) != 4:
            raise DataError(f"{at}: a {kind} has two points, got {points!r:.60}")
        x0, y0, x1, y1 = read_points([*flat, *flat], at)[:2].ravel().tolist()
        if kind == "rectangle":
            corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
            return Region(label, (corners,), order=number)
        if kind == "circle":
            angle = np.linspace(0, 2 * np.pi, _CIRCLE_POINTS, endpoint=False)
            radius = float(np.hypot(x1 - x0, y1 - y0))
            ring = np.stack([x0 + radius * np.cos(angle), y0 + radius * np.sin(angle)], 1)
            return Region(label, (ring,), order=number)
        return Region(label, runs=_read_mask(shape.get("mask"), (x0, y0), size, at), order=number)
    raise DataError(
        f"{at}: a {kind} covers no pixels; polygon, rectangle, circle and mask are read"
    )


def _read_mask(
    text: Any, corner: tuple[float, float], size: tuple[int, int] | None, at: str
) -> Runs:
    """Read a mask that is stored as a PNG in base 64, placed by its upper left corner."""
    if size is None:
        raise DataError(f"{at}: a mask needs imageHeight and imageWidth")
    if size[0] * size[1] > _MOST_MASK_PIXELS:
        raise DataError(f"{at}: a mask of {size[1]} x {size[0]} pixels is too large")
    try:
        with Image.open(io.BytesIO(base64.b64decode(str(text), validate=True))) as picture:
            if picture.width > size[1] or picture.height > size[0]:
                raise DataError(f"{at}: the mask is larger than its image")
            part = np.asarray(picture.convert("L")) > 0
    except (binascii.Error, OSError, ValueError, SyntaxError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{at}: the mask is no PNG in base 64 ({error})") from error
    whole = np.zeros(size, bool)
    left, top = int(corner[0]), int(corner[1])
    if left < 0 or top < 0 or left + part.shape[1] > size[1] or top + part.shape[0] > size[0]:
        raise DataError(f"{at}: the mask reaches beyond its image")
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    return encode_runs(whole)


def encode_runs(mask: np.ndarray) -> Runs:
    """Encode (H, W) bool as run lengths, column by column."""
    flat = np.concatenate([[False], mask.T.ravel()])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    lengths = np.diff(np.concatenate([[0], ends, [mask.size]]))
    return Runs(mask.shape[0], mask.shape[1], tuple(lengths.tolist()))
