"""The Lovász-softmax loss against the definition of its extension, written out."""

import itertools

import numpy as np
import pytest
import torch
from models import small_config
from torch import Tensor

from spikeseg.model.config import LossConfig, ModelConfig
from spikeseg.model.loss.criterion import SetCriterion, build_criterion
from spikeseg.model.loss.lovasz import lovasz_softmax_loss
from spikeseg.model.loss.matcher import SEGMENT_STRIDE
from spikeseg.model.postprocess import semantic_logits
from spikeseg.model.prediction import DensePrediction, MaskPrediction

IGNORED = 255


def jaccard_loss(wrong: set[int], members: set[int]) -> float:
    """1 - IoU of a class where exactly these pixels are wrong."""
    return len(wrong) / len(members | wrong)


def extend(errors: list[float], members: set[int]) -> float:
    """Lovász extension as an integral: the set function of {errors > t}, over t in [0, 1]."""
    levels = sorted({0.0, *errors, 1.0})
    return sum(
        (high - low) * jaccard_loss({i for i, e in enumerate(errors) if e > low}, members)
        for low, high in itertools.pairwise(levels)
    )


def define(logits: Tensor, target: Tensor) -> float:
    """The loss by its definition, pixel by pixel."""
    values = logits.double().softmax(1).movedim(1, -1).reshape(-1, logits.shape[1]).tolist()
    pixels = [
        (p, label)
        for p, label in zip(values, target.flatten().tolist(), strict=True)
        if label != IGNORED
    ]
    losses = []
    for k in sorted({label for _, label in pixels}):
        errors = [1 - p[k] if label == k else p[k] for p, label in pixels]
        losses.append(extend(errors, {i for i, (_, label) in enumerate(pixels) if label == k}))
    return float(np.mean(losses))


CASES = {
    "all classes": torch.arange(24).view(2, 3, 4) % 4,
    "absent classes": torch.arange(24).view(2, 3, 4) % 2,
    "one class alone": torch.full((2, 3, 4), 3),
    "ignored pixels": torch.where(
        torch.arange(24).view(2, 3, 4) % 5 == 0, IGNORED, torch.arange(24).view(2, 3, 4) % 4
    ),
    "one labelled pixel": torch.where(torch.arange(24).view(2, 3, 4) == 7, 2, IGNORED),
}


@pytest.mark.parametrize("target", CASES.values(), ids=CASES.keys())
def test_it_is_the_integral_of_the_jaccard_loss_over_thresholds(target: Tensor) -> None:
    generator = torch.Generator().manual_seed(3)
    for scale in (0.1, 1.0, 6.0):
        logits = scale * torch.randn(2, 4, 3, 4, generator=generator, dtype=torch.float64)
        loss = lovasz_softmax_loss(logits, target, ignore_label=IGNORED)
        assert float(loss) == pytest.approx(define(logits, target), abs=1e-12)


def test_of_certain_predictions_it_is_one_less_the_mean_iou() -> None:
    target = torch.tensor([[[0, 0, 0, 1, 1, 2]]])
    predicted = torch.tensor([[[0, 0, 1, 1, 1, 1]]])
    logits = 100.0 * torch.nn.functional.one_hot(predicted, 3).movedim(-1, 1)
    # IoU 2/3, 2/4 and 0.
    loss = lovasz_softmax_loss(logits, target, ignore_label=IGNORED)
    assert float(loss) == pytest.approx(1 - (2 / 3 + 1 / 2) / 3, abs=1e-6)


@pytest.mark.parametrize("target", CASES.values(), ids=CASES.keys())
def test_its_gradient_is_that_of_finite_differences(target: Tensor) -> None:
    logits = torch.randn(
        2, 4, 3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    ).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: lovasz_softmax_loss(x, target, ignore_label=IGNORED), (logits,)
    )


