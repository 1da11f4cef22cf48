"""The inference form: equal outputs, integer inputs, no BatchNorm, exportable; the plain order."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from golden import Golden, in_both_types, segmentor_config
from models import shapes_batch, small_config
from torch import Tensor, nn

from spikeseg.jobs.benchmark.published_order import use_published_order
from spikeseg.model.accounting.macs import count_macs
from spikeseg.model.config import BinaryNeuronConfig, LargeBackboneConfig, LossConfig, ModelConfig
from spikeseg.model.deployment.fold import fold
from spikeseg.model.initialize import calibrate_attention
from spikeseg.model.layers.rep_conv import RepConv
from spikeseg.model.loss.criterion import build_criterion
from spikeseg.model.neuron.integer_lif import IntegerLIF
from spikeseg.model.postprocess import label_map, semantic_logits
from spikeseg.model.prediction import DensePrediction, MaskPrediction
from spikeseg.model.published.classifier import build_classifier
from spikeseg.model.published.sizes import head_neuron, large_neuron
from spikeseg.model.segmentor import build_uncalibrated_segmentor


def settled(model: nn.Module, run: Callable[[], Any]) -> nn.Module:
    """Give BatchNorms random factors and one pass's statistics, so that all neurons fire."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.2, 0.8)
    for name, parameter in model.named_parameters():
        if "gamma" in name or "layer_scale" in name:
            nn.init.uniform_(parameter, 0.1, 0.4)
        elif "cls_embed.weight" in name or "mask_feature.weight" in name:
            nn.init.normal_(parameter)
    model.train()
    with torch.no_grad():
        run()
    return model.eval()


CHANGES: dict[str, dict[str, Any]] = {
    "corrected": {},
    "published": {"compat": "published"},
    "sdtv3": {"family": "e_spikeformer", "compat": "published"},
    "fpn": {"decoder": "fpn"},
    "three_levels": {"levels": 3},
    "constant": {"normalization": "constant", "normalization_constant": 3.0},
    "temporal": {"timesteps": 2, "dynamics": "temporal"},
    "half_threshold": {"threshold": 0.5},
    "shortcut_identity": {"shortcut": "identity"},
    "shortcut_membrane": {"shortcut": "membrane"},
    "shortcut_none": {"shortcut": "none"},
    "without_separable": {"deformable_projection": "pointwise"},
    "without_depthwise": {"deformable_depthwise": False},
    "dense_pyramid": {"pyramid": "dense"},
    "attention_encoder": {"encoder_layer": "attention"},
    "attention_encoder_published": {"encoder_layer": "attention", "compat": "published"},
}


def changed(name: str) -> ModelConfig:
    config, changes = small_config(), CHANGES[name]

    def of(section: Any) -> Any:
        own = {field.name for field in dataclasses.fields(section)}
        if section is not config.neuron:
            # The neuron's rule is that of all parts.
            own -= {"normalization", "levels"}
        given = {key: value for key, value in changes.items() if key in own}
        return dataclasses.replace(section, **given)

    return dataclasses.replace(
        config,
        neuron=of(config.neuron),
        query=of(config.query),
        backbone=dataclasses.replace(
            config.backbone, family=changes.get("family", "meta_spikeformer")
        ),
        compat=changes.get("compat", "corrected"),
        decoder=changes.get("decoder", "query"),
    )


def segmentor(name: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    images = shapes_batch(2)[0].to(dtype)
    model = build_uncalibrated_segmentor(changed(name)).to(dtype)
    return settled(model, lambda: model(images)), images


def logits_of(prediction: MaskPrediction | DensePrediction) -> Tensor:
    if isinstance(prediction, DensePrediction):
        return prediction.logits
    return torch.cat([prediction.mask_logits[-1].flatten(), prediction.class_logits[-1].flatten()])


def assert_same_maps(model: nn.Module, folded: nn.Module, images: Tensor) -> int:
    with torch.no_grad():
        expected, found = model(images), folded(images)
    a, b = logits_of(expected), logits_of(found)
    torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4 * float(a.abs().max()))
    size = (images.shape[-2], images.shape[-1])
    maps = [label_map(semantic_logits(p, size), size) for p in (expected, found)]
    assert torch.equal(*maps)
    return len(maps[0].unique())


@pytest.mark.parametrize(
    ("name", "form"), [*((name, "chain") for name in CHANGES), ("corrected", "dense")]
)
def test_a_folded_model_gives_the_same_maps(name: str, form: Any) -> None:
    # In float64 no rounding comes near a neuron's boundary, so every spike is the same.
    model, images = segmentor(name, torch.float64)
    assert_same_maps(model, fold(model, rep_conv=form), images)


