"""Levels and normalization of the parts of a network, each apart."""

from dataclasses import replace

import pytest
import torch
from models import small_config

from spikeseg.model.config import ModelConfig
from spikeseg.model.neuron.kinds import find_neurons, neuron_of_part
from spikeseg.model.segmentor import build_segmentor, build_uncalibrated_segmentor

PARTS = {
    "backbone": ("backbone.",),
    "pixel decoder": ("decode_head.pixel_decoder.",),
    "query decoder": ("decode_head.transformer_decoder.", "decode_head.embedding."),
}


def with_parts(**changes: object) -> ModelConfig:
    """The small network; `backbone_…` changes the backbone, all else the decoders."""
    config = small_config()
    ours = {k.removeprefix("backbone_"): v for k, v in changes.items() if k.startswith("backbone_")}
    query = {k: v for k, v in changes.items() if not k.startswith("backbone_")}
    return replace(
        config,
        decoder="query",
        backbone=replace(config.backbone, **ours),
        query=replace(config.query, **query),
    )


def of_parts(config: ModelConfig, name: str) -> dict[str, set[float]]:
    """Values of an attribute of the neurons of each part."""
    torch.manual_seed(0)
    neurons = find_neurons(build_uncalibrated_segmentor(config))
    return {
        part: {getattr(neuron, name) for path, neuron in neurons if path.startswith(prefixes)}
        for part, prefixes in PARTS.items()
    }


def test_each_part_takes_its_own_levels_and_divisor() -> None:
    config = with_parts(backbone_levels=2, pixel_levels=3, levels=5, normalization="none")
    assert of_parts(config, "levels") == {
        "backbone": {2},
        "pixel decoder": {3},
        "query decoder": {5},
    }
    divisors = of_parts(config, "divisor")
    assert divisors["query decoder"] == {1.0}
    assert divisors["pixel decoder"] == {3.0}


@pytest.mark.parametrize("part", ["backbone_normalization", "pixel_normalization", "normalization"])
def test_a_part_s_normalization_leaves_the_others(part: str) -> None:
    plain = of_parts(with_parts(), "divisor")
    changed = of_parts(with_parts(**{part: "none"}), "divisor")
    differing = [name for name in PARTS if plain[name] != changed[name]]
    assert differing == [
        {
            "backbone_normalization": "backbone",
            "pixel_normalization": "pixel decoder",
            "normalization": "query decoder",
        }[part]
    ]


def test_parts_that_are_not_named_change_nothing() -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    outputs = []
    levels = small_config().neuron.levels
    for config in (with_parts(), with_parts(levels=levels, pixel_levels=levels)):
        torch.manual_seed(0)
        model = build_segmentor(config, images).eval()
        with torch.no_grad():
            outputs.append(model(images).mask_logits)
    assert torch.equal(*outputs)


def test_a_part_s_normalization_takes_the_place_of_a_constant() -> None:
    neuron = replace(small_config().neuron, normalization="constant", normalization_constant=8.0)
    assert neuron_of_part(neuron, None, "levels").normalization_constant is None
    assert neuron_of_part(neuron, 2, None).normalization_constant == 8.0


@pytest.mark.parametrize("name", ["levels", "pixel_levels"])
def test_levels_of_a_part_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        with_parts(**{name: 0})
