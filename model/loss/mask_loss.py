"""Focal and dice loss of masks, on every pixel or on a few points where a mask is uncertain."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_FOCAL_ALPHA = 0.25
# Elements worked on at once, by type of device: on a CPU what its cache holds, since whole batches
# of masks at label resolution take most of their time for getting memory.
_BLOCK = {"cpu": 1 << 17}
_LARGE_BLOCK = 1 << 26
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


def compute_full_losses(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Focal and dice loss at the masks' resolution, to which logits are upsampled.

    Nothing of the size of the masks is kept: the forward pass computes gradients, at the logits'
    resolution, along with the losses.

    Args:
        logits: (N, h, w).
        masks: (N, H, W) bool.

    Returns:
        Focal loss summed over the pixels, and dice loss, both (N,).
    """
    return _FullLosses.apply(logits, masks)


class _FullLosses(torch.autograd.Function):
    """Both losses and their gradients, a few masks at a time."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        focal, dice = logits.new_empty(len(logits)), logits.new_empty(len(logits))
        learns = ctx.needs_input_grad[0]
        gradients = logits.new_empty((2, *logits.shape) if learns else 0)
        pixels = masks[0].numel()
        step = max(1, _BLOCK.get(logits.device.type, _LARGE_BLOCK) // pixels)
        for start in range(0, len(logits), step):
            part = slice(start, start + step)
            focal[part], dice[part], slopes = _compute_losses(logits[part], masks[part], learns)
            if slopes is not None:
                gradients[:, part] = slopes
        ctx.save_for_backward(gradients)
        return focal, dice

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (slopes,) = ctx.saved_tensors
        focal, dice = (gradient.view(-1, 1, 1) for gradient in gradients)
        return focal * slopes[0] + dice * slopes[1], None


def _compute_losses(
    logits: Tensor, masks: Tensor, learns: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Focal and dice loss, (n,) each, and their gradients, (2, n, h, w) (None unless `learns`).

    With s = 1 - 2 t and z = s x: the miss m = sigmoid(z), cross entropy c = softplus(z), focal
    loss w m^2 c with slope s w m^2 (2 (1 - m) c + m); the probability p is m where t = 0 and
    1 - m where t = 1, with slope m (1 - m).
    """
    size, small = masks.shape[-2:], logits.shape[-2:]
    x = logits if size == small else _resize(logits[:, None], size)[:, 0]
    target = masks.to(x.dtype).flatten(1)
    sign = 1 - 2 * target
    z = x.flatten(1) * sign
    miss = z.sigmoid()
    entropy = F.logsigmoid(z.neg_()).neg_()
    weighted = (miss * miss).mul_((1 - _FOCAL_ALPHA) + (2 * _FOCAL_ALPHA - 1) * target)
    focal = (weighted * entropy).sum(1)
    area = target.sum(1)
    missed = (miss * target).sum(1)
    overlap = area - missed
    covered = miss.sum(1) - missed + overlap
    above, below = 2 * overlap + 1, covered + area + 1
    dice = 1 - above / below
    if not learns:
        return focal, dice, None
    rest = 1 - miss
    slope = entropy.mul_(rest).mul_(2).add_(miss).mul_(weighted).mul_(sign)
    # d dice / d p = (above - 2 t below) / below^2.
    level = (above / below.square())[:, None] - target.mul_((2 / below)[:, None])
    slopes = torch.stack((slope, level.mul_(miss).mul_(rest))).view(2, len(x), *size)
    if size == small:
        return focal, dice, slopes
    back = torch.ops.aten.upsample_bilinear2d_backward(
        slopes, list(size), [2, len(x), *small], False, None, None
    )
    return focal, dice, back


def _resize(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def sample_points(
    logits: Tensor, masks: Tensor, points: int, shift: Tensor
) -> tuple[Tensor, Tensor]:
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
    candidates = _generate_quasi_random((_OVERSAMPLING + 1) * points, shift.to(logits.device))
    many, few = candidates[: _OVERSAMPLING * points], candidates[_OVERSAMPLING * points :]
    with torch.no_grad():
        uncertain = round(_UNCERTAIN_SHARE * points)
        certainty = _sample_bilinear(logits, many.expand(len(logits), -1, -1)).abs()
        chosen = many[certainty.topk(uncertain, dim=1, largest=False).indices]
        points_hit = torch.cat((chosen, few[: points - uncertain].expand(len(logits), -1, -1)), 1)
        H, W = masks.shape[-2:]
        x, y = (points_hit[..., 0] * W).long(), (points_hit[..., 1] * H).long()
        target = masks.flatten(1).gather(1, y * W + x).to(logits.dtype)
    return _sample_bilinear(logits, points_hit), target


def compute_shift(target: Tensor) -> Tensor:
    """A shift for `sample_points` that differs between label maps, by integer arithmetic only.

    Args:
        target: (B, H, W) int64 label maps.

    Returns:
        (2,) float32 in [0, 1).
    """
    position = torch.arange(1, target[0].numel() + 1, device=target.device)
    mixed = (target.flatten(1) * position % 65_521).sum() * torch.tensor(
        [40_503, 30_029], device=target.device
    )
    return (mixed % 65_521).float() / 65_521


def _generate_quasi_random(count: int, shift: Tensor) -> Tensor:
    steps = torch.tensor([1 / _PLASTIC, 1 / _PLASTIC**2], dtype=torch.float64, device=shift.device)
    index = torch.arange(1, count + 1, dtype=torch.float64, device=shift.device)
    points = (index[:, None] * steps + shift.double()) % 1
    return points.clamp(max=math.nextafter(1.0, 0.0)).float().clamp(max=1 - 2**-24)


def _sample_bilinear(logits: Tensor, points: Tensor) -> Tensor:
    """(N, h, w) at (N, P, 2) in [0, 1), x first, to (N, P)."""
    grid = (2 * points - 1).to(logits.dtype)[:, :, None]
    return F.grid_sample(logits[:, None], grid, mode="bilinear", align_corners=False)[:, 0, :, 0]
