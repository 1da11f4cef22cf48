"""Nothing that multiplies is left out: the meter against a trace of torch's own operations."""

import dataclasses
from collections import Counter

import pytest
import torch
from models import small_config
from torch import Tensor, nn
from traced_products import SAME, trace_products

from spikeseg.model.accounting.operations import OperationMeter
from spikeseg.model.deployment.fold import fold
from spikeseg.model.segmentor import build_uncalibrated_segmentor
from spikeseg.platform.config.recipes import load_experiment, recipe_names


def metered(model: nn.Module, image: Tensor) -> Counter[str]:
    with torch.inference_mode(), OperationMeter(model, events=not image.is_meta) as meter:
        model(image)
    counts: Counter[str] = Counter()
    for record in meter.records():
        if record.kind in SAME:
            counts[SAME[record.kind]] += record.macs
    return counts


def test_a_missing_product_is_seen() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.addcmul(x, x, x)

    with pytest.raises(NotImplementedError, match="addcmul are not counted"):
        metered(Net(), torch.randn(1, 3, 16, 16))


SLOW = pytest.mark.slow
CHANGES = {
    "query": {},
    "fpn": {"decoder": "fpn"},
    "published": {"compat": "published"},
    "identity": {"query": {"shortcut": "identity"}},
    "membrane": {"query": {"shortcut": "membrane", "encoder_layer": "attention"}},
    "pointwise": {"query": {"deformable_depthwise": False, "deformable_projection": "pointwise"}},
    "temporal": {"neuron": {"timesteps": 2, "dynamics": "temporal"}},
}
FAST = (("query", "trained"), ("query", "folded"), ("fpn", "trained"))


@pytest.mark.parametrize(
    ("changes", "form"),
    [
        pytest.param(changes, form, id=f"{n}-{form}", marks=[] if (n, form) in FAST else [SLOW])
        for n, changes in CHANGES.items()
        for form in ("trained", "folded")
    ],
)
def test_every_product_of_a_small_network_is_counted(changes: dict, form: str) -> None:
    torch.manual_seed(0)
    config = small_config()
    for name, value in changes.items():
        old = getattr(config, name)
        new = dataclasses.replace(old, **value) if isinstance(value, dict) else value
        config = dataclasses.replace(config, **{name: new})
    model = build_uncalibrated_segmentor(config)
    image = torch.randn(2, 3, 48, 48)
    model(image)
    model = fold(model) if form == "folded" else model.eval()
    counted, traced = metered(model, image), trace_products(model, image)
    assert counted == traced
    assert min(traced.values()) > 0


# `own` takes sizes from packed data; its network is that of `camvid_tiny` or of `camvid_fpn`.
RECIPES = [name for name in recipe_names() if name != "own"]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_product_of_a_shipped_recipe_is_counted(name: str) -> None:
    with torch.device("meta"):
        model = build_uncalibrated_segmentor(load_experiment(name).config.model).eval()
    image = torch.empty(1, 3, 128, 96, device="meta")
    assert metered(model, image) == trace_products(model, image)


@pytest.mark.slow
def test_the_published_network_multiplies_as_often_as_its_trace() -> None:
    with torch.device("meta"):
        model = build_uncalibrated_segmentor(load_experiment("ade20k_sdtv2").config.model).eval()
    counts = metered(model, torch.empty(1, 3, 512, 512, device="meta"))
    assert round((counts["convolution"] + counts["matrix"]) / 1e9, 2) == 67.84
