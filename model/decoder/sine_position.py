"""Sine positions of a feature map, as DETR has them."""

import math

import torch
from torch import Tensor


def sine_position(
    height: int, width: int, *, num_features: int, device: torch.device | None = None
) -> Tensor:
    """Positions of a map, y before x, sine at even and cosine at odd indices.

    Args:
        height: H.
        width: W.
        num_features: Features per axis, even.
        device: Where to make it.

    Returns:
        (2 * num_features, H, W) float32.

    Source: DETR (normalize, temperature 1e4, scale 2 pi, eps 1e-6).
    """
    index = torch.arange(num_features, dtype=torch.float32, device=device)
    period = 10000 ** (2 * torch.div(index, 2, rounding_mode="floor") / num_features)

    def axis(length: int) -> Tensor:
        position = torch.arange(1, length + 1, dtype=torch.float32, device=device)
        angle = (position / (length + 1e-6) * (2 * math.pi))[:, None] / period
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), 2).flatten(1).T

    y = axis(height)[:, :, None].expand(-1, -1, width)
    x = axis(width)[:, None, :].expand(-1, height, -1)
    return torch.cat((y, x))
