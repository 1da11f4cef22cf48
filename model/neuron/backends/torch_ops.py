"""The neurons in torch's own operations, gradients by hand: the CPU's path, and any device's.

Equal to the law bit for bit (binary LIF: spikes). What torch vectorizes on a CPU decides the form:
`where`, boolean results and boolean factors take 1 to 4 ns per element and thread, comparisons
written as floats, conversions to int8 and bitwise operations 0.1 to 0.3. So a condition is a
float 0 or 1, is kept as an int8, and selects by `&` on the bits of the values or as the weight of a
lerp; and long sequences go through all of their steps in parts that the cache holds.
Measurements: RESULTS.md.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..firing_rule import FiringRule
from ..reference import choose_arithmetic, round_constant
from .memory_layout import empty_like_flat, empty_like_sequence, flatten_storage, match_layout

WINDOW = torch.int8
# Largest D whose counts the 16-bit types hold exactly.
_EXACT = {torch.float16: 2048, torch.bfloat16: 256}
# Neurons worked on at once by a CPU: intermediate values stay in the cache, and calls are few.
_CHUNK = 1 << 17
# The same for sequences, of which several steps are held.
_PART = 1 << 16
# In one pass each: g (1 - s) s, and 0 where x <= threshold, else g.
_SIGMOID_BACKWARD = torch.ops.aten.sigmoid_backward.grad_input
_THRESHOLD_BACKWARD = torch.ops.aten.threshold_backward.grad_input
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@functools.cache
def _make_constant(value: float, dtype: torch.dtype) -> Tensor:
    """A constant as a tensor: less than half of the cost of a call that is given a number."""
    return torch.tensor(value, dtype=dtype, device="cpu")


def _make_factor(value: float, dtype: torch.dtype) -> Tensor | float:
    """As `_make_constant`, but a number for 16 bits, to which a tensor would be rounded."""
    return round_constant(value, dtype) if dtype in _EXACT else _make_constant(value, dtype)


def view_bits(x: Tensor) -> Tensor:
    """A view of x's bits as integers of the same width."""
    return x.view(_BITS[x.element_size()])


def fire(ratio: Tensor, rule: FiringRule, count: Tensor, inside: Tensor | None) -> None:
    """Spike counts of `ratio` into `count`; into `inside` 1 where it was in the window, else 0."""
    torch.clamp(ratio, 0, rule.levels, out=count)
    if inside is not None:
        if rule.window == "open":
            torch.gt(ratio, 0, out=inside)
            inside.mul_(torch.lt(ratio, rule.levels, out=torch.empty_like(inside)))
        else:
            # Clamping changes what is outside, and NaN equals nothing.
            torch.eq(count, ratio, out=inside)
    if rule.rounding == "half_up":
        count.add_(0.5).floor_()
    else:
        count.round_()


def integer_stateless(x: Tensor, rule: FiringRule, save: bool) -> tuple[Tensor, Tensor]:
    """Spikes, and the window of x's shape: 1 inside, 0 outside (empty where `save` is false)."""
    threshold, divisor = rule.threshold, rule.divisor
    spikes = empty_like_flat(x)
    window = empty_like_flat(x, WINDOW) if save else x.new_empty(0, dtype=WINDOW)
    exact = x.dtype not in _EXACT or (
        threshold == 1.0 and rule.rounding == "half_even" and rule.levels <= _EXACT[x.dtype]
    )
    wide = x.dtype if exact else torch.float32
    per_threshold, per_divisor = _make_factor(1 / threshold, wide), _make_factor(1 / divisor, wide)
    for current, fired, saved in _split_pieces(match_layout(x, spikes), spikes, window):
        ratio = current if exact else current.to(wide)
        if threshold != 1.0:
            ratio = ratio * per_threshold
        count = fired if exact else torch.empty_like(ratio)
        inside = torch.empty_like(ratio) if save else None
        fire(ratio, rule, count, inside)
        if divisor != 1.0:
            count.mul_(per_divisor)
        if not exact:
            fired.copy_(count)
        if inside is not None:
            saved.copy_(inside)
    return spikes, window


def _split_pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one layout (or empty ones) in pieces of storage order that stay in the cache."""
    size = tensors[0].numel()
    if size <= _CHUNK or tensors[0].device.type != "cpu":
        yield tensors
        return
    rows = [flatten_storage(tensor) for tensor in tensors]
    for start in range(0, size, _CHUNK):
        yield tuple(row[start : start + _CHUNK] for row in rows)


def integer_stateless_backward(
    gradient: Tensor, window: Tensor, stride: Sequence[int], rule: FiringRule
) -> Tensor:
    """dL/dx at x's strides: gradient / (divisor threshold) inside the window, 0 outside."""
    result = gradient.new_empty_strided(gradient.shape, stride)
    product = rule.divisor * rule.threshold
    scale = _make_factor(1 / product, gradient.dtype)
    for arriving, inside, leaving in _split_pieces(match_layout(gradient, result), window, result):
        selected = view_bits(leaving).copy_(inside).neg_()
        torch.bitwise_and(view_bits(arriving), selected, out=selected)
        if product != 1.0:
            leaving.mul_(scale)
    return result


