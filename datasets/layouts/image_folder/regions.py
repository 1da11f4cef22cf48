"""Regions of annotation files to label maps: polygons and run lengths, drawn in a known order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Runs(NamedTuple):
    """A mask as run lengths, column by column, the first run outside of it (as COCO stores it).

    Attributes:
        height: Rows.
        width: Columns.
        counts: Lengths of the runs.
    """

    height: int
    width: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Region:
    """One annotated region.

    Attributes:
        label: Word of its class.
        polygons: Outlines, (N, 2) float64 of x and y in pixels; a pixel belongs to one where its
            centre, at (column + 0.5, row + 0.5), lies inside. Several are joined.
        runs: The region as run lengths, in place of polygons.
        order: Regions of a higher order lie on top.
        crowd: Whether it stands for a group; groups lie below everything else.
    """

    label: str
    polygons: tuple[np.ndarray, ...] = ()
    runs: Runs | None = None
    order: int = 0
    crowd: bool = False


class Patch(NamedTuple):
    """The pixels of one region, in the smallest box that holds them.

    Attributes:
        top: First row of the box.
        left: First column.
        mask: (h, w) bool of the box.
    """

    top: int
    left: int
    mask: np.ndarray


class Drawn(NamedTuple):
    """A drawn label map.

    Attributes:
        label: (H, W) uint8 train ids.
        covered: Pixels that some region covers.
        contested: Pixels that regions of two or more classes cover.
    """

    label: np.ndarray
    covered: int
    contested: int


def draw_regions(
    regions: Sequence[Region], size: tuple[int, int], ids: Mapping[str, int], background: int
) -> Drawn:
    """Draw regions over one another.

    Crowds lie below; then regions by their `order`; among equal ones the larger lies below the
    smaller, and of equally large ones the earlier below the later.

    Args:
        regions: The regions of one image.
        size: Height and width of the image.
        ids: Word -> train id; every region's word is in it.
        background: Train id of pixels that no region covers.
    """
    patches = [draw_region(region, size) for region in regions]
    order = sorted(
        range(len(regions)),
        key=lambda i: (not regions[i].crowd, regions[i].order, -int(patches[i].mask.sum()), i),
    )
    label = np.full(size, background, np.uint8)
    covered = np.zeros(size, bool)
    contested = np.zeros(size, bool)
    for index in order:
        top, left, mask = patches[index]
        train_id = ids[regions[index].label]
        box = slice(top, top + mask.shape[0]), slice(left, left + mask.shape[1])
        contested[box] |= mask & covered[box] & (label[box] != train_id)
        covered[box] |= mask
        label[box][mask] = train_id
    return Drawn(label, int(covered.sum()), int(contested.sum()))


def draw_region(region: Region, size: tuple[int, int]) -> Patch:
    """The pixels of one region.

    Args:
        region: The region.
        size: Height and width of the image.

    Raises:
        ValueError: Where run lengths are not of the image's size.
    """
    if region.runs is not None:
        if (region.runs.height, region.runs.width) != size:
            raise ValueError(
                f"run lengths are of {region.runs.width} x {region.runs.height} pixels, the image "
                f"has {size[1]} x {size[0]}"
            )
        mask = decode_runs(region.runs)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not rows.size:
            return Patch(0, 0, mask[:0, :0])
        top, left = int(rows[0]), int(columns[0])
        # Not a view: the whole map would be kept for a part of it.
        return Patch(top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1].copy())
    points = np.concatenate(region.polygons) if region.polygons else np.zeros((1, 2))
    left, top = (max(0, int(np.floor(low - 0.5))) for low in points.min(0))
    right, bottom = (
        min(most, int(np.ceil(high + 0.5)))
        for most, high in zip((size[1], size[0]), points.max(0), strict=True)
    )
    mask = np.zeros((max(0, bottom - top), max(0, right - left)), bool)
    for polygon in region.polygons if mask.size else ():
        mask |= draw_polygon(polygon - (left, top), (mask.shape[0], mask.shape[1]))
    return Patch(top, left, mask) if mask.size else Patch(0, 0, np.zeros((0, 0), bool))


def draw_polygon(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres lie inside an outline, by the even-odd rule.

    Args:
        points: (N, 2) float64 of x and y in pixels; the last is joined to the first.
        size: Height and width of the image.

    Returns:
        (H, W) bool.
    """
    height, width = size
    x, y = points[:, 0], points[:, 1]
    x_next, y_next = np.roll(x, -1), np.roll(y, -1)
    top = max(0, int(np.floor(y.min() - 0.5)))
    bottom = min(height, int(np.ceil(y.max() + 0.5)))
    toggles = np.zeros((height, width + 1), np.int32)
    if bottom <= top:
        return toggles[:, :width].astype(bool)
    centres = np.arange(top, bottom) + 0.5
    # (rows, edges): which edges a row's line of centres crosses, and where.
    crosses = (y[None] <= centres[:, None]) != (y_next[None] <= centres[:, None])
    rows, edges = np.nonzero(crosses)
    share = (centres[rows] - y[edges]) / (y_next[edges] - y[edges])
    at = x[edges] + share * (x_next[edges] - x[edges])
    # The first column whose centre lies right of the crossing.
    columns = np.clip(np.ceil(at - 0.5), 0, width).astype(np.int64)
    np.add.at(toggles, (rows + top, columns), 1)
    return (np.cumsum(toggles, axis=1) % 2 == 1)[:, :width]


def decode_runs(runs: Runs) -> np.ndarray:
    """Decode run lengths to (H, W) bool.

    Raises:
        ValueError: Where their sum is not the number of pixels, or one is negative.
    """
    counts = np.array(runs.counts, np.int64)
    if (counts < 0).any() or int(counts.sum()) != runs.height * runs.width:
        raise ValueError(
            f"run lengths come to {int(counts.sum())}, {runs.width} x {runs.height} pixels are "
            f"{runs.height * runs.width}"
        )
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(runs.width, runs.height).T


def decode_run_text(text: str) -> tuple[int, ...]:
    """Decode COCO's compressed run lengths.

    Each number is written in groups of five bits from the lowest, one character each (its code less
    48; bit 5 says that another follows, bit 4 of the last is the sign), and from the third on as
    the difference to the one two before.

    Raises:
        ValueError: Where the text is no such code.
    """
    counts: list[int] = []
    position = 0
    while position < len(text):
        number = shift = 0
        while True:
            if position >= len(text):
                raise ValueError("compressed run lengths end within a number")
            code = ord(text[position]) - 48
            if not 0 <= code < 64:
                raise ValueError(f"{text[position]!r} is no character of compressed run lengths")
            position += 1
            number |= (code & 31) << shift
            shift += 5
            if not code & 32:
                if code & 16:
                    number -= 1 << shift
                break
        counts.append(number + counts[-2] if len(counts) > 2 else number)
    return tuple(counts)
