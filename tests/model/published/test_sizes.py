"""Published sizes have exactly the published parameters, keys and multiply-accumulates."""

import csv
from ast import literal_eval
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from spikeseg.model.accounting.macs import count_macs
from spikeseg.model.config import BackboneConfig, LargeBackboneConfig, ModelConfig
from spikeseg.model.published import sizes as published
from spikeseg.model.published.classifier import build_classifier
from spikeseg.model.published.keys import to_published_name
from spikeseg.model.segmentor import build_uncalibrated_segmentor


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def on_meta(config: ModelConfig) -> nn.Module:
    with torch.device("meta"):
        return build_uncalibrated_segmentor(config).eval()


@pytest.mark.parametrize(
    ("size", "bare", "with_head"),
    [
        (published.meta_spikeformer_15m, 14_751_208, 15_112_208),
        (published.meta_spikeformer_31m, 30_852_864, 31_333_864),
        (published.meta_spikeformer_55m, 54_709_248, 55_350_248),
        (published.e_spikeformer_t, 2_573_048, 2_702_048),
        (published.e_spikeformer_5m, 4_912_608, 5_105_608),
        (published.e_spikeformer_10m, 9_782_112, 10_023_112),
        (published.e_spikeformer_19m, 18_626_504, 18_987_504),
    ],
)
def test_a_backbone_has_exactly_the_published_parameters(
    size: Callable[[], BackboneConfig], bare: int, with_head: int
) -> None:
    with torch.device("meta"):
        model = build_classifier(size(), published.head_neuron(), num_classes=1000, distilled=False)
    assert parameters(model.backbone) == bare
    assert parameters(model) == with_head


@pytest.mark.parametrize(
    ("size", "count"),
    [(published.e_spikeformer_83m, 83_015_952), (published.e_spikeformer_171m, 171_740_714)],
)
def test_a_large_classifier_has_exactly_the_published_parameters(
    size: Callable[[], LargeBackboneConfig], count: int
) -> None:
    with torch.device("meta"):
        model = build_classifier(size(), published.large_neuron(), num_classes=1000, distilled=True)
        logits = model.eval()(torch.empty(1, 2, 3, 64, 64))
    assert parameters(model) == count
    assert logits.shape == (2, 1000)


def test_the_83m_form_that_crashes_as_released_runs_and_trains() -> None:
    config = LargeBackboneConfig(
        embed_dims=(8, 12, 16), num_heads=2, depth=2, mlp_ratio=2, pair_before_attention=True
    )
    model = build_classifier(config, published.large_neuron(), num_classes=5, distilled=True)
    model(torch.randn(1, 2, 3, 48, 32)).sum().backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for name, p in model.named_parameters()
        if not name.startswith("head_kd")  # In train mode the second head has a loss of its own.
    )


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (published.spike2former_sdtv2(), 34_361_112),
        (published.spike2former_sdtv3(), 38_236_408),
    ],
    ids=["sdtv2", "sdtv3"],
)
def test_spike2former_has_exactly_the_published_parameters(config: ModelConfig, count: int) -> None:
    assert parameters(on_meta(config)) == count


@pytest.mark.parametrize(
    ("config", "backbone"),
    [(published.fpn_sdtv2(), 14_751_208), (published.fpn_sdtv3(), 18_626_504)],
    ids=["sdtv2", "sdtv3"],
)
def test_the_fpn_variant_has_the_parameters_of_its_description(
    config: ModelConfig, backbone: int
) -> None:
    width, channels = 128, (32, 64, 128, 360)
    neck = sum(c * width + width + 2 * width for c in channels)
    neck += len(channels) * (9 * width * width + width + 2 * width)
    units = 1 + 1 + 2 + 3
    head = units * (9 * width * width + 2 * width) + 150 * width + 150
    assert parameters(on_meta(config)) == backbone + neck + head


def test_multiply_accumulates_equal_the_published_table(shared_folder: Path) -> None:
    with (shared_folder / "reference" / "macs_sdtv2_ade20k_512.tsv").open() as file:
        rows = {row["module"]: row for row in csv.DictReader(file, delimiter="\t")}
    expected = {name: int(row["macs"]) for name, row in rows.items() if name != "TOTAL"}
    size = literal_eval(next(iter(rows.values()))["input_shape"])
    model = on_meta(published.spike2former_sdtv2())
    counted = count_macs(model, torch.empty(size, device="meta"))
    found = {to_published_name(row.name): row.macs for row in counted}
    assert found == expected


@pytest.mark.parametrize("family", ["sdtv2", "sdtv3"])
def test_keys_and_shapes_equal_those_of_an_official_state_dict(
    shared_folder: Path, family: str
) -> None:
    table = shared_folder / "reference" / f"state_dict_{family}_ade20k.tsv"
    with table.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    expected = {row["key"]: literal_eval(row["shape"]) for row in rows}
    config = getattr(published, f"spike2former_{family}")()
    state = on_meta(config).state_dict()
    found = {to_published_name(key): tuple(value.shape) for key, value in state.items()}
    assert len(found) == len(state) == len(rows)
    assert found == expected
