"""The neurons in torch's own operations, gradients by hand: the CPU's path, and any device's.

Equal to the law bit for bit (binary LIF: spikes). What torch vectorizes on a CPU decides the form:
`where`, boolean results and boolean factors take 1 to 4 ns per element and thread, comparisons
written as floats, conversions to int8 and bitwise operations 0.1 to 0.3. So a condition is a
float 0 or 1, is kept as an int8 0 or -1, and selects by `&` on the bits of the values, which also
makes infinities and NaN outside of the window plain zeros. Measurements: RESULTS.md.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .layout import empty_like_flat, empty_like_planes, empty_like_sequence, flat, laid_out_as
from .reference import arithmetic, rounded

WINDOW = torch.int8
# Largest D whose counts the 16-bit types hold exactly.
_EXACT = {torch.float16: 2048, torch.bfloat16: 256}
# Elements worked on at once: intermediate values stay in the cache, and are no large allocations.
_CHUNK = 1 << 18
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(x: Tensor) -> Tensor:
    """A view of x's bits as integers of the same width."""
    return x.view(_BITS[x.element_size()])


def fire(
    ratio: Tensor,
    levels: int,
    half_up: bool,
    open_window: bool,
    count: Tensor,
    inside: Tensor | None,
) -> None:
    """Spike counts of `ratio` into `count`; into `inside` 1 where it was in the window, else 0."""
    torch.clamp(ratio, 0, levels, out=count)
    if inside is not None:
        if open_window:
            torch.gt(ratio, 0, out=inside)
            inside.mul_(torch.lt(ratio, levels, out=torch.empty_like(inside)))
        else:
            # Clamping changes what is outside, and NaN equals nothing.
            torch.eq(count, ratio, out=inside)
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
    """Spikes, and the window of x's shape: -1 inside, 0 outside (empty where `save` is false)."""
    spikes = empty_like_flat(x)
    window = empty_like_flat(x, WINDOW) if save else x.new_empty(0, dtype=WINDOW)
    exact = x.dtype not in _EXACT or (
        threshold == 1.0 and not half_up and levels <= _EXACT[x.dtype]
    )
    wide = x.dtype if exact else torch.float32
    per_threshold, per_divisor = rounded(1 / threshold, x.dtype), rounded(1 / divisor, x.dtype)
    for current, fired, kept in _pieces(laid_out_as(x, spikes), spikes, window):
        ratio = current if exact else current.to(wide)
        if threshold != 1.0:
            ratio = ratio * per_threshold
        count = fired if exact else torch.empty_like(ratio)
        inside = torch.empty_like(ratio) if save else None
        fire(ratio, levels, half_up, open_window, count, inside)
        if divisor != 1.0:
            count.mul_(per_divisor)
        if not exact:
            fired.copy_(count)
        if inside is not None:
            kept.copy_(inside.neg_())
    return spikes, window


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one layout (or empty ones) in pieces of storage order that stay in the cache."""
    size = tensors[0].numel()
    if size <= _CHUNK:
        yield tensors
        return
    rows = [flat(tensor) for tensor in tensors]
    for start in range(0, size, _CHUNK):
        yield tuple(row[start : start + _CHUNK] for row in rows)


def stateless_backward(
    gradient: Tensor, window: Tensor, result: Tensor, *, divisor: float, threshold: float
) -> Tensor:
    """dL/dx into `result`: gradient / (divisor threshold) inside the window, 0 outside."""
    selected = bits(result).copy_(window)
    torch.bitwise_and(bits(laid_out_as(gradient, result)), selected, out=selected)
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
    window = empty_like_sequence(x, WINDOW) if save else x.new_empty(0, dtype=WINDOW)
    wide = arithmetic(x.dtype)
    per_threshold, per_divisor = rounded(1 / threshold, x.dtype), rounded(1 / divisor, x.dtype)
    u = empty_like_flat(x[0], wide)
    u.zero_() if state is None else u.copy_(state)
    count, scratch = torch.empty_like(u), torch.empty_like(u)
    for t in range(len(x)):
        h = u.add_(x[t])
        ratio = h if threshold == 1.0 else h * per_threshold
        fire(ratio, levels, half_up, open_window, count, scratch if save else None)
        if save:
            window[t] = scratch
        if wide == x.dtype:
            torch.mul(count, per_divisor, out=spikes[t])
        else:
            spikes[t] = torch.mul(count, per_divisor, out=scratch)
        # count * 1 is count: the subtraction alone is then what the law computes.
        h.sub_(count if threshold == 1.0 else count.mul_(threshold)).mul_(decay)
    return spikes, window.neg_(), u if keep else u.new_empty(0)


def temporal_backward(
    gradient: Tensor,
    state_gradient: Tensor | None,
    window: Tensor,
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
    own, selected = torch.empty_like(carried), bits(torch.empty_like(carried))
    for t in reversed(range(len(gradient))):
        selected.copy_(window[t])
        bits(torch.mul(gradient[t].to(wide), scale, out=own)).bitwise_and_(selected)
        bits(carried.mul_(decay)).bitwise_and_(selected.bitwise_not_()).bitwise_or_(bits(own))
        result[t] = carried
    return result, carried if keep else carried.new_empty(0)


def binary(x: Tensor, *, tau: float, threshold: float) -> Tensor:
    """Binary spikes."""
    spikes = empty_like_sequence(x)
    v = torch.zeros_like(x[0], dtype=arithmetic(x.dtype))
    fired, scratch = torch.empty_like(v), torch.empty_like(v)
    for t in range(len(x)):
        charged = _charge(v, x[t], rounded(1 / tau, x.dtype), scratch)
        torch.ge(charged, threshold, out=fired)
        # Zero, or NaN where the potential is NaN; clamped first, since infinity times 0 is NaN.
        torch.clamp(charged, -1, 1, out=v).mul_(0.0).add_(fired)
        spikes[t] = v
        _settle(charged, fired, bits(v))
        v, scratch = charged, v
    return spikes


def binary_backward(
    gradient: Tensor, x: Tensor, result: Tensor, *, tau: float, threshold: float, alpha: float
) -> Tensor:
    """dL/dx into `result`; the potentials are computed again from x."""
    wide = arithmetic(x.dtype)
    per_tau = rounded(1 / tau, x.dtype)
    potentials = empty_like_sequence(x, wide)
    v = torch.zeros_like(x[0], dtype=wide)
    fired, selected = torch.empty_like(v), bits(torch.empty_like(v))
    for t in range(len(x)):
        v.copy_(_charge(v, x[t], per_tau, potentials[t]))
        _settle(v, torch.ge(v, threshold, out=fired), selected)
    carried = torch.zeros_like(v)
    slope = torch.empty_like(v)
    for t in reversed(range(len(x))):
        h = potentials[t]
        _settle(carried, torch.ge(h, threshold, out=fired), selected)
        # -1 where h is a number: it equals itself.
        selected.copy_(torch.eq(h, h, out=fired)).neg_()
        sigma = h.sub_(threshold).mul_(alpha).sigmoid_()
        torch.sub(1, sigma, out=slope).mul_(alpha).mul_(sigma).mul_(gradient[t])
        bits(carried.add_(slope)).bitwise_and_(selected)
        result[t] = torch.mul(carried, per_tau, out=slope)
        carried.mul_(rounded(1 - per_tau, x.dtype))
    return result


def _charge(v: Tensor, current: Tensor, per_tau: float, out: Tensor) -> Tensor:
    """The charged potential v + (current - v) / tau into `out`."""
    return torch.sub(current, v, out=out).mul_(per_tau).add_(v)


def _settle(v: Tensor, fired: Tensor, selected: Tensor) -> None:
    """Zero v in place where `fired` is 1; `selected` is room for the selection."""
    bits(v).bitwise_and_(selected.copy_(fired).sub_(1))


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
    d = empty_like_planes(x, wide)
    torch.bitwise_and(bits(gradient.to(wide)), inside.to(bits(d).dtype), out=bits(d))
    d.mul_(rounded(1 / scale, x.dtype))
    centered = x.to(wide) - mean.to(wide).view(1, -1, *(1,) * (x.dim() - 2))
    return d, centered, [axis for axis in range(x.dim()) if axis != 1]
