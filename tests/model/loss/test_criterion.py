"""Losses by hand, without labels, at label resolution, and on sampled points."""

import dataclasses
import math

import pytest
import torch
from models import shapes_batch, small_config
from torch import Tensor, nn

from spikeseg.model.config import LossConfig
from spikeseg.model.loss.criterion import SetCriterion, build_criterion, compute_class_factors
from spikeseg.model.loss.mask_loss import compute_shift, dice_loss, focal_loss, sample_points
from spikeseg.model.loss.matcher import SEGMENT_STRIDE, split_targets
from spikeseg.model.prediction import DensePrediction, MaskPrediction
from spikeseg.model.segmentor import build_uncalibrated_segmentor


def criterion(num_classes: int = 2, **weights: float) -> SetCriterion:
    return SetCriterion(LossConfig(**weights), num_classes, torch.ones(num_classes))


def random_prediction(
    batch: int = 2, queries: int = 4, size: int = 8, classes: int = 2
) -> MaskPrediction:
    torch.manual_seed(0)
    return MaskPrediction(
        torch.randn(3, batch, queries, classes + 1, requires_grad=True),
        torch.randn(3, batch, queries, size, size, requires_grad=True),
        None,
    )


def test_focal_and_dice_loss_by_hand() -> None:
    logits, target = torch.zeros(1, 4), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    # p = 1/2: 0.25 * 0.25 * ln 2 for a hit, 0.75 * 0.25 * ln 2 for background.
    log2 = math.log(2)
    expected = torch.tensor([[log2 / 16, log2 / 16, 3 * log2 / 16, 3 * log2 / 16]])
    torch.testing.assert_close(focal_loss(logits, target), expected)
    # 1 - (2 * (1/2 + 1/2) + 1) / (2 + 2 + 1)
    torch.testing.assert_close(dice_loss(logits, target), torch.tensor([0.4]))


def test_an_image_without_labels_counts_one_and_has_only_a_class_loss() -> None:
    target = torch.full((2, 16, 16), 255)
    loss = criterion()
    assert loss.count(target) == 2
    prediction = random_prediction()
    terms = loss(prediction, target, loss.count(target))
    assert terms["mask"] == 0 and terms["dice"] == 0
    expected = -prediction.class_logits.log_softmax(-1)[..., -1].mean((1, 2)).sum()
    torch.testing.assert_close(terms["class"], expected)
    torch.stack(list(terms.values())).sum().backward()
    assert prediction.mask_logits.grad is not None and not prediction.mask_logits.grad.any()


def dense_criterion() -> nn.Module:
    return build_criterion(LossConfig(), dataclasses.replace(small_config(), decoder="fpn"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (9, "label 9 in"),
        (-2, "label -2 in"),
        (-257, "label -257 in"),
        (9 + 3 * SEGMENT_STRIDE, r"label 777( \(class 9 of segment 3\))? in"),
    ],
)
@pytest.mark.parametrize("decoder", ["query", "fpn"])
def test_a_label_that_is_no_class_is_refused_with_both_numbers(
    decoder: str, wrong: int, said: str
) -> None:
    target = torch.full((1, 8, 8), 255)
    target[0, 3, 3] = wrong
    with pytest.raises(ValueError, match=f"{said} the targets, but num_classes is 9"):
        if decoder == "query":
            prediction = random_prediction(batch=1, classes=9)
            criterion(num_classes=9)(prediction, target, 1.0)
        else:
            dense_criterion()(DensePrediction(torch.randn(1, 9, 8, 8)), target, 1.0)


def test_a_label_of_a_segment_is_a_class_for_the_query_decoder_alone() -> None:
    target = torch.full((1, 8, 8), 1 + 3 * SEGMENT_STRIDE)
    criterion()(random_prediction(batch=1), target, 1.0)
    with pytest.raises(ValueError, match="label 769 in the targets, but num_classes is 9"):
        dense_criterion()(DensePrediction(torch.randn(1, 9, 8, 8)), target, 1.0)


def test_targets_of_another_type_are_refused() -> None:
    target = torch.zeros(1, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"targets must be int64, got torch\.uint8"):
        criterion()(random_prediction(batch=1), target, 1.0)
    with pytest.raises(ValueError, match=r"targets must be int64, got torch\.uint8"):
        dense_criterion()(DensePrediction(torch.randn(1, 9, 8, 8)), target, 1.0)


