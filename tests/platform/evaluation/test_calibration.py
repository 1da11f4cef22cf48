"""Calibration of a few pixels is what a hand computes, in any order of the images."""

import pytest
import torch

from spikeseg.platform.evaluation.calibration import count_calibration, describe_calibration


def test_four_pixels_have_the_error_computed_by_hand() -> None:
    # Confidences 0.9, 0.9, 0.6, 0.6; right: the first and the third; one more is ignored.
    sure = torch.tensor([0.9, 0.9, 0.6, 0.6, 0.8])
    probabilities = torch.stack((sure, 1 - sure))[None, :, None]
    target = torch.tensor([[[0, 1, 0, 1, 255]]])
    predicted = torch.zeros(1, 1, 5, dtype=torch.int64)
    counts = count_calibration(probabilities, predicted, target, ignore_label=255)
    assert counts[:, 0].sum() == 4 and counts[13, :2].tolist() == [2, 1]
    result = describe_calibration(counts)
    # Half of the pixels are off by 40 points, half by 10.
    assert result["ece"] == pytest.approx(25.0, abs=1e-3)
    assert result["bins"][13]["confidence"] == pytest.approx(90.0, abs=1e-3)
    assert result["bins"][0]["accuracy"] is None


def test_a_bin_has_its_upper_end_and_certainty_is_in_the_last() -> None:
    probabilities = torch.tensor([1.0, 10 / 15], dtype=torch.float64).view(1, 1, 1, 2)
    zeros = torch.zeros(1, 1, 2, dtype=torch.int64)
    counts = count_calibration(probabilities, zeros, zeros, ignore_label=255)
    assert counts[:, 0].nonzero().flatten().tolist() == [9, 14]
    assert describe_calibration(counts * 0)["ece"] == 0


def test_counts_add_up_to_the_last_bit_in_any_order() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = []
    for _ in range(5):
        scores = torch.rand(2, 3, 8, 8, generator=generator).softmax(1)
        target = torch.randint(0, 3, (2, 8, 8), generator=generator)
        parts.append(count_calibration(scores, scores.argmax(1), target, ignore_label=255))
    forwards, backwards = sum(parts), sum(reversed(parts))
    assert isinstance(forwards, torch.Tensor) and isinstance(backwards, torch.Tensor)
    assert torch.equal(forwards, backwards)