def test_without_a_labelled_pixel_loss_and_gradient_are_zero() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = lovasz_softmax_loss(logits, torch.full((1, 2, 2), IGNORED), ignore_label=IGNORED)
    loss.backward()
    assert float(loss) == 0
    assert logits.grad is not None and not logits.grad.any()


def test_sixteen_bit_logits_are_summed_in_float32() -> None:
    logits = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(1)).bfloat16()
    target = torch.arange(1600).view(1, 40, 40) % 3
    loss = lovasz_softmax_loss(logits, target, ignore_label=IGNORED)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(
        float(lovasz_softmax_loss(logits.double(), target, ignore_label=IGNORED)), abs=1e-6
    )


def fpn_config() -> ModelConfig:
    config = small_config()
    return ModelConfig(num_classes=9, neuron=config.neuron, backbone=config.backbone, decoder="fpn")


@pytest.mark.parametrize("resolution", ["label", "prediction"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_dense_criterion_takes_it_on_every_nth_pixel_of_the_logits(
    resolution: str, stride: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    prediction = DensePrediction(torch.randn(2, 9, 5, 7, generator=generator))
    target = torch.randint(0, 9, (2, 10, 14), generator=generator)
    settings = {"mask_resolution": resolution, "lovasz_stride": stride}
    loss = build_criterion(LossConfig(**settings, lovasz_weight=0.5), fpn_config())  # pyright: ignore[reportArgumentType]
    terms = loss(prediction, target, loss.count(target))
    assert list(terms) == loss.terms == ["pixel", "lovasz"]
    expected = lovasz_softmax_loss(
        prediction.logits[..., ::stride, ::stride],
        target[:, ::2, ::2][..., ::stride, ::stride],
        ignore_label=IGNORED,
    )
    torch.testing.assert_close(terms["lovasz"], 0.5 * expected)
    plain = build_criterion(LossConfig(**settings), fpn_config())  # pyright: ignore[reportArgumentType]
    assert plain.terms == ["pixel"]
    torch.testing.assert_close(
        plain(prediction, target, loss.count(target))["pixel"], terms["pixel"]
    )


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_query_decoder_takes_it_of_the_map_that_its_queries_join_to(stride: int) -> None:
    generator = torch.Generator().manual_seed(0)
    prediction = MaskPrediction(
        torch.randn(2, 2, 6, 4, generator=generator),
        torch.randn(2, 2, 6, 5, 7, generator=generator),
        None,
    )
    target = torch.randint(0, 3, (2, 10, 14), generator=generator)
    target[0, :4, :4] = IGNORED
    settings = LossConfig(lovasz_weight=0.5, lovasz_stride=stride)
    loss = SetCriterion(settings, 3, torch.ones(3))
    terms = loss(prediction, target, 4.0)
    assert list(terms) == loss.terms == ["class", "mask", "dice", "lovasz"]
    # As scored: class times mask, summed over the queries of the last layer; here as shares of 1.
    scores = semantic_logits(
        MaskPrediction(prediction.class_logits[-1:], prediction.mask_logits[-1:], None), (5, 7)
    )
    shares = (scores / scores.sum(1, keepdim=True))[..., ::stride, ::stride]
    expected = define(shares.log(), target[:, ::2, ::2][..., ::stride, ::stride])
    assert float(terms["lovasz"]) == pytest.approx(0.5 * expected, abs=1e-5)
    segments = torch.where(target == IGNORED, IGNORED, target + 2 * SEGMENT_STRIDE)
    assert float(loss(prediction, segments, 4.0)["lovasz"]) == float(terms["lovasz"])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("lovasz_weight", -0.5, "lovasz_weight must be finite and not negative, got -0.5"),
        ("lovasz_weight", float("nan"), "lovasz_weight must be finite and not negative, got nan"),
        ("lovasz_stride", 0, "lovasz_stride must be at least 1, got 0"),
    ],
)
def test_impossible_settings_are_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossConfig(**{field: value})  # pyright: ignore[reportArgumentType]
