"""The CUDA kernels seen from tensors: layouts, allocation, and each kernel's arguments in order.

Nothing here touches a device; `cuda.launch` does. Pointers and sizes go as 64-bit integers,
flags as 32-bit integers, constants as 32-bit floats, in the order of the kernel's signature.
"""

import math

import numpy as np
import torch
from torch import Tensor

from ..reference import rounded
from . import cuda
from .memory_layout import empty_like_flat, empty_like_planes, empty_like_sequence, laid_out_as

LANE = 8
# Largest number of steps whose data a thread holds at once.
UNROLL_FORWARD = 4
UNROLL_RECOMPUTE = 8
_ALIGNMENT = 16
# Partial sums of BatchNorm's backward: threads enough to fill a GPU, elements enough for each.
_THREADS = 1 << 18
_ELEMENTS = 64


def integer_stateless(  # noqa: PLR0913
    x: Tensor,
    *,
    levels: int,
    divisor: float,
    threshold: float,
    half_up: bool,
    open_window: bool,
    save: bool,
) -> tuple[Tensor, Tensor]:
    """Spikes of x's layout, and the window: one bit per element of the storage order."""
    spikes = empty_like_flat(x)
    x = laid_out_as(x, spikes)
    mask = empty_mask(x.numel(), x, save=save)
    cuda.launch(
        "integer_forward",
        x,
        lanes(x.numel()),
        (
            *(x.data_ptr(), spikes.data_ptr(), mask.data_ptr() if save else 0, x.numel()),
            wide(x, spikes),
            *_rule(levels, threshold, half_up, open_window),
            np.float32(rounded(1 / divisor, x.dtype)),
        ),
    )
    return spikes, mask


def integer_stateless_backward(
    gradient: Tensor, mask: Tensor, result: Tensor, *, divisor: float, threshold: float
) -> Tensor:
    """dL/dx into `result`, which has x's layout."""
    gradient = laid_out_as(gradient, result)
    cuda.launch(
        "integer_backward",
        gradient,
        lanes(gradient.numel()),
        (
            *(gradient.data_ptr(), mask.data_ptr(), result.data_ptr(), gradient.numel()),
            wide(gradient, result),
            np.float32(rounded(1 / (divisor * threshold), gradient.dtype)),
        ),
    )
    return result


