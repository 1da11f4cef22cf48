"""A tiny network whose sums float32 holds exactly, so that every runtime must count the same."""

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeseg.model.config import BackboneConfig, FPNConfig, ModelConfig, NeuronConfig
from spikeseg.model.segmentor import build_uncalibrated_segmentor
from spikeseg.platform.export.traced_program import ExportedForm

SIZES = [(32, 32), (48, 32), (32, 64)]


def tiny_fpn(**neuron: Any) -> ModelConfig:
    """The FPN variant with one attention block, as small as it goes, for three classes."""
    return ModelConfig(
        num_classes=3,
        neuron=NeuronConfig(**{"timesteps": 1, "levels": 4, "normalization": "levels", **neuron}),
        backbone=BackboneConfig(
            family="meta_spikeformer",
            embed_dims=(4, 4, 8, 8),
            num_heads=2,
            depths=(1, 0),
            mlp_ratio=1,
        ),
        decoder="fpn",
        query=dataclasses.replace(_small_query()),
        fpn=FPNConfig(width=8),
        compat="corrected",
    )


def _small_query() -> Any:
    from models import small_config

    return small_config().query


def settle(model: nn.Module, images: Tensor) -> nn.Module:
    """Give BatchNorms random factors and one pass's statistics, so that all neurons fire."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.2, 0.8)
    model.train()
    with torch.no_grad():
        model(images)
    return model.eval()


def build_exact_form(**neuron: Any) -> ExportedForm:
    """A form whose weights are small whole numbers times powers of two.

    Each output channel has a weight of 127 times its unit, so that int8 holds all of them.
    """
    torch.manual_seed(3)
    model = build_uncalibrated_segmentor(tiny_fpn(**neuron))
    form = ExportedForm(settle(model, torch.randn(4, 3, 32, 32)))
    generator = torch.Generator().manual_seed(0)
    for name, module in form.segmentor.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        real_input = "dwconv" in name or name.endswith(("pwconv2", "_conv.1", "_conv.2"))
        most, unit = (3, 2.0**-3) if real_input and "dwconv" not in name else (127, 2.0**-9)
        shape = module.weight.shape
        whole = torch.randint(-most, most + 1, shape, generator=generator).float()
        whole.flatten(1)[:, 0] = most
        module.weight = nn.Parameter(whole * unit, requires_grad=False)
        if module.bias is not None:
            bias = torch.randint(0, 256, module.bias.shape, generator=generator).float()
            module.bias = nn.Parameter(bias * 2.0**-9, requires_grad=False)
    return form


def draw_images(batch: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Images of multiples of 1/8 in -1..1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-8, 9, (batch, 3, *size), generator=generator) / 8


def run_form(form: ExportedForm, images: Tensor) -> np.ndarray:
    """Scores of the form itself."""
    with torch.no_grad():
        return form(images)[0].numpy()
