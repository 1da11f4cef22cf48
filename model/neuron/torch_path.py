"""The neurons in torch's own operations, gradients by hand: the CPU's path, and any device's.

Equal to the law bit for bit (binary LIF: spikes). Few passes over memory, in place where it can be;
backward keeps one byte per element (CPU tensors cannot be read by the bit without more passes).
"""

import torch
from torch import Tensor

from .layout import empty_like_flat, empty_like_planes, empty_like_sequence
from .reference import arithmetic, rounded

# Largest D whose counts the 16-bit types hold exactly.
_EXACT = {torch.float16: 2048, torch.bfloat16: 256}


def fire(
    ratio: Tensor,
    levels: int,
    half_up: bool,
    open_window: bool,
    count: Tensor,
    inside: Tensor | None,
) -> None:
    """Spike counts of `ratio` into `count`, and whether it was in the window into `inside`."""
    torch.clamp(ratio, 0, levels, out=count)
    if inside is not None:
        # Clamping changes what is outside the closed window, and NaN equals nothing.
        torch.eq(count, ratio, out=inside)
        if open_window:
            inside.logical_and_(ratio > 0).logical_and_(ratio < levels)
    if half_up:
        count.add_(0.5).floor_()
    else:
        count.round_()


def stateless(
    x: Tensor,
    *,
    levels: int,
    divisor: float,
    threshold: float,
    half_up: bool,
    open_window: bool,
    save: bool,
) -> tuple[Tensor, Tensor]:
    """Spikes, and the window as bool of x's shape (empty where `save` is false)."""
    spikes = empty_like_flat(x)
    inside = empty_like_flat(x, torch.bool) if save else None
    exact = x.dtype not in _EXACT or (
        threshold == 1.0 and not half_up and levels <= _EXACT[x.dtype]
    )
    ratio = x if exact else x.float()
    count = spikes if exact else torch.empty_like(ratio)
    if threshold != 1.0:
        ratio = ratio * rounded(1 / threshold, x.dtype)
    fire(ratio, levels, half_up, open_window, count, inside)
    if divisor != 1.0:
        count.mul_(rounded(1 / divisor, x.dtype))
    if count is not spikes:
        spikes.copy_(count)
    return spikes, x.new_empty(0, dtype=torch.bool) if inside is None else inside


def stateless_backward(
    gradient: Tensor, inside: Tensor, result: Tensor, *, divisor: float, threshold: float
) -> Tensor:
    """dL/dx into `result`: gradient / (divisor threshold) inside the window, 0 outside."""
    torch.where(inside, gradient, gradient.new_zeros(()), out=result)
    scale = divisor * threshold
    return result if scale == 1.0 else result.mul_(rounded(1 / scale, gradient.dtype))


