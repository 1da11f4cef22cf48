"""Panoptic scores of a split: segments predicted, matched and counted, exact over workers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...datasets.segment_targets import LabelledSegments
from ...datasets.spec import LabelSpace
from ...model.metrics.panoptic import (
    PanopticCounts,
    PanopticScores,
    PanopticTarget,
    panoptic_counts,
    panoptic_scores,
)
from ...model.postprocess import PanopticMap, label_map, panoptic_maps, semantic_logits
from ..cluster.worker_group import WorkerGroup
from ..config.schema import DataConfig

# IoUs are added as whole multiples of 2 ** -40, so that the sum depends on no order.
_UNIT = 2.0**40


@torch.inference_mode()
def predict_segments(
    model: nn.Module, images: Tensor, size: tuple[int, int], space: LabelSpace, data: DataConfig
) -> tuple[Tensor, list[PanopticMap]]:
    """Label maps and panoptic maps of a batch at the label's size, by one forward pass.

    Args:
        model: The segmentor with the query decoder, in eval mode.
        images: (B, 3, h, w), normalized.
        size: Height and width of the maps.
        space: Tells things from stuff.
        data: Thresholds.

    Returns:
        (B, H, W) int64 train ids, and B panoptic maps.
    """
    prediction = model(images)
    inner = (images.shape[-2], images.shape[-1])
    labels = label_map(semantic_logits(prediction, inner), size)
    maps = panoptic_maps(
        prediction,
        inner,
        things=things_of(space),
        original=size,
        object_threshold=data.object_threshold,
        overlap_threshold=data.overlap_threshold,
    )
    return labels, maps


def things_of(space: LabelSpace) -> set[int]:
    """Classes whose segments are counted one by one."""
    assert space.is_thing is not None, "data was checked to tell things from stuff"
    return {index for index, thing in enumerate(space.is_thing) if thing}


class PanopticTotal:
    """Adds up the matched segments of images, then of workers.

    Args:
        num_classes: K.
        device: Where the group adds.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._num_classes = num_classes
        # Columns 0 to 2 are `PanopticCounts.counts`, 3 is the IoU in units of 2 ** -40.
        self._sums = torch.zeros(num_classes, 4, dtype=torch.int64, device=device)

    def add(self, predicted: Sequence[PanopticMap], labelled: Sequence[LabelledSegments]) -> None:
        """Count the images of a batch."""
        for prediction, truth in zip(predicted, labelled, strict=True):
            counted = panoptic_counts(
                prediction.segments.cpu(),
                torch.tensor(prediction.classes, dtype=torch.int64),
                PanopticTarget(
                    torch.from_numpy(truth.numbers),
                    torch.from_numpy(truth.classes),
                    torch.from_numpy(truth.crowd),
                ),
                num_classes=self._num_classes,
            )
            iou = (counted.iou * _UNIT).round().long()
            self._sums += torch.cat((counted.counts, iou[:, None]), 1).to(self._sums.device)

    @property
    def sums(self) -> Tensor:
        """(K, 4) int64 that add up over images; `counts_of` makes counts of them."""
        return self._sums

    def over(self, group: WorkerGroup) -> PanopticCounts:
        """The counts of all workers, on the CPU and the same on each."""
        group.sum(self._sums)
        return counts_of(self._sums.cpu())


def counts_of(sums: Tensor) -> PanopticCounts:
    """Counts of the (K, 4) whole numbers that `PanopticTotal` adds up."""
    return PanopticCounts(sums[:, :3].clone(), sums[:, 3].double() / _UNIT)


def class_scores(counts: PanopticCounts, space: LabelSpace) -> PanopticScores:
    """Scores of counts over the classes of a label space that tells things from stuff."""
    assert space.is_thing is not None, "data was checked to tell things from stuff"
    return panoptic_scores(counts, space.is_thing)


def panoptic_means(scores: PanopticScores) -> dict[str, float]:
    """PQ, SQ and RQ over all classes, things and stuff, in percent; means over none are left out.

    Args:
        scores: Of a split.

    Returns:
        Such as `PQ` and `PQ_things` -> value.
    """
    parts = {"": scores.all, "_things": scores.things, "_stuff": scores.stuff}
    return {
        f"{name}{part}": value
        for part, mean in parts.items()
        if mean.classes
        for name, value in (("PQ", mean.pq), ("SQ", mean.sq), ("RQ", mean.rq))
    }