@in_both_types("segmentor")
def test_a_folded_published_model_gives_the_same_maps_golden(name: str, dtype: torch.dtype) -> None:
    golden = Golden(name, dtype)
    model = golden.load(build_uncalibrated_segmentor(segmentor_config(golden.meta, 8)))
    classes = len(golden.labels("out:seg_map").unique())
    assert assert_same_maps(model, fold(model), golden.tensor("in:x")) == classes


@pytest.mark.parametrize("name", ["corrected", "fpn", "three_levels"])
def test_every_layer_of_a_folded_model_but_the_first_sees_whole_numbers(name: str) -> None:
    model, images = segmentor(name, torch.float64)
    folded = fold(model)
    inputs: dict[str, Tensor] = {}
    spikes: dict[str, Tensor] = {}
    for key, module in folded.named_modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(lambda m, a, key=key: inputs.update({key: a[0]}))  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnhashable]
        elif isinstance(module, IntegerLIF):
            assert module.divisor == 1.0, key
            module.register_forward_hook(lambda m, a, o, key=key: spikes.update({key: o}))
    with torch.no_grad():
        folded(images)
    real = [key for key, x in inputs.items() if not torch.equal(x, x.round())]
    inner = [k for k in real if k.endswith(("pwconv2", "_conv.1", "_conv.2"))]
    # Real-valued are the image, and what stands inside chains of two convolutions.
    assert set(real) - set(inner) == {"backbone.downsample1_1.encode_conv"}
    assert spikes and all(torch.equal(x, x.round()) for x in spikes.values())
    assert not any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in folded.modules())


def test_folding_leaves_the_model_alone_and_copies_it() -> None:
    model, _ = segmentor("corrected", torch.float32)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold(model.train())
    assert model.training and not folded.training
    assert not any(p.requires_grad for p in folded.parameters())
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("kind", ["sdtv2", "lif", "sdtv3", "large"])
def test_a_folded_classifier_gives_the_same_logits(kind: str) -> None:
    torch.manual_seed(0)
    backbone = small_config().backbone
    large = LargeBackboneConfig(
        embed_dims=(8, 12, 16), num_heads=4, depth=2, mlp_ratio=2, pair_before_attention=True
    )
    third = dataclasses.replace(backbone, family="e_spikeformer", levels=4)
    configs: dict[str, tuple[Any, Any]] = {
        "sdtv2": (backbone, head_neuron()),
        "lif": (backbone, BinaryNeuronConfig()),
        "sdtv3": (third, head_neuron()),
        "large": (large, large_neuron()),
    }
    config, neuron = configs[kind]
    model = build_classifier(config, neuron, num_classes=5, distilled=True).double()
    x = torch.randn(2, 2, 3, 48, 48, dtype=torch.float64)
    settled(model, lambda: model(x))
    with torch.no_grad():
        torch.testing.assert_close(fold(model)(x), model(x), rtol=1e-4, atol=1e-6)


def test_rep_conv_folds_exactly_borders_included() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Sequential(RepConv(6, 8), nn.BatchNorm2d(8))).double()
    x = torch.randn(2, 6, 7, 9, dtype=torch.float64)
    settled(model, lambda: model(x))
    for form, count in (("chain", 3), ("dense", 1)):
        folded = fold(model, rep_conv=form)
        assert sum(isinstance(m, nn.Conv2d) for m in folded.modules()) == count
        torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)


