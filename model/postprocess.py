"""Predictions to maps: joined class logits, label maps and panoptic maps at the original size."""

from collections.abc import Collection
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .prediction import MaskPrediction, Prediction


def semantic_logits(prediction: Prediction, size: tuple[int, int]) -> Tensor:
    """Class scores per pixel at the network's input size.

    Args:
        prediction: Of either decoder.
        size: Height and width of the network's input.

    Returns:
        (B, K, H, W). Of the query decoder: sum over queries of class probability times mask
        probability, "no object" left out; of the FPN head: logits.

    Source: ARCHITECTURE section 5, "Semantic inference".
    """
    if isinstance(prediction, MaskPrediction):
        masks = _resize(prediction.mask_logits[-1], size).sigmoid()
        classes = prediction.class_logits[-1].softmax(-1)[..., :-1]
        return torch.einsum("bqk,bqhw->bkhw", classes, masks)
    return _resize(prediction.logits, size)


def label_map(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Pick the most likely class of every pixel.

    Args:
        logits: (B, K, h, w).
        size: Height and width of the label map.

    Returns:
        (B, H, W) int64.
    """
    return _resize(logits, size).argmax(1)


class PanopticMap(NamedTuple):
    """Segments of one image.

    Attributes:
        segments: (H, W) int64, 0 for none, else 1 + index into `classes`.
        classes: Class of every segment.
        scores: Class probability of every segment; the highest of those joined.
    """

    segments: Tensor
    classes: list[int]
    scores: list[float]


def panoptic_maps(
    prediction: MaskPrediction,
    size: tuple[int, int],
    *,
    things: Collection[int],
    original: tuple[int, int] | None = None,
    object_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
) -> list[PanopticMap]:
    """Panoptic segments from the outputs that semantic inference uses.

    Every pixel goes to the query with the highest class probability x mask probability; a query
    keeps its pixels if enough of its mask is left; stuff of one class is one segment.

    Args:
        prediction: Of the query decoder.
        size: Height and width of the network's input.
        things: Classes whose segments are instances; all others are stuff.
        original: Height and width of the maps; `size` if not given.
        object_threshold: Queries with a lower class probability, or whose most likely class is
            "no object", are left out.
        overlap_threshold: A query whose pixels are a smaller share of its mask (probability at
            least 0.5) is left out.

    Returns:
        One map per image.

    Source: MaskFormer, section 3.4, with the thresholds of its COCO configuration.
    """
    original = size if original is None else original
    scores, labels = prediction.class_logits[-1].softmax(-1).max(-1)
    no_object = prediction.class_logits.shape[-1] - 1
    maps = []
    for score, label, logits in zip(scores, labels, prediction.mask_logits[-1], strict=True):
        keep = (label != no_object) & (score > object_threshold)
        masks = _resize(_resize(logits[keep][None], size), original)[0].sigmoid()
        maps.append(_join(score[keep], label[keep], masks, things, overlap_threshold))
    return maps


def _join(
    scores: Tensor, labels: Tensor, masks: Tensor, things: Collection[int], least_overlap: float
) -> PanopticMap:
    segments = torch.zeros(masks.shape[-2:], dtype=torch.int64, device=masks.device)
    classes: list[int] = []
    best_scores: list[float] = []
    if not len(masks):
        return PanopticMap(segments, classes, best_scores)
    winner = (scores.view(-1, 1, 1) * masks).argmax(0)
    solid = masks >= 0.5
    queries = torch.arange(len(masks), device=masks.device).view(-1, 1, 1)
    won = (winner == queries) & solid
    areas = torch.stack((won.flatten(1).sum(1), solid.flatten(1).sum(1)), 1).tolist()
    stuff: dict[int, int] = {}
    for query, (area, mask_area) in enumerate(areas):
        kind, score = int(labels[query]), float(scores[query])
        if not area or area / mask_area < least_overlap:
            continue
        if kind not in things and kind in stuff:
            number = stuff[kind]
            best_scores[number - 1] = max(best_scores[number - 1], score)
        else:
            classes.append(kind)
            best_scores.append(score)
            number = len(classes)
            if kind not in things:
                stuff[kind] = number
        segments[won[query]] = number
    return PanopticMap(segments, classes, best_scores)


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    if x.shape[-2:] == torch.Size(size):
        return x
    if not x.numel():
        # No query was kept, and torch interpolates no channels of an image to no channels.
        return x.new_zeros(*x.shape[:-2], *size)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
