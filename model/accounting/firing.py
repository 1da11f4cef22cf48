"""Firing rates of every neuron layer while a model runs, and dead and saturated shares."""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..neuron.kinds import Neuron, find_neurons


@dataclass(frozen=True)
class FiringRow:
    """One neuron layer over everything that it saw.

    Attributes:
        name: The layer's name in the model.
        rate: Mean spike count per neuron and time step, in [0, D].
        dead: Share of neuron values that were 0.
        saturated: Share of neuron values that were D.
        levels: D.
    """

    name: str
    rate: float
    dead: float
    saturated: float
    levels: int


class FiringMonitor:
    """Counts spikes of every neuron layer between enter and exit, over any number of passes.

    Args:
        model: The model to watch.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._sums: dict[str, tuple[Tensor, int, int]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        for name, neuron in find_neurons(self._model):
            self._handles.append(
                neuron.register_forward_hook(lambda m, _, out, name=name: self._count(name, m, out))
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def rows(self) -> list[FiringRow]:
        """One row per neuron layer, in the order of first use."""
        rows = []
        for name, (sums, number, levels) in self._sums.items():
            count, dead, saturated = (sums / number).tolist()
            rows.append(FiringRow(name, count, dead, saturated, levels))
        return rows

    @torch.no_grad()
    def _count(self, name: str, neuron: Neuron, output: Tensor) -> None:
        counts = output.detach() * neuron.divisor
        sums = torch.stack(
            [
                counts.sum(dtype=torch.float64),
                (counts == 0).sum(dtype=torch.float64),
                (counts > neuron.levels - 0.5).sum(dtype=torch.float64),
            ]
        )
        before, number, _ = self._sums.get(name, (torch.zeros_like(sums), 0, 0))
        self._sums[name] = (before + sums, number + output.numel(), neuron.levels)
