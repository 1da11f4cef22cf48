"""The published FPN variant: spiking pyramid neck and semantic head, trained with cross entropy."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from ..config import FPNConfig, NeuronConfig
from ..layers.blocks import NeuronFactory, over_time
from ..neuron.kinds import build_neuron
from .pixel_decoder import resize


class SpikeFPN(nn.Module):
    """Neck: every level to one width, summed from coarse to fine by nearest neighbours.

    Args:
        in_channels: Channels of the four levels.
        width: Channels of the pyramid.
        neuron: Makes a neuron.
    """

    def __init__(self, in_channels: Sequence[int], *, width: int, neuron: NeuronFactory) -> None:
        super().__init__()
        self.lateral_spikes = nn.ModuleList(neuron() for _ in in_channels)
        self.lateral_convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width))
            for channels in in_channels
        )
        self.fpn_spikes = nn.ModuleList(neuron() for _ in in_channels)
        self.fpn_convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))
            for _ in in_channels
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """(T, B, C, h, w) per level to (T, B, width, h, w) per level."""
        laterals = [
            over_time(conv, spike(x))
            for conv, spike, x in zip(
                self.lateral_convs, self.lateral_spikes, features, strict=True
            )
        ]
        for fine in range(len(laterals) - 2, -1, -1):
            size = laterals[fine].shape[-2:]
            laterals[fine] = laterals[fine] + resize(laterals[fine + 1], size, mode="nearest")
        return [
            over_time(conv, spike(x))
            for conv, spike, x in zip(self.fpn_convs, self.fpn_spikes, laterals, strict=True)
        ]


class _ConvUnit(nn.Sequential):
    """Neuron `0`, 3x3 convolution `1`, BatchNorm `2`."""

    def __init__(self, width: int, neuron: NeuronFactory) -> None:
        super().__init__(
            neuron(), nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(T, B, C, H, W) to the same shape."""
        return over_time(self[2], over_time(self[1], self[0](x)))


class _Double(nn.Module):
    """Bilinear x2."""

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, C, H, W) to (T, B, C, 2H, 2W)."""
        return resize(x, (2 * x.shape[-2], 2 * x.shape[-1]))


class SpikeFPNHead(nn.Module):
    """Head: level i through max(1, i) units, each followed by x2 for i > 0, summed, classified.

    Args:
        width: Channels.
        num_levels: Levels of the pyramid.
        num_classes: K.
        neuron: Makes a neuron.
    """

    def __init__(
        self, width: int, *, num_levels: int, num_classes: int, neuron: NeuronFactory
    ) -> None:
        super().__init__()
        self.scale_heads = nn.ModuleList()
        for level in range(num_levels):
            parts: list[nn.Module] = []
            for _ in range(max(1, level)):
                parts.append(_ConvUnit(width, neuron))
                if level > 0:
                    parts.append(_Double())
            self.scale_heads.append(nn.Sequential(*parts))
        self.merged_steps: int | None = None
        """T where time is part of the batch."""
        self.seg_spike = neuron()
        self.conv_seg = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(T, B, width, h, w) per level to class logits (B, K, H/2, W/2), mean over T."""
        y = self.scale_heads[0](features[0])
        for head, x in zip(list(self.scale_heads)[1:], features[1:], strict=True):
            y = y + resize(head(x), y.shape[-2:])
        logits = over_time(self.conv_seg, self.seg_spike(y))
        if self.merged_steps is not None:
            logits = logits.unflatten(0, (self.merged_steps, -1))
        return logits.mean(0)


def build_fpn(
    in_channels: Sequence[int], config: FPNConfig, neuron: NeuronConfig, *, num_classes: int
) -> tuple[SpikeFPN, SpikeFPNHead]:
    """Build neck and head for a backbone.

    Args:
        in_channels: Channels of the backbone's outputs.
        config: Width, and D where it differs from the neuron's.
        neuron: The neuron.
        num_classes: K.
    """
    make = partial(build_neuron, neuron, levels=config.levels)
    return (
        SpikeFPN(in_channels, width=config.width, neuron=make),
        SpikeFPNHead(
            config.width, num_levels=len(in_channels), num_classes=num_classes, neuron=make
        ),
    )
