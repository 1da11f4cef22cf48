"""The large E-SpikeFormers of SDT-V3 (83M, 171M): three stages, all attention at stride 16."""

from functools import partial

import torch
from torch import Tensor, nn

from ..config import LargeBackboneConfig, NeuronConfig
from ..layers.blocks import (
    AttentionOrder,
    ChannelMLP,
    Downsampling,
    NeuronFactory,
    fire_after,
    linear_attention,
    over_time,
)
from ..neuron.kinds import build_neuron

_ATTENTION_SCALE = 0.125
_INITIAL_SCALE = 1e-6


class DenseConvBlock(nn.Module):
    """Two dense 3x3 convolutions with a neuron before each, and a residual around both.

    Args:
        channels: C in and out.
        neuron: Makes a neuron.
        mlp_ratio: Hidden channels over C.
    """

    def __init__(self, channels: int, *, neuron: NeuronFactory, mlp_ratio: int) -> None:
        super().__init__()
        hidden = mlp_ratio * channels
        self.lif1, self.lif2 = neuron(), neuron()
        self.conv1 = nn.Sequential(_build_biased_conv_bn(channels, hidden))
        self.conv2 = nn.Sequential(_build_biased_conv_bn(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, C, H, W) to the same shape."""
        y = fire_after(self.conv1[0], self.lif2, self.lif1(x))
        return x + over_time(self.conv2, y)


class PointwisePair(nn.Module):
    """Two pointwise layers without a neuron between, BatchNorm after each; linear in eval mode.

    Args:
        channels: C in and out.
        hidden: Channels between.
    """

    def __init__(self, channels: int, *, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv1d(channels, hidden, 1, bias=False), nn.BatchNorm1d(hidden)
        )
        self.conv2 = nn.Sequential(
            nn.Conv1d(hidden, channels, 1, bias=False), nn.BatchNorm1d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, N) to the same shape."""
        return self.conv2(self.conv1(x))


class PairAttention(nn.Module):
    """Linear attention over tokens whose projections are pointwise pairs.

    Args:
        channels: C in and out.
        num_heads: Heads.
        neuron: Makes a neuron.
    """

    def __init__(self, channels: int, *, num_heads: int, neuron: NeuronFactory) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = _ATTENTION_SCALE
        self.order: AttentionOrder = "cheaper"
        self.head_lif = neuron()
        self.q_conv, self.k_conv, self.v_conv, self.proj_conv = (
            nn.Sequential(
                PointwisePair(channels, hidden=int(1.5 * channels)), nn.BatchNorm1d(channels)
            )
            for _ in range(4)
        )
        self.q_lif, self.k_lif, self.v_lif, self.attn_lif = (neuron() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, C, N) to the same shape."""
        x = self.head_lif(x)
        q = fire_after(self.q_conv, self.q_lif, x)
        k = fire_after(self.k_conv, self.k_lif, x)
        v = fire_after(self.v_conv, self.v_lif, x)
        y = linear_attention(q, k, v, num_heads=self.num_heads, scale=self.scale, order=self.order)
        return over_time(self.proj_conv, self.attn_lif(y))


class LargeBlock(nn.Module):
    """Attention and MLP, each behind a per-channel residual factor.

    The 83M model starts every block with x + pair(neuron(x)). As released its forward names sizes
    that nothing defines there, so it cannot run; the order is read from that line, the pair's
    hidden width (C, not 1.5 C) from its class, and both from the parameter count, which they meet.

    Args:
        config: Channels, heads, and whether that pair is there.
        neuron: Makes a neuron.
    """

    def __init__(self, config: LargeBackboneConfig, *, neuron: NeuronFactory) -> None:
        super().__init__()
        channels = config.embed_dims[-1]
        self.lif = neuron() if config.pair_before_attention else None
        self.rep_conv = (
            PointwisePair(channels, hidden=channels) if config.pair_before_attention else None
        )
        self.attn = PairAttention(channels, num_heads=config.num_heads, neuron=neuron)
        self.mlp = ChannelMLP(channels, hidden=config.mlp_ratio * channels, neuron=neuron)
        self.layer_scale1, self.layer_scale2 = (
            nn.Parameter(torch.full((channels,), _INITIAL_SCALE)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, C, N) to the same shape."""
        if self.rep_conv is not None and self.lif is not None:
            x = x + over_time(self.rep_conv, self.lif(x))
        x = x + self.attn(x) * self.layer_scale1[:, None]
        return x + self.mlp.tokens(x) * self.layer_scale2[:, None]


class ESpikeformerLarge(nn.Module):
    """Large E-SpikeFormer with outputs at stride 2, 4, 8, 16 (ARCHITECTURE section 3).

    Args:
        config: Channels, heads, depth.
        neuron: The neuron; published: D = 4, half-up rounding, open gradient window.
    """

    def __init__(self, config: LargeBackboneConfig, neuron: NeuronConfig) -> None:
        super().__init__()
        make = partial(build_neuron, neuron)
        first, second, third = config.embed_dims
        self.out_channels = (first // 2, first, second, third)
        down = partial(Downsampling, kernel_size=3, stride=2, neuron=make)

        def stage(channels: int) -> nn.ModuleList:
            return nn.ModuleList(
                [DenseConvBlock(channels, neuron=make, mlp_ratio=config.mlp_ratio)]
            )

        self.downsample1_1 = Downsampling(3, first // 2, kernel_size=7, stride=2, neuron=None)
        self.ConvBlock1_1 = stage(first // 2)
        self.downsample1_2 = down(first // 2, first)
        self.ConvBlock1_2 = stage(first)
        self.downsample2 = down(first, second)
        self.ConvBlock2_1 = stage(second)
        self.ConvBlock2_2 = stage(second)
        self.downsample3 = down(second, third)
        self.block3 = nn.ModuleList(LargeBlock(config, neuron=make) for _ in range(config.depth))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(T, B, 3, H, W), real-valued, to four tensors (T, B, C, h, w) at stride 2, 4, 8, 16."""
        x1 = self.ConvBlock1_1[0](self.downsample1_1(x))
        x2 = self.ConvBlock1_2[0](self.downsample1_2(x1))
        x3 = self.ConvBlock2_2[0](self.ConvBlock2_1[0](self.downsample2(x2)))
        x4 = self.downsample3(x3)
        tokens = x4.flatten(3)
        for block in self.block3:
            tokens = block(tokens)
        return [x1, x2, x3, tokens.unflatten(-1, x4.shape[-2:])]


def _build_biased_conv_bn(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels)
    )
