"""Spike-driven deformable convolution: DCNv3 whose modulation is NI-LIF levels, without softmax."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Compat, QueryDecoderConfig
from ..layers.blocks import (
    NeuronFactory,
    SpikeSeparableConv,
    build_conv_bn,
    build_depthwise_bn,
    fire_after,
    over_time,
)

_POINTS = 9


def locate_samples(height: int, width: int, like: Tensor) -> Tensor:
    """Sampling points of a 3x3 kernel on an image padded by one, as fractions of the padded size.

    Points run with x slow: point 3 * ix + iy looks at (ix - 1, iy - 1). They are made in float32
    whatever the image's type, as in the released code.

    Args:
        height: H of the unpadded image.
        width: W of the unpadded image.
        like: A tensor of the wanted type and device.

    Returns:
        (H, W, 9, 2), x first.
    """
    size = torch.tensor([width + 2, height + 2], dtype=torch.float32, device=like.device)
    steps = torch.arange(3, dtype=torch.float32, device=like.device) - 1
    kernel = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).reshape(_POINTS, 2)
    y = torch.arange(height, dtype=torch.float32, device=like.device) + 1.5
    x = torch.arange(width, dtype=torch.float32, device=like.device) + 1.5
    centre = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), -1)
    return (centre[:, :, None] / size + kernel / size).to(like.dtype)


def sample_deformable(value: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
    """Sum of bilinear samples around every pixel, one set of nine points per group.

    Args:
        value: (B, C, H, W).
        offset: (B, H, W, G * 9 * 2) in pixels, x first.
        mask: (B, H, W, G * 9), weights of the samples.

    Returns:
        (B, C, H, W).

    Source: DCNv3's PyTorch core; ARCHITECTURE section 4.
    """
    B, C, H, W = value.shape
    groups = mask.shape[-1] // _POINTS
    padded = F.pad(value, (1, 1, 1, 1)).reshape(B * groups, C // groups, H + 2, W + 2)
    size = torch.tensor([W + 2, H + 2], dtype=value.dtype, device=value.device)
    offset = offset.reshape(B, H * W, groups, _POINTS, 2).transpose(1, 2)
    where = locate_samples(H, W, value).reshape(1, 1, H * W, _POINTS, 2) + offset / size
    sampled = F.grid_sample(
        padded,
        2 * where.flatten(0, 1) - 1,
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    weight = mask.reshape(B, H * W, groups, _POINTS).transpose(1, 2).reshape(-1, 1, H * W, _POINTS)
    return (sampled * weight).sum(-1).reshape(B, C, H, W)


class SpikePointwiseConv(nn.Module):
    """A neuron, then a 1x1 convolution: the projection of the ablation without ESC.

    Args:
        channels: C in and out.
        neuron: Makes a neuron.
    """

    def __init__(self, channels: int, *, neuron: NeuronFactory) -> None:
        super().__init__()
        self.spike = neuron()
        self.pwconv = build_conv_bn(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, C, H, W) to the same shape."""
        return over_time(self.pwconv, self.spike(x))


class SpikeDeformableConv(nn.Module):
    """DCNv3 between two ESC projections; offsets real-valued, modulation spikes (SDTE).

    Args:
        config: Width (C in and out), groups with points of their own, and what of it is left out.
        neuron: Makes a neuron.
        compat: `published` turns channels into pixels by a raw reshape, `corrected` permutes.
    """

    def __init__(
        self, config: QueryDecoderConfig, *, neuron: NeuronFactory, compat: Compat
    ) -> None:
        super().__init__()
        channels, groups = config.width, config.num_groups
        if config.deformable_projection == "separable":
            make = partial(SpikeSeparableConv, channels, neuron=neuron, kernel_size=5)
        else:
            make = partial(SpikePointwiseConv, channels, neuron=neuron)
        self.compat = compat
        self.input_proj = make()
        self.dw_conv: nn.Module | None = None
        if config.deformable_depthwise:
            self.dw_spike = neuron()
            self.dw_conv = build_depthwise_bn(channels, 5)
        self.offset_spike = neuron()
        self.offset = _build_pointwise(channels, groups * _POINTS * 2)
        self.mask = _build_pointwise(channels, groups * _POINTS)
        self.mask_spike = neuron()
        self.output_proj = make()

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, C, H, W) to the same shape."""
        value = self.input_proj(x)
        if self.dw_conv is None:
            features = self.offset_spike(x)
        else:
            features = fire_after(self.dw_conv, self.offset_spike, self.dw_spike(x))
        offset = over_time(self.offset, features)
        mask = fire_after(self.mask, self.mask_spike, features)
        merged = x.dim() == 4
        y = sample_deformable(
            value if merged else value.flatten(0, 1),
            self._flatten_pixels(offset),
            self._flatten_pixels(mask),
        )
        return self.output_proj(y if merged else y.unflatten(0, x.shape[:2]))

    def _flatten_pixels(self, x: Tensor) -> Tensor:
        """(T, B, C', H, W) or (T * B, C', H, W) to (T * B, H, W, C')."""
        if x.dim() == 5:
            x = x.flatten(0, 1)
        if self.compat == "published":
            B, C, H, W = x.shape
            return x.contiguous().view(B, H, W, C)
        return x.permute(0, 2, 3, 1)


def _build_pointwise(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution with bias, zero at the start, then BatchNorm."""
    conv = nn.Conv2d(in_channels, out_channels, 1)
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))
