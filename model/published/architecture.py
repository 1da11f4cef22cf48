"""The architecture that a published state dict belongs to, read from its keys and shapes."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from torch import Tensor, nn

from ..config import (
    BackboneConfig,
    BinaryNeuronConfig,
    FPNConfig,
    LargeBackboneConfig,
    ModelConfig,
    QueryDecoderConfig,
)
from ..segmentor import Spike2Former, SpikeFPNSegmentor
from .classifier import build_classifier
from .sizes import head_neuron, large_neuron

ClassifierNeuron = Literal["lif", "integer"]
_POINTS = 9  # Of a deformable 3x3 kernel.


@dataclass(frozen=True)
class Recognized:
    """Architecture that a state dict belongs to.

    Attributes:
        architecture: A segmentor, or the backbone of an ImageNet classifier.
        num_classes: K.
        distilled: Whether a classifier has a second head.
        neuron: Of a classifier: `lif`, the binary LIF of SDT-V2's published checkpoints, or
            `integer`, the NI-LIF of this family's segmentors and SDT-V3.
    """

    architecture: ModelConfig | BackboneConfig | LargeBackboneConfig
    num_classes: int
    distilled: bool = False
    neuron: ClassifierNeuron = "integer"

    @property
    def is_classifier(self) -> bool:
        """Whether this is the ImageNet form of a backbone."""
        return not isinstance(self.architecture, ModelConfig)

    @property
    def assumed(self) -> list[str]:
        """Settings, as `name=value`, that no key or shape shows."""
        architecture = self.architecture
        if isinstance(architecture, LargeBackboneConfig):
            return [f"num_heads={architecture.num_heads}"]
        segmentor = isinstance(architecture, ModelConfig)
        backbone = architecture.backbone if segmentor else architecture
        settings = [f"num_heads={backbone.num_heads}"]
        if backbone.levels is not None:
            settings.append(f"backbone.levels={backbone.levels}")
        elif not segmentor:
            settings.append(f"neuron={self.neuron}")
        if segmentor:
            neuron = architecture.neuron
            settings += [f"neuron.timesteps={neuron.timesteps}", f"neuron.levels={neuron.levels}"]
            settings.append(f"compat={architecture.compat}")
        return settings

    def to_json(self) -> dict[str, Any]:
        """As JSON types; `from_json` reads it back."""
        return {
            "kind": type(self.architecture).__name__,
            "architecture": asdict(self.architecture),
            "num_classes": self.num_classes,
            "distilled": self.distilled,
            "neuron": self.neuron,
        }


def from_json(record: dict[str, Any]) -> Recognized:
    """Read `Recognized.to_json` back.

    Raises:
        ValueError: Where the kind is unknown or a value breaks its rule.
        KeyError: Where a part is missing.
    """
    fields = record["architecture"]
    if record["kind"] == "ModelConfig":
        architecture: ModelConfig | BackboneConfig | LargeBackboneConfig = ModelConfig(
            **{
                **fields,
                "neuron": head_neuron(
                    timesteps=fields["neuron"]["timesteps"], levels=fields["neuron"]["levels"]
                ),
                "backbone": BackboneConfig(**_restore_tuples(fields["backbone"])),
                "query": QueryDecoderConfig(**fields["query"]),
                "fpn": FPNConfig(**fields["fpn"]),
            }
        )
    elif record["kind"] == "BackboneConfig":
        architecture = BackboneConfig(**_restore_tuples(fields))
    elif record["kind"] == "LargeBackboneConfig":
        architecture = LargeBackboneConfig(**_restore_tuples(fields))
    else:
        raise ValueError(f"kind {record['kind']!r} is unknown")
    if record["neuron"] not in get_args(ClassifierNeuron):
        raise ValueError(f"neuron {record['neuron']!r} is unknown")
    return Recognized(architecture, record["num_classes"], record["distilled"], record["neuron"])


def recognize(
    state: Mapping[str, Tensor], *, num_heads: int, neuron: ClassifierNeuron | None = None
) -> Recognized:
    """Recognize the architecture of a published state dict.

    Args:
        state: Published keys -> tensors, of a segmentor or of an ImageNet classifier.
        num_heads: Attention heads, which no shape shows.
        neuron: Of an SDT-V2 classifier, which no key shows; None takes the published LIF.

    Raises:
        ValueError: Where the keys are of no known architecture; names a key that is missing; where
            a neuron is given for another family.
    """
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    try:
        if "decode_head.query_feat.weight" in shapes or "decode_head.conv_seg.weight" in shapes:
            recognized = _recognize_segmentor(shapes, num_heads)
        else:
            backbone = _recognize_backbone(shapes, "", num_heads)
            classes = shapes["head.weight"][0]
            recognized = Recognized(backbone, classes, "head_kd.weight" in shapes)
    except KeyError as error:
        raise ValueError(
            f"its keys are of no known architecture: {error.args[0]} is missing"
        ) from error
    except (IndexError, ZeroDivisionError) as error:
        raise ValueError("its shapes are of no known architecture") from error
    backbone = recognized.architecture
    if isinstance(backbone, BackboneConfig) and backbone.family == "meta_spikeformer":
        return replace(recognized, neuron=neuron or "lif")
    if neuron is not None:
        raise ValueError(f"neuron is chosen for SDT-V2 classifiers only, got {neuron}")
    return recognized


def build_recognized(recognized: Recognized) -> nn.Module:
    """Build the module that the state dict fits, drawn from torch's global generator."""
    architecture = recognized.architecture
    if isinstance(architecture, ModelConfig):
        return (Spike2Former if architecture.decoder == "query" else SpikeFPNSegmentor)(
            architecture
        )
    large = isinstance(architecture, LargeBackboneConfig)
    integer = large_neuron() if large else head_neuron()
    return build_classifier(
        architecture,
        BinaryNeuronConfig() if recognized.neuron == "lif" else integer,
        num_classes=recognized.num_classes,
        distilled=recognized.distilled,
    )


