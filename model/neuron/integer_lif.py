"""The normalized integer LIF neuron (NI-LIF): one op over the whole sequence, and its module."""

from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from ..config import NeuronConfig
from .backends import operators
from .constraints import require


class _Stateless(torch.autograd.Function):
    """The memoryless neuron; its backward pass needs the window, not the input."""

    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any,
        x: Tensor,
        levels: int,
        divisor: float,
        threshold: float,
        half_up: bool,
        open_window: bool,
        backend: str,
    ) -> Tensor:
        spikes, window = operators.integer_stateless(
            x, levels, divisor, threshold, half_up, open_window, True, backend
        )
        ctx.save_for_backward(window)
        ctx.constants = (spikes.stride(), divisor, threshold, backend)
        return spikes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        (window,) = ctx.saved_tensors
        result = operators.integer_stateless_backward(gradients[0], window, *ctx.constants)
        return result, *(None,) * 6


class _Temporal(torch.autograd.Function):
    """Recurrence over T; again the window alone is kept, one entry per step and neuron."""

    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any,
        x: Tensor,
        state: Tensor | None,
        levels: int,
        divisor: float,
        decay: float,
        threshold: float,
        half_up: bool,
        open_window: bool,
        keep: bool,
        backend: str,
    ) -> tuple[Tensor, Tensor]:
        spikes, window, after = operators.integer_temporal(
            x, state, levels, divisor, decay, threshold, half_up, open_window, True, keep, backend
        )
        ctx.save_for_backward(window)
        ctx.constants = (spikes.stride(), divisor, decay, threshold)
        ctx.keep, ctx.backend = keep, backend
        ctx.state_dtype = None if state is None else state.dtype
        return spikes, after

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        (window,) = ctx.saved_tensors
        wanted = ctx.state_dtype is not None
        result, before = operators.integer_temporal_backward(
            gradients[0],
            gradients[1] if ctx.keep else None,
            window,
            *ctx.constants,
            wanted,
            ctx.backend,
        )
        return result, before.to(ctx.state_dtype) if wanted else None, *(None,) * 8


def integer_lif(  # noqa: PLR0913
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
        x: Input current, (T, B, C, ...), any layout.
        levels: D, largest integer of one step, at least 1.
        divisor: What the spike count is divided by, positive.
        dynamics: `stateless`, or `temporal` with decay and soft reset over T.
        decay: Share of the membrane potential kept between steps, in [0, 1].
        threshold: Membrane potential of one spike, positive.
        rounding: How exact halves round.
        window: Where the surrogate gradient is 1: [0, D] or (0, D).
        backend: Which implementation; `auto` chooses by device.

    Returns:
        Spike count / divisor, shape and type of x, in x's layout where that is dense.

    Raises:
        RuntimeError: Where a named backend cannot run; on differentiating twice.
        ValueError: Where a number or a word is not one that `constraints.py` allows.

    Source: paper, NI-LIF; ARCHITECTURE sections 1.1 and 1.2.
    """
    require(levels=levels, divisor=divisor, threshold=threshold, decay=decay)
    require(dynamics=dynamics, rounding=rounding, window=window)
    if dynamics == "temporal":
        return _temporal(
            x, None, levels, divisor, decay, threshold, rounding, window, False, backend
        )[0]
    constants = (levels, float(divisor), float(threshold), rounding == "half_up", window == "open")
    if torch.is_grad_enabled() and x.requires_grad:
        return _Stateless.apply(x, *constants, backend)
    return operators.integer_stateless(x, *constants, False, backend)[0]


def integer_lif_with_state(  # noqa: PLR0913
    x: Tensor,
    state: Tensor | None,
    *,
    levels: int,
    divisor: float,
    decay: float,
    threshold: float = 1.0,
    rounding: Literal["half_even", "half_up"] = "half_even",
    window: Literal["closed", "open"] = "closed",
    backend: Literal["auto", "torch", "cuda"] = "auto",
) -> tuple[Tensor, Tensor]:
    """The temporal neuron over a part of a sequence; arguments as `integer_lif`.

    Args:
        x: Input current, (T, B, C, ...).
        state: Membrane potential that the part before left, (B, C, ...); None: zero.
        levels: D.
        divisor: What the spike count is divided by.
        decay: Share of the membrane potential kept between steps.
        threshold: Membrane potential of one spike.
        rounding: How exact halves round.
        window: Where the surrogate gradient is 1.
        backend: Which implementation.

    Returns:
        Normalized spikes of x's shape, and the potential left, (B, C, ...), float32 for 16-bit x
        and else of x's type. Gradients flow through both.
    """
    require(levels=levels, divisor=divisor, threshold=threshold, decay=decay)
    require(rounding=rounding, window=window)
    if state is not None and state.shape != x.shape[1:]:
        raise ValueError(
            f"state must have the shape of one step, {tuple(x.shape[1:])}, got {tuple(state.shape)}"
        )
    if state is not None and state.device != x.device:
        raise ValueError(f"state must be on x's device, {x.device}, got {state.device}")
    return _temporal(x, state, levels, divisor, decay, threshold, rounding, window, True, backend)


def _temporal(  # noqa: PLR0913
    x: Tensor,
    state: Tensor | None,
    levels: int,
    divisor: float,
    decay: float,
    threshold: float,
    rounding: str,
    window: str,
    keep: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    if x.dim() == 0 or x.shape[0] == 0:
        raise ValueError(f"x must be (T, ...) with T at least 1, got shape {tuple(x.shape)}")
    constants = (levels, float(divisor), float(decay), float(threshold))
    variant = (rounding == "half_up", window == "open")
    learns = x.requires_grad or (state is not None and state.requires_grad)
    if torch.is_grad_enabled() and learns:
        return _Temporal.apply(x, state, *constants, *variant, keep, backend)
    spikes, _, after = operators.integer_temporal(
        x, state, *constants, *variant, False, keep, backend
    )
    return spikes, after


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

    def __init__(  # noqa: PLR0913
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
        require(levels=levels, divisor=divisor, threshold=threshold, decay=decay)
        require(dynamics=dynamics, rounding=rounding, window=window)
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
