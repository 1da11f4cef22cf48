"""What counts as spikes, and how often a layer is counted."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import small_config
from torch import Tensor, nn

from spikeseg.model.accounting.energy import PAPER_RULE, estimate_energy
from spikeseg.model.accounting.macs import LayerMacs, count_macs
from spikeseg.model.deployment.fold import fold
from spikeseg.model.published.classifier import build_classifier
from spikeseg.model.published.sizes import head_neuron
from spikeseg.model.segmentor import build_uncalibrated_segmentor

FIRST = "backbone.downsample1_1.encode_conv"


def segmentor(**changes: object) -> nn.Module:
    torch.manual_seed(0)
    model = build_uncalibrated_segmentor(dataclasses.replace(small_config(), **changes))
    model(torch.randn(2, 3, 48, 48))  # BatchNorms leave the constants of their start.
    return model.eval()


@pytest.mark.parametrize("timesteps", [1, 2])
@pytest.mark.parametrize(
    "image",
    [torch.zeros(1, 3, 48, 48), torch.ones(1, 3, 48, 48), (torch.rand(1, 3, 48, 48) > 0.5).float()],
    ids=["zeros", "ones", "zeros_and_ones"],
)
def test_the_image_is_real_valued_whatever_its_values(image: Tensor, timesteps: int) -> None:
    neuron = dataclasses.replace(small_config().neuron, timesteps=timesteps)
    model = segmentor(neuron=neuron)
    with torch.no_grad():
        first, *others = estimate_energy(model, image).rows
    assert first.name == FIRST and not first.spiking_input
    assert first.mj == pytest.approx(PAPER_RULE.mac * first.macs * 1e-9)
    assert first.macs == timesteps * 24 * 24 * 8 * 3 * 49
    assert any(row.spiking_input for row in others)


def rows_of(model: nn.Module, image: Tensor) -> dict[str, LayerMacs]:
    return {row.name: row for row in count_macs(model, image)}


def test_the_inside_of_a_linear_chain_is_real_valued_though_nothing_fires() -> None:
    model = segmentor()
    backbone: Any = model.backbone
    block = backbone.ConvBlock1_1[0].Conv
    nn.init.constant_(block.bn1.bias, -100.0)  # Neurons behind it are silent: the chain sees zeros.
    rows = rows_of(model, torch.randn(1, 3, 48, 48))
    dwconv, pwconv2 = (rows[f"backbone.ConvBlock1_1.0.Conv.{n}"] for n in ("dwconv", "pwconv2"))
    assert (dwconv.spiking_input, dwconv.rate) == (True, 0.0)
    assert not pwconv2.spiking_input


@pytest.mark.parametrize("form", [lambda model: model, fold], ids=["trained", "folded"])
def test_spikes_times_alpha_are_spikes(form: Callable[[nn.Module], nn.Module]) -> None:
    rows = rows_of(form(segmentor()), torch.randn(1, 3, 48, 48))
    head = [row for name, row in rows.items() if name.startswith("decode_head")]
    assert head and all(row.spiking_input for row in head)


@pytest.mark.parametrize("distilled", [False, True], ids=["plain", "kd"])
def test_a_classifier_counts_one_step_whatever_the_number_of_steps(distilled: bool) -> None:
    torch.manual_seed(0)
    model = build_classifier(
        small_config().backbone, head_neuron(), num_classes=5, distilled=distilled
    ).eval()
    image = torch.randn(1, 2, 3, 48, 48)
    one, four = (
        {name: row.macs for name, row in rows_of(model, image.expand(steps, 2, 3, 48, 48)).items()}
        for steps in (1, 4)
    )
    assert four == one
    assert one["head"] == 48 * 5
