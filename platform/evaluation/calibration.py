"""Calibration: how often a pixel is right that the network is so and so sure of."""

from typing import Any

import torch
from torch import Tensor

BINS = 15
# Confidences are added as whole multiples of 2 ** -30, so that the sum depends on no order.
_UNIT = 2.0**30


def count_calibration(
    probabilities: Tensor, predicted: Tensor, target: Tensor, *, ignore_label: int
) -> Tensor:
    """Count pixels by the probability of the class that was predicted.

    Args:
        probabilities: (B, K, H, W), sum 1 over K.
        predicted: (B, H, W) int64 train ids.
        target: (B, H, W) int64 train ids.
        ignore_label: Label whose pixels are left out.

    Returns:
        (15, 3) int64 on the CPU: pixels, right ones, and their confidence in units of 2 ** -30, of
        each bin of equal width, a bin having its upper end.
    """
    known = target != ignore_label
    confidence = probabilities.gather(1, predicted[:, None])[:, 0][known].double().clamp(0, 1)
    right = (predicted == target)[known].long()
    bins = (confidence * BINS).ceil().long().sub(1).clamp(0, BINS - 1)
    counts = torch.zeros(BINS, 3, dtype=torch.int64, device=bins.device)
    units = (confidence * _UNIT).round().long()
    counts.index_add_(0, bins, torch.stack((torch.ones_like(right), right, units), 1))
    return counts.cpu()


def describe_calibration(counts: Tensor) -> dict[str, Any]:
    """Expected calibration error and the bins behind it.

    Args:
        counts: (15, 3) of `count_calibration`, summed over all images.

    Returns:
        `ece` in percent, and `bins` with `low`, `high`, `pixels`, `accuracy` and `confidence`, the
        last two in percent and None in a bin without a pixel.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017), equations 1 to 3, over
        pixels.
    """
    total = int(counts[:, 0].sum())
    bins = []
    error = 0.0
    for number, (pixels, right, units) in enumerate(counts.tolist()):
        accuracy = confidence = None
        if pixels:
            accuracy, confidence = 100 * right / pixels, 100 * units / _UNIT / pixels
            error += pixels / total * abs(accuracy - confidence)
            accuracy, confidence = round(accuracy, 4), round(confidence, 4)
        bins.append(
            {
                "low": round(number / BINS, 6),
                "high": round((number + 1) / BINS, 6),
                "pixels": pixels,
                "accuracy": accuracy,
                "confidence": confidence,
            }
        )
    return {"ece": round(error, 4), "bins": bins}
