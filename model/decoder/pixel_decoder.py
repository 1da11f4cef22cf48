"""The dense half of the decoder: deformable encoder at stride 16, then a spiking pyramid."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Compat, NeuronConfig, QueryDecoderConfig
from ..layers.blocks import (
    ChannelMLP,
    NeuronFactory,
    SpikeSeparableConv,
    add_residual,
    build_dense_bn,
    build_depthwise_bn,
    over_time,
)
from ..neuron.kinds import build_neuron
from .deformable_conv import SpikeDeformableConv
from .query_decoder import SpikeAttention
from .sine_position import sine_position


def resize(
    x: Tensor, size: Sequence[int], *, mode: Literal["bilinear", "nearest"] = "bilinear"
) -> Tensor:
    """Resize (T, B, C, H, W) or (T * B, C, H, W) to a height and width."""
    corners = False if mode == "bilinear" else None
    layer = partial(F.interpolate, size=tuple(size), mode=mode, align_corners=corners)
    if x.dim() == 4:
        return layer(x)
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class EncoderMLP(ChannelMLP):
    """MLP of the encoder; the released code ends it with a raw reshape instead of a permute.

    Args:
        channels: C in and out.
        hidden: Hidden channels.
        neuron: Makes a neuron.
        compat: `published` keeps that reshape.
    """

    def __init__(
        self, channels: int, *, hidden: int, neuron: NeuronFactory, compat: Compat
    ) -> None:
        super().__init__(channels, hidden=hidden, neuron=neuron)
        self.compat = compat

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, C, H, W) to the same shape."""
        if self.compat == "corrected":
            return super().forward(x)
        C, H, W = x.shape[-3:]
        y = super().forward(x).contiguous()
        return y.view(*x.shape[:-3], H, W, C).movedim(-1, -3)


