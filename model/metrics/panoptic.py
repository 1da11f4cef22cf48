"""Panoptic quality from matched segments, counted image by image and added up over workers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Columns of the counts: matched, predicted too much, missed.
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = range(3)


@dataclass(frozen=True)
class PanopticTarget:
    """Labelled segments of one image.

    Attributes:
        numbers: (H, W) integer; 0 is void, 1 + s is segment s.
        classes: (S,) class of each segment.
        crowd: (S,) bool; a crowd is never matched and never missed.
        areas: (S,) integer pixels of each segment; None counts them in `numbers`.
    """

    numbers: Tensor
    classes: Tensor
    crowd: Tensor
    areas: Tensor | None = None


@dataclass(frozen=True)
class PanopticCounts:
    """Counts that add up over images and workers.

    Attributes:
        counts: (K, 3) int64: matched, predicted too much, missed segments.
        iou: (K,) float64 summed IoU of the matched segments.
    """

    counts: Tensor
    iou: Tensor

    @classmethod
    def zero(cls, num_classes: int) -> "PanopticCounts":
        """The counts of no image."""
        return cls(
            torch.zeros(num_classes, 3, dtype=torch.int64),
            torch.zeros(num_classes, dtype=torch.float64),
        )

    def __add__(self, other: "PanopticCounts") -> "PanopticCounts":
        return PanopticCounts(self.counts + other.counts, self.iou + other.iou)


@dataclass(frozen=True)
class PanopticQuality:
    """Panoptic, segmentation and recognition quality in percent, over some classes.

    Attributes:
        pq: Mean panoptic quality.
        sq: Mean segmentation quality, the mean IoU of matches.
        rq: Mean recognition quality, an F1 score.
        classes: How many classes the means are over: those with a segment labelled or predicted.
    """

    pq: float
    sq: float
    rq: float
    classes: int


@dataclass(frozen=True)
class PanopticScores:
    """Scores of summed counts.

    Attributes:
        all: Over all classes.
        things: Over countable classes.
        stuff: Over the others.
        pq: (K,) float64 in percent, nan for classes neither labelled nor predicted.
        sq: (K,) likewise, 0 where nothing matched.
        rq: (K,) likewise.
    """

    all: PanopticQuality
    things: PanopticQuality
    stuff: PanopticQuality
    pq: Tensor
    sq: Tensor
    rq: Tensor


def panoptic_counts(
    predicted: Tensor, classes: Tensor, target: PanopticTarget, *, num_classes: int
) -> PanopticCounts:
    """Match the segments of one image.

    A predicted and a labelled segment of one class match where their IoU is above 0.5, void left
    out of the union; there is at most one such match. A prediction left over is dropped where
    more than half of it lies on void or on a crowd of its class.

    Args:
        predicted: (H, W) integer; 0 is none, 1 + p is predicted segment p.
        classes: (P,) class of each predicted segment.
        target: The labelled segments.
        num_classes: K.

    Raises:
        ValueError: Where shapes or numbers do not fit together.

    Source: Kirillov et al., "Panoptic Segmentation" (2019), section 4, with the treatment of void
        and crowds of the COCO evaluator; of several crowds of a class the last counts there too.
    """
    _check(predicted, classes, "predicted", num_classes)
    _check(target.numbers, target.classes, "labelled", num_classes)
    if predicted.shape != target.numbers.shape:
        raise ValueError(
            f"predicted and labelled maps must have one shape, got {tuple(predicted.shape)} and "
            f"{tuple(target.numbers.shape)}"
        )
    num_predicted, num_labelled = len(classes), len(target.classes)
    pairs = predicted.long().flatten() * (num_labelled + 1) + target.numbers.long().flatten()
    overlap = torch.bincount(pairs, minlength=(num_predicted + 1) * (num_labelled + 1))
    overlap = overlap.view(num_predicted + 1, num_labelled + 1)
    areas = overlap.sum(0)[1:] if target.areas is None else target.areas.long()
    sizes = overlap.sum(1)[1:]
    on_void = overlap[1:, 0]

    union = sizes[:, None] + areas - overlap[1:, 1:] - on_void[:, None]
    # A segment whose pixels are all another one's has an empty union with nothing: no match.
    iou = overlap[1:, 1:].double() / union.clamp(min=1)
    same = classes[:, None] == target.classes
    match = same & ~target.crowd & (iou > 0.5) & (overlap[1:, 1:] > 0)

    result = PanopticCounts.zero(num_classes)
    per_class = torch.zeros(num_classes, 3, dtype=torch.int64)
    pair_class = classes[match.nonzero()[:, 0]].long().cpu()
    per_class[:, TRUE_POSITIVE] = torch.bincount(pair_class, minlength=num_classes)
    result.iou.index_add_(0, pair_class, iou[match].cpu())
    missed = ~match.any(0) & ~target.crowd
    per_class[:, FALSE_NEGATIVE] = torch.bincount(
        target.classes[missed].long().cpu(), minlength=num_classes
    )
    crowd = _count_crowd_pixels(classes, target, overlap[1:, 1:])
    excused = 2 * (on_void + crowd) > sizes
    left = ~match.any(1) & ~excused
    per_class[:, FALSE_POSITIVE] = torch.bincount(classes[left].long().cpu(), minlength=num_classes)
    return PanopticCounts(per_class, result.iou)


def panoptic_scores(total: PanopticCounts, is_thing: Sequence[bool]) -> PanopticScores:
    """Scores of summed counts.

    Args:
        total: The sum over all images.
        is_thing: K flags.
    """
    matched, extra, missed = total.counts.double().unbind(1)
    weight = matched + extra / 2 + missed / 2
    defined = weight > 0
    nothing = torch.full_like(weight, float("nan"))
    pq = torch.where(defined, 100 * total.iou / weight, nothing)
    rq = torch.where(defined, 100 * matched / weight, nothing)
    sq = torch.where(defined, 100 * total.iou / matched.clamp(min=1), nothing)
    things = torch.tensor(list(is_thing))

    def over(classes: Tensor) -> PanopticQuality:
        chosen = classes & defined
        means = [float(values[chosen].mean()) for values in (pq, sq, rq)]
        return PanopticQuality(*means, classes=int(chosen.sum()))

    everything = torch.ones_like(things)
    return PanopticScores(over(everything), over(things), over(~things), pq, sq, rq)


def _count_crowd_pixels(classes: Tensor, target: PanopticTarget, overlap: Tensor) -> Tensor:
    """(P,) pixels of each prediction on the last crowd of its class."""
    pixels = torch.zeros(len(classes), dtype=torch.int64, device=overlap.device)
    for index in target.crowd.nonzero().flatten().tolist():
        same_class = classes == target.classes[index]
        pixels = torch.where(same_class, overlap[:, index], pixels)
    return pixels


def _check(numbers: Tensor, classes: Tensor, kind: str, num_classes: int) -> None:
    if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) <= len(classes):
        raise ValueError(
            f"{kind} segments are numbered 0..{len(classes)}, got {int(numbers.min())}.."
            f"{int(numbers.max())}"
        )
    if classes.numel() and not 0 <= int(classes.min()) <= int(classes.max()) < num_classes:
        raise ValueError(
            f"{kind} classes must be 0..{num_classes - 1}, got {int(classes.min())}.."
            f"{int(classes.max())}"
        )
