"""The law: what every backend of the neurons must compute, forward and backward, in plain PyTorch.

Rules that hold for all of it:

- **Precision.** Arithmetic is in float32 for 16-bit tensors and in the tensor's own type else; each
  operation rounds by itself (no fused multiply-add), and a result is rounded to the tensor's type
  once, when it is stored. A membrane potential is never stored in 16 bits.
- **Reciprocals.** Nothing is divided by threshold, divisor or tau: their reciprocals, rounded once
  to the arithmetic's precision, are multiplied. The two agree for powers of two, which all
  published models have; elsewhere torch's own division differs between CPU and CUDA, this does not.
- **NaN.** A NaN potential gives a NaN spike and is in no window: dL/ds does not pass there, so that
  a broken input is seen at the loss and does not spread through the backward pass. A gradient of
  the integer neuron's potential passes, decayed, as anywhere outside of the window (potentials
  stay NaN, so it is dL/du_T and nothing else); through the binary LIF nothing passes.
- **Zeros** have no defined sign.
"""

import functools

import torch
from torch import Tensor

from .firing_rule import FiringRule


def choose_arithmetic(dtype: torch.dtype) -> torch.dtype:
    """Type that neurons compute in: float32 for 16-bit tensors, else the tensor's own."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


@functools.cache
def round_constant(value: float, dtype: torch.dtype) -> float:
    """Round a constant to the type that neurons compute in."""
    return torch.tensor(value, dtype=choose_arithmetic(dtype)).item()


def count_spikes(ratio: Tensor, rule: FiringRule) -> Tensor:
    """Spike count of one step at a membrane potential.

    Args:
        ratio: Membrane potential in units of the threshold, any shape.
        rule: D and the rounding of halves.

    Returns:
        Spike count in [0, D], shape of ratio.

    Source: Spike2Former, eq. of NI-LIF; ARCHITECTURE section 1.
    """
    clamped = ratio.clamp(0, rule.levels)
    return torch.round(clamped) if rule.rounding == "half_even" else torch.floor(clamped + 0.5)


def is_in_window(ratio: Tensor, rule: FiringRule) -> Tensor:
    """Where the surrogate gradient is 1: [0, D] or (0, D); nowhere for NaN."""
    if rule.window == "closed":
        return (ratio >= 0) & (ratio <= rule.levels)
    return (ratio > 0) & (ratio < rule.levels)


def integer_forward(
    x: Tensor, rule: FiringRule, state: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """NI-LIF over a sequence.

    Stateless: every step sees h_t = x_t. Temporal: h_t = u_{t-1} + x_t,
    c_t = round(clamp(h_t / θ, 0, D)), u_t = decay (h_t - c_t θ).

    Args:
        x: Input current, (T, B, C, ...).
        rule: D, divisor, θ, dynamics and the rest.
        state: u_0, (B, C, ...); zero if not given.

    Returns:
        Normalized spikes c / divisor and whether h was inside the window, both of x's shape, and
        u_T, (B, C, ...).

    Source: paper, section "NI-LIF"; default decay from SpikingJelly's ILIF.
    """
    wide = x.to(choose_arithmetic(x.dtype))
    per_threshold = round_constant(1 / rule.threshold, x.dtype)
    per_divisor = round_constant(1 / rule.divisor, x.dtype)
    temporal = rule.dynamics == "temporal"
    u = torch.zeros_like(wide[0]) if state is None else state.to(wide)
    spikes, inside = [], []
    for current in wide:
        h = u + current if temporal else current
        ratio = h * per_threshold
        count = count_spikes(ratio, rule)
        if temporal:
            u = (h - count * rule.threshold) * rule.decay
        spikes.append(count * per_divisor)
        inside.append(is_in_window(ratio, rule))
    return torch.stack(spikes).to(x.dtype), torch.stack(inside), u


def integer_backward(
    gradient: Tensor, inside: Tensor, rule: FiringRule, state_gradient: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Surrogate gradient of NI-LIF; of the forward pass it needs one bit per element.

    With w_t the window, g_t = dL/ds_t and G_t = dL/du_t (G_T = 0 unless given):
    dL/dh_t = g_t w_t / (divisor θ) + decay G_t (1 - w_t), dL/dx_t = dL/dh_t, G_{t-1} = dL/dh_t.
    The second term: du_t/dh_t = decay (1 - θ dc_t/dh_t) and dc_t/dh_t = w_t / θ.

    Args:
        gradient: g, (T, B, C, ...).
        inside: w, same shape, bool.
        rule: That of the forward pass.
        state_gradient: G_T, (B, C, ...); zero if not given.

    Returns:
        dL/dx of gradient's shape and type, and dL/du_0, (B, C, ...).
    """
    wide = gradient.to(choose_arithmetic(gradient.dtype))
    scale = round_constant(1 / (rule.divisor * rule.threshold), gradient.dtype)
    carried = torch.zeros_like(wide[0]) if state_gradient is None else state_gradient.to(wide)
    result = torch.empty_like(gradient)
    for t in reversed(range(len(wide))):
        passed = carried * rule.decay if rule.dynamics == "temporal" else torch.zeros_like(carried)
        carried = torch.where(inside[t], wide[t] * scale, passed)
        result[t] = carried
    return result, carried