class EncoderLayer(nn.Module):
    """ESC, deformable convolution and MLP, each behind a per-channel residual factor (SDTE).

    Args:
        config: Sizes.
        neuron: Makes a neuron.
        compat: Published quirks or corrected.
    """

    def __init__(
        self, config: QueryDecoderConfig, *, neuron: NeuronFactory, compat: Compat
    ) -> None:
        super().__init__()
        self.Conv = SpikeSeparableConv(config.width, neuron=neuron, kernel_size=3)
        self.dcn = SpikeDeformableConv(config, neuron=neuron, compat=compat)
        self.ffn = EncoderMLP(
            config.width, hidden=config.encoder_hidden, neuron=neuron, compat=compat
        )
        self.gamma1, self.gamma2, self.gamma3 = (
            nn.Parameter(torch.full((config.width,), config.layer_scale)) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, E, H, W) to the same shape."""
        x = add_residual(x, self.gamma1, self.Conv(x))
        x = add_residual(x, self.gamma2, self.dcn(x))
        return add_residual(x, self.gamma3, self.ffn(x))


class AttentionEncoderLayer(nn.Module):
    """Attention among all pixels and MLP, each behind a per-channel residual factor.

    It stands for the plain transformer encoder of the paper's Table 3, whose code is not public:
    DETR's layer (sine positions on queries and keys) out of this decoder's attention and MLP.

    Args:
        config: Sizes.
        neuron: Makes a neuron.
        compat: Published quirks or corrected.
    """

    def __init__(
        self, config: QueryDecoderConfig, *, neuron: NeuronFactory, compat: Compat
    ) -> None:
        super().__init__()
        self.attn = SpikeAttention(config.width, num_heads=config.num_heads, neuron=neuron)
        self.ffn = EncoderMLP(
            config.width, hidden=config.encoder_hidden, neuron=neuron, compat=compat
        )
        self.gamma1, self.gamma2 = (
            nn.Parameter(torch.full((config.width,), config.layer_scale)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, E, H, W) to the same shape."""
        E, H, W = x.shape[-3:]
        position = sine_position(H, W, num_features=E // 2, device=x.device).to(x.dtype)
        if self.attn.merged:
            placed = x + position
            mixed = self.attn(placed, placed, x)
        else:
            pixels = x.flatten(3)
            placed = pixels + position.flatten(1)
            mixed = self.attn(placed, placed, pixels).unflatten(-1, (H, W))
        x = add_residual(x, self.gamma1, mixed)
        return add_residual(x, self.gamma2, self.ffn(x))


class Encoder(nn.Module):
    """A stack of encoder layers.

    Args:
        config: Sizes.
        neuron: Makes a neuron.
        compat: Published quirks or corrected.
    """

    def __init__(
        self, config: QueryDecoderConfig, *, neuron: NeuronFactory, compat: Compat
    ) -> None:
        super().__init__()
        deformable = config.encoder_layer == "deformable"
        layer = EncoderLayer if deformable else AttentionEncoderLayer
        self.layers = nn.ModuleList(
            layer(config, neuron=neuron, compat=compat) for _ in range(config.num_encoder_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, E, H, W) to the same shape."""
        for layer in self.layers:
            x = layer(x)
        return x


class PixelDecoder(nn.Module):
    """Mask features at stride 2 and the three levels that the queries look at.

    Args:
        in_channels: Channels of the backbone's outputs at stride 2, 4, 8, 16.
        config: Sizes.
        neuron: The neuron.
        compat: Published quirks or corrected.
        num_classes: K, for the auxiliary pixel head.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        config: QueryDecoderConfig,
        neuron: NeuronConfig,
        *,
        compat: Compat,
        num_classes: int,
    ) -> None:
        super().__init__()
        make = partial(build_neuron, neuron)
        width = config.width
        self.last_feat_conv_spike = make()
        self.encoder_in_proj = nn.Sequential(
            nn.Conv2d(in_channels[3], width, 1), nn.BatchNorm2d(width)
        )
        self.encoder = Encoder(config, neuron=make, compat=compat)
        self.encoder_out_proj_spike = make()
        self.encoder_out_proj = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))
        self.lateral_convs_spike = nn.ModuleList(make() for _ in range(3))
        self.lateral_convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width))
            for channels in in_channels[:3]
        )
        self.output_convs_spike = nn.ModuleList(make() for _ in range(3))
        make_conv = build_depthwise_bn if config.pyramid == "depthwise" else build_dense_bn
        self.output_convs = nn.ModuleList(make_conv(width, 3) for _ in range(3))
        self.mask_feature_spike = make()
        self.mask_feature = nn.Conv2d(width, width, 1)
        self.pixel_head = nn.Conv2d(width, num_classes, 1) if config.pixel_head else None
        self._initialize()

    def forward(
        self, features: Sequence[Tensor], *, project: bool = True
    ) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Decode a feature pyramid.

        Args:
            features: (T, B, C, h, w) at stride 2, 4, 8, 16.
            project: Whether mask features go through their last convolution; else they are the
                spikes before it.

        Returns:
            Mask features (T, B, E, H/2, W/2); levels (T, B, E, h, w) at stride 16, 8, 4; in
            training with a pixel head its logits (T, B, K, H/2, W/2), else None.
        """
        x = over_time(self.encoder_in_proj, self.last_feat_conv_spike(features[3]))
        memory = self.encoder_out_proj_spike(self.encoder(x))
        y = over_time(self.encoder_out_proj, memory)
        levels = [y]
        for index in (2, 1, 0):
            spikes = self.lateral_convs_spike[index](features[index])
            lateral = over_time(self.lateral_convs[index], spikes)
            y = lateral + resize(y, lateral.shape[-2:])
            y = over_time(self.output_convs[index], self.output_convs_spike[index](y))
            levels.append(y)
        spikes = self.mask_feature_spike(y)
        mask_features = over_time(self.mask_feature, spikes) if project else spikes
        if self.pixel_head is None or not self.training:
            return mask_features, levels[:3], None
        return mask_features, levels[:3], over_time(self.pixel_head, spikes)

    def _initialize(self) -> None:
        """Initialize as released: Kaiming uniform, zero bias, but not in the last pyramid level."""
        convs = [
            *(self.lateral_convs[i][0] for i in (0, 1)),  # pyright: ignore[reportIndexIssue]
            *(self.output_convs[i][0] for i in (0, 1)),  # pyright: ignore[reportIndexIssue]
            self.mask_feature,
            self.encoder_in_proj[0],
            self.encoder_out_proj[0],
        ]
        for conv in convs:
            nn.init.kaiming_uniform_(conv.weight, a=1)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
