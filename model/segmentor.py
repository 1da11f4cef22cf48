"""The whole network: wires backbone, pixel decoder, query decoder and mask embedding."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone.e_spikeformer import ESpikeformer
from .backbone.meta_spikeformer import MetaSpikeformer
from .config import ModelConfig
from .decoder.fpn import build_fpn
from .decoder.mask_embedding import MaskEmbedding
from .decoder.mask_product import mask_product
from .decoder.pixel_decoder import PixelDecoder
from .decoder.query_decoder import QueryDecoder
from .decoder.sine_position import sine_position
from .initialize import calibrate_attention, start_alive
from .neuron.kinds import neuron_of_part
from .prediction import DensePrediction, MaskPrediction

_BACKBONES = {"meta_spikeformer": MetaSpikeformer, "e_spikeformer": ESpikeformer}
_COARSEST_STRIDE = 16


def build_segmentor(config: ModelConfig, images: Tensor) -> nn.Module:
    """Build a segmentor that is ready to train: initial weights, calibrated attention.

    It is the network that `spikeseg train` starts with, for the same generator and first images.

    Args:
        config: The architecture.
        images: One micro-batch of the training data, (B, C, H, W), normalized.

    Returns:
        `Spike2Former` or `SpikeFPNSegmentor`, on the CPU, drawn from torch's global generator.
    """
    model = build_uncalibrated_segmentor(config)
    if config.compat == "corrected":
        calibrate_attention(model, images)
    return model


def build_uncalibrated_segmentor(config: ModelConfig) -> nn.Module:
    """Build a segmentor for weights that are loaded next, or for calibration.

    To train it from these initial weights with compat `corrected`, first call
    `calibrate_attention` with images, as `build_segmentor` does: until then attention neurons may
    never fire, and gradients pass none of them.

    Args:
        config: The architecture.

    Returns:
        `Spike2Former` or `SpikeFPNSegmentor`, drawn from torch's global generator.
    """
    model = Spike2Former(config) if config.decoder == "query" else SpikeFPNSegmentor(config)
    if config.compat == "corrected":
        start_alive(model)
    return model


def add_time_axis(image: Tensor, config: ModelConfig) -> Tensor:
    """Add the time axis to an image.

    Args:
        image: (B, C, H, W), repeated at every step, or (T, B, C, H, W).
        config: With T and the number of channels C.

    Returns:
        (T, B, C, H, W).

    Raises:
        ValueError: Where the shape does not fit; says which rule.
    """
    timesteps, channels = config.neuron.timesteps, config.in_channels
    if image.dim() == 4:
        image = image.unsqueeze(0).expand(timesteps, -1, -1, -1, -1)
    if image.dim() != 5:
        raise ValueError(
            f"image must be (B, C, H, W) or (T, B, C, H, W), got shape {tuple(image.shape)}"
        )
    if image.shape[0] != timesteps:
        raise ValueError(f"image has {image.shape[0]} time steps, the model has {timesteps}")
    if image.shape[2] != channels:
        raise ValueError(f"image must have {channels} channels, got {image.shape[2]}")
    if min(image.shape[-2:]) < _COARSEST_STRIDE:
        raise ValueError(
            f"image must be at least {_COARSEST_STRIDE} pixels high and wide, the coarsest "
            f"stride, got {image.shape[-2]} x {image.shape[-1]}"
        )
    return image


def _build_backbone(config: ModelConfig) -> MetaSpikeformer | ESpikeformer:
    build = _BACKBONES[config.backbone.family]
    neuron = neuron_of_part(config.neuron, None, config.backbone.normalization)
    return build(config.backbone, neuron, in_channels=config.in_channels)


def check_finite(image: Tensor) -> Tensor:
    """Return an image if all its values are finite.

    Raises:
        ValueError: With how many are not.
    """
    wrong = int((~image.isfinite()).sum())
    if wrong:
        raise ValueError(f"image must be finite, {wrong} of {image.numel()} values are not")
    return image


def _transpose(parameter: Tensor) -> Tensor:
    """Transpose of a parameter that asks for a gradient only where one can be taken.

    Without gradients a view of a parameter still says that it requires one, and has no function
    for it: counters that hook what requires a gradient fail on it.
    """
    return (parameter if torch.is_grad_enabled() else parameter.detach()).T


class QueryHead(nn.Module):
    """Pixel decoder, query decoder and mask embedding.

    Args:
        config: The architecture.
        in_channels: Channels of the backbone's outputs.
    """

    def __init__(self, config: ModelConfig, in_channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        sizes = config.query
        self.pixel_decoder = PixelDecoder(
            in_channels,
            sizes,
            neuron_of_part(config.neuron, sizes.pixel_levels, sizes.pixel_normalization),
            compat=config.compat,
            num_classes=config.num_classes,
        )
        neuron = neuron_of_part(config.neuron, sizes.levels, sizes.normalization)
        self.transformer_decoder = QueryDecoder(sizes, neuron, compat=config.compat)
        self.query_feat = nn.Embedding(sizes.num_queries, sizes.width)
        self.query_embed = nn.Embedding(sizes.num_queries, sizes.width)
        self.level_embed = nn.Embedding(3, sizes.width)
        self.embedding = MaskEmbedding(sizes, neuron, num_classes=config.num_classes)
        self.last_only = False
        """Whether only the last layer's prediction is made (L = 1), as inference needs."""
        self.merged_steps: int | None = None
        """T where time is part of the batch (folded form); only the last layer is predicted."""
        self.mask_projection: nn.Linear | None = None
        """In the folded form, the mask features' convolution moved to the queries' side."""
        self.mask_product: Callable[[Tensor, Tensor], Tensor] = mask_product
        """Masks of every layer and query; the benchmark puts the published order here."""
        self.reorders = True
        """Whether training may take products in another order than the published code does."""

    def forward(self, features: list[Tensor]) -> MaskPrediction:
        """Features (T, B, C, h, w) at stride 2, 4, 8, 16 to predictions of every layer."""
        # In training the mask features' convolution is applied to the queries instead, as in the
        # folded form: M (W s + b) = (M W) s + M b takes E^2 less a pixel and keeps one map less.
        moved = self.training and self.reorders
        mask_features, levels, pixel_logits = self.pixel_decoder(features, project=not moved)
        queries = self._decode_queries(levels)
        if self.merged_steps is not None:
            mask_features = mask_features.unflatten(0, (self.merged_steps, -1))
        class_logits, embeddings = self.embedding(queries)
        factors = None
        if moved:
            layer = self.pixel_decoder.mask_feature
            assert layer.bias is not None
            projected = F.linear(embeddings, layer.weight[:, :, 0, 0].T)
            factors = (projected, mask_features, F.linear(embeddings, layer.bias[None])[..., 0])
            mask_logits = mask_product(*factors)
        elif self.mask_projection is not None:
            projected = self.mask_projection(embeddings)
            mask_logits = mask_product(projected[..., :-1], mask_features, projected[..., -1])
        else:
            mask_logits = self.mask_product(embeddings, mask_features)
        if pixel_logits is not None:
            pixel_logits = pixel_logits.mean(0)
        return MaskPrediction(class_logits, mask_logits, pixel_logits, factors)

    def _decode_queries(self, levels: list[Tensor]) -> Tensor:
        """Queries after the layers that are predicted from, (T, L, B, Q, E).

        Args:
            levels: (T, B, E, h, w) each; (T * B, E, h, w) where time is merged.
        """
        steps, merged = self.merged_steps, self.merged_steps is not None
        memories, positions = [], []
        for index, level in enumerate(levels):
            E, H, W = level.shape[-3:]
            position = sine_position(H, W, num_features=E // 2, device=level.device)
            embedding = self.level_embed.weight[index].view(E, 1)
            positions.append((position if merged else position.flatten(1)).to(level.dtype))
            memories.append(
                level + embedding[..., None] if merged else level.flatten(3) + embedding
            )
        query, place = _transpose(self.query_feat.weight), _transpose(self.query_embed.weight)
        if steps is not None:
            # Tokens are maps of width 1.
            query, place = query[..., None], place[..., None]
        query = query.expand(*levels[0].shape[:-3], *(-1,) * query.dim())
        collected = self.transformer_decoder(query, memories, place, positions)
        if self.last_only:
            collected = collected[-1:]
        if steps is not None:
            collected = [tokens.squeeze(-1).unflatten(0, (steps, -1)) for tokens in collected]
        return torch.stack(collected, 1).transpose(-1, -2)


class Spike2Former(nn.Module):
    """Spike2Former (paper, Fig. 2): backbone and query head.

    Args:
        config: The architecture.
    """

    merged = False
    """Whether time is part of the batch inside (folded form)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = _build_backbone(config)
        self.decode_head = QueryHead(config, self.backbone.out_channels)

    def forward(self, image: Tensor) -> MaskPrediction:
        """Predict.

        Args:
            image: (B, C, H, W), or (T, B, C, H, W) where the steps differ; normalized.

        Returns:
            Predictions of every decoder layer, masks at half the image's size.

        Raises:
            ValueError: Where the shape does not fit, or a value is not finite and that is checked.
        """
        if self.config.check_finite:
            image = check_finite(image)
        sequence = add_time_axis(image, self.config)
        return self.decode_head(self.backbone(sequence.flatten(0, 1) if self.merged else sequence))


class SpikeFPNSegmentor(nn.Module):
    """The FPN variant: backbone, spiking pyramid, per-pixel classifier.

    Args:
        config: The architecture.
    """

    merged = False
    """Whether time is part of the batch inside (folded form)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = _build_backbone(config)
        self.neck, self.decode_head = build_fpn(
            self.backbone.out_channels,
            config.fpn,
            config.neuron,
            num_classes=config.num_classes,
        )

    def forward(self, image: Tensor) -> DensePrediction:
        """Predict.

        Args:
            image: (B, C, H, W), or (T, B, C, H, W) where the steps differ; normalized.

        Returns:
            Class logits at half the image's size.

        Raises:
            ValueError: Where the shape does not fit, or a value is not finite and that is checked.
        """
        if self.config.check_finite:
            image = check_finite(image)
        sequence = add_time_axis(image, self.config)
        features = self.backbone(sequence.flatten(0, 1) if self.merged else sequence)
        return DensePrediction(self.decode_head(self.neck(features)))