def charge_lif(x: Tensor, *, tau: float, threshold: float) -> Tensor:
    """Charged potentials of the binary LIF: h = v + (x - v) / tau; then v = 0 where h >= θ, else h.

    Args:
        x: Input current, (T, B, C, ...).
        tau: Time constant in steps, at least 1.
        threshold: θ, membrane potential of a spike.

    Returns:
        h, shape of x, in the arithmetic's type.

    Source: SDT-V2's MultiStepLIFNode (ARCHITECTURE 1.4).
    """
    wide = x.to(choose_arithmetic(x.dtype))
    per_tau = round_constant(1 / tau, x.dtype)
    v = torch.zeros_like(wide[0])
    potentials = []
    for current in wide:
        h = v + (current - v) * per_tau
        v = torch.where(h >= threshold, 0.0, h)
        potentials.append(h)
    return torch.stack(potentials)


def lif_forward(x: Tensor, *, tau: float, threshold: float) -> Tensor:
    """Binary spikes of the LIF, 1 where h >= θ; arguments and shapes as `charge_lif`."""
    h = charge_lif(x, tau=tau, threshold=threshold)
    return torch.where(h.isnan(), h, (h >= threshold).to(h)).to(x.dtype)


def lif_backward(
    gradient: Tensor, x: Tensor, *, tau: float, threshold: float, alpha: float
) -> Tensor:
    """Surrogate gradient of the binary LIF, the reset detached.

    With s = [h >= θ], σ = sigmoid(alpha (h - θ)) and G as in `integer_backward`:
    dL/dh_t = g_t alpha (1 - σ) σ + G_t (1 - s_t), dL/dx_t = dL/dh_t / tau,
    G_{t-1} = dL/dh_t (1 - 1 / tau).

    Args:
        gradient: dL/ds, shape of x.
        x: Input current, (T, B, C, ...).
        tau: Time constant in steps.
        threshold: θ.
        alpha: Steepness of the sigmoid.

    Returns:
        dL/dx, shape of x.
    """
    potentials = charge_lif(x, tau=tau, threshold=threshold)
    wide = gradient.to(potentials)
    per_tau = round_constant(1 / tau, x.dtype)
    left = round_constant(1 - per_tau, x.dtype)
    carried = torch.zeros_like(wide[0])
    result = torch.empty_like(x)
    for t in reversed(range(len(x))):
        h = potentials[t]
        sigma = torch.sigmoid((h - threshold) * alpha)
        through = wide[t] * ((1 - sigma) * alpha * sigma)
        total = through + torch.where(h >= threshold, 0.0, carried)
        total = torch.where(h.isnan(), 0.0, total)
        result[t] = total * per_tau
        carried = total * left
    return result