def temporal(
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
    """Spikes, the window as `stateless` has it, and u_T in the arithmetic's type (if `keep`)."""
    spikes = empty_like_sequence(x)
    inside = empty_like_sequence(x, torch.bool) if save else None
    wide = arithmetic(x.dtype)
    u = empty_like_flat(x[0], wide)
    u.zero_() if state is None else u.copy_(state)
    count, reset = torch.empty_like(u), torch.empty_like(u)
    for t in range(len(x)):
        h = u.add_(x[t])
        ratio = h if threshold == 1.0 else h * rounded(1 / threshold, x.dtype)
        fire(ratio, levels, half_up, open_window, count, None if inside is None else inside[t])
        # count * 1 is count: the subtraction alone is then what the law computes.
        taken = count if threshold == 1.0 else torch.mul(count, threshold, out=reset)
        h.sub_(taken).mul_(decay)
        if wide == x.dtype:
            torch.mul(count, rounded(1 / divisor, x.dtype), out=spikes[t])
        else:
            spikes[t] = count.mul_(rounded(1 / divisor, x.dtype))
    window = x.new_empty(0, dtype=torch.bool) if inside is None else inside
    return spikes, window, u if keep else u.new_empty(0)


def temporal_backward(
    gradient: Tensor,
    state_gradient: Tensor | None,
    inside: Tensor,
    result: Tensor,
    *,
    divisor: float,
    decay: float,
    threshold: float,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """dL/dx into `result`, and dL/du_0 in the arithmetic's type (if `keep`)."""
    wide = arithmetic(gradient.dtype)
    scale = rounded(1 / (divisor * threshold), gradient.dtype)
    carried = empty_like_flat(result[0], wide)
    carried.zero_() if state_gradient is None else carried.copy_(state_gradient)
    for t in reversed(range(len(gradient))):
        passed = carried.mul_(decay)
        carried = torch.where(inside[t], gradient[t].to(wide) * scale, passed)
        result[t] = carried
    if not keep:
        return result, carried.new_empty(0)
    return result, empty_like_flat(result[0], wide).copy_(carried)


def binary(x: Tensor, *, tau: float, threshold: float) -> Tensor:
    """Binary spikes."""
    spikes = empty_like_sequence(x)
    wide = arithmetic(x.dtype)
    per_tau = rounded(1 / tau, x.dtype)
    v = torch.zeros_like(x[0], dtype=wide)
    current = torch.empty_like(v)
    for t in range(len(x)):
        torch.sub(x[t], v, out=current)
        h = v.add_(current.mul_(per_tau))
        fired = h >= threshold
        # h - h is 0, or NaN where h is NaN; infinities fire or never do.
        spikes[t] = torch.where(h.isnan(), h, fired)
        h.masked_fill_(fired, 0.0)
    return spikes


def binary_backward(
    gradient: Tensor, x: Tensor, result: Tensor, *, tau: float, threshold: float, alpha: float
) -> Tensor:
    """dL/dx into `result`; the potentials are computed again from x."""
    wide = arithmetic(x.dtype)
    per_tau = rounded(1 / tau, x.dtype)
    left = rounded(1 - per_tau, x.dtype)
    v = torch.zeros_like(x[0], dtype=wide)
    potentials = empty_like_sequence(x, wide)
    for t in range(len(x)):
        h = torch.sub(x[t], v, out=potentials[t])
        torch.add(h.mul_(per_tau), v, out=h)
        v.copy_(h).masked_fill_(h >= threshold, 0.0)
    carried = torch.zeros_like(v)
    for t in reversed(range(len(x))):
        h = potentials[t]
        fired = h >= threshold
        broken = h.isnan()
        sigma = h.sub_(threshold).mul_(alpha).sigmoid_()
        carried.masked_fill_(fired, 0.0)
        slope = (1 - sigma).mul_(alpha).mul_(sigma)
        carried.add_(slope.mul_(gradient[t])).masked_fill_(broken, 0.0)
        result[t] = carried * per_tau
        carried.mul_(left)
    return result


def norm_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of every channel of (N, C, ...), (C,) in the arithmetic's type."""
    if x.device.type == "cuda" and x.dtype != torch.float64:
        # One pass with float32 sums, without a float32 copy of a 16-bit input.
        mean, per_deviation = torch.batch_norm_stats(x, 1e-30)
        return mean, per_deviation.pow(-2)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    variance, mean = torch.var_mean(x.to(arithmetic(x.dtype)), axes, correction=0)
    return mean, variance


def norm_integer(
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
    """Spikes of (x - mean) * gain + bias per channel, (N, C, ...), and the window."""
    wide = arithmetic(x.dtype)
    shape = (1, -1, *(1,) * (x.dim() - 2))
    spikes = empty_like_planes(x)
    y = torch.sub(x, mean.to(wide).view(shape), out=empty_like_planes(x, wide))
    y.mul_(gain.to(wide).view(shape)).add_(bias.to(wide).view(shape))
    fired, inside = stateless(
        y,
        levels=levels,
        divisor=divisor,
        threshold=threshold,
        half_up=half_up,
        open_window=open_window,
        save=save,
    )
    return (fired if fired.dtype == x.dtype else spikes.copy_(fired)), inside


def norm_integer_sums(
    gradient: Tensor, x: Tensor, inside: Tensor, mean: Tensor, *, divisor: float, threshold: float
) -> Tensor:
    """Sums over every channel of d = dL/dy and of d (x - mean), (2, C)."""
    d, centered, axes = _centered(gradient, x, inside, mean, divisor * threshold)
    return torch.stack([d.sum(axes), (d * centered).sum(axes)])


def norm_integer_backward(
    gradient: Tensor,
    x: Tensor,
    inside: Tensor,
    mean: Tensor,
    gain: Tensor,
    level: Tensor,
    slope: Tensor,
    *,
    divisor: float,
    threshold: float,
) -> Tensor:
    """dL/dx = (d - level - (x - mean) slope) gain, with d = dL/dy."""
    d, centered, _ = _centered(gradient, x, inside, mean, divisor * threshold)
    shape = (1, -1, *(1,) * (x.dim() - 2))
    d.sub_(level.to(d).view(shape)).sub_(centered.mul_(slope.to(d).view(shape)))
    return empty_like_planes(x).copy_(d.mul_(gain.to(d).view(shape)))


def _centered(
    gradient: Tensor, x: Tensor, inside: Tensor, mean: Tensor, scale: float
) -> tuple[Tensor, Tensor, list[int]]:
    """dL/dy and x - mean in the arithmetic's type, and the axes that share a channel."""
    wide = arithmetic(x.dtype)
    d = torch.where(inside, gradient.to(wide), 0.0).mul_(rounded(1 / scale, x.dtype))
    centered = x.to(wide) - mean.to(wide).view(1, -1, *(1,) * (x.dim() - 2))
    return d, centered, [axis for axis in range(x.dim()) if axis != 1]
