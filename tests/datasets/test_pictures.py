"""Pictures of labelled images, pixel by pixel: colours, borders, and where a sheet puts things."""

import numpy as np

from spikeseg.datasets.pictures import draw_sheet, find_borders, join_pictures, overlay
from spikeseg.datasets.spec import LabelSpace

SPACE = LabelSpace(
    name="hand",
    classes=("road", "car"),
    palette=((0, 100, 200), (200, 0, 0)),
    ignore_label=255,
    raw_to_train={0: 0, 1: 1, 255: 255},
    is_thing=(False, True),
)
GREY = np.full((1, 4, 3), 100, np.uint8)


def test_an_overlay_mixes_colours_and_leaves_ignored_pixels() -> None:
    label = np.array([[0, 0, 1, 255]], np.uint8)
    picture = overlay(GREY, label, SPACE, share=0.6)
    assert picture[0].tolist() == [[40, 100, 160], [40, 100, 160], [160, 40, 40], [100, 100, 100]]
    assert overlay(GREY, label, SPACE)[0, 2].tolist() == [150, 50, 50]


def test_borders_are_right_of_and_below_a_change() -> None:
    regions = np.array([[1, 1, 2], [1, 1, 2], [3, 3, 2]])
    assert find_borders(regions).tolist() == [
        [False, False, True],
        [False, False, True],
        [True, True, True],
    ]


def test_a_sheet_puts_each_picture_below_its_caption_and_a_legend_below_all() -> None:
    tile = np.full((10, 100, 3), 7, np.uint8)
    sheet = np.asarray(
        draw_sheet([("a", tile), ("b", tile), ("c", tile)], [("car", (200, 0, 0))], columns=2)
    )
    for top, left in ((24, 6), (24, 112), (58, 6)):
        assert (sheet[top : top + 10, left : left + 100] == 7).all()
    assert (sheet[58:68, 112:212] == 255).all(), "the last line has one picture"
    assert sheet.shape == (74 + 30, 218, 3)
    assert (sheet[82:86, 8:18] == (200, 0, 0)).all(), "the legend's colour"


def test_pictures_side_by_side_have_a_white_gap() -> None:
    black = np.zeros((2, 3, 3), np.uint8)
    joined = join_pictures([black, black])
    assert joined[0, :, 0].tolist() == [0] * 3 + [255] * 6 + [0] * 3
