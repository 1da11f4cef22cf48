"""Mask logits: every query's embedding times the mask features, mean over time."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..prediction import MaskPrediction


class _MaskProduct(torch.autograd.Function):
    """Batched product whose backward pass skips masks without a gradient.

    Only some masks have a gradient: rows of exact zeros add exact zeros, so leaving them out
    changes nothing but the time.
    """

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, features: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(embeddings, features)
        return torch.baddbmm(offsets[..., None], embeddings, features)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        embeddings, features = ctx.saved_tensors
        gradient = gradients[0]
        used = (gradient != 0).any(-1)
        to_embeddings = torch.zeros_like(embeddings)
        to_features = torch.empty_like(features)
        for b, rows in enumerate(used):
            used_gradient = gradient[b, rows]
            to_embeddings[b, rows] = used_gradient @ features[b].T
            torch.mm(embeddings[b, rows].T, used_gradient, out=to_features[b])
        return to_embeddings, to_features, gradient.sum(-1)


def mask_product(embeddings: Tensor, features: Tensor, offsets: Tensor | None = None) -> Tensor:
    """Multiply mask embeddings and mask features: the mask logits of every layer and query.

    Args:
        embeddings: (T, L, B, Q, E).
        features: (T, B, E, H, W).
        offsets: (T, L, B, Q), added to every pixel.

    Returns:
        (L, B, Q, H, W), the mean over T of the products.
    """
    T, L, B, Q, E = embeddings.shape
    H, W = features.shape[-2:]
    # Time and channel are summed over alike: one contraction of T * E.
    left = embeddings.permute(2, 1, 3, 0, 4).reshape(B, L * Q, T * E)
    # Not by a transposition: OpenVINO takes one between two reshapes for a shuffle of channels, and
    # fails with a free number of images.
    steps = features.flatten(-2)
    right = steps[0] if T == 1 else torch.cat(steps.unbind(), dim=1)
    if offsets is None:
        added = left.new_zeros(B, L * Q)
    else:
        added = offsets.sum(0).transpose(0, 1).reshape(B, L * Q)
    left, right, added = _cast(left, right, added)
    if torch.is_grad_enabled():
        product = _MaskProduct.apply(left, right, added)
    else:
        product = torch.baddbmm(added[..., None], left, right)
    if T > 1:
        product = product / T
    return product.view(B, L, Q, H, W).transpose(0, 1)


def select_logits(prediction: MaskPrediction, index: Sequence[Tensor]) -> Tensor:
    """Mask logits of a few queries, with a gradient of their own size.

    Args:
        prediction: Of the query decoder.
        index: Layer, image and query of each mask, (N,) int64 each; images ascending.

    Returns:
        (N, H', W').
    """
    if prediction.factors is None:
        return prediction.mask_logits[tuple(index)]
    embeddings, features, offsets = prediction.factors
    T, B, E, H, W = features.shape
    layers, images, queries = index
    left = embeddings[:, layers, images, queries].transpose(0, 1).reshape(-1, T * E)
    added = offsets[:, layers, images, queries].sum(0)
    right = features.transpose(0, 1).reshape(B, T * E, H * W).to(prediction.mask_logits.dtype)
    left, added = left.to(right.dtype), added.to(right.dtype)
    numbers = torch.bincount(images, minlength=B).tolist()
    parts = [
        torch.addmm(offset[:, None], query_rows, right[b])
        for b, (query_rows, offset) in enumerate(
            zip(left.split(numbers), added.split(numbers), strict=True)
        )
        if len(query_rows)
    ]
    product = parts[0] if len(parts) == 1 else torch.cat(parts)
    return (product / T if T > 1 else product).view(-1, H, W)


def _cast(*tensors: Tensor) -> Sequence[Tensor]:
    """Cast tensors as autocast does for products, since it does not reach our own function."""
    kind = tensors[0].device.type
    # Tensors without memory, as when operations are only counted, know no autocast.
    if kind != "meta" and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        return [tensor.to(dtype) for tensor in tensors]
    return tensors
