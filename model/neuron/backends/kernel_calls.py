"""Call the CUDA kernels on tensors: layouts, allocation, and each kernel's arguments in order.

Nothing here touches a device; `cuda.launch` does. Pointers and sizes go as 64-bit integers,
flags as 32-bit integers, constants as 32-bit floats, in the order of the kernel's signature.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..firing_rule import FiringRule
from ..reference import round_constant
from . import cuda
from .memory_layout import empty_like_flat, empty_like_planes, empty_like_sequence, match_layout

LANE = 8
# Largest number of steps whose data a thread holds at once.
UNROLL_FORWARD = 4
UNROLL_RECOMPUTE = 8
_ALIGNMENT = 16
# Partial sums of BatchNorm's backward: threads enough to fill a GPU, elements enough for each.
_THREADS = 1 << 18
_ELEMENTS = 64


def integer_stateless(x: Tensor, rule: FiringRule, save: bool) -> tuple[Tensor, Tensor]:
    """Spikes of x's layout, and the window: one bit per element of the storage order."""
    spikes = empty_like_flat(x)
    x = match_layout(x, spikes)
    mask = empty_mask(x.numel(), x, save=save)
    cuda.launch(
        "integer_forward",
        x,
        count_lanes(x.numel()),
        (
            *(x.data_ptr(), spikes.data_ptr(), mask.data_ptr() if save else 0, x.numel()),
            is_wide(x, spikes),
            *_list_constants(rule),
        ),
    )
    return spikes, mask


def integer_stateless_backward(
    gradient: Tensor, mask: Tensor, stride: Sequence[int], rule: FiringRule
) -> Tensor:
    """dL/dx at x's strides."""
    result = gradient.new_empty_strided(gradient.shape, stride)
    gradient = match_layout(gradient, result)
    cuda.launch(
        "integer_backward",
        gradient,
        count_lanes(gradient.numel()),
        (
            *(gradient.data_ptr(), mask.data_ptr(), result.data_ptr(), gradient.numel()),
            is_wide(gradient, result),
            _compute_gradient_scale(rule),
        ),
    )
    return result


