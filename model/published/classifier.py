"""The ImageNet form of the backbones: to load, check and test their published checkpoints."""

from torch import Tensor, nn

from ..backbone.e_spikeformer import ESpikeformer
from ..backbone.e_spikeformer_large import ESpikeformerLarge
from ..backbone.meta_spikeformer import MetaSpikeformer
from ..config import BackboneConfig, BinaryNeuronConfig, LargeBackboneConfig, NeuronConfig
from ..neuron.kinds import build_neuron


class Classifier(nn.Module):
    """Backbone, mean over pixels, neuron, linear layer; logits are the mean over T.

    Args:
        backbone: Takes (T, B, 3, H, W) and returns a pyramid; its last map is classified.
        neuron: The neuron before the head.
        num_classes: Classes.
        distilled: Whether a second head (`head_kd`) exists; in eval mode both are averaged.
        spiking_head: Whether `head` sees spikes (SDT-V2, SDT-V3) or the real-valued mean (SDT-V3
            large, where only `head_kd` sees spikes).
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        neuron: nn.Module,
        num_classes: int,
        distilled: bool,
        spiking_head: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.spiking_head = spiking_head
        channels = backbone.out_channels[-1]  # pyright: ignore[reportIndexIssue]
        self.lif = neuron
        self.head = nn.Linear(channels, num_classes)  # pyright: ignore[reportArgumentType]
        self.head_kd = nn.Linear(channels, num_classes) if distilled else None  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, 3, H, W) to logits (B, K); in train mode those of `head` alone."""
        pooled = self.backbone(x)[-1].flatten(3).mean(3)
        spikes = self.lif(pooled)
        logits = self.head(spikes if self.spiking_head else pooled).mean(0)
        if self.head_kd is None or self.training:
            return logits
        return (logits + self.head_kd(spikes).mean(0)) / 2


def build_classifier(
    config: BackboneConfig | LargeBackboneConfig,
    neuron: NeuronConfig | BinaryNeuronConfig,
    *,
    num_classes: int,
    distilled: bool,
) -> Classifier:
    """Build the classifier of a published ImageNet checkpoint.

    Args:
        config: The backbone.
        neuron: The neuron; the binary LIF for SDT-V2's checkpoints.
        num_classes: Classes of the head; 1000 for ImageNet.
        distilled: Whether the checkpoint has `head_kd.*`.

    Raises:
        ValueError: Where the binary LIF is asked for another family than `meta_spikeformer`.
    """
    large = isinstance(config, LargeBackboneConfig)
    levels = None if large else config.levels
    last = build_neuron(neuron, levels=levels)
    if not large and config.family == "meta_spikeformer":
        backbone: nn.Module = MetaSpikeformer(config, neuron)
    elif isinstance(neuron, BinaryNeuronConfig):
        raise ValueError("neuron 'lif' goes with family 'meta_spikeformer' only")
    elif large:
        backbone = ESpikeformerLarge(config, neuron)
    else:
        backbone = ESpikeformer(config, neuron)
    if isinstance(backbone, ESpikeformer | ESpikeformerLarge):
        last.divisor = 1.0  # SDT-V3 hands the integers themselves to its heads.
    return Classifier(
        backbone,
        neuron=last,
        num_classes=num_classes,
        distilled=distilled,
        spiking_head=not isinstance(backbone, ESpikeformerLarge),
    )
