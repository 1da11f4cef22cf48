"""Matching by class: query k answers for class k, the rest for nothing."""

import dataclasses
from typing import Any

import pytest
import torch
from models import shapes_batch, small_config
from torch import Tensor

from spikeseg.model.config import LossConfig, ModelConfig, QueryDecoderConfig
from spikeseg.model.loss.criterion import SetCriterion, build_criterion
from spikeseg.model.loss.mask_loss import compute_full_losses
from spikeseg.model.loss.matcher import SEGMENT_STRIDE, match_classes, split_classes
from spikeseg.model.prediction import MaskPrediction
from spikeseg.model.segmentor import build_segmentor


def config_of(**query: Any) -> ModelConfig:
    config = small_config()
    sizes = dataclasses.replace(config.query, matching="class", **query)
    return dataclasses.replace(config, query=sizes)


def predict(*, queries: int, classes: int, layers: int = 2, batch: int = 2) -> MaskPrediction:
    generator = torch.Generator().manual_seed(0)
    return MaskPrediction(
        torch.randn(layers, batch, queries, classes + 1, generator=generator),
        torch.randn(layers, batch, queries, 4, 4, generator=generator),
        None,
    )


def criterion(classes: int, **weights: Any) -> SetCriterion:
    settings = LossConfig(mask_resolution="prediction", **weights)
    return SetCriterion(settings, classes, torch.ones(classes), matching="class")


def test_every_class_has_a_mask_and_the_query_of_its_number_in_every_layer() -> None:
    target = torch.tensor([[4, 4, 1], [255, 0, 1]])
    images = split_classes(target, num_classes=5, ignore_label=255)
    assert images.labels.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(images.masks, torch.stack([target == k for k in range(5)]))
    pairs = match_classes(images, layers=3)
    assert len(pairs) == 3
    for queries, chosen in pairs:
        assert queries.tolist() == chosen.tolist() == [0, 1, 2, 3, 4]


def test_the_ignored_label_is_in_no_mask_whatever_it_is() -> None:
    target = torch.tensor([[0, 1], [2, 1]])
    masks = split_classes(target, num_classes=3, ignore_label=1).masks
    assert masks.flatten(1).tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]


def test_losses_by_hand() -> None:
    # Image 0 has classes 0 and 2, image 1 class 1 alone; query 3 stands for no class.
    target = torch.zeros(2, 4, 4, dtype=torch.int64)
    target[0, 2:] = 2
    target[1] = 1
    target[1, 0] = 255
    prediction = predict(queries=4, classes=3)
    loss = criterion(3)
    assert loss.count(target) == 6
    layers = loss.layer_losses(prediction, target, 1.5)

    weights = torch.tensor([1.0, 1.0, 1.0, 0.1])
    for layer in range(2):
        logs = prediction.class_logits[layer].log_softmax(-1)
        picked = -logs.diagonal(dim1=-2, dim2=-1)
        expected = (weights * picked).sum() / (2 * weights.sum())
        torch.testing.assert_close(layers["class"][layer], expected)

        matched = prediction.mask_logits[layer][:, :3].flatten(0, 1)
        masks = torch.stack([image == k for image in target for k in range(3)])
        focal, dice = compute_full_losses(matched, masks)
        torch.testing.assert_close(layers["mask"][layer], focal.sum() / (1.5 * 16))
        torch.testing.assert_close(layers["dice"][layer], dice.sum() / 1.5)


def test_masks_of_queries_that_stand_for_no_class_get_no_gradient() -> None:
    target = torch.full((2, 4, 4), 1)
    prediction = predict(queries=5, classes=3)
    logits = prediction.mask_logits.requires_grad_()
    terms = criterion(3)(prediction, target, 6.0)
    (terms["mask"] + terms["dice"]).backward()
    assert logits.grad is not None
    assert logits.grad[:, :, :3].abs().sum((0, 1, 3, 4)).min() > 0
    assert not logits.grad[:, :, 3:].any()


@pytest.mark.parametrize("ignored", [1, 2])
def test_an_image_without_labels_has_no_mask_and_the_same_class_loss(ignored: int) -> None:
    target = torch.full((2, 4, 4), 2)
    prediction = predict(queries=4, classes=3)
    loss = criterion(3)
    whole = loss(prediction, target, 6.0)
    target[:ignored] = 255
    assert loss.count(target) == ignored + 3 * (2 - ignored)
    terms = loss(prediction, target, 6.0)
    torch.testing.assert_close(terms["class"], whole["class"])
    assert (terms["mask"] == 0) == (terms["dice"] == 0) == (ignored == 2)


def test_the_order_in_which_masks_are_predicted_is_not_free() -> None:
    """Hungarian matching does not see a permutation of the queries; matching by class does."""
    target = torch.zeros(2, 4, 4, dtype=torch.int64)
    target[:, 2:] = 2
    prediction = predict(queries=3, classes=3)
    order = [2, 0, 1]
    moved = MaskPrediction(
        prediction.class_logits[:, :, order], prediction.mask_logits[:, :, order], None
    )

    def total(loss: SetCriterion, of: MaskPrediction) -> Tensor:
        return torch.stack(list(loss(of, target, 2.0).values())).sum()

    hungarian = SetCriterion(LossConfig(mask_resolution="prediction"), 3, torch.ones(3))
    torch.testing.assert_close(total(hungarian, prediction), total(hungarian, moved))
    by_class = criterion(3)
    assert not torch.isclose(total(by_class, prediction), total(by_class, moved))


@pytest.mark.parametrize("part", ["class_logits", "mask_logits"])
def test_logits_that_are_not_finite_make_a_loss_that_is_not(part: str) -> None:
    prediction = predict(queries=3, classes=3)
    getattr(prediction, part)[1, 0, 2, 0] = torch.nan
    target = torch.full((2, 4, 4), 2)
    total = torch.stack(list(criterion(3)(prediction, target, 2.0).values())).sum()
    assert total.isnan()


@pytest.mark.parametrize("wrong", [2 + 3 * SEGMENT_STRIDE, SEGMENT_STRIDE])
def test_targets_with_segments_are_refused(wrong: int) -> None:
    target = torch.zeros(2, 4, 4, dtype=torch.int64)
    target[1, 2, 3] = wrong
    message = f"got segment {wrong // SEGMENT_STRIDE} of class {wrong % SEGMENT_STRIDE}"
    with pytest.raises(ValueError, match=message):
        criterion(3)(predict(queries=3, classes=3), target, 2.0)


def test_fewer_queries_than_classes_are_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="got 8 queries for 9 classes"):
        config_of(num_queries=8)
    assert config_of(num_queries=9).query.matching == "class"
    # Where another decoder is used, its sizes are not looked at.
    dataclasses.replace(small_config(), decoder="fpn", query=QueryDecoderConfig(num_queries=1))


@pytest.mark.parametrize("num_queries", [9, 12])
def test_a_network_learns_by_it(num_queries: int) -> None:
    config = config_of(num_queries=num_queries)
    images, target = shapes_batch(2, size=32)
    torch.manual_seed(0)
    model = build_segmentor(config, images)
    loss = build_criterion(LossConfig(mask_resolution="prediction"), config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    values = []
    for _ in range(15):
        optimizer.zero_grad()
        terms = loss(model(images), target, loss.count(target))
        value = torch.stack(list(terms.values())).sum()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert sum(values[-3:]) < 0.8 * sum(values[:3])
