"""Scores of single images: IoU over their classes, and IoU along boundaries."""

import math
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from ...model.metrics.segmentation import segmentation_scores

BOUNDARY_SHARE = 0.02
"""Width of a boundary as a share of the image's diagonal."""


def count_boundaries(
    predicted: np.ndarray, target: np.ndarray, *, num_classes: int, ignore_label: int
) -> np.ndarray:
    """Pixels that the boundaries of prediction and label share, and that either has, per class.

    Args:
        predicted: (H, W) uint8 train ids.
        target: (H, W) uint8 train ids; pixels with the ignore label count in neither.
        num_classes: K.
        ignore_label: Label whose pixels are left out.

    Returns:
        (K, 2) int64 of intersection and union.

    Source: Cheng et al., "Boundary IoU" (2021), equation 2: of each mask the pixels within 2 % of
        the image's diagonal from its contour, the image's border being one.
    """
    height, width = target.shape
    distance = max(1, round(BOUNDARY_SHARE * math.hypot(height, width)))
    known = target != ignore_label
    counts = np.zeros((num_classes, 2), np.int64)
    for kind in np.union1d(np.unique(predicted[known]), np.unique(target[known])):
        if kind >= num_classes:
            continue
        found = _find_boundary((predicted == kind) & known, distance)
        wanted = _find_boundary((target == kind) & known, distance)
        counts[kind] = (found & wanted).sum(), (found | wanted).sum()
    return counts


def _find_boundary(mask: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of a mask within so many steps (the eight neighbours) of what is outside of it."""
    padded = np.pad(mask.astype(np.uint8), 1)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)
    return mask & (inner[1:-1, 1:-1] == 0)


def boundary_ious(counts: np.ndarray) -> np.ndarray:
    """(K,) boundary IoU in percent of (K, 2) counts; nan where neither has a boundary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * counts[:, 0] / counts[:, 1]


def mean_percent(values: np.ndarray) -> float | None:
    """Mean of the values that are defined; None where there is none."""
    defined = values[~np.isnan(values)]
    return round(float(defined.mean()), 4) if len(defined) else None


def describe_image(row_id: str, counts: Tensor, boundary: np.ndarray) -> dict[str, Any]:
    """One line of the per-image table.

    Args:
        row_id: The row's id.
        counts: (K, K + 1) pixels by label and prediction of the image.
        boundary: (K, 2) of `count_boundaries`.

    Returns:
        `id`, `mIoU` and `boundary_mIoU` over the classes that label or prediction have, `aAcc`, all
        in percent or None, and `labelled`, the pixels that count.
    """
    labelled = int(counts.sum())
    iou = np.full(len(counts), np.nan)
    accuracy = None
    if labelled:
        scores = segmentation_scores(counts)
        iou, accuracy = scores.iou.numpy(), round(scores.aacc, 4)
    return {
        "id": row_id,
        "mIoU": mean_percent(iou),
        "boundary_mIoU": mean_percent(boundary_ious(boundary)),
        "aAcc": accuracy,
        "labelled": labelled,
    }
