"""Neurons in plain torch arithmetic, for exported programs that run without this package."""

import torch
from torch import Tensor, nn

from ..neuron.firing_rule import FiringRule
from ..neuron.integer_lif import IntegerLIF
from ..neuron.reference import choose_arithmetic, count_spikes, round_constant


class TraceableLIF(nn.Module):
    """NI-LIF in single operations that every program format knows; inference only.

    Values are those of `reference.integer_forward`. Operations that change nothing (a threshold
    or divisor of 1) are left out, so that a graph has no more nodes than it needs.

    Args:
        rule: D, divisor, threshold, dynamics and the rest.
    """

    def __init__(self, rule: FiringRule) -> None:
        super().__init__()
        self.rule = rule.checked()

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of a sequence, (T, B, C, ...) to the same shape; of any axes where stateless."""
        rule = self.rule
        wide = x.to(choose_arithmetic(x.dtype))
        if rule.dynamics == "stateless":
            return self._normalize(count_spikes(self._in_thresholds(wide), rule)).to(x.dtype)
        spikes, charge = [], None
        for current in wide.unbind():
            potential = current if charge is None else charge + current
            count = count_spikes(self._in_thresholds(potential), rule)
            spent = count if rule.threshold == 1 else count * rule.threshold
            charge = (potential - spent) * rule.decay
            spikes.append(self._normalize(count))
        return torch.stack(spikes).to(x.dtype)

    def _in_thresholds(self, potential: Tensor) -> Tensor:
        if self.rule.threshold == 1:
            return potential
        return potential * round_constant(1 / self.rule.threshold, potential.dtype)

    def _normalize(self, count: Tensor) -> Tensor:
        if self.rule.divisor == 1:
            return count
        return count * round_constant(1 / self.rule.divisor, count.dtype)


def make_traceable(model: nn.Module) -> None:
    """Put plain torch arithmetic in the place of every integer neuron of a model, in place.

    Raises:
        ValueError: Where the model has another kind of neuron.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, IntegerLIF):
                setattr(module, name, TraceableLIF(child.rule))
            elif hasattr(child, "threshold") and not isinstance(child, TraceableLIF):
                raise ValueError(f"{type(child).__name__} cannot be exported: integer neurons can")
