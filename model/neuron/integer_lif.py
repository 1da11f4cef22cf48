"""The normalized integer LIF neuron (NI-LIF): one op over the whole sequence, and its module."""

from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from ..config import NeuronConfig
from .dispatch import choose_backend


class _Stateless(torch.autograd.Function):
    """The memoryless neuron; the backward pass needs one byte per element, not the input."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        levels: int,
        divisor: float,
        threshold: float,
        half_up: bool,
        open_: bool,
    ) -> Tensor:
        h = x if threshold == 1.0 else x / threshold
        if ctx.needs_input_grad[0]:
            inside = (h > 0) & (h < levels) if open_ else (h >= 0) & (h <= levels)
            ctx.save_for_backward(inside)
        ctx.scale = divisor * threshold
        count = h.clamp(0, levels)
        count = count.add_(0.5).floor_() if half_up else count.round_()
        return count if divisor == 1.0 else count.div_(divisor)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        gradient = gradients[0] * inside
        return (gradient if ctx.scale == 1.0 else gradient.div_(ctx.scale)), *(None,) * 5


class _Temporal(torch.autograd.Function):
    """Recurrence over T; backward needs only which (step, neuron) was inside the window.

    With G the gradient of the membrane potential carried over, w the window and θ the threshold:
    dL/dh_t = g_t w_t / (divisor θ) + decay G_t (1 - w_t), dL/dx_t = dL/dh_t, G_{t-1} = dL/dh_t.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        levels: int,
        divisor: float,
        decay: float,
        threshold: float,
        half_up: bool,
        open_: bool,
    ) -> Tensor:
        output = torch.empty_like(x)
        inside = torch.empty_like(x, dtype=torch.bool) if ctx.needs_input_grad[0] else None
        u = torch.zeros_like(x[0])
        for t in range(x.shape[0]):
            h = u.add_(x[t])
            ratio = h if threshold == 1.0 else h / threshold
            if inside is not None:
                inside[t] = (
                    (ratio > 0) & (ratio < levels) if open_ else (ratio >= 0) & (ratio <= levels)
                )
            count = ratio.clamp(0, levels)
            count = count.add_(0.5).floor_() if half_up else count.round_()
            torch.div(count, divisor, out=output[t])
            u = (h - count * threshold).mul_(decay)
        if inside is not None:
            ctx.save_for_backward(inside)
        ctx.scale, ctx.decay = divisor * threshold, decay
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        g = gradients[0]
        result = torch.empty_like(g)
        carried = torch.zeros_like(g[0])
        for t in reversed(range(g.shape[0])):
            carried = torch.where(inside[t], g[t] / ctx.scale, carried.mul_(ctx.decay))
            result[t] = carried
        return result, *(None,) * 6


def integer_lif(
    x: Tensor,
    *,
    levels: int,
    divisor: float = 1.0,
    dynamics: Literal["stateless", "temporal"] = "stateless",
    decay: float = 0.25,
    threshold: float = 1.0,
    rounding: Literal["half_even", "half_up"] = "half_even",
    window: Literal["closed", "open"] = "closed",
    backend: Literal["auto", "torch", "cuda"] = "auto",
) -> Tensor:
    """Normalized spikes of NI-LIF over a sequence; `reference.py` is the law.

    Args:
        x: Input current, (T, B, C, ...).
        levels: D, largest integer of one step, at least 1.
        divisor: What the spike count is divided by, positive.
        dynamics: `stateless`, or `temporal` with decay and soft reset over T.
        decay: Share of the membrane potential kept between steps, in [0, 1].
        threshold: Membrane potential of one spike, positive.
        rounding: How exact halves round.
        window: Where the surrogate gradient is 1: [0, D] or (0, D).
        backend: Which implementation; `auto` chooses by device.

    Returns:
        Spike count / divisor, shape of x.

    Raises:
        RuntimeError: Where a named backend cannot run.

    Source: paper, NI-LIF; ARCHITECTURE sections 1.1 and 1.2.
    """
    chosen = choose_backend(backend, x.device.type)
    assert chosen == "torch", f"no implementation behind backend {chosen!r}"
    half_up, open_ = rounding == "half_up", window == "open"
    if dynamics == "stateless":
        return _Stateless.apply(x, levels, divisor, threshold, half_up, open_)
    return _Temporal.apply(x, levels, divisor, decay, threshold, half_up, open_)


class IntegerLIF(nn.Module):
    """NI-LIF as a module without parameters and without state.

    Args:
        levels: D.
        divisor: What the spike count is divided by; `output * divisor` is the spike count.
        dynamics: `stateless` or `temporal`.
        decay: Share of the membrane potential kept between steps.
        threshold: Membrane potential of one spike.
        rounding: How exact halves round.
        window: Where the surrogate gradient is 1.
        backend: Which implementation.
    """

    def __init__(
        self,
        *,
        levels: int,
        divisor: float,
        dynamics: Literal["stateless", "temporal"] = "stateless",
        decay: float = 0.25,
        threshold: float = 1.0,
        rounding: Literal["half_even", "half_up"] = "half_even",
        window: Literal["closed", "open"] = "closed",
        backend: Literal["auto", "torch", "cuda"] = "auto",
    ) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"levels must be at least 1, got {levels}")
        if divisor <= 0:
            raise ValueError(f"divisor must be positive, got {divisor}")
        self.levels = levels
        self.divisor = float(divisor)
        self.dynamics: Literal["stateless", "temporal"] = dynamics
        self.decay = decay
        self.threshold = threshold
        self.rounding: Literal["half_even", "half_up"] = rounding
        self.window: Literal["closed", "open"] = window
        self.backend: Literal["auto", "torch", "cuda"] = backend

    @classmethod
    def from_config(
        cls,
        config: NeuronConfig,
        *,
        levels: int | None = None,
        place: Literal["plain", "cross_attention"] = "plain",
    ) -> Self:
        """The neuron of one place in the network.

        Args:
            config: The model's neuron.
            levels: D here, where it differs from the configuration's.
            place: Where it stands, for `normalization_scope`.
        """
        levels = config.levels if levels is None else levels
        divisors = {
            "levels": float(levels),
            "none": 1.0,
            "constant": config.normalization_constant or 1.0,
        }
        everywhere = config.normalization_scope == "everywhere"
        normalized = everywhere or place == "cross_attention"
        return cls(
            levels=levels,
            divisor=divisors[config.normalization] if normalized else 1.0,
            dynamics=config.dynamics,
            decay=config.decay,
            threshold=config.threshold,
            rounding=config.rounding,
            window=config.window,
            backend=config.backend,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of a sequence, (T, B, C, ...) to the same shape."""
        return integer_lif(
            x,
            levels=self.levels,
            divisor=self.divisor,
            dynamics=self.dynamics,
            decay=self.decay,
            threshold=self.threshold,
            rounding=self.rounding,
            window=self.window,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"levels={self.levels}, divisor={self.divisor:g}, dynamics={self.dynamics}"