@pytest.mark.parametrize("part", ["class_logits", "mask_logits"])
def test_logits_that_are_not_finite_are_refused_in_words(part: str) -> None:
    prediction = random_prediction(batch=1)
    broken = prediction._replace(**{part: torch.full_like(getattr(prediction, part), math.nan)})
    with pytest.raises(ValueError, match="logits must be finite to be matched"):
        criterion()(broken, torch.zeros(1, 8, 8, dtype=torch.int64), 1.0)


def test_segments_of_one_class_are_matched_and_counted_apart() -> None:
    whole = torch.zeros(1, 8, 8, dtype=torch.int64)
    whole[:, :, 4:] = 1
    # The same classes, the right half as two segments of class 1.
    halves = whole.clone()
    halves[:, :4, 4:] += 1 * SEGMENT_STRIDE
    halves[:, 4:, 4:] += 2 * SEGMENT_STRIDE
    loss = criterion(pixel_weight=1.0, semantic_weight=1.0)
    assert (loss.count(whole), loss.count(halves)) == (2, 3)
    found = split_targets(halves[0], ignore_label=255)
    assert found.labels.tolist() == [0, 1, 1]
    assert found.masks.flatten(1).sum(1).tolist() == [32, 16, 16]
    prediction = random_prediction(batch=1)._replace(pixel_logits=torch.randn(1, 2, 8, 8))
    classes, segments = (loss(prediction, target, 2.0) for target in (whole, halves))
    # Per pixel the labels are the same; as masks they are not.
    assert segments["pixel"] == classes["pixel"] and segments["semantic"] == classes["semantic"]
    assert segments["class"] != classes["class"] and segments["dice"] != classes["dice"]


def test_one_segment_per_class_is_what_a_label_map_says() -> None:
    target = torch.randint(0, 2, (2, 16, 16))
    numbered = target + SEGMENT_STRIDE * (target + 1)
    prediction = random_prediction()
    loss = criterion()
    assert loss(prediction, numbered, 4.0) == loss(prediction, target, 4.0)


def test_an_image_without_labels_does_not_disturb_the_other() -> None:
    target = torch.randint(0, 2, (2, 16, 16))
    prediction = random_prediction()
    alone = MaskPrediction(prediction.class_logits[:, :1], prediction.mask_logits[:, :1], None)
    masks = criterion().layer_losses(alone, target[:1], 2.0)["mask"]
    target[1] = 255
    torch.testing.assert_close(criterion().layer_losses(prediction, target, 2.0)["mask"], masks)


@pytest.mark.parametrize("size", [(16, 16), (13, 21)])
def test_masks_are_compared_at_label_resolution(size: tuple[int, int]) -> None:
    target = torch.randint(0, 2, (1, *size))
    prediction = random_prediction(batch=1, queries=2)
    losses = criterion().layer_losses(prediction, target, 2.0)
    up = nn.functional.interpolate(
        prediction.mask_logits[:, 0], size=size, mode="bilinear", align_corners=False
    )
    masks = torch.stack([target[0] == 0, target[0] == 1]).float().expand(3, -1, -1, -1)
    both = torch.stack(
        [focal_loss(up, masks).sum((1, 2, 3)), focal_loss(up, masks.flip(1)).sum((1, 2, 3))]
    ) / (2 * size[0] * size[1])
    # Two queries, two labels: each layer's loss is one of the two assignments.
    assert ((losses["mask"] - both).abs().min(0).values < 1e-6).all()


def test_every_query_may_stay_unmatched_or_there_may_be_more_labels_than_queries() -> None:
    target = torch.arange(6).repeat(2, 16, 3)[:, :, :16]
    prediction = MaskPrediction(
        torch.randn(2, 2, 3, 7), torch.randn(2, 2, 3, 8, 8, requires_grad=True), None
    )
    loss = criterion(num_classes=6)
    terms = loss(prediction, target, loss.count(target))
    assert all(value.isfinite() for value in terms.values())


