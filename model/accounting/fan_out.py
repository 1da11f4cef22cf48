"""Synaptic operations of real spikes: how many accumulates each spike causes, summed per image."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

CODINGS = ("values", "unary", "bitwise")
"""How a spike count n of at most D is sent.

`values`: as one graded message, where it is not 0. `unary`: as n of D binary slots. `bitwise`: as
the ones of its binary notation.
"""


def count_slots(
    x: Tensor, unit: float, levels: int, dims: tuple[int, ...], *, bitwise: bool = True
) -> Tensor:
    """Messages that a tensor of spikes sends in each coding, summed over some of its axes.

    Args:
        x: Spike counts times `unit`.
        unit: Value of one spike.
        levels: D, largest count.
        dims: Axes to sum over; empty sums over none.
        bitwise: Whether bits are counted, which takes most of the time; else they are 0.

    Returns:
        (3, ...) float64 whole numbers, in the order of `CODINGS`; the rest is x's shape without
        `dims`.
    """
    counts = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if not bitwise and levels > 1:
        # Two passes over the values, divided after they are summed.
        total = (_sum(counts, dims) / unit).round_()
        values = (_sum(counts.clamp(max=unit), dims) / unit).round_()
        return torch.stack((values, total, torch.zeros_like(total)))
    if unit != 1.0:
        counts = counts / unit
    if levels == 1:
        # Sums of whole numbers below 2^24 are exact in float32, whatever their order.
        total = _sum(counts, dims).round_()
        return total.expand(3, *total.shape)
    counts = counts.round()
    total = _sum(counts, dims)
    bits, half = total, 2
    while half <= levels:
        # Ones of n: n less the sum of n >> 1, n >> 2, ...
        bits = bits - _sum((counts / half).floor_(), dims)
        half *= 2
    return torch.stack((_sum(counts.clamp_(max=1), dims), total, bits))


def _sum(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    return (x.sum(dims) if dims else x).double()


@lru_cache(maxsize=4096)
def count_reached(
    sizes: tuple[int, int], kernel: int, stride: int, padding: int, dilation: int, transposed: bool
) -> Tensor:
    """Output positions that each input position of one axis reaches through the kernel.

    Args:
        sizes: Input positions, output positions.
        kernel: Taps of the kernel.
        stride: Distance of two outputs in the input, of two inputs in the output if transposed.
        padding: Zeros at each end (cut off from the output if transposed).
        dilation: Distance of two taps.
        transposed: Whether it is a transposed convolution.

    Returns:
        (input positions,) float64.
    """
    size, out = sizes
    place = torch.arange(size)[:, None]
    tap = torch.arange(kernel)[None] * dilation
    if transposed:
        target = place * stride - padding + tap
        reached = (target >= 0) & (target < out)
    else:
        target = place + padding - tap
        reached = (target >= 0) & (target % stride == 0) & (target < out * stride)
    return reached.sum(1).double()


def sum_reached(slots: Tensor, reached: Sequence[Tensor]) -> Tensor:
    """Slots times the outputs that their position reaches, summed over positions.

    Args:
        slots: (..., *size), summed over channels.
        reached: For each axis of `size` what `count_reached` gives.

    Returns:
        (...) float64.
    """
    for reach in reversed(reached):
        slots = slots @ reach.to(slots.device)
    return slots


def spread_reached(slots: Tensor, reached: Sequence[Tensor]) -> Tensor:
    """Slots times the outputs that their position reaches, (..., h, w) to the same shape."""
    rows, columns = (reach.to(slots.device) for reach in reached)
    return slots * rows[:, None] * columns
