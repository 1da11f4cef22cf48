"""Every kind of neuron by name, and what the rest of the model knows of a neuron.

A new kind is a module with `from_config` in a file of its own, an entry of `NEURON_KINDS`, and its
configuration with the entry's name as `kind` in `model/config.py`.
"""

from dataclasses import replace
from typing import Any, Literal, Protocol, runtime_checkable

from torch import nn

from ..config import BinaryNeuronConfig, NeuronConfig, PartNormalization
from .integer_lif import IntegerLIF
from .lif import LIF

# `kind` of a configuration -> the module that is built from it.
NEURON_KINDS: dict[str, Any] = {"integer": IntegerLIF, "lif": LIF}


@runtime_checkable
class Neuron(Protocol):
    """A module that turns currents, (T, B, C, ...), into spike counts over a divisor.

    Attributes:
        levels: D, largest spike count of one step.
        divisor: What the spike count is divided by; `output * divisor` is the spike count.
        threshold: Membrane potential of one spike.
    """

    levels: int
    divisor: float
    threshold: float


def build_neuron(
    config: NeuronConfig | BinaryNeuronConfig,
    *,
    levels: int | None = None,
    role: Literal["plain", "cross_attention"] = "plain",
) -> Any:
    """Build the neuron of one layer of the network.

    Args:
        config: The model's neuron.
        levels: D in this layer, where it differs from the configuration's.
        role: What the layer is part of, for `normalization_scope`.

    Returns:
        An `nn.Module` that is a `Neuron`, which no type says.
    """
    return NEURON_KINDS[config.kind].from_config(config, levels=levels, role=role)


def neuron_of_part(
    neuron: NeuronConfig, levels: int | None, normalization: PartNormalization | None
) -> NeuronConfig:
    """The neuron of one part of the network.

    Args:
        neuron: The model's neuron.
        levels: D of this part; None for the neuron's.
        normalization: Divisor of this part; None for the neuron's.
    """
    changes: dict[str, Any] = {} if levels is None else {"levels": levels}
    if normalization is not None:
        changes |= {"normalization": normalization, "normalization_constant": None}
    return replace(neuron, **changes)


def find_neurons(model: nn.Module) -> list[tuple[str, Any]]:
    """Names and modules of a model's neurons, in the order of the model."""
    return [(name, part) for name, part in model.named_modules() if isinstance(part, Neuron)]
