"""The picture of predicted segments, pixel by pixel."""

import numpy as np

from spikeseg.datasets.spec import LabelSpace
from spikeseg.platform.figures.panoptic import draw_segments

SPACE = LabelSpace(
    name="hand",
    classes=("road", "car"),
    palette=((0, 100, 200), (200, 0, 0)),
    ignore_label=255,
    raw_to_train={0: 0, 1: 1, 255: 255},
    is_thing=(False, True),
)


def test_segments_have_a_shade_each_and_white_borders() -> None:
    segments = np.array([[0, 1, 1, 2], [0, 1, 1, 2]])
    picture = draw_segments(np.full((2, 4, 3), 100, np.uint8), segments, [1, 1], SPACE)
    assert picture[1].tolist() == [[100] * 3, [255] * 3, [150, 50, 50], [255] * 3]
