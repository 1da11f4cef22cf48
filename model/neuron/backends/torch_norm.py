"""BatchNorm and the integer neuron behind it in torch's own operations, as `torch_ops.py`."""

import torch
from torch import Tensor

from ..reference import arithmetic, rounded
from .memory_layout import empty_like_planes
from .torch_ops import bits, stateless


def norm_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of every channel of (N, C, ...), (C,) in the arithmetic's type.

    Both are 0 where N is: of all workers' statistics, such a share is no part.
    """
    if x.numel() == 0:
        mean, variance = x.new_zeros((2, x.shape[1]), dtype=arithmetic(x.dtype))
        return mean, variance
    if x.device.type == "cuda" and x.dtype != torch.float64:
        # One pass with float32 sums, without a float32 copy of a 16-bit input.
        mean, per_deviation = torch.batch_norm_stats(x, 1e-30)
        return mean, per_deviation.pow(-2)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    variance, mean = torch.var_mean(x.to(arithmetic(x.dtype)), axes, correction=0)
    return mean, variance


def norm_integer(  # noqa: PLR0913
    x: Tensor,
    mean: Tensor,
    gain: Tensor,
    bias: Tensor,
    *,
    levels: int,
    divisor: float,
    threshold: float,
    half_up: bool,
    open_window: bool,
    save: bool,
) -> tuple[Tensor, Tensor]:
    """Spikes of (x - mean) * gain + bias per channel, (N, C, ...), and the window."""
    wide = arithmetic(x.dtype)
    shape = (1, -1, *(1,) * (x.dim() - 2))
    spikes = empty_like_planes(x)
    y = torch.sub(x, mean.to(wide).view(shape), out=empty_like_planes(x, wide))
    y.mul_(gain.to(wide).view(shape)).add_(bias.to(wide).view(shape))
    fired, inside = stateless(
        y,
        levels=levels,
        divisor=divisor,
        threshold=threshold,
        half_up=half_up,
        open_window=open_window,
        save=save,
    )
    return (fired if fired.dtype == x.dtype else spikes.copy_(fired)), inside


def norm_integer_sums(
    gradient: Tensor, x: Tensor, inside: Tensor, mean: Tensor, *, divisor: float, threshold: float
) -> Tensor:
    """Sums over every channel of d = dL/dy and of d (x - mean), (2, C)."""
    d, centered, axes = _centered(gradient, x, inside, mean, divisor * threshold)
    return torch.stack([d.sum(axes), (d * centered).sum(axes)])


def norm_integer_backward(  # noqa: PLR0913
    gradient: Tensor,
    x: Tensor,
    inside: Tensor,
    mean: Tensor,
    gain: Tensor,
    level: Tensor,
    slope: Tensor,
    *,
    divisor: float,
    threshold: float,
) -> Tensor:
    """dL/dx = (d - level - (x - mean) slope) gain, with d = dL/dy."""
    d, centered, _ = _centered(gradient, x, inside, mean, divisor * threshold)
    shape = (1, -1, *(1,) * (x.dim() - 2))
    d.sub_(level.to(d).view(shape)).sub_(centered.mul_(slope.to(d).view(shape)))
    return empty_like_planes(x).copy_(d.mul_(gain.to(d).view(shape)))


def _centered(
    gradient: Tensor, x: Tensor, inside: Tensor, mean: Tensor, scale: float
) -> tuple[Tensor, Tensor, list[int]]:
    """dL/dy and x - mean in the arithmetic's type, and the axes that share a channel."""
    wide = arithmetic(x.dtype)
    d = empty_like_planes(x, wide)
    torch.bitwise_and(bits(gradient.to(wide)), inside.to(bits(d).dtype).neg_(), out=bits(d))
    d.mul_(rounded(1 / scale, x.dtype))
    centered = x.to(wide) - mean.to(wide).view(1, -1, *(1,) * (x.dim() - 2))
    return d, centered, [axis for axis in range(x.dim()) if axis != 1]
