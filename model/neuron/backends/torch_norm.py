"""BatchNorm and the integer neuron behind it in torch's own operations, as `torch_ops.py`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..firing_rule import FiringRule
from ..reference import choose_arithmetic, round_constant
from .memory_layout import empty_like_planes
from .torch_ops import integer_stateless, view_bits


def norm_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of every channel of (N, C, ...), (C,) in the arithmetic's type."""
    if x.device.type == "cuda" and x.dtype != torch.float64:
        # One pass with float32 sums, without a float32 copy of a 16-bit input.
        mean, per_deviation = torch.batch_norm_stats(x, 1e-30)
        return mean, per_deviation.pow(-2)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    variance, mean = torch.var_mean(x.to(choose_arithmetic(x.dtype)), axes, correction=0)
    return mean, variance


def norm_integer(
    x: Tensor, mean: Tensor, gain: Tensor, bias: Tensor, rule: FiringRule, save: bool
) -> tuple[Tensor, Tensor]:
    """Spikes of (x - mean) * gain + bias per channel, (N, C, ...), and the window."""
    wide = choose_arithmetic(x.dtype)
    shape = (1, -1, *(1,) * (x.dim() - 2))
    spikes = empty_like_planes(x)
    y = torch.sub(x, mean.to(wide).view(shape), out=empty_like_planes(x, wide))
    y.mul_(gain.to(wide).view(shape)).add_(bias.to(wide).view(shape))
    fired, inside = integer_stateless(y, rule, save)
    return (fired if fired.dtype == x.dtype else spikes.copy_(fired)), inside


def norm_integer_sums(
    gradient: Tensor, x: Tensor, inside: Tensor, mean: Tensor, rule: FiringRule
) -> Tensor:
    """Sums over every channel of d = dL/dy and of d (x - mean), (2, C)."""
    d, centered, axes = _center(gradient, x, inside, mean, rule)
    return torch.stack([d.sum(axes), (d * centered).sum(axes)])


def norm_integer_backward(
    gradient: Tensor, x: Tensor, inside: Tensor, channels: Sequence[Tensor], rule: FiringRule
) -> Tensor:
    """dL/dx = (d - level - (x - mean) slope) gain, with d = dL/dy.

    `channels` are mean, gain, level and slope, (C,) each.
    """
    mean, gain, level, slope = channels
    d, centered, _ = _center(gradient, x, inside, mean, rule)
    shape = (1, -1, *(1,) * (x.dim() - 2))
    d.sub_(level.to(d).view(shape)).sub_(centered.mul_(slope.to(d).view(shape)))
    return empty_like_planes(x).copy_(d.mul_(gain.to(d).view(shape)))


def _center(
    gradient: Tensor, x: Tensor, inside: Tensor, mean: Tensor, rule: FiringRule
) -> tuple[Tensor, Tensor, list[int]]:
    """dL/dy and x - mean in the arithmetic's type, and the axes that share a channel."""
    wide = choose_arithmetic(x.dtype)
    d = empty_like_planes(x, wide)
    torch.bitwise_and(
        view_bits(gradient.to(wide)), inside.to(view_bits(d).dtype).neg_(), out=view_bits(d)
    )
    d.mul_(round_constant(1 / (rule.divisor * rule.threshold), x.dtype))
    centered = x.to(wide) - mean.to(wide).view(1, -1, *(1,) * (x.dim() - 2))
    return d, centered, [axis for axis in range(x.dim()) if axis != 1]
