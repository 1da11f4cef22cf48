"""Confusion counts in integers, and the field's scores from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SegmentationScores:
    """Scores as mmsegmentation's evaluator defines them; all in percent.

    Attributes:
        miou: Mean IoU over classes where it is defined.
        macc: Mean class accuracy over classes that are labelled.
        aacc: Correct pixels over labelled pixels.
        mdice: Mean Dice, 0 for classes without overlap.
        mfscore: Mean F1; classes with precision and recall 0 are left out.
        iou: (K,) float64, nan where a class is neither predicted nor labelled.
        acc: (K,) float64, nan where a class is not labelled.
    """

    miou: float
    macc: float
    aacc: float
    mdice: float
    mfscore: float
    iou: Tensor
    acc: Tensor


def confusion_counts(
    predicted: Tensor, target: Tensor, *, num_classes: int, ignore_label: int
) -> Tensor:
    """Pixels by label and prediction.

    Args:
        predicted: Integer classes, any shape.
        target: Integer labels, the same shape.
        num_classes: K.
        ignore_label: Label whose pixels are left out.

    Returns:
        (K, K + 1) int64; column K holds predictions outside 0..K-1.

    Raises:
        ValueError: Where a label is neither a class nor ignored.
    """
    keep = target != ignore_label
    labels, classes = target[keep].long(), predicted[keep].long()
    if labels.numel() and not (int(labels.min()) >= 0 and int(labels.max()) < num_classes):
        raise ValueError(
            f"labels must be 0..{num_classes - 1} or {ignore_label}, got "
            f"{int(labels.min())}..{int(labels.max())}"
        )
    classes = torch.where((classes >= 0) & (classes < num_classes), classes, num_classes)
    width = num_classes + 1
    counts = torch.bincount(labels * width + classes, minlength=num_classes * width)
    return counts.view(num_classes, width)


def segmentation_scores(counts: Tensor) -> SegmentationScores:
    """Scores of summed counts.

    Args:
        counts: (K, K + 1) int64, of the whole set.
    """
    counts = counts.double()
    classes = counts.shape[0]
    hit = counts[:, :classes].diagonal()
    labelled = counts.sum(1)
    predicted = counts[:, :classes].sum(0)
    iou = hit / (labelled + predicted - hit)
    acc = hit / labelled
    precision = hit / predicted
    fscore = 2 * precision * acc / (precision + acc)
    return SegmentationScores(
        miou=_average_percent(iou),
        macc=_average_percent(acc),
        aacc=100 * float(hit.sum() / labelled.sum()),
        mdice=_average_percent(2 * hit / (labelled + predicted)),
        mfscore=_average_percent(fscore),
        iou=100 * iou,
        acc=100 * acc,
    )


def grouped_counts(counts: Tensor, groups: Sequence[int]) -> Tensor:
    """Counts of coarser classes: what is confused within a group is a hit.

    Args:
        counts: (K, K + 1) int64, as `confusion_counts` gives them.
        groups: Group of each of the K classes, 0..G-1.

    Returns:
        (G, G + 1) int64; `segmentation_scores` of it gives Cityscapes' category IoU.
    """
    size = max(groups) + 1
    rows = torch.tensor(list(groups), device=counts.device)
    # Predictions outside of the classes are outside of the groups, too.
    columns = torch.tensor([*groups, size], device=counts.device)
    grouped = counts.new_zeros(size, size + 1)
    places = (rows[:, None].expand_as(counts), columns[None].expand_as(counts))
    return grouped.index_put_(places, counts, accumulate=True)


def _average_percent(values: Tensor) -> float:
    return 100 * float(values.nanmean())
