"""Boundary IoU and the line of an image are what a hand counts."""

import numpy as np
import pytest
import torch

from spikeseg.model.metrics.segmentation import confusion_counts
from spikeseg.platform.evaluation.image_scores import (
    boundary_ious,
    count_boundaries,
    describe_image,
)


def squares() -> tuple[np.ndarray, np.ndarray]:
    """A square of 6 x 6, and the same one column to the right."""
    target = np.zeros((20, 20), np.uint8)
    target[4:10, 4:10] = 1
    return np.roll(target, 1, axis=1), target


def test_a_shifted_square_shares_the_boundary_pixels_counted_by_hand() -> None:
    predicted, target = squares()
    # The diagonal is 28 pixels, so a boundary is 1 pixel wide: 20 pixels around a 6 x 6 square.
    # Shifted by one, the upper and the lower line share 5 pixels each, and no column is shared.
    counts = count_boundaries(predicted, target, num_classes=2, ignore_label=255)
    assert counts[1].tolist() == [10, 30]
    assert boundary_ious(counts)[1] == pytest.approx(100 / 3)
    same = count_boundaries(target, target, num_classes=2, ignore_label=255)
    assert same[1].tolist() == [20, 20]


def test_a_wide_image_has_wide_boundaries() -> None:
    target = np.zeros((60, 80), np.uint8)
    # The diagonal is 100, so the boundary is 2 wide: the image's border counts as one.
    counts = count_boundaries(target, target, num_classes=1, ignore_label=255)
    assert counts[0].tolist() == [60 * 80 - 56 * 76] * 2


def test_ignored_pixels_and_absent_classes_count_nowhere() -> None:
    predicted, target = squares()
    target[:, :] = 255
    counts = count_boundaries(predicted, target, num_classes=3, ignore_label=255)
    assert not counts.any() and np.isnan(boundary_ious(counts)).all()
    confusion = confusion_counts(
        torch.from_numpy(predicted), torch.from_numpy(target), num_classes=3, ignore_label=255
    )
    line = describe_image("empty", confusion, counts)
    assert line == {
        "id": "empty",
        "mIoU": None,
        "boundary_mIoU": None,
        "aAcc": None,
        "labelled": 0,
    }


def test_an_images_mean_is_over_the_classes_that_occur() -> None:
    predicted, target = squares()
    confusion = confusion_counts(
        torch.from_numpy(predicted), torch.from_numpy(target), num_classes=5, ignore_label=255
    )
    boundary = count_boundaries(predicted, target, num_classes=5, ignore_label=255)
    line = describe_image("a", confusion, boundary)
    # 30 of 42 pixels of the square, 358 of 370 around it.
    assert line["mIoU"] == pytest.approx(50 * (30 / 42 + 358 / 370), abs=1e-3)
    assert line["aAcc"] == pytest.approx(100 * 388 / 400)
    assert line["labelled"] == 400
