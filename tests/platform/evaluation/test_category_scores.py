"""Scores over the categories of a label space that has them."""

import pytest
import torch

from spikeseg.datasets.spec import load_label_space
from spikeseg.platform.evaluation.scores import SplitCounts, compute_metrics


def test_cityscapes_is_scored_over_its_categories_too() -> None:
    space = load_label_space("cityscapes")
    counts = torch.zeros(19, 20, dtype=torch.int64)
    # Road taken for sidewalk is right as a category; of two pixels of a building one is.
    counts[0, 1], counts[2, 2], counts[2, 0] = 3, 1, 1
    metrics = compute_metrics("val", SplitCounts(counts, None), space)
    # Flat has 3 of 4 pixels, construction 1 of 2; no other category occurs.
    assert metrics["val/category_mIoU"] == pytest.approx(62.5)
    # Road 0 of 4, sidewalk 0 of 3, building 1 of 2.
    assert metrics["val/mIoU"] == pytest.approx(50 / 3)


def test_label_spaces_without_categories_have_no_such_score() -> None:
    space = load_label_space("camvid")
    counts = torch.zeros(11, 12, dtype=torch.int64)
    counts[0, 0] = 1
    assert "val/category_mIoU" not in compute_metrics("val", SplitCounts(counts, None), space)
