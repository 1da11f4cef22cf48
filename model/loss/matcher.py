"""Which query answers for which label: the cheapest one-to-one assignment per image and layer."""

from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..config import LossConfig

_FOCAL_ALPHA = 0.25
_FOCAL_GAMMA = 2
_LOG_EPS = 1e-12
_BLOCK = 4096


class ImageTargets(NamedTuple):
    """The labels of one image as masks.

    Attributes:
        labels: (M,) int64, classes present, ascending, the ignored one left out.
        masks: (M, H, W) bool, one per class.
    """

    labels: Tensor
    masks: Tensor


def image_targets(target: Tensor, *, ignore_label: int) -> ImageTargets:
    """One binary mask per class present in a label map.

    Args:
        target: (H, W) int64.
        ignore_label: Label that gets no mask.
    """
    labels = target.unique()
    labels = labels[labels != ignore_label]
    return ImageTargets(labels, target == labels.view(-1, 1, 1))


def matching_costs(
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
    focal_cost = mask_logits.new_zeros(L, Q, len(masks))
    overlap = torch.zeros_like(focal_cost)
    covered = mask_logits.new_zeros(L, Q, 1)
    # Blocks of pixels stay in the cache; all at once are a dozen tensors of the masks' size.
    for start in range(0, P, _BLOCK):
        p = mask_logits[..., start : start + _BLOCK].sigmoid()
        target = masks[:, start : start + _BLOCK].to(p.dtype).T
        positive = -(p + _LOG_EPS).log() * _FOCAL_ALPHA * (1 - p) ** _FOCAL_GAMMA
        negative = -(1 - p + _LOG_EPS).log() * (1 - _FOCAL_ALPHA) * p**_FOCAL_GAMMA
        # positive @ target + negative @ (1 - target), in one product.
        focal_cost += (positive - negative) @ target + negative.sum(-1, keepdim=True)
        overlap += p @ target
        covered += p.sum(-1, keepdim=True)
    focal_cost /= P
    area = masks.sum(-1).to(covered.dtype)
    dice_cost = 1 - (2 * overlap + 1) / (covered + area + 1)
    return class_cost, focal_cost, dice_cost


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
    """
    costs = matching_costs(
        class_logits.float(),
        mask_logits.flatten(2).float(),
        targets.labels,
        targets.masks.flatten(1),
    )
    weights = (config.class_cost, config.mask_cost, config.dice_cost)
    total = sum(weight * cost for weight, cost in zip(weights, costs, strict=True))
    assert isinstance(total, Tensor)
    device = class_logits.device
    pairs = []
    for layer in total.cpu().numpy():
        queries, chosen = linear_sum_assignment(layer)
        pairs.append((torch.from_numpy(queries).to(device), torch.from_numpy(chosen).to(device)))
    return pairs
