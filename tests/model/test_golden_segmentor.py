"""Whole published models are reproduced: predictions, maps, losses, matches, a step, firing."""

import json
from collections import defaultdict

import pytest
import torch
from golden import (
    Golden,
    base_of,
    folder,
    golden_files,
    in_both_types,
    loss_config,
    segmentor_config,
)
from torch import Tensor, nn

from spikeseg.model.accounting.firing import FiringMonitor
from spikeseg.model.config import LossConfig
from spikeseg.model.loss.criterion import SetCriterion
from spikeseg.model.loss.image_terms import resize_labels
from spikeseg.model.loss.matcher import compute_costs, match, split_targets
from spikeseg.model.postprocess import label_map, semantic_logits
from spikeseg.model.prediction import MaskPrediction
from spikeseg.model.published.keys import to_published_name
from spikeseg.model.segmentor import Spike2Former


def whole(name: str, dtype: torch.dtype, levels: int = 8) -> tuple[Golden, Spike2Former]:
    golden = Golden(name, dtype)
    model = Spike2Former(segmentor_config(golden.meta, levels))
    golden.load(model)
    return golden, model


def criterion_of(config: LossConfig, num_classes: int, dtype: torch.dtype) -> SetCriterion:
    return SetCriterion(config, num_classes, torch.ones(num_classes)).to(dtype)


def image_size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]


@in_both_types("segmentor")
def test_segmentors_golden(name: str, dtype: torch.dtype) -> None:
    golden, model = whole(name, dtype)
    seen: dict[str, Tensor] = {}

    def remember_features(module: nn.Module, args: object, features: list[Tensor]) -> None:
        seen.update({f"aux_feat{i + 1}": f for i, f in enumerate(features)})

    def remember_levels(module: nn.Module, args: object, output: tuple[Tensor, ...]) -> None:
        seen["aux_mask_feature"] = output[0][:, :1]
        seen.update({f"aux_ms{i}": level for i, level in enumerate(output[1])})

    def remember_memory(module: nn.Module, args: object, memory: Tensor) -> None:
        seen["aux_memory"] = memory

    head = model.decode_head.pixel_decoder
    model.backbone.register_forward_hook(remember_features)
    head.register_forward_hook(remember_levels)
    head.encoder_out_proj_spike.register_forward_hook(remember_memory)
    x = golden.leaf("in:x")
    prediction = model(x)
    logits = semantic_logits(prediction, image_size(x))
    golden.assert_close(logits, "out:seg_logits")
    assert torch.equal(label_map(logits, image_size(x)), golden.labels("out:seg_map"))
    assert {n for n in golden.names("out:") if n.startswith("aux")} == set(seen)
    outputs = {
        "all_cls_scores": prediction.class_logits,
        "all_mask_preds": prediction.mask_logits,
        **seen,
    }
    golden.check(model, outputs, {"x": x})


@in_both_types("levels")
def test_other_levels_golden(name: str, dtype: torch.dtype) -> None:
    golden = Golden(name, dtype)
    levels = int(golden.title.removeprefix("D=").split()[0])
    base, model = whole(base_of(name), dtype, levels=levels)
    x = base.leaf("in:x")
    prediction = model(x)
    golden.assert_close(prediction.class_logits, "out:all_cls_scores")
    golden.assert_close(prediction.mask_logits[-1], "out:mask_preds_last")
    found = label_map(semantic_logits(prediction, image_size(x)), image_size(x))
    assert torch.equal(found, golden.labels("out:seg_map"))
    (prediction.mask_logits * base.tensor("cot:all_mask_preds")).sum().backward()
    assert x.grad is not None
    golden.assert_close(x.grad, "gin:x")


@pytest.mark.parametrize("name", golden_files("segmentor"))
def test_firing_statistics_golden(name: str) -> None:
    stored = folder() / name.replace(".npz", "_firing.json")
    if not stored.is_file():
        pytest.skip(f"{stored.name} is not in this set of goldens")
    golden, model = whole(name, torch.float64)
    expected = json.loads(stored.read_text())
    with FiringMonitor(model) as monitor, torch.no_grad():
        model(golden.tensor("in:x"))
    renamed = {
        "decode_head.decoder_out_spike": "decode_head.embedding.query_spike",
        "decode_head.shortcut_conv_spike": "decode_head.embedding.shortcut_spike",
        "decode_head.mask_embed_spike": "decode_head.embedding.mask_spike",
        "decode_head.mask_embed.spike1": "decode_head.embedding.mask_embed.fc1_spike",
        "decode_head.mask_embed.spike2": "decode_head.embedding.mask_embed.fc2_spike",
    }
    rows = {row.name: row for row in monitor.rows()}
    assert len(rows) == len(expected)
    for key, entry in expected.items():
        row = rows[renamed.get(key, key)]
        assert row.rate == pytest.approx(entry["mean_integer_spike"], rel=1e-9), key
        assert 1 - row.dead == pytest.approx(entry["nonzero_fraction"], rel=1e-9), key
        assert row.levels == entry["D"], key


