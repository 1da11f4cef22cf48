"""The published order of operations, kept to measure against and to compare with.

It computes what the fast path computes: neurons that keep their input for the backward pass and
their membrane potential until the next call, and attention as (q k^T) v where the released code has
it so. Results are equal where sums are exact and differ by float rounding elsewhere.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .backbone.e_spikeformer import WideValueAttention
from .backbone.meta_spikeformer import RepConvAttention
from .decoder.query_decoder import SpikeAttention
from .neuron.integer_lif import IntegerLIF


class _Round(torch.autograd.Function):
    """Round a clamped membrane potential, keeping the potential itself for the backward pass."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward(v)
        ctx.levels = levels
        return torch.round(torch.clamp(v, min=0, max=levels))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (v,) = ctx.saved_tensors
        return gradients[0] * ((v >= 0) & (v <= ctx.levels)).to(v.dtype), None


class PlainNeuron(nn.Module):
    """NI-LIF in single tensor operations: charge, fire, soft reset, division (stateless only).

    Args:
        neuron: The neuron that it stands for: stateless, half-even rounding, closed window.

    Raises:
        ValueError: Where the released code has no such neuron.
    """

    def __init__(self, neuron: IntegerLIF) -> None:
        super().__init__()
        kind = (neuron.dynamics, neuron.rounding, neuron.window, neuron.threshold)
        if kind != ("stateless", "half_even", "closed", 1.0):
            raise ValueError(f"the published order has no neuron of this kind: {kind}")
        self.levels = neuron.levels
        self.divisor = neuron.divisor
        self._v: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of a sequence, (T, B, C, ...) to the same shape."""
        v = x + 0.0
        count = _Round.apply(v, self.levels)
        self._v = v - count
        return count / self.divisor


def plain_path(model: nn.Module) -> nn.Module:
    """Turn a model, in place, to the published order of operations.

    Args:
        model: A published segmentor or classifier with stateless neurons.

    Raises:
        ValueError: Where the released code has no such neuron.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, IntegerLIF):
                setattr(module, name, PlainNeuron(child))
        if isinstance(module, RepConvAttention):
            module.order = "values_first"
        elif isinstance(module, SpikeAttention | WideValueAttention):
            module.order = "scores_first"
    return model
