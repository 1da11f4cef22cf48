"""Blocks that both backbones are made of; sequences are (T, B, C, H, W).

Submodule names are those of the published checkpoints, so that their keys load as they are.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ..neuron.batch_norm_lif import normalize_and_fire
from ..neuron.integer_lif import IntegerLIF
from .depthwise_conv import DepthwiseConv2d

NeuronFactory = Callable[[], nn.Module]


def over_time(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer for images to every step: T becomes part of the batch.

    Args:
        layer: Takes (B, C, H, W), or (B, C, N) where x has tokens.
        x: (T, B, C, H, W) or (T, B, C, N); (T * B, C, H, W) in a model whose time is merged
            (`deployment/merge_time.py`).

    Returns:
        The layer's output, with the first axes of x.
    """
    if x.dim() == 4 and layer.__dict__.get("merged"):
        return layer(x)
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def fire_after(layers: nn.Module, neuron: nn.Module, x: Tensor) -> Tensor:
    """Compute `neuron(over_time(layers, x))`, fused where that is faster.

    A BatchNorm at their end and the neuron run as one operation where that is faster, unless a
    hook on one of them wants to see its result.

    Args:
        layers: A BatchNorm, or a chain that may end with one; takes (B, C, ...).
        neuron: Takes (T, B, C, ...).
        x: (T, B, C, ...).

    Returns:
        (T, B, C', ...).
    """
    before = list(layers) if isinstance(layers, nn.Sequential) else [layers]
    norm = before.pop()
    fusable = isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d) and type(neuron) is IntegerLIF
    if not fusable or any(map(_is_watched, (layers, norm, neuron))):
        return neuron(over_time(layers, x))
    for layer in before:
        x = over_time(layer, x)
    return normalize_and_fire(norm, neuron, x)  # pyright: ignore[reportArgumentType]


def _is_watched(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def build_conv_bn(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution without bias, then BatchNorm; keys `0` and `1`."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
    )


def build_depthwise_bn(channels: int, kernel_size: int) -> nn.Sequential:
    """Depthwise convolution without bias that keeps the size, then BatchNorm; keys `0` and `1`."""
    return nn.Sequential(DepthwiseConv2d(channels, kernel_size), nn.BatchNorm2d(channels))


def build_dense_bn(channels: int, kernel_size: int) -> nn.Sequential:
    """Convolution of all channels that keeps the size, then BatchNorm; keys `0` and `1`."""
    conv = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels))


def add_residual(x: Tensor, gamma: Tensor | None, branch: Tensor) -> Tensor:
    """Add a branch to its input, scaled by one factor a channel unless that was folded away.

    Args:
        x: (..., C, H, W).
        gamma: (C,).
        branch: Shape of x.
    """
    return x + branch if gamma is None else x + gamma.view(-1, 1, 1) * branch


class Downsampling(nn.Module):
    """Neuron (not before the image), convolution, BatchNorm.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the convolution.
        stride: 2 halves the size (rounding up), 1 keeps it.
        neuron: Makes the neuron; None where the input is the image.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int,
        neuron: NeuronFactory | None,
    ) -> None:
        super().__init__()
        self.encode_spike = neuron() if neuron is not None else None
        self.encode_conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2
        )
        self.encode_bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, C, H, W) to (T, B, C', H', W'), H' = ceil(H / stride)."""
        if self.encode_spike is not None:
            x = self.encode_spike(x)
        return over_time(self.encode_bn, over_time(self.encode_conv, x))


class SeparableConv(nn.Module):
    """Inverted separable convolution of SDT-V2: no neuron between depthwise and last pointwise.

    Args:
        channels: C in and out.
        neuron: Makes a neuron.
        expansion: Hidden channels over C.
        kernel_size: Size of the depthwise convolution.
    """

    def __init__(
        self, channels: int, *, neuron: NeuronFactory, expansion: int = 2, kernel_size: int = 7
    ) -> None:
        super().__init__()
        hidden = expansion * channels
        self.spike1 = neuron()
        self.pwconv1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.spike2 = neuron()
        self.dwconv = DepthwiseConv2d(hidden, kernel_size)
        self.pwconv2 = nn.Conv2d(hidden, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, C, H, W) to the same shape."""
        x = fire_after(self.bn1, self.spike2, over_time(self.pwconv1, self.spike1(x)))
        return over_time(self.bn2, over_time(self.pwconv2, over_time(self.dwconv, x)))


class SpikeSeparableConv(nn.Module):
    """Efficient separable convolution (ESC) of SDT-V3: a neuron before every convolution.

    Args:
        channels: C in and out.
        neuron: Makes a neuron.
        kernel_size: Size of the depthwise convolution.
        expansion: Hidden channels over C.
    """

    def __init__(
        self, channels: int, *, neuron: NeuronFactory, kernel_size: int, expansion: int = 2
    ) -> None:
        super().__init__()
        hidden = expansion * channels
        self.spike1 = neuron()
        self.pwconv1 = build_conv_bn(channels, hidden)
        self.spike2 = neuron()
        self.dwconv = build_depthwise_bn(hidden, kernel_size)
        self.spike3 = neuron()
        self.pwconv2 = build_conv_bn(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, C, H, W) to the same shape."""
        x = fire_after(self.pwconv1, self.spike2, self.spike1(x))
        x = fire_after(self.dwconv, self.spike3, x)
        return over_time(self.pwconv2, x)