def test_the_chain_costs_less_than_the_dense_kernel_by_count() -> None:
    model, images = segmentor("corrected", torch.float32)
    with torch.no_grad():
        totals = {
            form: sum(row.macs for row in count_macs(fold(model, rep_conv=form), images[:1]))
            for form in ("chain", "dense")
        }
    assert totals["chain"] < totals["dense"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dimensions", "shape"),
    [
        ("corrected", (0, 2, 3), (3, 3, 64, 80)),
        ("fpn", (0, 2, 3), (1, 3, 53, 77)),
        # Its raw reshapes are of one image size.
        ("published", (0,), (3, 3, 48, 48)),
    ],
)
def test_a_folded_model_exports_with_dynamic_shapes_and_agrees(
    name: str, dimensions: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    model, images = segmentor(name, torch.float32)
    folded = fold(model)
    dynamic = dict.fromkeys(dimensions, torch.export.Dim.AUTO)
    exported = torch.export.export(folded, (images,), dynamic_shapes=(dynamic,)).module()
    for given in (images, torch.randn(shape)):
        with torch.no_grad():
            torch.testing.assert_close(exported(given), folded(given))


@pytest.mark.parametrize("size", [(16, 16), (53, 77), (48, 33)])
def test_any_image_size_runs_folded(size: tuple[int, int]) -> None:
    model, _ = segmentor("corrected", torch.float64)
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        a, b = logits_of(model(image)), logits_of(fold(model)(image))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["meta_spikeformer", "e_spikeformer"])
def test_the_plain_order_computes_the_same_step(family: Any) -> None:
    config = dataclasses.replace(
        small_config(),
        backbone=dataclasses.replace(small_config().backbone, family=family),
        compat="published",
    )
    images, labels = shapes_batch(2)
    results = []
    for plain in (False, True):
        torch.manual_seed(0)
        model = build_uncalibrated_segmentor(config).double()
        settled(model, lambda model=model: model(images.double())).train()
        if plain:
            use_published_order(model)
        criterion = build_criterion(LossConfig(), config).double()
        terms = criterion(model(images.double()), labels, criterion.count(labels))
        loss = torch.stack(list(terms.values())).sum()
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((loss.detach(), gradient))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-9, atol=0)
    assert float((results[0][1] - results[1][1]).norm() / results[1][1].norm()) < 1e-6


def test_the_plain_order_refuses_neurons_that_the_released_code_lacks() -> None:
    with pytest.raises(ValueError, match="temporal"):
        use_published_order(build_uncalibrated_segmentor(changed("temporal")))


@pytest.mark.parametrize("name", ["three_levels", "constant"])
def test_factors_are_folded_in_the_models_own_type(name: str) -> None:
    model, _ = segmentor(name, torch.float64)
    head: Any = model.decode_head
    folded: Any = fold(model).decode_head
    # W (c s / 3) = (c W / 3) s; of a third, float32 keeps seven digits.
    pixel = head.pixel_decoder.mask_feature
    alpha = head.embedding.alpha
    expected = pixel.weight[:, :, 0, 0].T * alpha / 9
    found = folded.mask_projection.weight[:-1]
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)
    dcn, plain = (part.pixel_decoder.encoder.layers[0].dcn for part in (folded, head))
    last = plain.input_proj.pwconv2
    scale = last[1].weight / (last[1].running_var + last[1].eps).sqrt()
    expected = last[0].weight * scale.view(-1, 1, 1, 1) / 9
    torch.testing.assert_close(dcn.input_proj.pwconv2[0].weight, expected, rtol=1e-14, atol=0)


def test_a_folded_model_is_not_folded_again() -> None:
    model, _ = segmentor("corrected", torch.float32)
    with pytest.raises(ValueError, match="no BatchNorm to fold: it is folded already"):
        fold(fold(model))


def trained(decoder: Any, steps: int) -> nn.Module:
    """A small segmentor after a few dozen steps on two images, in float32."""
    torch.manual_seed(1)
    config = dataclasses.replace(small_config(), decoder=decoder)
    config = dataclasses.replace(config, query=dataclasses.replace(config.query, pixel_head=True))
    extra = 10.0 if decoder == "query" else 0.0
    losses = LossConfig(mask_resolution="prediction", pixel_weight=extra, semantic_weight=extra)
    model, criterion = build_uncalibrated_segmentor(config), build_criterion(losses, config)
    images, labels = shapes_batch(2)
    calibrate_attention(model, images)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        terms = criterion(model(images), labels, criterion.count(labels))
        torch.stack(list(terms.values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize(
    ("decoder", "steps"), [pytest.param("query", 60, marks=pytest.mark.slow), ("fpn", 40)]
)
def test_a_trained_model_gives_the_same_maps_folded(decoder: str, steps: int) -> None:
    model = trained(decoder, steps)
    folded = fold(model)
    images = shapes_batch(24)[0]
    size = (images.shape[-2], images.shape[-1])
    equal = 0
    with torch.no_grad():
        for image in images.split(1):
            expected, found = model(image), folded(image)
            a, b = logits_of(expected), logits_of(found)
            maps = [label_map(semantic_logits(p, size), size) for p in (expected, found)]
            equal += float((a - b).abs().max() / a.abs().max()) < 1e-4 and torch.equal(*maps)
    # In float32 a sum of another order may take a spike over a boundary, which then travels: in
    # one image of a hundred. How far depends on the weights, so that nothing is asked of it.
    assert equal >= 18
    wide = model.double()
    assert_same_maps(wide, fold(wide), images[:8].double())
