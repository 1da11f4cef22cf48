"""A small segmentor and a few generated images, for tests that need something to run."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.model.config import (
    BackboneConfig,
    FPNConfig,
    ModelConfig,
    NeuronConfig,
    QueryDecoderConfig,
)


def small_config() -> ModelConfig:
    """The published architecture at a size that a test can train, for nine classes."""
    return ModelConfig(
        num_classes=9,
        neuron=NeuronConfig(timesteps=1, levels=4, normalization="levels"),
        backbone=BackboneConfig(
            family="meta_spikeformer",
            embed_dims=(16, 16, 32, 48),
            num_heads=4,
            depths=(2, 1),
            mlp_ratio=4,
        ),
        decoder="query",
        query=QueryDecoderConfig(
            width=32,
            num_queries=20,
            num_heads=4,
            num_groups=8,
            num_encoder_layers=2,
            encoder_hidden=64,
            num_decoder_layers=3,
            decoder_hidden=64,
        ),
        fpn=FPNConfig(width=32),
        compat="corrected",
    )


def shapes_batch(count: int, size: int = 48) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W), roughly normalized, and label maps (B, H, W)."""
    reader = Shapes(ShapesOptions(size=(size, size), train=count))
    rows = [reader.read(raw).row for raw in reader.rows(Path(), partial=False)[:count]]
    images = torch.from_numpy(np.stack([row.image for row in rows])).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.stack([row.label for row in rows]).astype(np.int64))
    return (images.float() - 118) / 58, labels
