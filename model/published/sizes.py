"""The published sizes, one function each (parameter counts in ARCHITECTURE sections 2, 3 and 5).

Backbones count without and with their 1000-class ImageNet head.
"""

from ..config import (
    BackboneConfig,
    FPNConfig,
    LargeBackboneConfig,
    ModelConfig,
    NeuronConfig,
    QueryDecoderConfig,
)


def head_neuron(*, timesteps: int = 1, levels: int = 8) -> NeuronConfig:
    """NI-LIF of the released segmentors: D = 8, divided by D, no exchange over T."""
    return NeuronConfig(timesteps=timesteps, levels=levels, normalization="levels")


def large_neuron() -> NeuronConfig:
    """The neuron of SDT-V3's large models: D = 4, halves round up, open gradient window."""
    return NeuronConfig(
        timesteps=1, levels=4, normalization="levels", rounding="half_up", window="open"
    )


def meta_spikeformer_15m() -> BackboneConfig:
    """SDT-V2, 14,751,208 / 15,112,208 parameters; the paper's backbone."""
    return BackboneConfig(family="meta_spikeformer", embed_dims=(64, 128, 256, 360))


def meta_spikeformer_31m() -> BackboneConfig:
    """SDT-V2 `metaspikformer_8_384`, 30,852,864 / 31,333,864 parameters."""
    return BackboneConfig(family="meta_spikeformer", embed_dims=(96, 192, 384, 480))


def meta_spikeformer_55m() -> BackboneConfig:
    """SDT-V2 `metaspikformer_8_512`, 54,709,248 / 55,350,248 parameters."""
    return BackboneConfig(family="meta_spikeformer", embed_dims=(128, 256, 512, 640))


def e_spikeformer_t() -> BackboneConfig:
    """SDT-V3 `t`, 2,573,048 / 2,702,048 parameters."""
    return BackboneConfig(family="e_spikeformer", embed_dims=(24, 48, 96, 128), levels=4)


def e_spikeformer_5m() -> BackboneConfig:
    """SDT-V3 5.1M, 4,912,608 / 5,105,608 parameters."""
    return BackboneConfig(family="e_spikeformer", embed_dims=(32, 64, 128, 192), levels=4)


def e_spikeformer_10m() -> BackboneConfig:
    """SDT-V3 10M, 9,782,112 / 10,023,112 parameters."""
    return BackboneConfig(family="e_spikeformer", embed_dims=(48, 96, 192, 240), levels=4)


def e_spikeformer_19m() -> BackboneConfig:
    """SDT-V3 19M, 18,626,504 / 18,987,504 parameters; the released SDT-V3 segmentors' backbone."""
    return BackboneConfig(family="e_spikeformer", embed_dims=(64, 128, 256, 360), levels=4)


def e_spikeformer_83m() -> LargeBackboneConfig:
    """SDT-V3 large `base`, 83,015,952 parameters with both heads; cannot run as released."""
    return LargeBackboneConfig(
        embed_dims=(128, 256, 512), num_heads=8, depth=12, mlp_ratio=4, pair_before_attention=True
    )


def e_spikeformer_171m() -> LargeBackboneConfig:
    """SDT-V3 large `large`, 171,740,714 parameters with both heads."""
    return LargeBackboneConfig(
        embed_dims=(196, 384, 768), num_heads=8, depth=12, mlp_ratio=4, pair_before_attention=False
    )


def spike2former_sdtv2(*, num_classes: int = 150, encoder_hidden: int = 1024) -> ModelConfig:
    """Spike2Former on Meta-SpikeFormer 15.1M: 34,361,112 parameters for ADE20K.

    Args:
        num_classes: K; 150 for ADE20K.
        encoder_hidden: Hidden channels of the encoder's MLP; 2048 in the Cityscapes recipe.
    """
    return ModelConfig(
        num_classes=num_classes,
        neuron=head_neuron(),
        backbone=meta_spikeformer_15m(),
        decoder="query",
        query=QueryDecoderConfig(encoder_hidden=encoder_hidden),
        compat="published",
    )


def spike2former_sdtv3(*, num_classes: int = 150) -> ModelConfig:
    """Spike2Former on E-SpikeFormer 19M: 38,236,408 parameters for ADE20K.

    Args:
        num_classes: K; 150 for ADE20K.
    """
    return ModelConfig(
        num_classes=num_classes,
        neuron=head_neuron(),
        backbone=e_spikeformer_19m(),
        decoder="query",
        compat="published",
    )


def fpn_sdtv2(*, num_classes: int = 150) -> ModelConfig:
    """The FPN variant on Meta-SpikeFormer 15.1M.

    Args:
        num_classes: K; 150 for ADE20K.
    """
    return _build_fpn(meta_spikeformer_15m(), num_classes)


def fpn_sdtv3(*, num_classes: int = 150) -> ModelConfig:
    """The FPN variant on E-SpikeFormer 19M.

    Args:
        num_classes: K; 150 for ADE20K.
    """
    return _build_fpn(e_spikeformer_19m(), num_classes)


def _build_fpn(backbone: BackboneConfig, num_classes: int) -> ModelConfig:
    return ModelConfig(
        num_classes=num_classes,
        neuron=head_neuron(),
        backbone=backbone,
        decoder="fpn",
        fpn=FPNConfig(levels=4),
        compat="published",
    )