def integer_temporal(
    x: Tensor, state: Tensor | None, rule: FiringRule, save: bool, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, the window (T, ceil(n / 8) bytes), and u_T in float32 (empty unless `keep`)."""
    spikes = empty_like_sequence(x)
    x = match_layout(x, spikes)
    n = x[0].numel()
    mask = empty_mask(n, x, save=save, steps=len(x))
    after = (empty_like_flat if keep else _make_empty)(x[0], torch.float32)
    before = None if state is None else _prepare_state(state, x[0])
    cuda.launch(
        "temporal_forward",
        x,
        count_lanes(n),
        (
            *(x.data_ptr(), spikes.data_ptr(), mask.data_ptr() if save else 0),
            0 if before is None else before.data_ptr(),
            after.data_ptr() if keep else 0,
            *(n, len(x)),
            is_wide(x, spikes, stride=n),
            *_list_constants(rule),
            *(np.float32(rule.threshold), np.float32(rule.decay)),
        ),
        unroll=_choose_unroll(len(x), UNROLL_FORWARD),
    )
    return spikes, mask, after


def integer_temporal_backward(
    gradient: Tensor,
    state_gradient: Tensor | None,
    mask: Tensor,
    stride: Sequence[int],
    rule: FiringRule,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """dL/dx at x's strides, and dL/du_0 (empty unless `keep`)."""
    result = gradient.new_empty_strided(gradient.shape, stride)
    gradient = match_layout(gradient, result)
    step = result[0]
    before = (empty_like_flat if keep else _make_empty)(step, torch.float32)
    after = None if state_gradient is None else _prepare_state(state_gradient, step)
    cuda.launch(
        "temporal_backward",
        gradient,
        count_lanes(step.numel()),
        (
            *(gradient.data_ptr(), mask.data_ptr(), 0 if after is None else after.data_ptr()),
            *(result.data_ptr(), before.data_ptr() if keep else 0, step.numel(), len(gradient)),
            is_wide(gradient, result, stride=step.numel()),
            _compute_gradient_scale(rule),
            np.float32(rule.decay),
        ),
        unroll=_choose_unroll(len(gradient), UNROLL_FORWARD),
    )
    return result, before


def binary_lif(x: Tensor, tau: float, threshold: float) -> Tensor:
    """Binary spikes; nothing is saved."""
    spikes = empty_like_sequence(x)
    x = match_layout(x, spikes)
    n = x[0].numel()
    cuda.launch(
        "lif_forward",
        x,
        count_lanes(n),
        (
            *(x.data_ptr(), spikes.data_ptr(), n, len(x), is_wide(x, spikes, stride=n)),
            *(np.float32(round_constant(1 / tau, x.dtype)), np.float32(threshold)),
        ),
        unroll=_choose_unroll(len(x), UNROLL_FORWARD),
    )
    return spikes


def binary_lif_backward(
    gradient: Tensor, x: Tensor, tau: float, threshold: float, alpha: float
) -> Tensor:
    """dL/dx with T outermost; the potentials are computed again from x."""
    result = empty_like_sequence(x)
    gradient, x = match_layout(gradient, result), match_layout(x, result)
    n = x[0].numel()
    cuda.launch(
        "lif_backward",
        x,
        count_lanes(n),
        (
            *(gradient.data_ptr(), x.data_ptr(), result.data_ptr(), n, len(x)),
            is_wide(gradient, x, result, stride=n),
            *(
                np.float32(round_constant(1 / tau, x.dtype)),
                np.float32(threshold),
                np.float32(alpha),
            ),
        ),
        # The whole sequence where it fits, so that nothing is recomputed.
        unroll=min(UNROLL_RECOMPUTE, 1 << (len(x) - 1).bit_length()),
    )
    return result


def norm_integer(
    x: Tensor, mean: Tensor, gain: Tensor, bias: Tensor, rule: FiringRule, save: bool
) -> tuple[Tensor, Tensor]:
    """Spikes of (x - mean) * gain + bias per channel, and the window bits."""
    spikes = empty_like_planes(x)
    x = match_layout(x, spikes)
    mask = empty_mask(x.numel(), x, save=save)
    mean, gain, bias = (_prepare_channels(values, x) for values in (mean, gain, bias))
    cuda.launch(
        "norm_forward",
        x,
        count_lanes(x.numel()),
        (
            *(x.data_ptr(), mean.data_ptr(), gain.data_ptr(), bias.data_ptr()),
            *(spikes.data_ptr(), mask.data_ptr() if save else 0),
            *(x.numel(), _count_inner(x), x.shape[1], is_wide(x, spikes)),
            *_list_constants(rule),
        ),
    )
    return spikes, mask


def norm_integer_sums(
    gradient: Tensor, x: Tensor, mask: Tensor, mean: Tensor, rule: FiringRule
) -> Tensor:
    """Sums over every channel of d = dL/dy and of d (x - mean), (2, C)."""
    like = empty_like_planes(x)
    gradient, x = match_layout(gradient, like), match_layout(x, like)
    channels = x.shape[1]
    per_channel = x.numel() // max(1, channels)
    workers = max(1, min(per_channel // _ELEMENTS, _THREADS // max(1, channels)))
    sums = torch.zeros(2, channels, workers, dtype=torch.float32, device=x.device)
    mean = _prepare_channels(mean, x)
    cuda.launch(
        "norm_sums",
        x,
        channels * workers if x.numel() else 0,
        (
            *(gradient.data_ptr(), x.data_ptr(), mask.data_ptr(), mean.data_ptr()),
            *(sums.data_ptr(), x.numel(), _count_inner(x), channels, workers),
            _compute_gradient_scale(rule),
        ),
    )
    return sums.sum(2)


def norm_integer_backward(
    gradient: Tensor, x: Tensor, mask: Tensor, channels: Sequence[Tensor], rule: FiringRule
) -> Tensor:
    """dL/dx = (d - level - (x - mean) slope) gain, in the layout the kernels take for x.

    `channels` are mean, gain, level and slope, (C,) each.
    """
    result = empty_like_planes(x)
    gradient, x = match_layout(gradient, result), match_layout(x, result)
    mean, gain, level, slope = (_prepare_channels(values, x) for values in channels)
    cuda.launch(
        "norm_backward",
        x,
        count_lanes(x.numel()),
        (
            *(gradient.data_ptr(), x.data_ptr(), mask.data_ptr(), mean.data_ptr()),
            *(gain.data_ptr(), level.data_ptr(), slope.data_ptr(), result.data_ptr()),
            *(x.numel(), _count_inner(x), x.shape[1], is_wide(gradient, x, result)),
            _compute_gradient_scale(rule),
        ),
    )
    return result


def copy(x: Tensor, result: Tensor) -> Tensor:
    """Copy x into `result`, both dense and of one layout; for measurements."""
    threads = count_lanes(x.numel())
    pointers = (x.data_ptr(), result.data_ptr())
    cuda.launch("lane_copy", x, threads, (*pointers, x.numel(), is_wide(x, result)))
    return result


def count_lanes(n: int) -> int:
    """Number of threads for n neurons."""
    return -(-n // LANE)


def empty_mask(n: int, like: Tensor, *, save: bool, steps: int = 1) -> Tensor:
    """Room for one bit per neuron and step; empty where nothing is saved."""
    return like.new_empty(steps * count_lanes(n) if save else 0, dtype=torch.uint8)


def is_wide(*tensors: Tensor, stride: int = 0) -> np.int32:
    """Whether every lane's 16-byte accesses are aligned, steps `stride` elements apart."""
    return np.int32(
        all(
            tensor.data_ptr() % _ALIGNMENT == 0 and stride * tensor.element_size() % _ALIGNMENT == 0
            for tensor in tensors
        )
    )


def _list_constants(rule: FiringRule) -> tuple[np.float32 | np.int32, ...]:
    """per_threshold, levels, low, high, half_up, per_divisor.

    An open window is a closed one whose ends lie one float inside.
    """
    low, high = np.float32(0), np.float32(rule.levels)
    if rule.window == "open":
        low, high = np.nextafter(low, np.float32(1)), np.nextafter(high, np.float32(0))
    per_threshold, per_divisor = (
        np.float32(round_constant(1 / value, torch.float32))
        for value in (rule.threshold, rule.divisor)
    )
    half_up = np.int32(rule.rounding == "half_up")
    return per_threshold, np.float32(rule.levels), low, high, half_up, per_divisor


def _compute_gradient_scale(rule: FiringRule) -> np.float32:
    """1 / (divisor threshold)."""
    return np.float32(round_constant(1 / (rule.divisor * rule.threshold), torch.float32))


def _make_empty(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.new_empty(0, dtype=dtype)


def _prepare_channels(values: Tensor, x: Tensor) -> Tensor:
    """One float32 a channel of x, next to each other."""
    _require_readable("values of the channels", values, x.shape[1:2], x.device)
    return values.float().contiguous()


def _count_inner(x: Tensor) -> int:
    """Neighbours that share a channel, in (N, C, ...) laid out by `empty_like_planes`."""
    return math.prod(x.shape[2:]) if x.is_contiguous() else 1


def _prepare_state(state: Tensor, step: Tensor) -> Tensor:
    """A potential (or its gradient) as the kernels read it: float32, laid out as one step."""
    _require_readable("state", state, step.shape, step.device)
    dense = match_layout(state.float(), empty_like_flat(step, torch.float32))
    return dense if dense.data_ptr() % _ALIGNMENT == 0 else dense.clone()


def _require_readable(name: str, values: Tensor, shape: torch.Size, device: torch.device) -> None:
    """Refuse a tensor of another size or device, since kernels read addresses alone."""
    if values.shape != shape or values.device != device:
        raise ValueError(
            f"{name} must be {tuple(shape)} on {device}, "
            f"got {tuple(values.shape)} on {values.device}"
        )


def _choose_unroll(steps: int, most: int) -> int:
    """Steps a thread holds at once: the largest power of two that sequence and bound allow."""
    return min(most, 1 << (steps.bit_length() - 1))
