"""Energy of one image from counted operations, under a table of picojoules per operation."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .operations import LayerOperations, OperationMeter

Form = Literal["graded", "unrolled", "bitwise"]
FORMS: tuple[Form, ...] = ("graded", "unrolled", "bitwise")
"""How spikes are sent: as integers, as n of D binary slots, as the bits of n."""

MATRIX_PRODUCTS = ("convolution", "linear", "attention", "mask_product", "product")
"""Kinds of layers that multiply matrices, which read weights and move values between layers."""
PICOJOULES = 1e-9
"""Millijoule of one picojoule."""


@dataclass(frozen=True)
class EnergyRule:
    """Picojoules of each operation, and which operations are charged.

    Attributes:
        name: Name of the table.
        source: Where its numbers come from.
        mac: One multiply-accumulate of real values.
        accumulate: One accumulate that a binary spike causes.
        graded: One product of a graded spike (D above 1) in the graded form.
        accumulate_bit: One accumulate of the bitwise form, shift included.
        graded_bit: Added to `graded` for each bit of D.
        update: One membrane update of a neuron.
        weight_read: One weight moved from memory, for each operation that uses it.
        input_read: One value moved from memory, for each product of real values.
        potential_access: One membrane potential moved to and from memory for each operation that a
            spike causes.
        activation: One value moved between layers: a spike of the form, or a real value.
        leave_out: Kinds of operations that cost nothing; `LayerOperations.kind`.
    """

    name: str
    source: str
    mac: float
    accumulate: float
    graded: float
    accumulate_bit: float
    graded_bit: float = 0.0
    update: float = 0.0
    weight_read: float = 0.0
    input_read: float = 0.0
    potential_access: float = 0.0
    activation: float = 0.0
    leave_out: tuple[str, ...] = ()

    def price_graded(self, levels: int) -> float:
        """Picojoules of one product with an integer of at most `levels`."""
        return self.graded + self.graded_bit * levels.bit_length()

    def break_even(self, levels: int) -> float:
        """Share of binary slots that may fire until a quantised network of equal levels is cheaper.

        That network multiplies every value, zeros too, by the same weights; the spiking one sends
        a count as so many of `levels` slots. What both move between layers is left out.

        Args:
            levels: D of both.

        Returns:
            Above 1 where every slot may fire.

        Source: the comparison of arXiv 2409.08290, with this table's constants.
        """
        spike = self.accumulate + self.weight_read + self.potential_access
        return (self.price_graded(levels) + self.weight_read + self.input_read) / (levels * spike)


# The paper's two numbers; beside the tables in `rules/`, for callers that read no files.
PAPER_RULE = EnergyRule(
    name="paper",
    source="45 nm, 32-bit float (Horowitz, ISSCC 2014), as Spike2Former (AAAI 2025) takes them",
    mac=4.6,
    accumulate=0.9,
    graded=4.6,
    accumulate_bit=0.9,
    leave_out=("normalization", "scaling", "addition", "neuron"),
)


@dataclass(frozen=True)
class LayerEnergy:
    """One layer's share.

    Attributes:
        name: The layer's name in the model.
        kind: `LayerOperations.kind`.
        macs: Dense multiply-accumulates for one image, all time steps.
        rate: Mean spike count at its input, in [0, D]; 0 for real-valued inputs.
        operations: Operations that are charged: accumulates, or products where it multiplies.
        shortcut: MACs x rate, the field's estimate of the same.
        multiplies: Whether they are products of numbers in this form.
        mj: Energy of one image in millijoule, all time steps.
        spiking_input: Whether its input is spikes.
    """

    name: str
    kind: str
    macs: float
    rate: float
    operations: float
    shortcut: float
    multiplies: bool
    mj: float
    spiking_input: bool


@dataclass(frozen=True)
class EnergyReport:
    """Energy of one image.

    Attributes:
        total_mj: Sum over layers, in millijoule.
        rows: The layers.
        rule: The rule in words, with its constants.
        form: How spikes are sent.
        operations: What was counted, for any other rule.
    """

    total_mj: float
    rows: list[LayerEnergy]
    rule: str
    form: Form = "unrolled"
    operations: list[LayerOperations] = field(default_factory=list, repr=False)

    def tabulate(self) -> list[dict[str, Any]]:
        """Everything that was counted of each layer, and what it costs, as JSON types.

        Any rule can be applied to the rows later; `mj` is 0 where this one charges nothing.
        """
        priced = {(row.name, row.kind): row for row in self.rows}
        table = []
        for counted in self.operations:
            row = priced.get((counted.name, counted.kind))
            costs = {"mj": row.mj if row else 0.0, "operations": row.operations if row else 0.0}
            table.append({**asdict(counted), **costs, "spiking_input": counted.operands > 0})
        return table


def price_layers(
    rows: Sequence[LayerOperations], rule: EnergyRule, form: Form = "unrolled"
) -> EnergyReport:
    """Charge counted operations under a rule.

    Args:
        rows: Of one image, all time steps.
        rule: The table.
        form: `unrolled` and `bitwise` say what the network costs as binary slots, `graded` as it
            runs here; what reads real values multiplies in each.
    """
    priced = [_price(row, rule, form) for row in rows if row.kind not in rule.leave_out]
    real = sum(row.multiplies for row in priced)
    numbers = f"{rule.mac} pJ a multiply-accumulate, {rule.accumulate} pJ an accumulate"
    left_out = f"; {', '.join(rule.leave_out)} cost nothing" if rule.leave_out else ""
    words = (
        f"rule {rule.name}, {form} spikes: {numbers}; {len(priced) - real} layers accumulate what "
        f"their spikes cause, {real} multiply{left_out}; {rule.source}"
    )
    return EnergyReport(sum(row.mj for row in priced), priced, words, form, list(rows))


def _price(row: LayerOperations, rule: EnergyRule, form: Form) -> LayerEnergy:
    multiplies, operations = _choose_operations(row, form)
    if row.kind == "neuron":
        picojoules = operations * rule.update
    elif row.kind == "addition":
        picojoules = operations * rule.accumulate
    else:
        picojoules = operations * _price_operation(row, rule, form, multiplies)
    if row.kind in MATRIX_PRODUCTS:
        memory = rule.potential_access if row.operands else rule.input_read
        messages = row.inputs
        if row.operands:
            # Slots of the input; in another form as many messages fewer as operations.
            messages *= row.rate * (operations / row.unary if row.unary else 1)
        picojoules += operations * (rule.weight_read + memory)
        picojoules += (messages + row.outputs) * rule.activation
    return LayerEnergy(
        name=row.name,
        kind=row.kind,
        macs=row.macs,
        rate=row.rate,
        operations=operations,
        shortcut=row.rate_product,
        multiplies=multiplies,
        mj=picojoules * PICOJOULES,
        spiking_input=row.operands > 0,
    )


def _price_operation(row: LayerOperations, rule: EnergyRule, form: Form, multiplies: bool) -> float:
    if multiplies:
        return rule.price_graded(row.levels) if row.operands else rule.mac
    return rule.accumulate_bit if form == "bitwise" else rule.accumulate


def _choose_operations(row: LayerOperations, form: Form) -> tuple[bool, float]:
    """Whether a layer multiplies in a form, and how many operations it does."""
    if row.kind == "sampling":
        # Reads gated by spikes: real products in any coding.
        return True, row.values
    if not row.operands:
        return row.kind not in ("addition", "neuron"), row.macs
    if form == "graded":
        return row.levels > 1, row.values
    return False, row.unary if form == "unrolled" else row.bitwise


def estimate_energy(
    model: nn.Module, images: Tensor, rule: EnergyRule = PAPER_RULE, form: Form = "unrolled"
) -> EnergyReport:
    """Energy of one image, averaged over a batch, from the spikes that the network really sends.

    Args:
        model: The segmentor, in eval mode.
        images: (B, 3, H, W), normalized.
        rule: Picojoules of each operation.
        form: How spikes are sent.

    Source: paper, energy section: 45 nm, 32-bit float, 4.6 pJ per MAC and 0.9 pJ per AC; there
        MACs x rate, here the operations that each spike causes, of every product.
    """
    # With gradients the mask product is a function of its own, which the meter does not look into.
    with torch.no_grad(), OperationMeter(model) as meter:
        model(images)
    return price_layers(meter.rows(), rule, form)


def price_earlier(rows: Sequence[LayerOperations]) -> float:
    """Millijoule under the rule before this one: MACs x rate of convolutions and linear layers."""
    layers = [row for row in rows if row.kind in ("convolution", "linear")]
    paper = PAPER_RULE
    return PICOJOULES * sum(
        row.macs * (paper.accumulate * row.rate if row.operands else paper.mac) for row in layers
    )


def share_by_stage(rows: Sequence[LayerEnergy]) -> Mapping[str, float]:
    """Millijoule of each part of the network: the first two parts of the layers' names."""
    shares: dict[str, float] = {}
    for row in rows:
        stage = ".".join(row.name.split(".")[:2]) or "(whole)"
        shares[stage] = shares.get(stage, 0.0) + row.mj
    return shares
