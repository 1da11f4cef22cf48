"""Storage order: neurons are pointwise, so any dense layout is processed as it lies in memory."""

import itertools

import torch
from torch import Tensor


def empty_like_flat(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialized tensor that is dense, with x's strides where x is dense itself."""
    return torch.empty_like(x, dtype=dtype)


def empty_like_sequence(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """As `empty_like_flat`, with T outermost: step t begins at t times the neurons of a step."""
    step = torch.empty_like(x[0], device="meta")
    return torch.empty_strided(
        x.shape, (step.numel(), *step.stride()), dtype=dtype or x.dtype, device=x.device
    )


def empty_like_planes(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """As `empty_like_flat` for (N, C, ...): channels lie in planes, or next to each other."""
    for memory_format, axes in ((torch.channels_last, 4), (torch.channels_last_3d, 5)):
        if x.dim() == axes and x.is_contiguous(memory_format=memory_format):
            return torch.empty_like(x, dtype=dtype, memory_format=memory_format)
    return torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)


def flatten_storage(x: Tensor) -> Tensor:
    """The elements of a dense tensor in storage order, as one axis."""
    return x.as_strided((x.numel(),), (1,))


def match_layout(x: Tensor, like: Tensor) -> Tensor:
    """The tensor itself where its elements lie as `like`'s do, else a copy that does.

    Args:
        x: Any strides, expanded and zero strides included.
        like: Dense, shape of x.
    """
    if x.stride() == like.stride() or has_layout(x, like.stride()):
        return x
    return torch.empty_strided(x.shape, like.stride(), dtype=x.dtype, device=x.device).copy_(x)


def has_layout(x: Tensor, stride: tuple[int, ...]) -> bool:
    """Whether x's elements lie at these strides; an axis of length 1 has no stride to compare."""
    return all(
        size == 1 or step == other
        for size, step, other in itertools.zip_longest(x.shape, x.stride(), stride)
    )