def assert_losses(golden: Golden, losses: dict[str, Tensor], config: LossConfig) -> None:
    """Every term of every layer; keys are `loss_*` for the last layer, `d<i>.loss_*` before."""
    weights = {"cls": config.class_weight, "mask": config.mask_weight, "dice": config.dice_weight}
    ours = {"cls": losses["class"], "mask": losses["mask"], "dice": losses["dice"]}
    stored = {n for n in golden.names("out:") if "loss_" in n}
    for term, values in ours.items():
        prefixes = [*(f"d{i}." for i in range(len(values) - 1)), ""]
        for value, prefix in zip(values, prefixes, strict=True):
            key = f"{prefix}loss_{term}"
            stored.remove(key)
            torch.testing.assert_close(
                (weights[term] * value).to(golden.dtype),
                golden.tensor(f"out:{key}").reshape(()),
                rtol=1e-4,
                atol=1e-6,
                msg=lambda m, key=key: f"{key}: {m}",
            )
    assert not stored


def assert_matches(
    golden: Golden, classes: Tensor, masks: Tensor, target: Tensor, config: LossConfig
) -> None:
    """Costs of the last layer and the assignment of every layer."""
    L, B, Q = classes.shape[:3]
    compared: dict[int, int] = defaultdict(int)
    for b in range(B):
        found = split_targets(target[b], ignore_label=config.ignore_label)
        if f"gtlabels:b{b}" in golden.arrays:
            assert found.labels.tolist() == golden.arrays[f"gtlabels:b{b}"].tolist()
        if not len(found.labels):
            continue
        small = resize_labels(found.masks, image_size(masks))
        costs = compute_costs(
            classes[L - 1, b][None].float(),
            masks[L - 1, b][None].flatten(2).float(),
            found.labels,
            small.flatten(1),
        )
        weights = (config.class_cost, config.mask_cost, config.dice_cost)
        for weight, cost, term in zip(weights, costs, ("cls", "focal", "dice"), strict=True):
            key = f"cost_{term}:l{L - 1}_b{b}"
            if key in golden.arrays:
                expected = torch.from_numpy(golden.arrays[key])
                torch.testing.assert_close(weight * cost[0], expected, rtol=1e-4, atol=1e-5)
        pairs = match(classes[:, b], masks[:, b], found._replace(masks=small), config)
        for layer, (queries, chosen) in enumerate(pairs):
            expected = torch.zeros(Q, dtype=torch.int64)
            expected[queries] = chosen.cpu() + 1
            assert expected.tolist() == golden.arrays[f"match:l{layer}_b{b}"].tolist()
            compared[b] += 1
    stored = [name for name in golden.names("match:") if golden.arrays[f"match:{name}"].any()]
    assert sum(compared.values()) >= len(stored)


@pytest.mark.parametrize("name", golden_files("matching"))
def test_matching_and_losses_golden(name: str) -> None:
    golden = Golden(name, torch.float32)
    config = loss_config(golden.meta)
    criterion = criterion_of(config, golden.meta["classes"], torch.float32)
    classes, masks = golden.leaf("in:cls_scores"), golden.leaf("in:mask_preds")
    target = golden.labels("in:gt")
    prediction = MaskPrediction(classes, masks, None)
    count = criterion.count(target)
    assert_losses(golden, criterion.layer_losses(prediction, target, count), config)
    total = torch.stack(list(criterion(prediction, target, count).values())).sum()
    golden.assert_close(total, "out:total")
    total.backward()
    for key, leaf in (("cls_scores", classes), ("mask_preds", masks)):
        assert leaf.grad is not None
        golden.assert_close(leaf.grad, f"gin:{key}")
    assert_matches(golden, classes.detach(), masks.detach(), target, config)


