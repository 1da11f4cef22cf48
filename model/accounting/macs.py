"""Multiply-accumulates of every convolution and linear layer, and whether its input is spikes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .operations import OperationMeter


@dataclass(frozen=True)
class LayerMacs:
    """Multiply-accumulates of one layer for one image in one time step.

    Attributes:
        name: The layer's name in the model.
        macs: Multiply-accumulates.
        spiking_input: Whether every input value is a spike count over a divisor.
        rate: Mean spike count at its input; 0 for real-valued inputs.
    """

    name: str
    macs: int
    spiking_input: bool
    rate: float


@torch.no_grad()
def count_macs(model: nn.Module, image: Tensor) -> list[LayerMacs]:
    """Multiply-accumulates per layer for one image and one time step.

    Products that are no layers (attention, sampling, mask product) are not among them:
    `OperationMeter` counts all.

    Args:
        model: The model, in eval mode. On the meta device it costs no time and no memory, and
            every input passes for real-valued, since there are no values to look at.
        image: (B, 3, H, W) or (T, B, 3, H, W).
    """
    steps: Any = image.shape[0] if image.dim() == 5 else 1
    if image.dim() == 4 and hasattr(model, "config"):
        steps = model.config.neuron.timesteps  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    with OperationMeter(model, events=not image.is_meta) as meter:
        model(image)
    return [
        LayerMacs(row.name, round(row.macs / steps), row.operands > 0, row.rate)
        for row in meter.rows()
        if row.kind in ("convolution", "linear")
    ]