def integer_temporal(
    x: Tensor, state: Tensor | None, rule: FiringRule, save: bool, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, the window as in `integer_stateless`, u_T in the arithmetic's type (if `keep`)."""
    wide, steps = choose_arithmetic(x.dtype), len(x)
    spikes = empty_like_sequence(x)
    window = empty_like_sequence(x, WINDOW) if save else x.new_empty(0, dtype=WINDOW)
    after = empty_like_flat(x[0], wide) if keep else x.new_empty(0, dtype=wide)
    before = None if state is None else match_layout(state.to(wide), empty_like_flat(x[0], wide))
    per_threshold, per_divisor, left, price = (
        _make_constant(value, wide)
        for value in (1 / rule.threshold, 1 / rule.divisor, rule.decay, rule.threshold)
    )
    for currents, fired, saved, last, first in _split_parts(
        steps, match_layout(x, spikes), spikes, window, after, before
    ):
        u, count, scratch, ratio, room = (
            torch.empty_like(currents[0], dtype=wide) for _ in range(5)
        )
        charge = None if first is None else first[0]
        windows = saved.unbind() if save else [None] * steps
        each = zip(currents.unbind(), fired.unbind(), windows, strict=True)
        for t, (current, spike, inside) in enumerate(each):
            h = current if current.dtype == wide else room.copy_(current)
            if charge is not None:
                h = torch.add(charge, h, out=u)
            in_thresholds = h if rule.threshold == 1.0 else torch.mul(h, per_threshold, out=ratio)
            fire(in_thresholds, rule, count, scratch if save else None)
            if inside is not None:
                inside.copy_(scratch)
            if wide == x.dtype:
                torch.mul(count, per_divisor, out=spike)
            else:
                spike.copy_(torch.mul(count, per_divisor, out=scratch))
            if t + 1 < steps or keep:
                spent = count if rule.threshold == 1.0 else count.mul_(price)
                charge = torch.sub(h, spent, out=u).mul_(left)
        if keep:
            last.copy_(u)
    return spikes, window, after


def integer_temporal_backward(
    gradient: Tensor,
    state_gradient: Tensor | None,
    window: Tensor,
    stride: Sequence[int],
    rule: FiringRule,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """dL/dx at x's strides, and dL/du_0 in the arithmetic's type (if `keep`)."""
    result = gradient.new_empty_strided(gradient.shape, stride)
    wide, steps = choose_arithmetic(gradient.dtype), len(gradient)
    scale = _make_constant(1 / (rule.divisor * rule.threshold), wide)
    left = _make_constant(rule.decay, wide)
    before = empty_like_flat(result[0], wide) if keep else result.new_empty(0, dtype=wide)
    after = state_gradient
    if after is not None:
        after = match_layout(after.to(wide), empty_like_flat(result[0], wide))
    for *sequences, first, last in _split_parts(
        steps, match_layout(gradient, result), window, result, before, after
    ):
        carried = _carry_back(torch.lerp, sequences, last, scale, left)
        if _may_have_nan(carried):
            carried = _carry_back(_choose, sequences, last, scale, left)
        if first is not None:
            first.copy_(carried)
    return result, before


def _carry_back(
    select: Callable[..., Tensor],
    sequences: Sequence[Tensor],
    last: Tensor | None,
    scale: Tensor,
    left: Tensor,
) -> Tensor:
    """`integer_temporal_backward` of a part; returns the last of the gradients.

    `sequences` are dL/ds, the window, and dL/dx, which is written.

    torch.lerp with a weight of 0 or 1 gives exactly one of its ends, in one pass, but NaN where
    the difference of the ends is not finite. Such a NaN stays to the end, where it is seen.
    """
    wide = scale.dtype
    room, passed, weight = (torch.empty_like(sequences[0][0], dtype=wide) for _ in range(3))
    carried = passed.zero_() if last is None else torch.mul(last[0], left, out=passed)
    steps = (sequence.unbind()[::-1] for sequence in sequences)
    for arriving, inside, to in zip(*steps, strict=True):
        if carried is not passed:
            torch.mul(carried, left, out=passed)
        weight.copy_(inside)
        carried = to if to.dtype == wide else room
        torch.mul(
            arriving if arriving.dtype == wide else carried.copy_(arriving), scale, out=carried
        )
        select(passed, carried, weight, out=carried)
        if carried is room:
            to.copy_(room)
    return carried


def _choose(outside: Tensor, inside: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """Select `inside` where the weight is 1, else `outside`, infinities and NaN included."""
    return out.copy_(torch.where(weight.bool(), inside, outside))


def _split_parts(steps: int, like: Tensor, *others: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Sequences with T outermost (and single steps) in parts that stay in the cache.

    Yields:
        (T, neurons) of each sequence and (1, neurons) of each step; None where it is not there.
    """
    n = like.numel() // steps
    if n == 0:
        return
    rows = [
        x.as_strided((x.numel() // n, n), (n, 1)) if x is not None and x.numel() else None
        for x in (like, *others)
    ]
    if n <= _PART or like.device.type != "cpu":
        yield tuple(rows)
        return
    for start in range(0, n, _PART):
        yield tuple(None if row is None else row[:, start : start + _PART] for row in rows)


def binary_lif(x: Tensor, tau: float, threshold: float) -> Tensor:
    """Binary spikes."""
    spikes = empty_like_sequence(x)
    for currents, fired in _split_parts(len(x), match_layout(x, spikes), spikes):
        charged = torch.empty_like(currents[0], dtype=choose_arithmetic(x.dtype))
        # On a GPU to look whether there is a NaN would be to wait for the last step.
        looks = x.device.type == "cpu"
        _fire_binary(currents, fired, charged, tau, threshold, careful=not looks)
        if looks and _may_have_nan(charged):
            _fire_binary(currents, fired, charged, tau, threshold, careful=True)
    return spikes


def _fire_binary(
    currents: Tensor, fired: Tensor, charged: Tensor, tau: float, threshold: float, careful: bool
) -> None:
    """`binary_lif` of a part: the last potential, negated, is left in `charged`.

    A NaN potential fires NaN where `careful`, else nothing.
    """
    below = _make_constant(-threshold, charged.dtype)
    room = charged if fired.dtype == charged.dtype else torch.empty_like(charged)
    rooms = [charged] * len(currents)
    for spike, h in zip(
        fired.unbind(), _charge_mirrored(currents, rooms, tau, threshold), strict=True
    ):
        to = spike if spike.dtype == h.dtype else room
        torch.le(h, below, out=to)
        if careful:
            # Clamped, since infinity times 0 is NaN too.
            to.add_(h.clamp(-1, 1).mul_(0.0))
        if to is not spike:
            spike.copy_(to)


def binary_lif_backward(
    gradient: Tensor, x: Tensor, tau: float, threshold: float, alpha: float
) -> Tensor:
    """dL/dx with T outermost; the potentials are computed again from x.

    With r = dL/dx tau / alpha the law's recurrence is r_t = g_t (1 - s) s + left [h_t < threshold]
    r_{t+1}, one product and one sum a step.
    """
    result, wide = empty_like_sequence(x), choose_arithmetic(x.dtype)
    per_tau = round_constant(1 / tau, x.dtype)
    left = round_constant(1 - per_tau, x.dtype)
    share, far = _make_constant(per_tau * alpha, wide), _make_constant(-threshold * alpha, wide)
    for arriving, currents, leaving in _split_parts(
        len(x), match_layout(gradient, result), match_layout(x, result), result
    ):
        mirrored = torch.empty_like(currents, dtype=wide)
        for _ in _charge_mirrored(currents, mirrored.unbind(), tau, threshold):
            pass
        careful = _may_have_nan(mirrored[-1])
        slope, passed, total, carried = (torch.empty_like(mirrored[0]) for _ in range(4))
        parts = [part.unbind()[::-1] for part in (arriving, mirrored, leaving)]
        for t, (g, h, to) in enumerate(zip(*parts, strict=True)):
            torch.add(far, h, alpha=-alpha, out=slope).sigmoid_()
            _SIGMOID_BACKWARD(g if g.dtype == wide else total.copy_(g), slope, grad_input=total)
            if t:
                # A spike resets: nothing passes on.
                _THRESHOLD_BACKWARD(carried, h, -threshold, grad_input=passed)
                total.add_(passed, alpha=left)
            if careful:
                total.masked_fill_(h.isnan(), 0.0)
            if to.dtype == wide:
                torch.mul(total, share, out=to)
            else:
                to.copy_(torch.mul(total, share, out=slope))
            total, carried = carried, total
    return result


def _charge_mirrored(
    currents: Tensor, rooms: Sequence[Tensor], tau: float, threshold: float
) -> Iterator[Tensor]:
    """Charged potentials -h of a part of a sequence, step by step, each in its room.

    Negated, because torch has the reset as one operation from below: 0 where -h <= -threshold.
    Rooms are of the arithmetic's type; one may serve all steps.
    """
    factor = _make_constant(-1 / tau, rooms[0].dtype)
    # A product by a power of two is exact, so that it may be fused with the sum behind it.
    exact = math.frexp(tau)[0] == 0.5
    v, before = torch.empty_like(rooms[0]), None
    for current, h in zip(currents.unbind(), rooms, strict=True):
        if before is not None:
            torch.threshold(before, -threshold, 0.0, out=v)
        current = current if current.dtype == h.dtype else h.copy_(current)
        # v + (current + v) * -1/tau is -((-v) + (current - (-v)) / tau).
        if before is None:
            torch.mul(current, factor, out=h)
        elif exact:
            torch.add(current, v, out=h)
            torch.add(v, h, alpha=-1 / tau, out=h)
        else:
            torch.add(current, v, out=h).mul_(factor).add_(v)
        before = h
        yield h


def _may_have_nan(row: Tensor) -> bool:
    """Whether an element can be NaN. On a GPU it always can: to look would be to wait."""
    if row.device.type != "cpu":
        return True
    total = row.sum().item()
    return total != total
