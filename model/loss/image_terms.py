"""Loss terms that are taken once of a whole prediction, beside those of every decoder layer.

A new term is a function here, an entry of `IMAGE_TERMS`, its weight in `LossConfig` and its name in
the table of metrics.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import LossConfig
from ..prediction import MaskPrediction
from .lovasz import lovasz_softmax_loss
from .matcher import SEGMENT_STRIDE


def pixel_loss(
    prediction: MaskPrediction, target: Tensor, factors: Tensor, config: LossConfig
) -> Tensor | None:
    """Cross entropy of the auxiliary pixel head; None in eval mode, where it makes no logits."""
    logits = prediction.pixel_logits
    if logits is None:
        return None
    small = resize_labels(target, (logits.shape[-2], logits.shape[-1])) % SEGMENT_STRIDE
    return balanced_cross_entropy(logits.log_softmax(1), small, factors, config.ignore_label)


def semantic_loss(
    prediction: MaskPrediction, target: Tensor, factors: Tensor, config: LossConfig
) -> Tensor:
    """Negative log-likelihood of the semantic map that the last layer's queries join to."""
    logs = join_semantic_map(prediction.class_logits[-1], prediction.mask_logits[-1])
    small = resize_labels(target, (logs.shape[-2], logs.shape[-1])) % SEGMENT_STRIDE
    return balanced_cross_entropy(logs, small, factors, config.ignore_label)


def lovasz_loss(
    prediction: MaskPrediction, target: Tensor, factors: Tensor, config: LossConfig
) -> Tensor:
    """Lovász-softmax loss of the same map; every class that occurs weighs the same."""
    del factors
    mask_logits = prediction.mask_logits[-1]
    small = resize_labels(target, (mask_logits.shape[-2], mask_logits.shape[-1])) % SEGMENT_STRIDE
    n = config.lovasz_stride
    return lovasz_softmax_loss(
        join_semantic_map(prediction.class_logits[-1], mask_logits[..., ::n, ::n]),
        small[..., ::n, ::n],
        ignore_label=config.ignore_label,
    )


def join_semantic_map(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Log of the share of each class in a pixel: sum of class probability x mask over queries.

    Args:
        class_logits: (B, Q, K + 1); the last is "no object".
        mask_logits: (B, Q, h, w).

    Returns:
        (B, K, h, w).
    """
    classes = class_logits.softmax(-1)[..., :-1]
    joined = torch.einsum("bqk,bqhw->bkhw", classes, mask_logits.sigmoid())
    return (joined + 1e-6).log() - (joined.sum(1, keepdim=True) + 1e-6).log()


# Name of a term -> its loss from prediction, target (B, H, W), factors per class (K,) and settings;
# its weight is the field `<name>_weight` of the settings, and 0 leaves it out.
IMAGE_TERMS: dict[str, Callable[[MaskPrediction, Tensor, Tensor, LossConfig], Tensor | None]] = {
    "pixel": pixel_loss,
    "semantic": semantic_loss,
    "lovasz": lovasz_loss,
}


def resize_labels(target: Tensor, size: tuple[int, int]) -> Tensor:
    """A label map at another size by nearest neighbours.

    Args:
        target: (B, H, W) integer or bool.
        size: Height and width.
    """
    if target.shape[-2:] == size:
        return target
    return F.interpolate(target[:, None].float(), size=size, mode="nearest")[:, 0].to(target.dtype)


def balanced_cross_entropy(
    log_probabilities: Tensor, target: Tensor, factors: Tensor, ignore_label: int
) -> Tensor:
    """Mean over labelled pixels of factor x negative log-likelihood.

    Args:
        log_probabilities: (B, K, H, W).
        target: (B, H, W) int64.
        factors: (K,).
        ignore_label: Label left out.
    """
    loss = F.nll_loss(
        log_probabilities,
        target,
        weight=factors.to(log_probabilities.dtype),
        ignore_index=ignore_label,
        reduction="sum",
    )
    return loss / (target != ignore_label).sum().clamp(min=1)
