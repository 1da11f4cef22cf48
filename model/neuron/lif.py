"""The binary LIF neuron of the SDT-V2 ImageNet checkpoints."""

from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from ..config import BinaryNeuronConfig
from .backends import operators
from .constraints import require


class _Binary(torch.autograd.Function):
    """Keeps the input and computes the potentials again: no more memory than the layer's input."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, tau: float, threshold: float, alpha: float, backend: str
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.constants = (tau, threshold, alpha, backend)
        return operators.binary_lif(x, tau, threshold, backend)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return operators.binary_lif_backward(gradients[0], x, *ctx.constants), *(None,) * 4


def lif(
    x: Tensor,
    *,
    tau: float = 2.0,
    threshold: float = 1.0,
    alpha: float = 4.0,
    backend: Literal["auto", "torch", "cuda"] = "auto",
) -> Tensor:
    """Binary spikes over T: input decay, hard reset to 0 (detached), sigmoid surrogate.

    Args:
        x: Input current, (T, B, C, ...), any layout.
        tau: Time constant in steps, at least 1.
        threshold: Membrane potential of a spike, positive.
        alpha: Steepness of the surrogate, positive.
        backend: Which implementation; `auto` chooses by device.

    Returns:
        Spikes, 0 or 1, shape and type of x.

    Raises:
        RuntimeError: Where a named backend cannot run; on differentiating twice.
        ValueError: Where a number is out of its range.

    Source: SDT-V2's MultiStepLIFNode (ARCHITECTURE 1.4); `reference.py` is the law.
    """
    require(tau=tau, threshold=threshold, alpha=alpha)
    if x.dim() == 0 or x.shape[0] == 0:
        raise ValueError(f"x must be (T, ...) with T at least 1, got shape {tuple(x.shape)}")
    if torch.is_grad_enabled() and x.requires_grad:
        return _Binary.apply(x, float(tau), float(threshold), float(alpha), backend)
    return operators.binary_lif(x, float(tau), float(threshold), backend)


class LIF(nn.Module):
    """Binary LIF over T, without parameters and without state.

    Args:
        threshold: Membrane potential of a spike (0.5 in the attention neuron of SDT-V2, else 1.0).
        tau: Time constant in steps.
        alpha: Steepness of the surrogate.
        backend: Which implementation.
    """

    levels = 1
    divisor = 1.0

    def __init__(
        self,
        *,
        threshold: float = 1.0,
        tau: float = 2.0,
        alpha: float = 4.0,
        backend: Literal["auto", "torch", "cuda"] = "auto",
    ) -> None:
        super().__init__()
        require(tau=tau, threshold=threshold, alpha=alpha)
        self.threshold = threshold
        self.tau = tau
        self.alpha = alpha
        self.backend: Literal["auto", "torch", "cuda"] = backend

    @classmethod
    def from_config(cls, config: BinaryNeuronConfig, **_: object) -> Self:
        """The neuron of one layer; D and role make no difference to a binary one."""
        return cls(threshold=config.threshold)

    def forward(self, x: Tensor) -> Tensor:
        """Binary spikes of a sequence, (T, B, C, ...) to the same shape."""
        return lif(
            x, tau=self.tau, threshold=self.threshold, alpha=self.alpha, backend=self.backend
        )
