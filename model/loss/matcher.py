"""Which query answers for which label: the cheapest assignment, or query k for class k."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..config import LossConfig

_FOCAL_ALPHA = 0.25
_LOG_EPS = 1e-12
# Elements worked on at once, by type of device: on a CPU what its cache holds.
_BLOCK = {"cpu": 1 << 17}
_LARGE_BLOCK = 1 << 26

# A target value is a class, or class + SEGMENT_STRIDE x segment number where segments of one class
# are told apart; classes are below it.
SEGMENT_STRIDE = 256


class ImageTargets(NamedTuple):
    """The labels of one image as masks.

    Attributes:
        labels: (M,) int64, class of each mask; ascending where there is one mask per class.
        masks: (M, H, W) bool, one per value of the target, the ignored one left out.
    """

    labels: Tensor
    masks: Tensor


def split_targets(target: Tensor, *, ignore_label: int) -> ImageTargets:
    """Split a label map into one binary mask per class, or per segment where it has segments.

    Args:
        target: (H, W) int64; a class, or class + SEGMENT_STRIDE x segment number.
        ignore_label: Value that gets no mask.
    """
    values = target.unique()
    values = values[values != ignore_label]
    return ImageTargets(values % SEGMENT_STRIDE, target == values.view(-1, 1, 1))


def compute_costs(
    class_logits: Tensor, mask_logits: Tensor, labels: Tensor, masks: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Unweighted costs of every query for every label of one image, all layers at once.

    Args:
        class_logits: (L, Q, K+1).
        mask_logits: (L, Q, P), pixels flattened.
        labels: (M,).
        masks: (M, P), 0 or 1.

    Returns:
        Class, focal and dice cost, each (L, Q, M).

    Source: ARCHITECTURE section 6.
    """
    class_cost = -class_logits.softmax(-1)[..., labels]
    L, Q, P = mask_logits.shape
    rows = mask_logits.reshape(L * Q, P)
    target = masks.to(rows.dtype)
    step = max(1, _BLOCK.get(rows.device.type, _LARGE_BLOCK) // P)
    parts = [
        _compute_pixel_costs(rows[start : start + step], target) for start in range(0, L * Q, step)
    ]
    focal_cost, overlap, covered = (torch.cat(each) for each in zip(*parts, strict=True))
    dice_cost = 1 - (2 * overlap + 1) / (covered[:, None] + target.sum(-1) + 1)
    shape = (L, Q, len(masks))
    return class_cost, (focal_cost / P).view(shape), dice_cost.view(shape)


def _compute_pixel_costs(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over pixels of focal cost and of overlap, (R, M), and of probability, (R,).

    Args:
        logits: (R, P).
        target: (M, P), 0 or 1.
    """
    p = logits.sigmoid()
    q = 1 - p
    positive = (p + _LOG_EPS).log_().mul_(q).mul_(q).mul_(-_FOCAL_ALPHA)
    negative = q.add_(_LOG_EPS).log_().mul_(p).mul_(p).mul_(_FOCAL_ALPHA - 1)
    # positive @ target + negative @ (1 - target), in one product.
    focal = F.linear(positive.sub_(negative), target) + negative.sum(-1, keepdim=True)
    return focal, F.linear(p, target), p.sum(-1)


@torch.no_grad()
def match(
    class_logits: Tensor, mask_logits: Tensor, targets: ImageTargets, config: LossConfig
) -> list[tuple[Tensor, Tensor]]:
    """Assign one image's labels to queries, for every layer.

    Args:
        class_logits: (L, Q, K+1).
        mask_logits: (L, Q, h, w).
        targets: The image's labels; masks at the size of the mask logits.
        config: Weights of the costs.

    Returns:
        Per layer the matched queries and the indices of their labels, both (min(Q, M),).

    Raises:
        ValueError: Where a cost is not finite.
    """
    costs = compute_costs(
        class_logits.float(),
        mask_logits.flatten(2).float(),
        targets.labels,
        targets.masks.flatten(1),
    )
    weights = (config.class_cost, config.mask_cost, config.dice_cost)
    total = sum(weight * cost for weight, cost in zip(weights, costs, strict=True))
    assert isinstance(total, Tensor)
    total = total.cpu()
    if not total.isfinite().all():
        raise ValueError("class and mask logits must be finite to be matched, and are not")
    device = class_logits.device
    pairs = []
    for layer in total.numpy():
        queries, chosen = linear_sum_assignment(layer)
        pairs.append((torch.from_numpy(queries).to(device), torch.from_numpy(chosen).to(device)))
    return pairs


def split_classes(target: Tensor, *, num_classes: int, ignore_label: int) -> ImageTargets:
    """Split a label map into one binary mask per class, empty where the class does not occur.

    Args:
        target: (H, W) int64 classes.
        num_classes: K.
        ignore_label: Value that is of no class.

    Returns:
        K masks; none where every pixel is ignored.

    Raises:
        ValueError: Where the target tells segments of a class apart: one query answers for a class.
    """
    labelled = target != ignore_label
    coded = target[labelled & (target >= SEGMENT_STRIDE)]
    if len(coded):
        label = int(coded[0])
        raise ValueError(
            "matching by class needs targets without segments, got segment "
            f"{label // SEGMENT_STRIDE} of class {label % SEGMENT_STRIDE}"
        )
    labels = torch.arange(num_classes if labelled.any() else 0, device=target.device)
    return ImageTargets(labels, (target == labels.view(-1, 1, 1)) & labelled)


def match_classes(targets: ImageTargets, *, layers: int) -> list[tuple[Tensor, Tensor]]:
    """Assign mask k to query k, in every layer.

    Args:
        targets: As `split_classes` makes them.
        layers: L.

    Returns:
        As `match`: per layer the queries and the indices of their labels, both (K,).
    """
    return [(targets.labels, targets.labels)] * layers