class ConvBlock(nn.Module):
    """Separable convolution and a pair of dense 3x3 convolutions, a residual around each.

    Args:
        channels: C in and out.
        mixer: The separable convolution, (T, B, C, H, W) to the same shape.
        neuron: Makes a neuron.
        mlp_ratio: Hidden channels of the dense pair over C.
    """

    def __init__(
        self, channels: int, *, mixer: nn.Module, neuron: NeuronFactory, mlp_ratio: int
    ) -> None:
        super().__init__()
        hidden = mlp_ratio * channels
        self.Conv = mixer
        self.spike1 = neuron()
        self.conv1 = nn.Conv2d(channels, hidden, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.spike2 = neuron()
        self.conv2 = nn.Conv2d(hidden, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, C, H, W) to the same shape."""
        x = x + self.Conv(x)
        y = fire_after(self.bn1, self.spike2, over_time(self.conv1, self.spike1(x)))
        return x + over_time(self.bn2, over_time(self.conv2, y))


class ChannelMLP(nn.Module):
    """Two pointwise layers with a neuron before each.

    Args:
        channels: C in and out.
        hidden: Hidden channels.
        neuron: Makes a neuron.
    """

    merged = False

    def __init__(self, channels: int, *, hidden: int, neuron: NeuronFactory) -> None:
        super().__init__()
        self.fc1_spike = neuron()
        self.fc1_conv = nn.Conv1d(channels, hidden, 1)
        self.fc1_bn = nn.BatchNorm1d(hidden)
        self.fc2_spike = neuron()
        self.fc2_conv = nn.Conv1d(hidden, channels, 1)
        self.fc2_bn = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, C, H, W) to the same shape."""
        if self.merged:
            return self.tokens(x)
        return self.tokens(x.flatten(3)).unflatten(-1, x.shape[-2:])

    def tokens(self, x: Tensor) -> Tensor:
        """(T, B, C, N) to the same shape; (T * B, C, H, W) where time is merged."""
        y = over_time(self.fc1_conv, self.fc1_spike(x))
        y = fire_after(self.fc1_bn, self.fc2_spike, y)
        return over_time(self.fc2_bn, over_time(self.fc2_conv, y))


AttentionOrder = Literal["cheaper", "scores_first", "values_first"]


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    num_heads: int,
    scale: float,
    order: AttentionOrder = "cheaper",
) -> Tensor:
    """Scale * (q k^T) v per head, without softmax, in either of the two orders.

    Spikes are integers over a divisor: where that is a power of two, both orders are exact in
    float32 as long as a sum stays below 2^24, so they do not differ.

    Args:
        q: (T, B, C, N) or (T * B, C, N), spikes.
        k: (T, B, C, N') or (T * B, C, N'), spikes.
        v: As k with C' channels, spikes; C' / C times the head size.
        num_heads: Heads that the channels are cut into.
        scale: Factor on the product.
        order: (q k^T) v, q (k^T v), or the one with fewer multiply-accumulates at these sizes.

    Returns:
        (T, B, C', N) or (T * B, C', N).
    """
    q, k, v = (tensor.unflatten(-2, (num_heads, -1)) for tensor in (q, k, v))
    head, width, length, keys = q.shape[-2], v.shape[-2], q.shape[-1], k.shape[-1]
    values_first = head * width * (keys + length) <= length * keys * (head + width)
    # A choice by size would hold an exported program to the sizes that it was exported with.
    if order == "values_first" or (
        order == "cheaper" and (torch.compiler.is_exporting() or values_first)
    ):
        y = (k @ v.transpose(-1, -2)).transpose(-1, -2) @ q
    else:
        y = v @ (k.transpose(-1, -2) @ q)
    return (y * scale).flatten(-3, -2)
