"""The architecture as data: frozen dataclasses, one function per published size.

Range rules live here, beside the fields they guard; `platform/config/` adds file, line and key.
"""

from dataclasses import dataclass, field, fields
from math import inf
from typing import ClassVar, Literal

Compat = Literal["published", "corrected"]
Matching = Literal["hungarian", "class"]
PartNormalization = Literal["levels", "none"]
MOST_CHANNELS = 16
"""Channels that an image may have at most."""


def _require(rule: bool, message: str) -> None:
    if not rule:
        raise ValueError(message)


def _require_positive(name: str, value: float) -> None:
    _require(0 < value < inf, f"{name} must be positive and finite, got {value}")


def _require_not_negative(name: str, value: float) -> None:
    _require(0 <= value < inf, f"{name} must be finite and not negative, got {value}")


@dataclass(frozen=True, kw_only=True)
class NeuronConfig:
    """The spiking neuron, the same in every layer unless a part overrides its levels.

    Attributes:
        timesteps: T, length of the simulated time axis, at least 1. One for the whole network:
            steps are an axis that every layer shares, so no part can have a T of its own.
        levels: D, largest integer a neuron emits in one step, at least 1.
        normalization: Divisor of the spike count: `levels` divides by D, `none` by 1,
            `constant` by `normalization_constant`.
        normalization_constant: Positive divisor, given exactly when normalization is `constant`.
        normalization_scope: `everywhere`, or `cross_attention` to divide only there
            (paper, Table 3, neuron ablation).
        dynamics: `stateless` is what the published code computes; `temporal` is the paper's
            recurrence over T with decay and soft reset.
        decay: Share of the membrane potential kept between steps, in [0, 1].
        threshold: Membrane potential of one spike, positive; 1 behind the mask embedding's sigmoid.
        rounding: `half_even` (published models) or `half_up` (SDT-V3 large models).
        window: Surrogate gradient on [0, D] (`closed`) or (0, D) (`open`).
        backend: Which implementation runs it; `auto` picks by device and logs the choice once.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}
    # A key of `NEURON_KINDS`; no field, since every stored configuration is of this kind.
    kind: ClassVar[str] = "integer"

    timesteps: int
    levels: int
    normalization: Literal["levels", "none", "constant"]
    normalization_constant: float | None = None
    normalization_scope: Literal["everywhere", "cross_attention"] = "everywhere"
    dynamics: Literal["stateless", "temporal"] = "stateless"
    decay: float = 0.25
    threshold: float = 1.0
    rounding: Literal["half_even", "half_up"] = "half_even"
    window: Literal["closed", "open"] = "closed"
    backend: Literal["auto", "torch", "cuda"] = "auto"

    def __post_init__(self) -> None:
        _require(self.timesteps >= 1, f"timesteps must be at least 1, got {self.timesteps}")
        _require(self.levels >= 1, f"levels must be at least 1, got {self.levels}")
        _require(0.0 <= self.decay <= 1.0, f"decay must be in [0, 1], got {self.decay}")
        _require_positive("threshold", self.threshold)
        has_constant = self.normalization_constant is not None
        _require(
            has_constant == (self.normalization == "constant"),
            "normalization_constant is given exactly when normalization is 'constant', got "
            f"normalization={self.normalization!r}, constant={self.normalization_constant}",
        )
        if self.normalization_constant is not None:
            _require_positive("normalization_constant", self.normalization_constant)


@dataclass(frozen=True, kw_only=True)
class BinaryNeuronConfig:
    """The binary LIF of the SDT-V2 ImageNet classifiers.

    Attributes:
        threshold: Membrane potential of a spike, positive.
    """

    kind: ClassVar[str] = "lif"

    threshold: float = 1.0


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Feature extractor with outputs at stride 2, 4, 8 and 16 (paper, Fig. 2).

    Attributes:
        family: `meta_spikeformer` (SDT-V2) or `e_spikeformer` (SDT-V3).
        embed_dims: Channels of the four stages; the first conv has half of the first.
        num_heads: Attention heads; divides the third and fourth stage's channels.
        depths: Transformer blocks of stage 3 and stage 4.
        mlp_ratio: Hidden channels of MLPs and conv blocks over their input channels.
        levels: D inside the backbone, where it differs from the neuron's (published SDT-V3
            models: 4 here, 8 in the head).
        normalization: Divisor inside the backbone, where it differs from the neuron's.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    family: Literal["meta_spikeformer", "e_spikeformer"]
    embed_dims: tuple[int, int, int, int]
    num_heads: int = 8
    depths: tuple[int, int] = (6, 2)
    mlp_ratio: int = 4
    levels: int | None = None
    normalization: PartNormalization | None = None

    def __post_init__(self) -> None:
        _require(
            min(self.embed_dims) >= 2 and self.embed_dims[0] % 2 == 0,
            f"embed_dims must be at least 2 and start with an even number, got {self.embed_dims}",
        )
        _require(self.num_heads >= 1, f"num_heads must be at least 1, got {self.num_heads}")
        for channels in self.embed_dims[2:]:
            _require(
                channels % self.num_heads == 0,
                f"num_heads must divide the channels of stages 3 and 4, got {self.num_heads} "
                f"heads for {channels} channels",
            )
        _require(min(self.depths) >= 0, f"depths must not be negative, got {self.depths}")
        _require(self.mlp_ratio >= 1, f"mlp_ratio must be at least 1, got {self.mlp_ratio}")
        _require(
            self.levels is None or self.levels >= 1,
            f"levels must be at least 1, got {self.levels}",
        )


@dataclass(frozen=True, kw_only=True)
class LargeBackboneConfig:
    """The large E-SpikeFormers of SDT-V3, known as ImageNet classifiers only.

    Attributes:
        embed_dims: Channels of the three stages.
        num_heads: Attention heads; divides the last stage's channels.
        depth: Transformer blocks, all at stride 16.
        mlp_ratio: Hidden channels of MLPs and conv blocks over their input channels.
        pair_before_attention: Whether every block starts with a pointwise pair of its own (83M).
    """

    embed_dims: tuple[int, int, int]
    num_heads: int
    depth: int
    mlp_ratio: int
    pair_before_attention: bool

    def __post_init__(self) -> None:
        _require(
            min(self.embed_dims) >= 2 and self.embed_dims[0] % 2 == 0,
            f"embed_dims must be at least 2 and start with an even number, got {self.embed_dims}",
        )
        _require(
            self.num_heads >= 1 and self.embed_dims[-1] % self.num_heads == 0,
            f"num_heads must divide the last stage's channels, got {self.num_heads} heads for "
            f"{self.embed_dims[-1]} channels",
        )
        _require(self.depth >= 1, f"depth must be at least 1, got {self.depth}")
        _require(self.mlp_ratio >= 1, f"mlp_ratio must be at least 1, got {self.mlp_ratio}")


@dataclass(frozen=True, kw_only=True)
class QueryDecoderConfig:
    """Pixel decoder, query decoder and mask embedding (ARCHITECTURE: paper, Fig. 3 and 4).

    Attributes:
        width: E, channels of both decoders.
        num_queries: Q, masks predicted per image.
        num_heads: Attention heads of the query decoder; divides the width.
        num_groups: Groups of the deformable convolution; divides the width.
        num_encoder_layers: Encoder layers of the pixel decoder.
        encoder_layer: What mixes pixels there: `deformable` (ESC and deformable convolution,
            published) or `attention` among all pixels (the ablation's plain transformer encoder).
        encoder_hidden: Hidden channels of the encoder's MLP.
        num_decoder_layers: Query decoder layers; predictions are these plus one.
        decoder_hidden: Hidden channels of the query decoder's MLP.
        alpha: Factor on the spikes of the mask embedding (4 in the published code, whatever D);
            None ties it to D, so that the embedding sees integers.
        shortcut: What the mask embedding adds to its MLP (paper, Table 3): `conv` spikes mixed over
            the queries (published), `identity` the spikes themselves, `membrane` the real-valued
            queries, `none` nothing.
        deformable_projection: What stands around the deformable convolution: `separable`, an ESC on
            each side (published), or `pointwise`, a neuron and a 1x1 convolution.
        deformable_depthwise: Whether offsets and modulation come from a depthwise convolution
            (published), else from the spikes of the pixel alone.
        pyramid: Convolutions of the pyramid: `depthwise` 3x3 (published) or `dense` 3x3.
        layer_scale: Initial value of the encoder's per-channel residual factors.
        matching: Which query answers for a label in training: `hungarian`, the cheapest assignment
            per image and layer (published), or `class`, query k for class k always, with an empty
            mask where the class does not occur. The latter is for semantic segmentation alone,
            needs a query per class, and learns in fewer images; further queries learn to be "no
            object", and the matching costs are not read.
        levels: D of query decoder and mask embedding, where it differs from the neuron's.
        normalization: Their divisor, where it differs from the neuron's.
        pixel_levels: D of the pixel decoder, where it differs from the neuron's.
        pixel_normalization: Its divisor, where it differs from the neuron's.
        pixel_head: Adds a 1x1 classifier on the mask features for an auxiliary loss
            in training; it takes no part in inference.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    width: int = 256
    num_queries: int = 100
    num_heads: int = 8
    num_groups: int = 32
    num_encoder_layers: int = 6
    encoder_layer: Literal["deformable", "attention"] = "deformable"
    encoder_hidden: int = 1024
    num_decoder_layers: int = 6
    decoder_hidden: int = 2048
    alpha: float | None = 4.0
    shortcut: Literal["conv", "identity", "membrane", "none"] = "conv"
    deformable_projection: Literal["separable", "pointwise"] = "separable"
    deformable_depthwise: bool = True
    pyramid: Literal["depthwise", "dense"] = "depthwise"
    layer_scale: float = 1e-6
    matching: Matching = "hungarian"
    pixel_head: bool = False
    levels: int | None = None
    normalization: PartNormalization | None = None
    pixel_levels: int | None = None
    pixel_normalization: PartNormalization | None = None

    def __post_init__(self) -> None:
        for name in ("width", "num_queries", "num_heads", "num_groups", "encoder_hidden"):
            _require(
                getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}"
            )
        _require(
            self.decoder_hidden >= 1,
            f"decoder_hidden must be at least 1, got {self.decoder_hidden}",
        )
        _require(self.width % 4 == 0, f"width must be a multiple of 4, got {self.width}")
        for name in ("num_heads", "num_groups"):
            _require(
                self.width % getattr(self, name) == 0,
                f"{name} must divide width {self.width}, got {getattr(self, name)}",
            )
        _require(
            self.num_encoder_layers >= 0 and self.num_decoder_layers >= 1,
            "num_encoder_layers must be at least 0 and num_decoder_layers at least 1, got "
            f"{self.num_encoder_layers} and {self.num_decoder_layers}",
        )
        for name in ("levels", "pixel_levels"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"{name} must be at least 1, got {value}")
        if self.alpha is not None:
            _require_positive("alpha", self.alpha)
        _require_not_negative("layer_scale", self.layer_scale)


