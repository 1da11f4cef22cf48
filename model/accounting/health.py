"""Health of a training step: dead and saturated neuron layers, gradient norms."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from .firing import FiringMonitor, FiringRow


@dataclass(frozen=True)
class NeuronHealth:
    """Neuron layers that no gradient can use.

    Attributes:
        dead: Layers with rate 0: nothing behind them sees the input.
        saturated: Layers with rate D: every neuron emits D whatever its input.
    """

    dead: list[str]
    saturated: list[str]

    @property
    def alive(self) -> bool:
        """Whether no layer is dead or saturated."""
        return not (self.dead or self.saturated)

    def __str__(self) -> str:
        """One line that names the layers, for a log."""
        parts = [
            f"{len(names)} {kind}: {', '.join(names)}"
            for kind, names in (("dead", self.dead), ("saturated", self.saturated))
            if names
        ]
        return "; ".join(parts) or "every neuron layer fires"


def judge_firing(rows: Sequence[FiringRow], *, tolerance: float = 0.0) -> NeuronHealth:
    """Name dead and saturated layers.

    Args:
        rows: What a `FiringMonitor` counted.
        tolerance: Share of neuron values that may differ from 0 (or from D) in a layer that still
            counts as dead (or saturated); 0 wants all of them.
    """
    return NeuronHealth(
        dead=[row.name for row in rows if row.dead >= 1 - tolerance],
        saturated=[row.name for row in rows if row.saturated >= 1 - tolerance],
    )


@dataclass(frozen=True)
class GradientRow:
    """Gradient of one layer's own parameters.

    Attributes:
        name: The layer's name in the model.
        norm: Euclidean norm over its parameters; 0 where none got a gradient.
    """

    name: str
    norm: float


@dataclass(frozen=True)
class StepHealth:
    """One training step's forward and backward pass.

    Attributes:
        firing: Every neuron layer, in the order of use.
        gradients: Every layer with parameters of its own, in the order of the model.
        neurons: Dead and saturated layers.
        gradient_norm: Euclidean norm over all parameters.
    """

    firing: list[FiringRow]
    gradients: list[GradientRow]
    neurons: NeuronHealth
    gradient_norm: float


def step_health(model: nn.Module, loss: Callable[[], Tensor]) -> StepHealth:
    """Measure firing and gradients of one step; weights stay, gradients are cleared.

    Args:
        model: The model, in the mode wanted; in train mode running statistics move.
        loss: Runs the model and returns a scalar.
    """
    model.zero_grad()
    with FiringMonitor(model) as monitor:
        value = loss()
    value.backward()
    gradients = []
    for name, module in model.named_modules():
        parameters = list(module.parameters(recurse=False))
        if parameters:
            squares = [
                float(p.grad.double().square().sum()) for p in parameters if p.grad is not None
            ]
            gradients.append(GradientRow(name, sum(squares) ** 0.5))
    model.zero_grad()
    rows = monitor.rows()
    total = sum(row.norm**2 for row in gradients) ** 0.5
    return StepHealth(rows, gradients, judge_firing(rows), total)
