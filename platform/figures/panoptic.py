"""Predicted segments as a picture: tinted by class, each segment of its own shade and outlined."""

import numpy as np

from ...datasets.pictures import blend, find_borders
from ...datasets.spec import LabelSpace

# Shades of one class, as factors on its colour; neighbours in the list differ most.
_SHADES = (1.0, 0.6, 0.8, 0.45)


def draw_segments(
    image: np.ndarray, segments: np.ndarray, classes: list[int], space: LabelSpace
) -> np.ndarray:
    """Blend image and segment colours in equal parts, segments outlined in white.

    Args:
        image: (H, W, 3) uint8, RGB.
        segments: (H, W) integer; 0 is none and shows the image, 1 + s is segment s.
        classes: Class of every segment.
        space: Colours.

    Returns:
        (H, W, 3) uint8.
    """
    palette = np.array(space.palette, np.float32)
    before: dict[int, int] = {}
    colours = np.zeros((len(classes) + 1, 3), np.float32)
    for number, kind in enumerate(classes, start=1):
        shade = before.get(kind, 0)
        before[kind] = shade + 1
        colours[number] = palette[kind] * _SHADES[shade % len(_SHADES)]
    picture = blend(image, colours[segments], segments > 0)
    picture[find_borders(segments)] = 255
    return picture
