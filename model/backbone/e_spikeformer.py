"""E-SpikeFormer (SDT-V3): a neuron before every convolution, attention with wide values."""

from functools import partial

from torch import Tensor, nn

from ..config import BackboneConfig, NeuronConfig
from ..layers.blocks import (
    AttentionOrder,
    ChannelMLP,
    ConvBlock,
    NeuronFactory,
    SpikeSeparableConv,
    build_conv_bn,
    fire_after,
    linear_attention,
    over_time,
)
from ..neuron.kinds import build_neuron
from .meta_spikeformer import FourStages, list_stage_channels


class WideValueAttention(nn.Module):
    """Linear attention with 1x1 projections and values four times as wide (SDT-V3).

    Args:
        channels: C in and out.
        num_heads: Heads.
        neuron: Makes a neuron.
        value_ratio: Channels of the values over C.
    """

    def __init__(
        self, channels: int, *, num_heads: int, neuron: NeuronFactory, value_ratio: int = 4
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = 2 * (channels // num_heads) ** -0.5
        self.order: AttentionOrder = "cheaper"
        self.head_spike = neuron()
        self.q_conv = build_conv_bn(channels, channels)
        self.q_spike = neuron()
        self.k_conv = build_conv_bn(channels, channels)
        self.k_spike = neuron()
        self.v_conv = build_conv_bn(channels, value_ratio * channels)
        self.v_spike = neuron()
        self.attn_spike = neuron()
        self.proj_conv = build_conv_bn(value_ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, C, H, W) to the same shape."""
        size = x.shape[-2:]
        x = self.head_spike(x)
        q = fire_after(self.q_conv, self.q_spike, x).flatten(-2)
        k = fire_after(self.k_conv, self.k_spike, x).flatten(-2)
        v = fire_after(self.v_conv, self.v_spike, x).flatten(-2)
        y = linear_attention(q, k, v, num_heads=self.num_heads, scale=self.scale, order=self.order)
        return over_time(self.proj_conv, self.attn_spike(y.unflatten(-1, size)))


class WideValueBlock(nn.Module):
    """Separable convolution, attention and MLP with a residual around each.

    Args:
        channels: C in and out.
        num_heads: Heads.
        mlp_ratio: Hidden channels of the MLP over C.
        neuron: Makes a neuron.
    """

    def __init__(
        self, channels: int, *, num_heads: int, mlp_ratio: int, neuron: NeuronFactory
    ) -> None:
        super().__init__()
        self.conv = SpikeSeparableConv(channels, neuron=neuron, kernel_size=3)
        self.attn = WideValueAttention(channels, num_heads=num_heads, neuron=neuron)
        self.mlp = ChannelMLP(channels, hidden=mlp_ratio * channels, neuron=neuron)

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, C, H, W) to the same shape."""
        x = x + self.conv(x)
        x = x + self.attn(x)
        return x + self.mlp(x)


class ESpikeformer(FourStages):
    """E-SpikeFormer (SDT-V3) with outputs at stride 2, 4, 8, 16 (ARCHITECTURE section 3).

    Args:
        config: Channels, heads, depths.
        neuron: The neuron; `config.levels` overrides its D (4 in the published models).
        in_channels: Channels of an image.
    """

    def __init__(
        self,
        config: BackboneConfig,
        neuron: NeuronConfig,
        *,
        in_channels: int = 3,
    ) -> None:
        make = partial(build_neuron, neuron, levels=config.levels)

        def block(channels: int) -> nn.Module:
            return WideValueBlock(
                channels, num_heads=config.num_heads, mlp_ratio=config.mlp_ratio, neuron=make
            )

        super().__init__(
            config.embed_dims,
            in_channels=in_channels,
            neuron=make,
            conv_blocks=[
                ConvBlock(
                    channels,
                    mixer=SpikeSeparableConv(channels, neuron=make, kernel_size=7),
                    neuron=make,
                    mlp_ratio=config.mlp_ratio,
                )
                for channels in list_stage_channels(config.embed_dims)
            ],
            blocks=(
                nn.ModuleList(block(config.embed_dims[2]) for _ in range(config.depths[0])),
                nn.ModuleList(block(config.embed_dims[3]) for _ in range(config.depths[1])),
            ),
        )
