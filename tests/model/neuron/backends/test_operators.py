"""The operators under torch's other machinery: compile, export, autocast, double backward."""

import copy
from typing import Any

import pytest
import torch
from neuron_cases import Place, assert_same, currents, firing_rule
from torch import Tensor, nn

from spikeseg.model.neuron.backends import operators
from spikeseg.model.neuron.firing_rule import FiringRule
from spikeseg.model.neuron.integer_lif import IntegerLIF, integer_lif, integer_lif_with_state
from spikeseg.model.neuron.lif import LIF, lif
from spikeseg.model.neuron.reference import integer_backward, integer_forward

RULE = FiringRule(levels=4, divisor=4.0)
STEPS = torch.export.Dim("T", max=64)
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "integer_stateless": (*RULE, True, "torch"),
    "integer_temporal": (None, *RULE, True, True, "torch"),
    "binary_lif": (2.0, 1.0, "torch"),
    "norm_statistics": (),
}


@pytest.mark.parametrize("name", [*ARGUMENTS])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_an_operator_keeps_torchs_rules_for_operators(name: str, layout: str) -> None:
    x = torch.randn(2, 3, 4, 5)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(getattr(torch.ops.spikeseg, name).default, (x, *ARGUMENTS[name]))


def test_backward_operators_keep_torchs_rules_too() -> None:
    x = torch.randn(2, 3, 4, 5)
    ops = torch.ops.spikeseg
    _, window = operators.integer_stateless(x, RULE, True, "torch")
    stride = list(x.stride())
    check = torch.library.opcheck
    check(ops.integer_stateless_backward.default, (x, window, stride, *RULE, "torch"))
    check(
        ops.integer_temporal_backward.default,
        (x, x[0], window, stride, *RULE, True, "torch"),
    )
    check(ops.binary_lif_backward.default, (x, x, 2.0, 1.0, 4.0, "torch"))
    values = torch.randn(3)
    check(ops.norm_integer.default, (x, values, values, values, *RULE, True, "torch"))
    check(ops.norm_integer_sums.default, (x, x, window, values, *RULE, "torch"))
    norm = (x, x, window, [values] * 4, *RULE, "torch")
    check(ops.norm_integer_backward.default, norm)


