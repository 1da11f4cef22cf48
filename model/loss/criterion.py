"""Losses of both decoders: class, mask and dice of every layer, or per-pixel cross entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import LossConfig, Matching, ModelConfig
from ..decoder.mask_product import select_logits
from ..prediction import DensePrediction, MaskPrediction
from .image_terms import IMAGE_TERMS, resize_labels
from .lovasz import lovasz_softmax_loss
from .mask_loss import compute_full_losses, compute_shift, dice_loss, focal_loss, sample_points
from .matcher import (
    SEGMENT_STRIDE,
    ImageTargets,
    match,
    match_classes,
    split_classes,
    split_targets,
)

_EPS = torch.finfo(torch.float32).eps


def build_criterion(
    loss: LossConfig, model: ModelConfig, class_frequency: Tensor | None = None
) -> "SetCriterion | DenseCriterion":
    """Build the criterion for a model's decoder.

    Args:
        loss: Weights.
        model: The architecture; its decoder decides.
        class_frequency: (K,) pixels per class of the training split, for `class_balance`.

    Raises:
        ValueError: Where a loss has no output to be taken of.
    """
    if model.decoder == "query" and loss.pixel_weight and not model.query.pixel_head:
        raise ValueError("loss.pixel_weight is given, and model.query.pixel_head is not set")
    factors = compute_class_factors(class_frequency, loss.class_balance, model.num_classes)
    if model.decoder == "query":
        return SetCriterion(loss, model.num_classes, factors, matching=model.query.matching)
    return DenseCriterion(loss, factors)


def compute_class_factors(frequency: Tensor | None, power: float, num_classes: int) -> Tensor:
    """Per-class factors (median frequency / frequency) ** power, with pixel-weighted mean 1.

    Args:
        frequency: (K,) pixels per class; None gives ones.
        power: 0 gives ones.
        num_classes: K.

    Returns:
        (K,) float32; classes that never occur get the largest factor.
    """
    if frequency is None or power == 0:
        return torch.ones(num_classes)
    share = frequency.double() / frequency.sum()
    seen = share > 0
    factors = torch.zeros(num_classes, dtype=torch.float64)
    factors[seen] = (share[seen].median() / share[seen]) ** power
    factors[~seen] = factors.max()
    return (factors / (factors * share).sum()).float()


class SetCriterion(nn.Module):
    """Matching losses of the query decoder, every layer supervised (ARCHITECTURE section 6).

    Args:
        config: Weights.
        num_classes: K.
        factors: (K,) factors of the pixel-wise extras.
        matching: Which query answers for which label.
    """

    class_weights: Tensor
    factors: Tensor

    def __init__(
        self,
        config: LossConfig,
        num_classes: int,
        factors: Tensor,
        *,
        matching: Matching = "hungarian",
    ) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.matching: Matching = matching
        weights = torch.ones(num_classes + 1)
        weights[-1] = config.no_object_weight
        self.register_buffer("class_weights", weights, persistent=False)
        self.register_buffer("factors", factors, persistent=False)

    @property
    def terms(self) -> list[str]:
        """Names of the terms that a call returns, in their order."""
        return ["class", "mask", "dice", *(name for name in IMAGE_TERMS if self._read_weight(name))]

    def _read_weight(self, term: str) -> float:
        return getattr(self.config, f"{term}_weight")

    def count(self, target: Tensor) -> Tensor:
        """A micro-batch's share of the mask normalizer: masks per image, at least 1 each.

        Args:
            target: (B, H, W) int64 label maps, as in `forward`.
        """
        if self.matching == "class":
            labelled = (target != self.config.ignore_label).flatten(1).any(1)
            return torch.where(labelled, self.num_classes, 1).sum().float()
        labels = [image.unique() for image in target]
        counts = [int((values != self.config.ignore_label).sum()) for values in labels]
        return torch.tensor(float(sum(max(1, count) for count in counts)), device=target.device)

    def forward(
        self, prediction: MaskPrediction, target: Tensor, normalizer: Tensor | float
    ) -> dict[str, Tensor]:
        """Weighted loss terms, summed over layers.

        Args:
            prediction: Of the query decoder.
            target: (B, H, W) int64; a class, which is one mask, or class + SEGMENT_STRIDE x
                segment number, which is one mask per segment.
            normalizer: Masks that the mask losses are divided by.

        Returns:
            Term name -> scalar; their sum is the loss.

        Raises:
            ValueError: As `layer_losses`.
        """
        layers = self.layer_losses(prediction, target, normalizer)
        terms = {name: self._read_weight(name) * values.sum() for name, values in layers.items()}
        for name, loss in IMAGE_TERMS.items():
            weight = self._read_weight(name)
            value = loss(prediction, target, self.factors, self.config) if weight else None
            if value is not None:
                terms[name] = weight * value
        return terms

    def layer_losses(
        self, prediction: MaskPrediction, target: Tensor, normalizer: Tensor | float
    ) -> dict[str, Tensor]:
        """Unweighted class, mask and dice loss of every layer, each (L,).

        Raises:
            ValueError: Where prediction and target are of different numbers of images, targets are
                not int64, or a label is none of the K classes; with Hungarian matching where a
                logit is not finite; with matching by class where targets have segments.
        """
        class_logits = prediction.class_logits
        mask_logits = prediction.mask_logits
        _require_images(mask_logits.shape[1], target)
        _require_labels(target, class_logits.shape[-1] - 1, self.config.ignore_label, segments=True)
        size = (mask_logits.shape[-2], mask_logits.shape[-1])
        images = [self._split(image) for image in target]
        small = [ImageTargets(i.labels, resize_labels(i.masks, size)) for i in images]
        if self.config.mask_resolution == "prediction":
            images = small
        pairs = self._match(class_logits, mask_logits, small)
        shift = None if self.config.mask_points is None else compute_shift(target)
        focal, dice = self._compute_mask_losses(prediction, images, pairs, normalizer, shift)
        return {
            "class": self._compute_class_loss(class_logits, images, pairs),
            "mask": focal,
            "dice": dice,
        }

    def _split(self, target: Tensor) -> ImageTargets:
        ignored = self.config.ignore_label
        if self.matching == "class":
            return split_classes(target, num_classes=self.num_classes, ignore_label=ignored)
        return split_targets(target, ignore_label=ignored)

    def _match(
        self, class_logits: Tensor, mask_logits: Tensor, images: list[ImageTargets]
    ) -> list[list[tuple[Tensor, Tensor]]]:
        """Per image and layer the matched queries and their labels; masks at the logits' size."""
        pairs: list[list[tuple[Tensor, Tensor]]] = []
        for b, image in enumerate(images):
            if not len(image.labels):
                pairs.append([])
            elif self.matching == "class":
                pairs.append(match_classes(image, layers=len(class_logits)))
            else:
                pairs.append(match(class_logits[:, b], mask_logits[:, b], image, self.config))
        return pairs

    def _compute_class_loss(
        self,
        logits: Tensor,
        images: list[ImageTargets],
        pairs: list[list[tuple[Tensor, Tensor]]],
    ) -> Tensor:
        L, B, Q, K1 = logits.shape
        classes = torch.full((L, B, Q), K1 - 1, dtype=torch.int64, device=logits.device)
        if self.matching == "class":
            # Also in an image whose pixels are all ignored: what a query stands for never changes.
            classes[..., : K1 - 1] = torch.arange(K1 - 1, device=logits.device)
        for b, layers in enumerate(pairs):
            for layer, (queries, chosen) in enumerate(layers):
                classes[layer, b, queries] = images[b].labels[chosen]
        weight = self.class_weights.to(logits.dtype)
        loss = F.cross_entropy(
            logits.flatten(0, 2), classes.flatten(), weight=weight, reduction="none"
        )
        return loss.view(L, -1).sum(1) / (weight[classes].view(L, -1).sum(1) + _EPS)

    def _compute_mask_losses(
        self,
        prediction: MaskPrediction,
        images: list[ImageTargets],
        pairs: list[list[tuple[Tensor, Tensor]]],
        normalizer: Tensor | float,
        shift: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Focal and dice loss of the matched masks only, (L,) each."""
        logits = prediction.mask_logits
        L = logits.shape[0]
        indices, chosen_masks = [], []
        for b, layers in enumerate(pairs):
            for layer, (queries, chosen) in enumerate(layers):
                layer_and_image = [torch.full_like(queries, number) for number in (layer, b)]
                indices.append(torch.stack((*layer_and_image, queries)))
                chosen_masks.append(images[b].masks[chosen])
        if not indices:
            zero = logits.sum() * 0
            return zero.expand(L), zero.expand(L)
        index = torch.cat(indices, 1).unbind()
        matched, masks = select_logits(prediction, index), torch.cat(chosen_masks)
        # Sums over all pixels of a mask want more digits than 16-bit types have.
        if matched.dtype in (torch.float16, torch.bfloat16):
            matched = matched.float()
        if shift is not None and self.config.mask_points is not None:
            matched, points = sample_points(matched, masks, self.config.mask_points, shift)
            focal, dice = focal_loss(matched, points).sum(1), dice_loss(matched, points)
            number = self.config.mask_points
        else:
            focal, dice = compute_full_losses(matched, masks)
            number = masks[0].numel()
        empty = matched.new_zeros(L)
        return (
            empty.index_add(0, index[0], focal) / (normalizer * number + _EPS),
            empty.index_add(0, index[0], dice) / (normalizer + _EPS),
        )


class DenseCriterion(nn.Module):
    """Per-pixel cross entropy of the FPN head, and the Lovász-softmax loss where it has a weight.

    Args:
        config: Weights.
        factors: (K,) factors per class.
    """

    factors: Tensor

    def __init__(self, config: LossConfig, factors: Tensor) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("factors", factors, persistent=False)

    @property
    def terms(self) -> list[str]:
        """Names of the terms that a call returns, in their order."""
        return ["pixel", "lovasz"] if self.config.lovasz_weight else ["pixel"]

    def count(self, target: Tensor) -> Tensor:
        """A micro-batch's share of the normalizer: pixels that are not ignored."""
        return (target != self.config.ignore_label).sum().float()

    def forward(
        self, prediction: DensePrediction, target: Tensor, normalizer: Tensor | float
    ) -> dict[str, Tensor]:
        """Weighted loss terms.

        Args:
            prediction: Of the FPN head.
            target: (B, H, W) int64 label maps.
            normalizer: Labelled pixels that the sum is divided by.

        Returns:
            Term name -> scalar; their sum is the loss. `pixel` is a share of the step's sum over
            pixels, `lovasz` belongs to this micro-batch: an intersection over union is no sum.

        Raises:
            ValueError: Where prediction and target are of different numbers of images, targets are
                not int64, or a label is none of the K classes.
        """
        _require_images(len(prediction.logits), target)
        self.check(target)
        return self.compute(prediction, target, normalizer)

    def check(self, target: Tensor) -> None:
        """Refuse targets that are no label maps of the K classes; waits for the device.

        Raises:
            ValueError: Where they are not int64, or a label is none of the K classes.
        """
        _require_labels(target, len(self.factors), self.config.ignore_label)

    def compute(
        self, prediction: DensePrediction, target: Tensor, normalizer: Tensor | float
    ) -> dict[str, Tensor]:
        """As a call, of checked targets; without the Lovász term nothing waits for the device."""
        logits, labels = prediction.logits, target
        if self.config.mask_resolution == "prediction":
            scale = target[0].numel() / (logits.shape[-2] * logits.shape[-1])
            target = resize_labels(target, (logits.shape[-2], logits.shape[-1]))
        else:
            scale = 1.0
            logits = F.interpolate(
                logits, size=target.shape[-2:], mode="bilinear", align_corners=False
            )
        loss = F.cross_entropy(
            logits,
            target,
            weight=self.factors.to(logits.dtype),
            ignore_index=self.config.ignore_label,
            reduction="sum",
        )
        terms = {"pixel": self.config.class_weight * scale * loss / (normalizer + _EPS)}
        if self.config.lovasz_weight:
            terms["lovasz"] = self.config.lovasz_weight * self._compute_lovasz(
                prediction.logits, labels
            )
        return terms

    def _compute_lovasz(self, logits: Tensor, target: Tensor) -> Tensor:
        """Lovász-softmax loss on the grid of the logits, whatever `mask_resolution` is."""
        stride = self.config.lovasz_stride
        small = resize_labels(target, (logits.shape[-2], logits.shape[-1]))
        return lovasz_softmax_loss(
            logits[..., ::stride, ::stride],
            small[..., ::stride, ::stride],
            ignore_label=self.config.ignore_label,
        )


def _require_images(predicted: int, target: Tensor) -> None:
    if len(target) != predicted:
        raise ValueError(
            f"predictions and targets must be of the same images, got {predicted} predictions and "
            f"{len(target)} targets"
        )


def _require_labels(
    target: Tensor, num_classes: int, ignore_label: int, *, segments: bool = False
) -> None:
    """Refuse invalid labels; with `segments` class + SEGMENT_STRIDE x number is valid."""
    if target.dtype != torch.int64:
        raise ValueError(f"targets must be int64, got {target.dtype}")
    classes = target % SEGMENT_STRIDE if segments else target
    wrong = target[((target < 0) | (classes >= num_classes)) & (target != ignore_label)]
    if len(wrong):
        label = int(wrong[0])
        coded = segments and label >= SEGMENT_STRIDE
        of = f" (class {label % SEGMENT_STRIDE} of segment {label // SEGMENT_STRIDE})"
        raise ValueError(
            f"label {label}{of if coded else ''} in the targets, but num_classes is {num_classes}: "
            f"labels are 0 to {num_classes - 1} and {ignore_label}, which is ignored"
        )