def _recognize_segmentor(shapes: dict[str, tuple[int, ...]], num_heads: int) -> Recognized:
    backbone = _recognize_backbone(shapes, "backbone.", num_heads)
    if not isinstance(backbone, BackboneConfig):
        raise KeyError("backbone.downsample4.encode_conv.weight")
    if "decode_head.conv_seg.weight" in shapes:
        classes = shapes["decode_head.conv_seg.weight"][0]
        width = shapes["neck.lateral_convs.0.0.weight"][0]
        config = ModelConfig(
            num_classes=classes,
            neuron=head_neuron(),
            backbone=backbone,
            decoder="fpn",
            fpn=FPNConfig(width=width, levels=4),
            compat="published",
        )
        return Recognized(config, classes)
    # A shape of another rank is named where keys and model are compared.
    embedding = shapes["decode_head.query_feat.weight"]
    queries, width = embedding[0], embedding[1]
    classes = shapes["decode_head.cls_embed.weight"][0] - 1
    encoder = "decode_head.pixel_decoder.encoder.layers."
    decoder = "decode_head.transformer_decoder.layers."
    config = ModelConfig(
        num_classes=classes,
        neuron=head_neuron(),
        backbone=backbone,
        decoder="query",
        query=QueryDecoderConfig(
            width=width,
            num_queries=queries,
            num_heads=num_heads,
            num_groups=shapes[f"{encoder}0.dcn.mask.0.weight"][0] // _POINTS,
            num_encoder_layers=_count_modules(shapes, encoder),
            encoder_hidden=shapes[f"{encoder}0.ffn.fc1_conv.weight"][0],
            num_decoder_layers=_count_modules(shapes, decoder),
            decoder_hidden=shapes[f"{decoder}0.ffn.fc1.weight"][0],
        ),
        compat="published",
    )
    return Recognized(config, classes)


def _recognize_backbone(
    shapes: dict[str, tuple[int, ...]], prefix: str, num_heads: int
) -> BackboneConfig | LargeBackboneConfig:
    stages = ("downsample1_2", "downsample2", "downsample3")
    dims = tuple(shapes[f"{prefix}{stage}.encode_conv.weight"][0] for stage in stages)
    mlp_ratio = shapes[f"{prefix}block3.0.mlp.fc1_conv.weight"][0] // dims[-1]
    third = _count_modules(shapes, f"{prefix}block3.")
    last = f"{prefix}downsample4.encode_conv.weight"
    if last not in shapes:
        return LargeBackboneConfig(
            embed_dims=(dims[0], dims[1], dims[2]),
            num_heads=num_heads,
            depth=third,
            mlp_ratio=mlp_ratio,
            pair_before_attention=f"{prefix}block3.0.rep_conv.conv1.0.weight" in shapes,
        )
    second_generation = f"{prefix}block3.0.attn.q_conv.0.body.0.weight" in shapes
    return BackboneConfig(
        family="meta_spikeformer" if second_generation else "e_spikeformer",
        embed_dims=(dims[0], dims[1], dims[2], shapes[last][0]),
        num_heads=num_heads,
        depths=(third, _count_modules(shapes, f"{prefix}block4.")),
        mlp_ratio=mlp_ratio,
        levels=None if second_generation else 4,
    )


def _count_modules(shapes: dict[str, tuple[int, ...]], prefix: str) -> int:
    """How many numbered modules stand below a prefix."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    numbers = {match[1] for key in shapes if (match := pattern.match(key))}
    return len(numbers)


def _restore_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
