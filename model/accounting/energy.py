"""The field's theoretical energy of one image, with the rule that was applied."""

# torch types what a module holds as Tensor | Module; what it is here is asserted or known.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

from dataclasses import dataclass

from torch import Tensor, nn

from .macs import count_macs

PICOJOULE_PER_MAC = 4.6
PICOJOULE_PER_AC = 0.9


@dataclass(frozen=True)
class LayerEnergy:
    """One layer's share.

    Attributes:
        name: The layer's name in the model.
        macs: Multiply-accumulates for one image and time step.
        rate: Mean spike count at its input, in [0, D]; 0 for real-valued inputs.
        mj: Energy of one image in millijoule, all time steps.
        spiking_input: Whether its input is spikes.
    """

    name: str
    macs: int
    rate: float
    mj: float
    spiking_input: bool


@dataclass(frozen=True)
class EnergyReport:
    """Energy of one image.

    Attributes:
        total_mj: Sum over layers, in millijoule.
        rows: The layers.
        rule: The rule in words.
    """

    total_mj: float
    rows: list[LayerEnergy]
    rule: str


def estimate_energy(model: nn.Module, images: Tensor) -> EnergyReport:
    """Theoretical energy per image, averaged over a batch.

    Args:
        model: The segmentor, in eval mode.
        images: (B, 3, H, W), normalized.

    Source: paper, energy section: 45 nm, 32-bit float, 4.6 pJ per MAC and 0.9 pJ per AC; a layer
        behind spikes costs mean spike count x T x MACs x 0.9 pJ (ARCHITECTURE section 10).
    """
    steps = model.config.neuron.timesteps
    rows = []
    for layer in count_macs(model, images):
        per_mac = PICOJOULE_PER_AC * layer.rate if layer.spiking_input else PICOJOULE_PER_MAC
        rows.append(
            LayerEnergy(
                name=layer.name,
                macs=layer.macs,
                rate=layer.rate,
                mj=per_mac * layer.macs * steps * 1e-9,
                spiking_input=layer.spiking_input,
            )
        )
    real = sum(not row.spiking_input for row in rows)
    rule = (
        f"convolutions and linear layers; {len(rows) - real} behind spikes: mean spike count x T x "
        f"MACs x {PICOJOULE_PER_AC} pJ; {real} behind real values: T x MACs x "
        f"{PICOJOULE_PER_MAC} pJ; T = {steps}; attention products, sampling and mask product are "
        "not counted"
    )
    return EnergyReport(sum(row.mj for row in rows), rows, rule)