@dataclass(frozen=True, kw_only=True)
class FPNConfig:
    """The feature pyramid head of the published FPN variant (`fpn_sdtv2`, `fpn_sdtv3`).

    Attributes:
        width: Channels of the pyramid and of the head.
        levels: D inside neck and head; the published variant uses 4. None takes the neuron's.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    width: int = 128
    levels: int | None = None

    def __post_init__(self) -> None:
        _require(self.width >= 1, f"width must be at least 1, got {self.width}")
        _require(
            self.levels is None or self.levels >= 1,
            f"levels must be at least 1, got {self.levels}",
        )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A whole segmentor.

    Attributes:
        num_classes: K, classes without "no object".
        in_channels: C, channels of an image, 1 to 16; 3 are RGB.
        neuron: The spiking neuron.
        backbone: The feature extractor.
        decoder: `query` (Spike2Former) or `fpn`.
        query: Sizes of the query decoder, read when decoder is `query`.
        fpn: Sizes of the FPN head, read when decoder is `fpn`.
        compat: `published` reproduces the released code's raw reshapes; `corrected` uses
            permutes, and does not depend on H x W.
        check_finite: Whether every input image is looked at for values that are not finite, which
            costs a pass over it.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    num_classes: int
    in_channels: int = 3
    neuron: NeuronConfig
    backbone: BackboneConfig
    decoder: Literal["query", "fpn"]
    query: QueryDecoderConfig = field(default_factory=QueryDecoderConfig)
    fpn: FPNConfig = field(default_factory=FPNConfig)
    compat: Compat = "corrected"
    check_finite: bool = False

    def __post_init__(self) -> None:
        # Label maps are bytes, and 255 is ignored.
        _require(
            1 <= self.num_classes <= 255,
            f"num_classes must be from 1 to 255, got {self.num_classes}",
        )
        _require(
            1 <= self.in_channels <= MOST_CHANNELS,
            f"in_channels must be from 1 to {MOST_CHANNELS}, got {self.in_channels}",
        )
        _require(
            self.decoder != "query"
            or self.query.matching != "class"
            or self.query.num_queries >= self.num_classes,
            "query.num_queries must be at least num_classes where query.matching is 'class', since "
            f"query k answers for class k, got {self.query.num_queries} queries for "
            f"{self.num_classes} classes",
        )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the losses and of the matching costs (published values as defaults).

    Attributes:
        class_weight: Cross entropy over classes plus "no object".
        mask_weight: Focal loss of matched masks.
        dice_weight: Dice loss of matched masks.
        no_object_weight: Class weight of "no object" in the cross entropy.
        class_cost: Matching cost of the class probability (2.0 in the published SDT-V3 configs).
        mask_cost: Matching cost of the focal loss.
        dice_cost: Matching cost of the dice loss.
        pixel_weight: Cross entropy of the auxiliary pixel head; 0 leaves it out.
        semantic_weight: Negative log-likelihood of the joined semantic map; 0 leaves it out.
        lovasz_weight: Lovász-softmax loss of the FPN head's or the joined semantic map, a surrogate
            of the mean IoU over the classes of a micro-batch; 0 leaves it out.
        lovasz_stride: It is taken on every n-th row and column of the logits, since its cost is
            one sort per class of all pixels taken.
        class_balance: Exponent p of the per-class factor (median frequency / frequency) ** p in
            the pixel-wise cross entropies, 0 for none.
        mask_resolution: Where mask losses are taken: `label` upsamples matched masks to the label
            map (published), `prediction` downsamples the label map to the masks (cheaper).
        mask_points: Points per matched mask that mask and dice loss are taken on, most of them
            where the mask is uncertain (Mask2Former has 12544); None takes every pixel
            (published).
        ignore_label: Label id left out of every loss.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    class_weight: float = 1.0
    mask_weight: float = 20.0
    dice_weight: float = 1.0
    no_object_weight: float = 0.1
    class_cost: float = 1.0
    mask_cost: float = 20.0
    dice_cost: float = 1.0
    pixel_weight: float = 0.0
    semantic_weight: float = 0.0
    lovasz_weight: float = 0.0
    lovasz_stride: int = 2
    class_balance: float = 0.0
    mask_resolution: Literal["label", "prediction"] = "label"
    mask_points: int | None = None
    ignore_label: int = 255

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.type is float:
                _require_not_negative(item.name, getattr(self, item.name))
        _require(
            self.mask_points is None or self.mask_points >= 4,
            f"mask_points must be at least 4, got {self.mask_points}",
        )
        _require(
            self.lovasz_stride >= 1, f"lovasz_stride must be at least 1, got {self.lovasz_stride}"
        )
