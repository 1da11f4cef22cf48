"""The normalized integer LIF neuron (NI-LIF): one op over the whole sequence, and its module."""

from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from ..config import NeuronConfig
from .backends import operators
from .firing_rule import FiringRule


class _Stateless(torch.autograd.Function):
    """The memoryless neuron; its backward pass needs the window, not the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: FiringRule, backend: str) -> Tensor:
        spikes, window = operators.integer_stateless(x, rule, True, backend)
        ctx.save_for_backward(window)
        ctx.stride, ctx.rule, ctx.backend = spikes.stride(), rule, backend
        return spikes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        (window,) = ctx.saved_tensors
        result = operators.integer_stateless_backward(
            gradients[0], window, ctx.stride, ctx.rule, ctx.backend
        )
        return result, None, None


class _Temporal(torch.autograd.Function):
    """Recurrence over T; again the window alone is kept, one entry per step and neuron."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, state: Tensor | None, rule: FiringRule, keep: bool, backend: str
    ) -> tuple[Tensor, Tensor]:
        spikes, window, after = operators.integer_temporal(x, state, rule, True, keep, backend)
        ctx.save_for_backward(window)
        ctx.stride, ctx.rule, ctx.keep, ctx.backend = spikes.stride(), rule, keep, backend
        ctx.state_dtype = None if state is None else state.dtype
        return spikes, after

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        (window,) = ctx.saved_tensors
        needs_state = ctx.state_dtype is not None
        result, before = operators.integer_temporal_backward(
            gradients[0],
            gradients[1] if ctx.keep else None,
            window,
            ctx.stride,
            ctx.rule,
            needs_state,
            ctx.backend,
        )
        return result, before.to(ctx.state_dtype) if needs_state else None, None, None, None


def integer_lif(
    x: Tensor, rule: FiringRule, *, backend: Literal["auto", "torch", "cuda"] = "auto"
) -> Tensor:
    """Normalized spikes of NI-LIF over a sequence; `reference.py` is the law.

    Args:
        x: Input current, (T, B, C, ...), any layout.
        rule: D, divisor, threshold, dynamics and the rest.
        backend: Which implementation; `auto` chooses by device.

    Returns:
        Spike count / divisor, shape and type of x, in x's layout where that is dense.

    Raises:
        RuntimeError: Where a named backend cannot run; on differentiating twice.
        ValueError: Where a number or a word is not one that `constraints.py` allows.

    Source: paper, NI-LIF; ARCHITECTURE sections 1.1 and 1.2.
    """
    return _fire(x, rule.checked(), backend)


def integer_lif_with_state(
    x: Tensor,
    state: Tensor | None,
    rule: FiringRule,
    *,
    backend: Literal["auto", "torch", "cuda"] = "auto",
) -> tuple[Tensor, Tensor]:
    """The temporal neuron over a part of a sequence; arguments as `integer_lif`.

    Args:
        x: Input current, (T, B, C, ...).
        state: Membrane potential that the part before left, (B, C, ...); None: zero.
        rule: Of a temporal neuron.
        backend: Which implementation.

    Returns:
        Normalized spikes of x's shape, and the potential left, (B, C, ...), float32 for 16-bit x
        and else of x's type. Gradients flow through both.

    Raises:
        RuntimeError: As `integer_lif`.
        ValueError: As `integer_lif`; where the rule's dynamics are stateless; where the state is
            not of one step's shape and device.
    """
    if rule.checked().dynamics != "temporal":
        raise ValueError(f"dynamics must be temporal where a state is kept, got {rule.dynamics!r}")
    if state is not None and state.shape != x.shape[1:]:
        raise ValueError(
            f"state must have the shape of one step, {tuple(x.shape[1:])}, got {tuple(state.shape)}"
        )
    if state is not None and state.device != x.device:
        raise ValueError(f"state must be on x's device, {x.device}, got {state.device}")
    return _fire_temporal(x, state, rule, True, backend)


def _fire(x: Tensor, rule: FiringRule, backend: str) -> Tensor:
    """`integer_lif` of a rule that was checked."""
    if rule.dynamics == "temporal":
        return _fire_temporal(x, None, rule, False, backend)[0]
    if torch.is_grad_enabled() and x.requires_grad:
        return _Stateless.apply(x, rule, backend)
    return operators.integer_stateless(x, rule, False, backend)[0]


def _fire_temporal(
    x: Tensor, state: Tensor | None, rule: FiringRule, keep: bool, backend: str
) -> tuple[Tensor, Tensor]:
    """Spikes, and the potential left (empty unless `keep`)."""
    if x.dim() == 0 or x.shape[0] == 0:
        raise ValueError(f"x must be (T, ...) with T at least 1, got shape {tuple(x.shape)}")
    learns = x.requires_grad or (state is not None and state.requires_grad)
    if torch.is_grad_enabled() and learns:
        return _Temporal.apply(x, state, rule, keep, backend)
    spikes, _, after = operators.integer_temporal(x, state, rule, False, keep, backend)
    return spikes, after


class IntegerLIF(nn.Module):
    """NI-LIF as a module without parameters and without state.

    Args:
        rule: D, divisor, threshold, dynamics and the rest; `output * divisor` is the spike count.
        backend: Which implementation.
    """

    def __init__(
        self, rule: FiringRule, *, backend: Literal["auto", "torch", "cuda"] = "auto"
    ) -> None:
        super().__init__()
        self.rule = rule.checked()
        self.backend: Literal["auto", "torch", "cuda"] = backend

    @classmethod
    def from_config(
        cls,
        config: NeuronConfig,
        *,
        levels: int | None = None,
        role: Literal["plain", "cross_attention"] = "plain",
    ) -> Self:
        """The neuron of one layer of the network.

        Args:
            config: The model's neuron.
            levels: D here, where it differs from the configuration's.
            role: Which layer it stands in, for `normalization_scope`.
        """
        levels = config.levels if levels is None else levels
        divisors = {
            "levels": float(levels),
            "none": 1.0,
            "constant": config.normalization_constant or 1.0,
        }
        everywhere = config.normalization_scope == "everywhere"
        normalized = everywhere or role == "cross_attention"
        rule = FiringRule(
            levels=levels,
            divisor=divisors[config.normalization] if normalized else 1.0,
            threshold=config.threshold,
            rounding=config.rounding,
            window=config.window,
            dynamics=config.dynamics,
            decay=config.decay,
        )
        return cls(rule, backend=config.backend)

    @property
    def levels(self) -> int:
        """D, largest spike count of one step."""
        return self.rule.levels

    @property
    def threshold(self) -> float:
        """Membrane potential of one spike."""
        return self.rule.threshold

    @property
    def divisor(self) -> float:
        """What the spike count is divided by."""
        return self.rule.divisor

    @divisor.setter
    def divisor(self, value: float) -> None:
        """Divide the spike count by another number."""
        self.rule = self.rule._replace(divisor=value)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of a sequence, (T, B, C, ...) to the same shape."""
        return _fire(x, self.rule, self.backend)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        rule = self.rule
        return f"levels={rule.levels}, divisor={rule.divisor:g}, dynamics={rule.dynamics}"