class Neurons(nn.Module):
    """Every neuron, one after the other, around something to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.stateless = IntegerLIF(RULE)
        self.temporal = IntegerLIF(RULE._replace(divisor=1.0, dynamics="temporal"))
        self.binary = LIF(threshold=0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.binary(self.temporal(2 * self.stateless(3 * x)))


def nodes(graph: torch.fx.Graph) -> list[str]:
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


def test_compile_keeps_the_operators_in_one_graph_with_equal_numbers() -> None:
    seen: list[torch.fx.Graph] = []

    def backend(module: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        seen.append(module.graph)
        return module

    torch._dynamo.reset()
    model = Neurons()
    x = torch.randn(3, 2, 3, 6, 5)
    plain = model(x)
    plain.square().sum().backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    spikes = compiled(x)
    spikes.square().sum().backward()
    assert_same(spikes, plain)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and expected[name] is not None
        torch.testing.assert_close(parameter.grad, expected[name])
    torch._dynamo.reset()
    torch.compile(model.eval(), fullgraph=True, backend=backend)(x.requires_grad_(False))
    names = " ".join(nodes(seen[0]))
    with torch.no_grad():
        torch.compile(model, fullgraph=True, backend=backend)(x)
    names += " ".join(nodes(seen[-1]))
    for operator in ("integer_stateless", "integer_temporal", "binary_lif"):
        assert f"spikeseg.{operator}" in names or f"spikeseg::{operator}" in names, names


def test_export_keeps_the_operators() -> None:
    model = Neurons().eval()
    x = torch.randn(2, 1, 3, 6, 5)
    with torch.no_grad():
        program = torch.export.export(model, (x,))
        names = " ".join(nodes(program.graph))
        for operator in ("integer_stateless", "integer_temporal", "binary_lif"):
            assert f"spikeseg.{operator}" in names, names
        assert_same(program.module()(x), model(x))


@pytest.mark.parametrize("neuron", ["temporal", "binary"])
def test_a_sequence_of_another_length_goes_through_an_exported_neuron(neuron: str) -> None:
    module = getattr(Neurons(), neuron)
    program = torch.export.export(
        nn.Sequential(module), (currents((3, 2, 5), torch.float32),), dynamic_shapes=({0: STEPS},)
    )
    longer = currents((7, 2, 5), torch.float32)
    assert_same(program.module()(longer), module(longer))


def test_differentiating_twice_is_refused(place: Place) -> None:
    for dynamics in ("stateless", "temporal"):
        x = torch.randn(2, 8, device=place.device, requires_grad=True)
        spikes = integer_lif(x, firing_rule("published", dynamics=dynamics), backend=place.backend)
        (gradient,) = torch.autograd.grad(spikes.square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="differentiate twice"):
            gradient.sum().backward()
    x = torch.randn(2, 8, device=place.device, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        lif(x, backend=place.backend).square().sum(), x, create_graph=True
    )
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()


def test_autocast_leaves_the_type_of_the_input_alone(place: Place) -> None:
    x = currents((2, 3, 8), torch.float32, 8)
    layer = nn.Linear(8, 8).to(place.device)
    with torch.autocast(place.device, dtype=torch.bfloat16):
        hidden = layer(x.nan_to_num(0, 1, 0).to(place.device))
        assert hidden.dtype == torch.bfloat16
        spikes = integer_lif(hidden, firing_rule("published"), backend=place.backend)
        assert spikes.dtype == torch.bfloat16
    spikes.float().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.isfinite().all()


def test_a_model_trains_the_same_on_kernels_and_on_torch(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = Neurons()
    other = copy.deepcopy(model)
    x = torch.randn(2, 2, 3, 8, 8)
    for module in model.modules():
        if isinstance(module, IntegerLIF | LIF):
            module.backend = place.backend
    # A GPU's convolution would round to 10 bits by default, and be compared with a CPU's.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    on = model.to(place.device)
    loss = on(x.to(place.device)).square().sum()
    loss.backward()
    monkeypatch.undo()
    expected = other(x).square().sum()
    expected.backward()
    torch.testing.assert_close(loss.cpu(), expected, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(on.parameters(), other.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        torch.testing.assert_close(ours.grad.cpu(), theirs.grad, rtol=1e-3, atol=1e-4)


def test_a_part_of_the_batch_can_be_checkpointed(place: Place) -> None:
    from torch.utils.checkpoint import checkpoint

    x = currents((2, 60), torch.float32).to(place.device).requires_grad_()
    rule = firing_rule("published", dynamics="temporal")

    def neuron(x: Tensor) -> Tensor:
        return integer_lif(x, rule, backend=place.backend)

    g = torch.randn(2, 60)
    spikes = checkpoint(neuron, x, use_reentrant=False)
    assert isinstance(spikes, Tensor)
    spikes.backward(g.to(place.device))
    _, inside, _ = integer_forward(x.detach().cpu(), rule)
    assert x.grad is not None
    assert_same(x.grad, integer_backward(g, inside, rule)[0])


def test_wrong_shapes_are_named() -> None:
    temporal = RULE._replace(dynamics="temporal")
    with pytest.raises(ValueError, match="T at least 1"):
        integer_lif(torch.zeros(0, 2), temporal)
    with pytest.raises(ValueError, match="T at least 1"):
        lif(torch.zeros(0, 2))
    with pytest.raises(ValueError, match=r"shape of one step, \(3,\), got \(2,\)"):
        integer_lif_with_state(torch.zeros(1, 3), torch.zeros(2), temporal)
    with pytest.raises(ValueError, match="dynamics must be temporal where a state is kept"):
        integer_lif_with_state(torch.zeros(1, 3), None, RULE)