def integer_temporal(  # noqa: PLR0913
    x: Tensor,
    state: Tensor | None,
    *,
    levels: int,
    divisor: float,
    decay: float,
    threshold: float,
    half_up: bool,
    open_window: bool,
    save: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, the window (T, ceil(n / 8) bytes), and u_T in float32 (empty unless `keep`)."""
    spikes = empty_like_sequence(x)
    x = laid_out_as(x, spikes)
    n = x[0].numel()
    mask = empty_mask(n, x, save=save, steps=len(x))
    after = (empty_like_flat if keep else _nothing)(x[0], torch.float32)
    before = None if state is None else _state(state, x[0])
    cuda.launch(
        "temporal_forward",
        x,
        lanes(n),
        (
            *(x.data_ptr(), spikes.data_ptr(), mask.data_ptr() if save else 0),
            0 if before is None else before.data_ptr(),
            after.data_ptr() if keep else 0,
            *(n, len(x)),
            wide(x, spikes, stride=n),
            *_rule(levels, threshold, half_up, open_window),
            np.float32(rounded(1 / divisor, x.dtype)),
            *(np.float32(threshold), np.float32(decay)),
        ),
        unroll=_unroll(len(x), UNROLL_FORWARD),
    )
    return spikes, mask, after


def integer_temporal_backward(  # noqa: PLR0913
    gradient: Tensor,
    state_gradient: Tensor | None,
    mask: Tensor,
    result: Tensor,
    *,
    divisor: float,
    decay: float,
    threshold: float,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """dL/dx into `result`, which has x's layout, and dL/du_0 (empty unless `keep`)."""
    gradient = laid_out_as(gradient, result)
    step = result[0]
    before = (empty_like_flat if keep else _nothing)(step, torch.float32)
    after = None if state_gradient is None else _state(state_gradient, step)
    cuda.launch(
        "temporal_backward",
        gradient,
        lanes(step.numel()),
        (
            *(gradient.data_ptr(), mask.data_ptr(), 0 if after is None else after.data_ptr()),
            *(result.data_ptr(), before.data_ptr() if keep else 0, step.numel(), len(gradient)),
            wide(gradient, result, stride=step.numel()),
            np.float32(rounded(1 / (divisor * threshold), gradient.dtype)),
            np.float32(decay),
        ),
        unroll=_unroll(len(gradient), UNROLL_FORWARD),
    )
    return result, before


def binary_lif(x: Tensor, *, tau: float, threshold: float) -> Tensor:
    """Binary spikes; nothing is saved."""
    spikes = empty_like_sequence(x)
    x = laid_out_as(x, spikes)
    n = x[0].numel()
    cuda.launch(
        "lif_forward",
        x,
        lanes(n),
        (
            *(x.data_ptr(), spikes.data_ptr(), n, len(x), wide(x, spikes, stride=n)),
            *(np.float32(rounded(1 / tau, x.dtype)), np.float32(threshold)),
        ),
        unroll=_unroll(len(x), UNROLL_FORWARD),
    )
    return spikes


def binary_lif_backward(
    gradient: Tensor, x: Tensor, result: Tensor, *, tau: float, threshold: float, alpha: float
) -> Tensor:
    """dL/dx into `result`; the potentials are computed again from x."""
    gradient, x = laid_out_as(gradient, result), laid_out_as(x, result)
    n = x[0].numel()
    cuda.launch(
        "lif_backward",
        x,
        lanes(n),
        (
            *(gradient.data_ptr(), x.data_ptr(), result.data_ptr(), n, len(x)),
            wide(gradient, x, result, stride=n),
            *(np.float32(rounded(1 / tau, x.dtype)), np.float32(threshold), np.float32(alpha)),
        ),
        # The whole sequence where it fits, so that nothing is recomputed.
        unroll=min(UNROLL_RECOMPUTE, 1 << (len(x) - 1).bit_length()),
    )
    return result


def norm_integer(  # noqa: PLR0913
    x: Tensor,
    mean: Tensor,
    gain: Tensor,
    bias: Tensor,
    *,
    levels: int,
    divisor: float,
    threshold: float,
    half_up: bool,
    open_window: bool,
    save: bool,
) -> tuple[Tensor, Tensor]:
    """Spikes of (x - mean) * gain + bias per channel, and the window bits."""
    spikes = empty_like_planes(x)
    x = laid_out_as(x, spikes)
    mask = empty_mask(x.numel(), x, save=save)
    mean, gain, bias = (_channels(values, x) for values in (mean, gain, bias))
    cuda.launch(
        "norm_forward",
        x,
        lanes(x.numel()),
        (
            *(x.data_ptr(), mean.data_ptr(), gain.data_ptr(), bias.data_ptr()),
            *(spikes.data_ptr(), mask.data_ptr() if save else 0),
            *(x.numel(), _inner(x), x.shape[1], wide(x, spikes)),
            *_rule(levels, threshold, half_up, open_window),
            np.float32(rounded(1 / divisor, x.dtype)),
        ),
    )
    return spikes, mask


def norm_integer_sums(
    gradient: Tensor, x: Tensor, mask: Tensor, mean: Tensor, *, divisor: float, threshold: float
) -> Tensor:
    """Sums over every channel of d = dL/dy and of d (x - mean), (2, C)."""
    like = empty_like_planes(x)
    gradient, x = laid_out_as(gradient, like), laid_out_as(x, like)
    channels = x.shape[1]
    per_channel = x.numel() // max(1, channels)
    workers = max(1, min(per_channel // _ELEMENTS, _THREADS // max(1, channels)))
    sums = torch.zeros(2, channels, workers, dtype=torch.float32, device=x.device)
    mean = _channels(mean, x)
    cuda.launch(
        "norm_sums",
        x,
        channels * workers if x.numel() else 0,
        (
            *(gradient.data_ptr(), x.data_ptr(), mask.data_ptr(), mean.data_ptr()),
            *(sums.data_ptr(), x.numel(), _inner(x), channels, workers),
            np.float32(rounded(1 / (divisor * threshold), x.dtype)),
        ),
    )
    return sums.sum(2)


def norm_integer_backward(  # noqa: PLR0913
    gradient: Tensor,
    x: Tensor,
    mask: Tensor,
    mean: Tensor,
    gain: Tensor,
    level: Tensor,
    slope: Tensor,
    *,
    divisor: float,
    threshold: float,
) -> Tensor:
    """dL/dx = (d - level - (x - mean) slope) gain, in the layout the kernels take for x."""
    result = empty_like_planes(x)
    gradient, x = laid_out_as(gradient, result), laid_out_as(x, result)
    mean, gain, level, slope = (_channels(v, x) for v in (mean, gain, level, slope))
    cuda.launch(
        "norm_backward",
        x,
        lanes(x.numel()),
        (
            *(gradient.data_ptr(), x.data_ptr(), mask.data_ptr(), mean.data_ptr()),
            *(gain.data_ptr(), level.data_ptr(), slope.data_ptr(), result.data_ptr()),
            *(x.numel(), _inner(x), x.shape[1], wide(gradient, x, result)),
            np.float32(rounded(1 / (divisor * threshold), x.dtype)),
        ),
    )
    return result


def copy(x: Tensor, result: Tensor) -> Tensor:
    """Copy x into `result`, both dense and of one layout; for measurements."""
    threads = lanes(x.numel())
    pointers = (x.data_ptr(), result.data_ptr())
    cuda.launch("lane_copy", x, threads, (*pointers, x.numel(), wide(x, result)))
    return result


def lanes(n: int) -> int:
    """Threads for n neurons."""
    return -(-n // LANE)


def empty_mask(n: int, like: Tensor, *, save: bool, steps: int = 1) -> Tensor:
    """Room for one bit per neuron and step; empty where nothing is saved."""
    return like.new_empty(steps * lanes(n) if save else 0, dtype=torch.uint8)


def wide(*tensors: Tensor, stride: int = 0) -> np.int32:
    """Whether every lane's 16-byte accesses are aligned, steps `stride` elements apart."""
    return np.int32(
        all(
            tensor.data_ptr() % _ALIGNMENT == 0 and stride * tensor.element_size() % _ALIGNMENT == 0
            for tensor in tensors
        )
    )


def _rule(
    levels: int, threshold: float, half_up: bool, open_window: bool
) -> tuple[np.float32 | np.int32, ...]:
    """per_threshold, levels, low, high, half_up; an open window is a closed one, one float in."""
    low, high = np.float32(0), np.float32(levels)
    if open_window:
        low, high = np.nextafter(low, np.float32(1)), np.nextafter(high, np.float32(0))
    per_threshold = np.float32(rounded(1 / threshold, torch.float32))
    return per_threshold, np.float32(levels), low, high, np.int32(half_up)


def _nothing(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.new_empty(0, dtype=dtype)


def _channels(values: Tensor, x: Tensor) -> Tensor:
    """One float32 a channel of x, next to each other."""
    _readable("values of the channels", values, x.shape[1:2], x.device)
    return values.float().contiguous()


def _inner(x: Tensor) -> int:
    """Neighbours that share a channel, in (N, C, ...) laid out by `empty_like_planes`."""
    return math.prod(x.shape[2:]) if x.is_contiguous() else 1


def _state(state: Tensor, step: Tensor) -> Tensor:
    """A potential (or its gradient) as the kernels read it: float32, laid out as one step."""
    _readable("state", state, step.shape, step.device)
    dense = laid_out_as(state.float(), empty_like_flat(step, torch.float32))
    return dense if dense.data_ptr() % _ALIGNMENT == 0 else dense.clone()


def _readable(name: str, values: Tensor, shape: torch.Size, device: torch.device) -> None:
    """Kernels see addresses alone, so that a tensor of another size or device is refused here."""
    if values.shape != shape or values.device != device:
        raise ValueError(
            f"{name} must be {tuple(shape)} on {device}, "
            f"got {tuple(values.shape)} on {values.device}"
        )


def _unroll(steps: int, most: int) -> int:
    """Steps a thread holds at once: the largest power of two that sequence and bound allow."""
    return min(most, 1 << (steps.bit_length() - 1))
