"""Segments as one map: by segment, without crowds, and what is left of a class as one more."""

import numpy as np

from spikeseg.datasets.segment_targets import encode_segments, number_segments
from spikeseg.datasets.spec import Row

LABEL = np.array([[3, 3, 1], [255, 1, 7]], np.uint8)
INSTANCES = np.array([[1, 2, 4], [0, 0, 3]], np.uint16)
ROW = Row(
    "a",
    np.zeros((2, 3, 3), np.uint8),
    LABEL,
    INSTANCES,
    segments=(3, 3, 7, 1),
    crowd=(False, True, False, False),
)


def test_a_segment_map_has_one_value_per_segment_and_ignores_crowds() -> None:
    values = encode_segments(LABEL, INSTANCES, ROW, ignore_label=255, stride=256)
    assert values.tolist() == [[256 + 3, 255, 4 * 256 + 1], [255, 1, 3 * 256 + 7]]


def test_a_segment_out_of_sight_has_no_value() -> None:
    values = encode_segments(LABEL[:, :1], INSTANCES[:, :1], ROW, ignore_label=255, stride=256)
    assert values.tolist() == [[256 + 3], [255]]


def test_labelled_segments_keep_crowds_and_count_the_rest_of_a_class_as_one() -> None:
    found = number_segments(ROW, 255)
    assert found.numbers.tolist() == [[2, 3, 5], [0, 1, 4]]
    assert found.classes.tolist() == [1, 3, 3, 7, 1]
    assert found.crowd.tolist() == [False, False, True, False, False]


def test_an_image_without_labels_has_no_segment() -> None:
    void = Row("b", ROW.image, np.full((2, 3), 255, np.uint8), np.zeros((2, 3), np.uint16))
    found = number_segments(void, 255)
    assert not found.numbers.any()
    assert found.classes.shape == found.crowd.shape == (0,)
