"""Mask logits: every query's embedding times the mask features, mean over time."""

from typing import Any

import torch
from torch import Tensor


class _MaskProduct(torch.autograd.Function):
    """A product whose backward pass leaves out the masks that no loss looked at.

    Only matched masks have a gradient, a few of a hundred: rows of exact zeros add exact zeros, so
    leaving them out changes nothing but the time.
    """

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, features: Tensor) -> Tensor:
        ctx.save_for_backward(embeddings, features)
        return embeddings @ features

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        embeddings, features = ctx.saved_tensors
        gradient = gradients[0]
        used = (gradient != 0).any(-1)
        to_embeddings = torch.zeros_like(embeddings)
        to_features = torch.empty_like(features)
        for b, rows in enumerate(used):
            kept = gradient[b, rows]
            to_embeddings[b, rows] = kept @ features[b].T
            torch.mm(embeddings[b, rows].T, kept, out=to_features[b])
        return to_embeddings, to_features


def mask_product(embeddings: Tensor, features: Tensor) -> Tensor:
    """Masks of every layer and query.

    Args:
        embeddings: (T, L, B, Q, E).
        features: (T, B, E, H, W).

    Returns:
        (L, B, Q, H, W), the mean over T of the products.
    """
    T, L, B, Q, E = embeddings.shape
    H, W = features.shape[-2:]
    # Time and channel are summed over alike: one contraction of T * E.
    left = embeddings.permute(2, 1, 3, 0, 4).reshape(B, L * Q, T * E)
    right = features.transpose(0, 1).reshape(B, T * E, H * W)
    # Tensors without memory, as when operations are only counted, know no autocast.
    if left.device.type != "meta" and torch.is_autocast_enabled(left.device.type):
        dtype = torch.get_autocast_dtype(left.device.type)
        left, right = left.to(dtype), right.to(dtype)
    product = _MaskProduct.apply(left, right) if torch.is_grad_enabled() else left @ right
    if T > 1:
        product = product / T
    return product.view(B, L, Q, H, W).transpose(0, 1)