def test_points_are_a_function_of_the_label_map_alone() -> None:
    target = torch.randint(0, 5, (2, 16, 16))
    other = target.clone()
    other[0, 3, 4] += 1
    assert torch.equal(compute_shift(target), compute_shift(target.clone()))
    assert not torch.equal(compute_shift(target), compute_shift(other))
    shifts = torch.stack([compute_shift(torch.randint(0, 5, (2, 16, 16))) for _ in range(64)])
    assert shifts.min() >= 0 and shifts.max() < 1 and shifts.std(0).min() > 0.2


def test_points_hit_the_pixels_that_they_interpolate() -> None:
    masks = torch.rand(3, 32, 32) > 0.5
    logits, target = sample_points(masks.float() * 2 - 1, masks, 400, torch.tensor([0.3, 0.9]))
    assert logits.shape == target.shape == (3, 400)
    sure = logits.abs() > 0.6
    assert torch.equal(logits[sure] > 0, target[sure] > 0.5)


def test_most_points_lie_where_the_mask_is_uncertain() -> None:
    ramp = torch.linspace(-8, 8, 64).expand(1, 64, 64).contiguous()
    logits, _ = sample_points(ramp, ramp > 0, 256, torch.tensor([0.0, 0.5]))
    assert (logits.abs() < 2.5).float().mean() > 0.75


def test_the_point_sampled_loss_estimates_the_full_one() -> None:
    masks = torch.zeros(4, 128, 128, dtype=torch.bool)
    masks[:, 20:100, 30:90] = True
    logits = torch.zeros(4, 64, 64)  # Nowhere more certain than elsewhere: points are uniform.
    given, target = sample_points(logits, masks, 4096, torch.tensor([0.1, 0.7]))
    full = nn.functional.interpolate(logits[:, None], size=(128, 128))[:, 0].flatten(1)
    expected = focal_loss(full, masks.flatten(1).float()).mean()
    torch.testing.assert_close(focal_loss(given, target).mean(), expected, rtol=0.03, atol=0)


def test_the_point_sampled_loss_trains_and_repeats() -> None:
    config = small_config()
    weights = LossConfig(mask_points=64)
    images, labels = shapes_batch(2)
    gradients: list[Tensor] = []
    for _ in range(2):
        torch.manual_seed(0)
        model, loss = build_uncalibrated_segmentor(config), build_criterion(weights, config)
        terms = loss(model(images), labels, loss.count(labels))
        torch.stack(list(terms.values())).sum().backward()
        weight = model.decode_head.pixel_decoder.mask_feature.weight
        assert weight.grad is not None and weight.grad.any()
        gradients.append(weight.grad)
    assert torch.equal(*gradients)


def test_the_dense_loss_divides_by_the_labelled_pixels() -> None:
    config = dataclasses.replace(small_config(), decoder="fpn")
    loss = build_criterion(LossConfig(), config)
    target = torch.randint(0, 9, (2, 16, 16))
    target[0, :8] = 255
    assert loss.count(target) == 2 * 256 - 128
    prediction = DensePrediction(torch.randn(2, 9, 16, 16))
    expected = nn.functional.cross_entropy(prediction.logits, target, ignore_index=255)
    torch.testing.assert_close(loss(prediction, target, loss.count(target))["pixel"], expected)


def test_class_factors_favour_rare_classes_with_mean_one() -> None:
    frequency = torch.tensor([80.0, 15.0, 5.0, 0.0])
    factors = compute_class_factors(frequency, 0.5, 4)
    assert factors[0] < factors[1] < factors[2] == factors[3]
    assert (factors * frequency / frequency.sum()).sum() == pytest.approx(1.0)
    assert torch.equal(compute_class_factors(frequency, 0.0, 4), torch.ones(4))


def test_predictions_and_targets_of_different_images_are_refused_with_both_numbers() -> None:
    said = "must be of the same images, got 2 predictions and 1 targets"
    with pytest.raises(ValueError, match=said):
        criterion()(random_prediction(), torch.zeros(1, 8, 8, dtype=torch.int64), 1.0)
    with pytest.raises(ValueError, match=said):
        dense_criterion()(
            DensePrediction(torch.randn(2, 9, 8, 8)), torch.zeros(1, 8, 8, dtype=torch.int64), 1.0
        )
