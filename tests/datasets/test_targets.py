"""Masks to train on: by class, and by segment without crowds."""

import numpy as np

from spikeseg.datasets.spec import Row
from spikeseg.datasets.targets import panoptic_targets, semantic_targets

TARGET = np.array([[3, 3, 1], [255, 1, 1]], np.uint8)


def test_semantic_targets_have_one_mask_per_class() -> None:
    targets = semantic_targets(TARGET, 255)
    assert targets.classes.tolist() == [1, 3]
    assert targets.masks.astype(int).tolist() == [
        [[0, 0, 1], [0, 1, 1]],
        [[1, 1, 0], [0, 0, 0]],
    ]
    assert targets.ignored.tolist() == [[False] * 3, [True, False, False]]


def test_an_image_without_labels_has_no_mask() -> None:
    targets = semantic_targets(np.full((2, 2), 255, np.uint8), 255)
    assert targets.masks.shape == (0, 2, 2)
    assert targets.ignored.all()


def test_panoptic_targets_leave_out_crowds_and_segments_out_of_sight() -> None:
    instances = np.array([[1, 2, 4], [0, 4, 4]], np.uint16)
    image = np.zeros((2, 3, 3), np.uint8)
    crowd = (False, True, False, False)
    row = Row("a", image, TARGET, instances, (3, 3, 7, 1), crowd)
    targets = panoptic_targets(TARGET, instances, row, 255)
    assert targets.classes.tolist() == [3, 1]
    assert targets.masks.astype(int).tolist() == [
        [[1, 0, 0], [0, 0, 0]],
        [[0, 0, 1], [0, 1, 1]],
    ]
    assert targets.ignored.astype(int).tolist() == [[0, 1, 0], [1, 0, 0]]
