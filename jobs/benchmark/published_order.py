"""The published order of operations, kept to measure and compare against.

It computes what the fast path computes: neurons that keep their input for the backward pass and
their membrane potential until the next call, attention as (q k^T) v where the released code has it
so, a mask product whose backward pass looks at every mask, losses layer after layer and matching
image after image. Results are equal where sums are exact and differ by float rounding elsewhere.
"""

from typing import Any

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ...model.backbone.e_spikeformer import WideValueAttention
from ...model.backbone.meta_spikeformer import RepConvAttention
from ...model.config import LossConfig
from ...model.decoder.query_decoder import SpikeAttention
from ...model.layers.depthwise_conv import DepthwiseConv2d
from ...model.loss.criterion import SetCriterion
from ...model.loss.image_terms import resize_labels
from ...model.loss.mask_loss import dice_loss, focal_loss
from ...model.loss.matcher import ImageTargets, split_targets
from ...model.neuron.integer_lif import IntegerLIF
from ...model.prediction import MaskPrediction
from ...model.segmentor import QueryHead

_EPS = torch.finfo(torch.float32).eps


class _Round(torch.autograd.Function):
    """Round a clamped membrane potential, keeping the potential itself for the backward pass."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward(v)
        ctx.levels = levels
        return torch.round(torch.clamp(v, min=0, max=levels))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (v,) = ctx.saved_tensors
        return gradients[0] * ((v >= 0) & (v <= ctx.levels)).to(v.dtype), None


class PlainNeuron(nn.Module):
    """NI-LIF in single tensor operations: charge, fire, soft reset, division (stateless only).

    Args:
        neuron: The neuron that it stands for: stateless, half-even rounding, closed window.

    Raises:
        ValueError: Where the released code has no such neuron.
    """

    def __init__(self, neuron: IntegerLIF) -> None:
        super().__init__()
        rule = neuron.rule
        kind = (rule.dynamics, rule.rounding, rule.window, rule.threshold)
        if kind != ("stateless", "half_even", "closed", 1.0):
            raise ValueError(f"the published order has no neuron of this kind: {kind}")
        self.levels = neuron.levels
        self.divisor = neuron.divisor
        self._v: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of a sequence, (T, B, C, ...) to the same shape."""
        v = x + 0.0
        count = _Round.apply(v, self.levels)
        self._v = v - count
        return count / self.divisor


def use_published_order(model: nn.Module) -> nn.Module:
    """Switch a model, in place, to the published order of operations.

    Args:
        model: A published segmentor or classifier with stateless neurons.

    Raises:
        ValueError: Where the released code has no such neuron.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, IntegerLIF):
                setattr(module, name, PlainNeuron(child))
        if isinstance(module, RepConvAttention):
            module.order = "values_first"
        elif isinstance(module, SpikeAttention | WideValueAttention):
            module.order = "scores_first"
        elif isinstance(module, QueryHead):
            module.mask_product = plain_mask_product
            module.reorders = False
        elif isinstance(module, DepthwiseConv2d):
            module.by_product = False
    return model


def plain_mask_product(embeddings: Tensor, features: Tensor) -> Tensor:
    """As `mask_product`: every step's masks, then their mean."""
    return torch.einsum("tlbqe,tbehw->tlbqhw", embeddings, features).mean(0)


class PlainCriterion(SetCriterion):
    """As `SetCriterion`, at label resolution: one layer after the other, image after image."""

    def layer_losses(
        self, prediction: MaskPrediction, target: Tensor, normalizer: Tensor | float
    ) -> dict[str, Tensor]:
        """Unweighted class, mask and dice loss of every layer, each (L,)."""
        images = [split_targets(t, ignore_label=self.config.ignore_label) for t in target]
        losses = [
            self._layer(classes, masks, images, normalizer)
            for classes, masks in zip(prediction.class_logits, prediction.mask_logits, strict=True)
        ]
        parts = (torch.stack(values) for values in zip(*losses, strict=True))
        return dict(zip(("class", "mask", "dice"), parts, strict=True))

    def _layer(
        self,
        class_logits: Tensor,
        mask_logits: Tensor,
        images: list[ImageTargets],
        normalizer: Tensor | float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        B, Q, K1 = class_logits.shape
        wanted = torch.full((B, Q), K1 - 1, device=class_logits.device)
        matched = torch.zeros(B, Q, dtype=torch.bool, device=class_logits.device)
        chosen_masks = []
        for b, image in enumerate(images):
            if len(image.labels):
                queries, chosen = _assign(class_logits[b], mask_logits[b], image, self.config)
                wanted[b, queries] = image.labels[chosen]
                matched[b, queries] = True
                chosen_masks.append(image.masks[chosen])
        weight = self.class_weights.to(class_logits)
        loss = F.cross_entropy(
            class_logits.flatten(0, 1), wanted.flatten(), weight=weight, reduction="none"
        )
        class_loss = loss.sum() / (weight[wanted].sum() + _EPS)
        logits = mask_logits[matched]
        if not chosen_masks:
            return class_loss, logits.sum(), logits.sum()
        masks = torch.cat(chosen_masks).to(logits)
        logits = F.interpolate(
            logits[:, None], size=masks.shape[-2:], mode="bilinear", align_corners=False
        ).flatten(1)
        masks = masks.flatten(1)
        focal = focal_loss(logits, masks).sum() / (normalizer * masks.shape[1] + _EPS)
        return class_loss, focal, dice_loss(logits, masks).sum() / (normalizer + _EPS)


@torch.no_grad()
def _assign(
    class_logits: Tensor, mask_logits: Tensor, image: ImageTargets, config: LossConfig
) -> tuple[Tensor, Tensor]:
    """Matched queries, ascending, and the indices of their labels; one layer of one image."""
    size = (mask_logits.shape[-2], mask_logits.shape[-1])
    target = resize_labels(image.masks, size).flatten(1).to(mask_logits)
    p = mask_logits.flatten(1).sigmoid()
    positive = -(p + 1e-12).log() * 0.25 * (1 - p).pow(2)
    negative = -(1 - p + 1e-12).log() * 0.75 * p.pow(2)
    focal = torch.einsum("qp,mp->qm", positive, target)
    focal = focal + torch.einsum("qp,mp->qm", negative, 1 - target)
    overlap = torch.einsum("qp,mp->qm", p, target)
    dice = 1 - (2 * overlap + 1) / (p.sum(1)[:, None] + target.sum(1) + 1)
    classes = -class_logits.softmax(-1)[:, image.labels]
    cost = config.class_cost * classes + config.mask_cost * focal / p.shape[1]
    queries, chosen = linear_sum_assignment((cost + config.dice_cost * dice).cpu().numpy())
    device = class_logits.device
    return torch.from_numpy(queries).to(device), torch.from_numpy(chosen).to(device)
