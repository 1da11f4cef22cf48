"""Focal and dice loss of masks, on every pixel or on a few points where a mask is uncertain."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_FOCAL_ALPHA = 0.25
# Mask2Former, section 3.3: three times as many candidates, three quarters chosen by uncertainty.
_OVERSAMPLING = 3
_UNCERTAIN_SHARE = 0.75
# R2 sequence (M. Roberts, 2018): inverse powers of the plastic number.
_PLASTIC = 1.3247179572447460


def focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary focal loss per pixel, alpha 0.25, gamma 2.

    Args:
        logits: Any shape.
        target: 0 or 1, the same shape.
    """
    p = logits.sigmoid()
    miss = p + target - 2 * p * target
    weight = (1 - _FOCAL_ALPHA) + (2 * _FOCAL_ALPHA - 1) * target
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return weight * miss.square() * cross_entropy


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Dice loss per mask, first powers, smoothed by 1.

    Args:
        logits: (N, P).
        target: (N, P), 0 or 1.

    Returns:
        (N,).
    """
    p = logits.sigmoid()
    overlap = 2 * (p * target).sum(-1)
    return 1 - (overlap + 1) / (p.sum(-1) + target.sum(-1) + 1)


def at_points(logits: Tensor, masks: Tensor, points: int, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and targets at a few points of every mask, most of them where it is uncertain.

    Candidates are a quasi-random sequence moved by `shift`, so that no random generator is read:
    the points are a function of the shift and of the logits alone.

    Args:
        logits: (N, h, w).
        masks: (N, H, W) bool.
        points: P, points per mask.
        shift: (2,) in [0, 1).

    Returns:
        Logits by bilinear interpolation and targets of the pixels hit, both (N, P).

    Source: PointRend and Mask2Former, importance sampling of the mask loss.
    """
    candidates = _quasi_random((_OVERSAMPLING + 1) * points, shift.to(logits.device))
    many, few = candidates[: _OVERSAMPLING * points], candidates[_OVERSAMPLING * points :]
    with torch.no_grad():
        uncertain = round(_UNCERTAIN_SHARE * points)
        certainty = _bilinear(logits, many.expand(len(logits), -1, -1)).abs()
        chosen = many[certainty.topk(uncertain, dim=1, largest=False).indices]
        places = torch.cat((chosen, few[: points - uncertain].expand(len(logits), -1, -1)), 1)
        H, W = masks.shape[-2:]
        x, y = (places[..., 0] * W).long(), (places[..., 1] * H).long()
        target = masks.flatten(1).gather(1, y * W + x).to(logits.dtype)
    return _bilinear(logits, places), target


def shift_of(target: Tensor) -> Tensor:
    """A shift for `at_points` that differs between label maps, by integer arithmetic only.

    Args:
        target: (B, H, W) int64 label maps.

    Returns:
        (2,) float32 in [0, 1).
    """
    place = torch.arange(1, target[0].numel() + 1, device=target.device)
    mixed = (target.flatten(1) * place % 65_521).sum() * torch.tensor(
        [40_503, 30_029], device=target.device
    )
    return (mixed % 65_521).float() / 65_521


def _quasi_random(count: int, shift: Tensor) -> Tensor:
    steps = torch.tensor([1 / _PLASTIC, 1 / _PLASTIC**2], dtype=torch.float64, device=shift.device)
    index = torch.arange(1, count + 1, dtype=torch.float64, device=shift.device)
    places = (index[:, None] * steps + shift.double()) % 1
    return places.clamp(max=math.nextafter(1.0, 0.0)).float().clamp(max=1 - 2**-24)


def _bilinear(logits: Tensor, places: Tensor) -> Tensor:
    """(N, h, w) at (N, P, 2) in [0, 1), x first, to (N, P)."""
    grid = (2 * places - 1).to(logits.dtype)[:, :, None]
    return F.grid_sample(logits[:, None], grid, mode="bilinear", align_corners=False)[:, 0, :, 0]