@pytest.mark.parametrize("name", golden_files("matching_empty"))
def test_losses_without_any_label_golden(name: str) -> None:
    golden = Golden(name, torch.float32)
    classes, masks = golden.leaf("in:cls_scores"), golden.leaf("in:mask_preds")
    config = loss_config(golden.meta)
    criterion = criterion_of(config, classes.shape[-1] - 1, torch.float32)
    size = (2 * masks.shape[-2], 2 * masks.shape[-1])
    target = torch.full((classes.shape[1], *size), config.ignore_label)
    prediction = MaskPrediction(classes, masks, None)
    losses = criterion.layer_losses(prediction, target, criterion.count(target))
    assert_losses(golden, losses, config)
    torch.stack(list(losses.values())).sum().backward()
    assert masks.grad is not None and not masks.grad.any()


@in_both_types("losses")
def test_whole_model_losses_golden(name: str, dtype: torch.dtype) -> None:
    base, model = whole(base_of(name), dtype)
    golden = Golden(name, dtype)
    config = loss_config(base.meta)
    criterion = criterion_of(config, base.meta["head"]["num_classes"], dtype)
    target, x = golden.labels("in:gt"), base.leaf("in:x")
    prediction = model(x)
    count = criterion.count(target)
    assert_losses(golden, criterion.layer_losses(prediction, target, count), config)
    assert_matches(
        golden,
        prediction.class_logits.detach(),
        prediction.mask_logits.detach(),
        target,
        config,
    )
    torch.stack(list(criterion(prediction, target, count).values())).sum().backward()
    parameters = {to_published_name(k): v for k, v in model.named_parameters()}
    assert x.grad is not None
    gradients = {f"gparam:{n}": parameters[n].grad for n in golden.names("gparam:")}
    # The reference takes losses in float32, ours in the model's type: gradients differ by that.
    for key, value in {"gin:x": x.grad, **gradients}.items():
        expected = golden.tensor(key)
        atol = 1e-4 * float(expected.abs().max())
        torch.testing.assert_close(
            value, expected, rtol=1e-3, atol=atol, msg=lambda m, key=key: f"{key}: {m}"
        )


@in_both_types("train_step")
def test_train_step_golden(name: str, dtype: torch.dtype) -> None:
    base, model = whole(base_of(name), dtype)
    golden = Golden(name, dtype)
    target = Golden(name.replace("_train_step", "_losses")).labels("in:gt")
    config = loss_config(base.meta)
    criterion = criterion_of(config, base.meta["head"]["num_classes"], dtype)
    model.train()
    undecayed = ("query_embed", "query_feat", "level_embed")
    groups = [
        {
            "params": [p],
            "lr": 1e-4 if key.startswith("backbone") else 1e-3,
            "weight_decay": 0.0 if any(u in key for u in undecayed) else 0.005,
        }
        for key, p in model.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups)
    prediction = model(base.tensor("in:x"))
    count = criterion.count(target)
    assert_losses(golden, criterion.layer_losses(prediction, target, count), config)
    torch.stack(list(criterion(prediction, target, count).values())).sum().backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), golden.meta["clip"])
    expected = golden.tensor("out:grad_norm_before_clip").reshape(())
    torch.testing.assert_close(norm, expected, rtol=1e-4, atol=0)
    parameters = {to_published_name(k): v for k, v in model.named_parameters()}
    sure: dict[str, Tensor] = {}
    for key in golden.names("grad_clipped:"):
        expected = golden.tensor(f"grad_clipped:{key}")
        # Before a BatchNorm a bias has no gradient but the rounding noise of sums.
        noise = 1e-8 * golden.meta["clip"]
        atol = 1e-4 * float(expected.abs().max()) + noise
        torch.testing.assert_close(parameters[key].grad, expected, rtol=1e-3, atol=atol)
        # AdamW's first step is lr times the gradient's sign: where that is noise, so is the step.
        least = noise if dtype == torch.float64 else atol
        silent = (parameters[key].grad == 0) & (expected == 0)
        sure[key] = silent | (expected.abs() > least)
    optimizer.step()
    compared = 0
    for key in golden.names("after:"):
        keep = sure.get(key, torch.ones(parameters[key].shape, dtype=torch.bool))
        compared += int(keep.sum())
        torch.testing.assert_close(
            parameters[key].detach()[keep],
            golden.tensor(f"after:{key}")[keep],
            rtol=0,
            atol=1e-6,
            msg=lambda m, key=key: f"{key}: {m}",
        )
    assert compared
    golden.check_buffers(model)
