"""Meta-SpikeFormer (SDT-V2), the backbone of the paper's Spike2Former."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from ..config import BackboneConfig, BinaryNeuronConfig, NeuronConfig
from ..layers.blocks import (
    AttentionOrder,
    ChannelMLP,
    ConvBlock,
    Downsampling,
    NeuronFactory,
    SeparableConv,
    fire_after,
    linear_attention,
    over_time,
)
from ..layers.rep_conv import RepConv
from ..neuron.kinds import build_neuron


class RepConvAttention(nn.Module):
    """Linear attention whose projections are RepConv chains (SDT-V2).

    Args:
        channels: C in and out.
        num_heads: Heads.
        neuron: Makes a neuron.
        attention_neuron: Makes the neuron after the product; `neuron` if not given.
        scale: Factor on the product; head size ** -0.5 if not given.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int,
        neuron: NeuronFactory,
        attention_neuron: NeuronFactory | None = None,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (channels // num_heads) ** -0.5 if scale is None else scale
        self.order: AttentionOrder = "cheaper"
        self.head_spike = neuron()
        self.q_conv, self.k_conv, self.v_conv, self.proj_conv = (
            nn.Sequential(RepConv(channels, channels), nn.BatchNorm2d(channels)) for _ in range(4)
        )
        self.q_spike, self.k_spike, self.v_spike = neuron(), neuron(), neuron()
        self.attn_spike = (attention_neuron or neuron)()

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, C, H, W) to the same shape."""
        size = x.shape[-2:]
        x = self.head_spike(x)
        q = fire_after(self.q_conv, self.q_spike, x).flatten(-2)
        k = fire_after(self.k_conv, self.k_spike, x).flatten(-2)
        v = fire_after(self.v_conv, self.v_spike, x).flatten(-2)
        y = linear_attention(q, k, v, num_heads=self.num_heads, scale=self.scale, order=self.order)
        return over_time(self.proj_conv, self.attn_spike(y.unflatten(-1, size)))


class RepConvBlock(nn.Module):
    """Attention and MLP with a residual around each (SDT-V2's transformer block).

    Args:
        channels: C in and out.
        num_heads: Heads.
        mlp_ratio: Hidden channels of the MLP over C.
        neuron: Makes a neuron.
        attention_neuron: Makes the neuron after the attention product.
        scale: Factor on the attention product.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int,
        mlp_ratio: int,
        neuron: NeuronFactory,
        attention_neuron: NeuronFactory | None = None,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.attn = RepConvAttention(
            channels,
            num_heads=num_heads,
            neuron=neuron,
            attention_neuron=attention_neuron,
            scale=scale,
        )
        self.mlp = ChannelMLP(channels, hidden=mlp_ratio * channels, neuron=neuron)

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, C, H, W) to the same shape."""
        x = x + self.attn(x)
        return x + self.mlp(x)


class FourStages(nn.Module):
    """The stages that both backbones share: stride 2, 4, 8, 16 and once more 16.

    Args:
        embed_dims: Channels of the four stages.
        in_channels: Channels of an image.
        neuron: Makes a neuron.
        conv_blocks: The four conv blocks, of `list_stage_channels(embed_dims)` channels.
        blocks: The transformer blocks of stage 3 and of stage 4.
    """

    def __init__(
        self,
        embed_dims: Sequence[int],
        *,
        in_channels: int = 3,
        neuron: NeuronFactory,
        conv_blocks: Sequence[nn.Module],
        blocks: tuple[nn.ModuleList, nn.ModuleList],
    ) -> None:
        super().__init__()
        first, second, third, fourth = embed_dims
        self.out_channels = (first // 2, first, second, fourth)
        self.downsample1_1 = Downsampling(
            in_channels, first // 2, kernel_size=7, stride=2, neuron=None
        )
        self.ConvBlock1_1 = nn.ModuleList([conv_blocks[0]])
        down = partial(Downsampling, kernel_size=3, neuron=neuron)
        self.downsample1_2 = down(first // 2, first, stride=2)
        self.ConvBlock1_2 = nn.ModuleList([conv_blocks[1]])
        self.downsample2 = down(first, second, stride=2)
        self.ConvBlock2_1 = nn.ModuleList([conv_blocks[2]])
        self.ConvBlock2_2 = nn.ModuleList([conv_blocks[3]])
        self.downsample3 = down(second, third, stride=2)
        self.block3 = blocks[0]
        self.downsample4 = down(third, fourth, stride=1)
        self.block4 = blocks[1]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature pyramid of a sequence of images.

        Args:
            x: (T, B, 3, H, W), real-valued.

        Returns:
            Four tensors (T, B, C, h, w) at stride 2, 4, 8 and 16; sizes round up.
        """
        x1 = self.ConvBlock1_1[0](self.downsample1_1(x))
        x2 = self.ConvBlock1_2[0](self.downsample1_2(x1))
        x3 = self.ConvBlock2_2[0](self.ConvBlock2_1[0](self.downsample2(x2)))
        x4 = self.downsample3(x3)
        for block in self.block3:
            x4 = block(x4)
        x4 = self.downsample4(x4)
        for block in self.block4:
            x4 = block(x4)
        return [x1, x2, x3, x4]


def list_stage_channels(embed_dims: Sequence[int]) -> tuple[int, int, int, int]:
    """Channels of the four conv blocks."""
    return embed_dims[0] // 2, embed_dims[0], embed_dims[1], embed_dims[1]


class MetaSpikeformer(FourStages):
    """Meta-SpikeFormer (SDT-V2) with outputs at stride 2, 4, 8, 16 (ARCHITECTURE section 2).

    Args:
        config: Channels, heads, depths.
        neuron: The neuron; `config.levels` overrides its D. The binary LIF is that of the
            original ImageNet checkpoints, with 0.5 as threshold of the attention neuron and 0.125
            as scale of the attention product.
        in_channels: Channels of an image.
    """

    def __init__(
        self,
        config: BackboneConfig,
        neuron: NeuronConfig | BinaryNeuronConfig,
        *,
        in_channels: int = 3,
    ) -> None:
        make = partial(build_neuron, neuron, levels=config.levels)
        attention = {}
        if isinstance(neuron, BinaryNeuronConfig):
            lower = replace(neuron, threshold=0.5)
            attention = {"attention_neuron": partial(build_neuron, lower), "scale": 0.125}

        def block(channels: int) -> nn.Module:
            return RepConvBlock(
                channels,
                num_heads=config.num_heads,
                mlp_ratio=config.mlp_ratio,
                neuron=make,
                **attention,
            )

        super().__init__(
            config.embed_dims,
            in_channels=in_channels,
            neuron=make,
            conv_blocks=[
                ConvBlock(
                    channels,
                    mixer=SeparableConv(channels, neuron=make),
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
