"""Polygons and run lengths against a brute force; what lies on top where regions overlap."""

import numpy as np
import pytest

from spikeseg.datasets.layouts.image_folder.labelme import encode_runs
from spikeseg.datasets.layouts.image_folder.regions import (
    Region,
    Runs,
    decode_run_text,
    decode_runs,
    draw_polygon,
    draw_region,
    draw_regions,
)


def is_inside(points: np.ndarray, x: float, y: float) -> bool:
    """Whether a ray to the right crosses the outline an odd number of times."""
    inside = False
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
        if (y0 <= y) != (y1 <= y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            inside = not inside
    return inside


@pytest.mark.parametrize("seed", range(6))
def test_a_pixel_belongs_to_a_polygon_where_its_centre_is_inside(seed: int) -> None:
    generator = np.random.default_rng(seed)
    # Also beyond the image, crossing itself, and on whole numbers.
    points = generator.uniform(-6, 26, (int(generator.integers(3, 9)), 2))
    if seed % 2:
        points = np.round(points)
    size = (17, 21)
    expected = [[is_inside(points, x + 0.5, y + 0.5) for x in range(21)] for y in range(17)]
    np.testing.assert_array_equal(draw_polygon(points, size), expected)


@pytest.mark.parametrize("seed", range(6))
def test_a_region_is_drawn_in_the_box_that_holds_it(seed: int) -> None:
    """Several outlines, also outside of the image, and the same as run lengths."""
    generator = np.random.default_rng(seed)
    size = (19, 23)
    parts = tuple(generator.uniform(-15, 35, (4, 2)) for _ in range(int(generator.integers(1, 4))))
    expected = np.logical_or.reduce([draw_polygon(part, size) for part in parts])
    for region in (Region("a", parts), Region("a", runs=encode_runs(expected))):
        drawn = draw_regions([region], size, {"a": 1}, 0)
        np.testing.assert_array_equal(drawn.label == 1, expected)
        assert drawn.covered == expected.sum()
        assert draw_region(region, size).mask.size <= 19 * 23
    beyond = Region("a", (np.array([[-9.0, -9], [-5, -9], [-5, -5]]),))
    assert draw_regions([beyond], size, {"a": 1}, 0).covered == 0


def test_polygons_that_share_an_edge_neither_overlap_nor_leave_a_gap() -> None:
    left = np.array([[0, 0], [7.3, 0], [3.1, 12], [0, 12]])
    right = np.array([[7.3, 0], [12, 0], [12, 12], [3.1, 12]])
    both = draw_polygon(left, (12, 12)).astype(int) + draw_polygon(right, (12, 12))
    assert (both == 1).all()


def test_run_lengths_go_down_the_columns_from_outside() -> None:
    mask = decode_runs(Runs(3, 2, (1, 2, 1, 2)))
    np.testing.assert_array_equal(mask, [[0, 0], [1, 1], [1, 1]])
    drawn = np.random.default_rng(0).random((9, 7)) > 0.5
    np.testing.assert_array_equal(decode_runs(encode_runs(drawn)), drawn)
    with pytest.raises(ValueError, match="run lengths come to 5, 2 x 3 pixels are 6"):
        decode_runs(Runs(3, 2, (1, 4)))


def write_run_text(counts: list[int]) -> str:
    """The code as its definition says it, number by number."""
    text = ""
    for index, count in enumerate(counts):
        number = count - counts[index - 2] if index > 2 else count
        while True:
            group, number = number & 31, number >> 5
            last = number == (-1 if group & 16 else 0)
            text += chr(48 + (group if last else group | 32))
            if last:
                break
    return text


def test_compressed_run_lengths_are_decoded() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        counts = generator.integers(0, 10 ** int(generator.integers(1, 7)), 9).tolist()
        assert decode_run_text(write_run_text(counts)) == tuple(counts)
    for damaged in ("o", "é0", " "):
        with pytest.raises(ValueError, match="compressed run lengths"):
            decode_run_text(damaged)


def test_compressed_run_lengths_equal_pycocotools() -> None:
    mask_api = pytest.importorskip("pycocotools.mask")
    drawn = np.random.default_rng(1).random((33, 47)) > 0.7
    encoded = mask_api.encode(np.asfortranarray(drawn.astype(np.uint8)))
    counts = decode_run_text(encoded["counts"].decode())
    np.testing.assert_array_equal(decode_runs(Runs(33, 47, counts)), drawn)


def box(label: str, left: int, top: int, side: int, **more: int) -> Region:
    corners = [[left, top], [left + side, top], [left + side, top + side], [left, top + side]]
    return Region(label, (np.array(corners, float),), order=more.get("order", 0),
                  crowd=bool(more.get("crowd")))  # fmt: skip


def test_the_smaller_region_lies_on_top_unless_an_order_says_so() -> None:
    ids = {"a": 1, "b": 2}
    small, large = box("a", 1, 1, 3), box("b", 0, 0, 6)
    for regions in ((small, large), (large, small)):
        drawn = draw_regions(regions, (8, 8), ids, 0)
        assert drawn.label[2, 2] == 1 and drawn.label[5, 5] == 2 and drawn.label[7, 7] == 0
        assert (drawn.covered, drawn.contested) == (36, 9)
    ordered = draw_regions((small, box("b", 0, 0, 6, order=1)), (8, 8), ids, 0)
    assert (ordered.label == 1).sum() == 0
    crowd = draw_regions((box("b", 1, 1, 2, crowd=1), box("a", 0, 0, 6)), (8, 8), ids, 0)
    assert (crowd.label == 2).sum() == 0
    same = draw_regions((box("a", 0, 0, 4), box("a", 2, 2, 4)), (8, 8), ids, 0)
    assert same.contested == 0
