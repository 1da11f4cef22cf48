"""Resizing of images and label maps, whole or one window of the whole alone."""

import math
from typing import NamedTuple

import cv2
import numpy as np

# A cut begins this close to the edge of a source pixel, in source pixels: neighbours differ by
# 255 levels at most, so that both axes together shift by half a grey level.
_CLOSE = 1 / 1024


class Window(NamedTuple):
    """A part of a resized image, in pixels of that image.

    Attributes:
        top: Its first row.
        left: Its first column.
        height: Rows.
        width: Columns.
    """

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns as an index of the resized image."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


class _Cut(NamedTuple):
    """Source pixels of one axis that a window is made of, and the resized pixel they begin with."""

    start: int
    stop: int
    first: int


def resize_image(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Resize a whole image.

    Args:
        image: (H, W, C) uint8.
        size: Height and width to resize to.
        interpolation: `bilinear`, or `area`, which averages where the image shrinks.

    Returns:
        (h, w, C) uint8; the image itself where it has the size already.
    """
    if image.shape[:2] == size:
        return image
    flag = _find_flag(image, size, interpolation)
    planes = [cv2.resize(p, (size[1], size[0]), interpolation=flag) for p in _list_planes(image)]
    return planes[0] if len(planes) == 1 and planes[0].ndim == 3 else np.stack(planes, axis=2)


def resize_image_window(
    image: np.ndarray,
    size: tuple[int, int],
    window: Window,
    interpolation: str,
    *,
    source: tuple[int, int] | None = None,
    reduction: int = 1,
) -> np.ndarray:
    """Resize only what a window of the resized image is made of.

    Equal to `resize_image(...)[window.slices]` within one grey level: a cut that begins between two
    source pixels would shift the image, so it begins where a resized pixel begins with a source
    pixel, at most 1/1024 of one aside.

    Args:
        image: (H, W, C) uint8.
        size: Height and width of the whole resized image.
        window: The part of it.
        interpolation: As in `resize_image`.
        source: Height and width before the image was decoded at a smaller scale; of the image if
            not given.
        reduction: The decoder's divisor of both: the image has `source / reduction` pixels a
            side, rounded up.

    Returns:
        (window.height, window.width, C) uint8.
    """
    if image.shape[:2] == size:
        return image[window.slices]
    factors = [
        reduction * length / whole
        for length, whole in zip(size, source or image.shape[:2], strict=True)
    ]
    rows = _find_cut(image.shape[0], factors[0], window.top, window.height)
    columns = _find_cut(image.shape[1], factors[1], window.left, window.width)
    cuts = zip((rows, columns), factors, strict=True)
    if all(round((cut.stop - cut.start) * factor) == cut.stop - cut.start for cut, factor in cuts):
        # OpenCV copies a part that it is to give as many pixels as it has.
        rows, columns = _Cut(0, image.shape[0], 0), _Cut(0, image.shape[1], 0)
    flag = _find_flag(image, size, interpolation)
    inner = Window(window.top - rows.first, window.left - columns.first, *window[2:]).slices
    planes = [
        cv2.resize(
            plane[rows.start : rows.stop, columns.start : columns.stop],
            None,
            fx=factors[1],
            fy=factors[0],
            interpolation=flag,
        )[inner]
        for plane in _list_planes(image)
    ]
    return planes[0] if len(planes) == 1 and planes[0].ndim == 3 else np.stack(planes, axis=2)


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a (H, W) map of ids of 8 or 16 bits to the nearest pixel."""
    if label.shape == size:
        return label
    return cv2.resize(label, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)


class ResizedLabel:
    """A label map of another size of which only windows are made; they equal `resize_label`'s.

    Args:
        label: (H, W) map of ids.
        size: Height and width that it is resized to.
    """

    def __init__(self, label: np.ndarray, size: tuple[int, int]) -> None:
        self._label = label
        self._rows = _find_nearest(label.shape[0], size[0])
        self._columns = _find_nearest(label.shape[1], size[1])
        self._last: tuple[Window, np.ndarray] | None = None

    def cut(self, window: Window) -> np.ndarray:
        """The ids of a window, (window.height, window.width); the last one is kept."""
        if self._last is None or self._last[0] != window:
            rows, columns = window.slices
            ids = self._label.take(self._rows[rows], 0).take(self._columns[columns], 1)
            self._last = (window, ids)
        return self._last[1]


def _find_nearest(source: int, length: int) -> np.ndarray:
    """Source pixel of each resized pixel of an axis, as OpenCV rounds them."""
    numbers = np.arange(source, dtype=np.float32)[None]
    return cv2.resize(numbers, (length, 1), interpolation=cv2.INTER_NEAREST)[0].astype(np.intp)


def _find_cut(source: int, factor: float, first: int, count: int) -> _Cut:
    """Find the fewest source pixels of one axis that make a window.

    Args:
        source: Pixels of the image.
        factor: Resized pixels of one source pixel.
        first: First resized pixel of the window.
        count: Resized pixels of the window.
    """
    # Beyond the cut's edges pixels are repeated; a neighbour of the window may see that.
    reach = math.ceil(0.5 * factor) + 1
    stop = min(source, math.ceil((first + count + reach) / factor) + 1)
    starts = np.arange(max(0, first - reach), 0, -1)
    edges = starts / factor
    aligned = np.abs(edges - np.rint(edges)) <= min(_CLOSE, 0.25 / factor)
    if not aligned.any():
        return _Cut(0, stop, 0)
    start = int(starts[int(np.argmax(aligned))])
    return _Cut(round(start / factor), stop, start)


def _find_flag(image: np.ndarray, size: tuple[int, int], interpolation: str) -> int:
    area = interpolation == "area" and size[0] < image.shape[0]
    return cv2.INTER_AREA if area else cv2.INTER_LINEAR


def _list_planes(image: np.ndarray) -> list[np.ndarray]:
    """The image whole, or channel by channel: OpenCV averages areas of four channels at most."""
    if image.shape[2] in (3, 4):
        return [image]
    return [image[..., channel] for channel in range(image.shape[2])]
