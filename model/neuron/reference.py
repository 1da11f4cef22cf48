"""The law: what every backend of the neurons must compute, in plain PyTorch, gradients by autograd.

NaN policy: a NaN membrane potential gives a NaN spike and a zero gradient (it is in no window), so
that a broken input is seen at the loss and does not spread through the backward pass.
"""

from typing import Any, Literal

import torch
from torch import Tensor


class _Spike(torch.autograd.Function):
    """Round a clamped membrane potential; straight-through inside the window."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, levels: int, rounding: str, window: str) -> Tensor:
        if window == "closed":
            ctx.save_for_backward((h >= 0) & (h <= levels))
        else:
            ctx.save_for_backward((h > 0) & (h < levels))
        clamped = h.clamp(0, levels)
        return torch.round(clamped) if rounding == "half_even" else torch.floor(clamped + 0.5)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return torch.where(inside, gradients[0], 0.0), None, None, None


def spike_count(
    h: Tensor,
    *,
    levels: int,
    rounding: Literal["half_even", "half_up"],
    window: Literal["closed", "open"],
) -> Tensor:
    """Integer emitted at a membrane potential.

    Args:
        h: Membrane potential in units of the threshold, any shape.
        levels: D, largest integer, at least 1.
        rounding: How exact halves round.
        window: Where the surrogate gradient is 1: [0, D] or (0, D).

    Returns:
        Spike count in [0, D], shape of h.

    Source: Spike2Former, eq. of NI-LIF; ARCHITECTURE section 1.
    """
    return _Spike.apply(h, levels, rounding, window)


def integer_lif_reference(
    x: Tensor,
    *,
    levels: int,
    divisor: float,
    dynamics: Literal["stateless", "temporal"],
    decay: float,
    threshold: float,
    rounding: Literal["half_even", "half_up"],
    window: Literal["closed", "open"],
) -> Tensor:
    """NI-LIF over a sequence.

    Stateless: every step sees v = x. Temporal: h_t = u_{t-1} + x_t,
    c_t = round(clamp(h_t / θ, 0, D)), u_t = decay (h_t - c_t θ), u_0 = 0.

    Args:
        x: Input current, (T, B, C, ...).
        levels: D.
        divisor: What the spike count is divided by.
        dynamics: Whether steps see what earlier ones left.
        decay: Share of the membrane potential kept between steps, in [0, 1].
        threshold: θ, positive.
        rounding: How exact halves round.
        window: Where the surrogate gradient is 1.

    Returns:
        Normalized spikes, count / divisor, shape of x.

    Source: paper, section "NI-LIF"; default decay from SpikingJelly's ILIF.
    """
    if dynamics == "stateless":
        return spike_count(x / threshold, levels=levels, rounding=rounding, window=window) / divisor
    u = torch.zeros_like(x[0])
    outputs = []
    for current in x:
        h = u + current
        count = spike_count(h / threshold, levels=levels, rounding=rounding, window=window)
        u = decay * (h - count * threshold)
        outputs.append(count / divisor)
    return torch.stack(outputs)


class _Binary(torch.autograd.Function):
    """Heaviside step with the derivative of a sigmoid."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, alpha: float) -> Tensor:
        ctx.save_for_backward(v)
        ctx.alpha = alpha
        return (v >= 0).to(v)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (v,) = ctx.saved_tensors
        s = torch.sigmoid(ctx.alpha * v)
        return gradients[0] * (ctx.alpha * (1 - s) * s), None


def lif_reference(x: Tensor, *, tau: float, threshold: float, alpha: float) -> Tensor:
    """Binary LIF: v += (x - v) / tau; spike at v >= threshold; hard reset to 0, detached.

    Args:
        x: Input current, (T, B, C, ...).
        tau: Time constant in steps, at least 1.
        threshold: Membrane potential of a spike.
        alpha: Steepness of the sigmoid surrogate.

    Returns:
        Binary spikes, shape of x.

    Source: SDT-V2's MultiStepLIFNode (ARCHITECTURE 1.4).
    """
    v = torch.zeros_like(x[0])
    outputs = []
    for current in x:
        v = v + (current - v) / tau
        spike = _Binary.apply(v - threshold, alpha)
        v = v * (1 - spike.detach())
        outputs.append(spike)
    return torch.stack(outputs)
