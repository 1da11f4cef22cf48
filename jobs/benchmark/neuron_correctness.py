"""Check before timing that our neurons equal the reference on this device, on a side stream too."""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from ...model.neuron.firing_rule import FiringRule
from ...model.neuron.integer_lif import integer_lif
from ...model.neuron.reference import integer_backward, integer_forward, lif_backward, lif_forward
from .neuron_peers import CASES, LEVELS, Neuron

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def check_numbers(device: str) -> None:
    """Compare our backend on this device with the reference, on a side stream too.

    The integer neurons bit for bit, the binary LIF but for its gradients' last bits, and the fused
    BatchNorm but for spikes at a boundary.

    Args:
        device: `cpu` or `cuda`.

    Raises:
        RuntimeError: Names neuron and type that differ.
    """
    for check in list_checks(device, tuple(DTYPES.values())).values():
        check()
    print("numbers: equal to the law, integer and binary neurons, all types; BatchNorm close")


def list_checks(device: str, dtypes: Sequence[torch.dtype]) -> dict[str, Callable[[], None]]:
    """List the comparisons with the reference; each raises RuntimeError where it does not hold.

    Args:
        device: `cpu` or `cuda`.
        dtypes: Storage types.
    """
    checks: dict[str, Callable[[], None]] = {}
    for dtype in dtypes:
        name = str(dtype).removeprefix("torch.")
        for dynamics in ("stateless", "temporal"):
            checks[f"{dynamics} neuron, {name}"] = functools.partial(
                _check_integer, dynamics, dtype, device
            )
        checks[f"binary neuron, {name}"] = functools.partial(_check_binary, dtype, device)
    checks["BatchNorm and neuron, float32"] = functools.partial(_check_norm, device)
    return checks


def _draw_currents(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x = torch.randn(4, 1003).mul_(3)
    x[0, :6] = torch.tensor([0.5, 1.5, 4.0, float("nan"), float("inf"), -float("inf")])
    return x.to(dtype), torch.randn(x.shape).to(dtype)


def _check_integer(
    dynamics: Literal["stateless", "temporal"], dtype: torch.dtype, device: str
) -> None:
    x, g = _draw_currents(dtype)
    rule = FiringRule(levels=LEVELS, divisor=float(LEVELS), dynamics=dynamics)
    spikes, inside, _ = integer_forward(x, rule)
    wanted, _ = integer_backward(g, inside, rule)
    actual, gradient = _on_side_stream(x, g, device, functools.partial(integer_lif, rule=rule))
    same = torch.equal(actual.nan_to_num(9.0), spikes.nan_to_num(9.0))
    if not same or not torch.equal(gradient, wanted):
        raise RuntimeError(f"{dynamics} {dtype} on {device} differs from the law")


def _check_binary(dtype: torch.dtype, device: str) -> None:
    x, g = _draw_currents(dtype)
    spikes, gradient = _on_side_stream(x, g, device, CASES["binary"].ours)
    wanted = lif_backward(g, x, tau=2.0, threshold=1.0, alpha=4.0)
    expected = lif_forward(x, tau=2.0, threshold=1.0)
    same = torch.equal(spikes.nan_to_num(9.0), expected.nan_to_num(9.0))
    if not same or not torch.allclose(gradient, wanted, rtol=2e-2, atol=1e-4):
        raise RuntimeError(f"binary {dtype} on {device} differs from the law")


def _check_norm(device: str) -> None:
    x, g = torch.randn(2, 1, 64 << 10)
    apart, wanted = _on_side_stream(x, g, "cpu", CASES["norm"].naive)
    spikes, gradient = _on_side_stream(x, g, device, CASES["norm"].ours)
    alike = (spikes == apart) & torch.isclose(gradient, wanted, rtol=1e-2, atol=1e-2)
    if alike.float().mean() < 0.999:
        raise RuntimeError(f"norm float32 on {device} differs from two layers on the CPU")


def _on_side_stream(x: Tensor, g: Tensor, device: str, neuron: Neuron) -> tuple[Tensor, Tensor]:
    def work() -> tuple[Tensor, Tensor]:
        leaf = x.to(device).requires_grad_()
        spikes = neuron(leaf)
        (gradient,) = torch.autograd.grad(spikes, leaf, g.to(device))
        return spikes.detach().cpu(), gradient.cpu()

    if device == "cpu":
        return work()
    with torch.cuda.stream(torch.cuda.Stream()):
        return work()
