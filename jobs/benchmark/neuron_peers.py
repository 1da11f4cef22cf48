"""What `spikeseg benchmark neuron` compares: our neurons, the published form, other packages."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...model.neuron.batch_norm_lif import batch_norm_integer_lif
from ...model.neuron.integer_lif import integer_lif
from ...model.neuron.lif import lif

LEVELS = 4
Neuron = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """One kind of neuron, and the bytes that it must move.

    Attributes:
        name: What rows call it.
        forward: Reads and writes of an element's width in the forward pass.
        backward: The same in the backward pass.
        mask: Further bytes an element in each pass.
        ours: Our implementation.
        naive: The published or plain eager form.
    """

    name: str
    forward: int
    backward: int
    mask: float
    ours: Neuron
    naive: Neuron

    def bytes_moved(self, element_size: int, phase: str) -> float:
        """Bytes an element for `forward`, `backward` or `both`."""
        each = {
            "forward": self.forward * element_size,
            "forward with grad": self.forward * element_size + self.mask,
            "backward": self.backward * element_size + self.mask,
        }
        return each.get(phase, each["forward with grad"] + each["backward"])


class _Round(torch.autograd.Function):
    """The form the published code has: the whole input kept, two indexed writes in backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(0, LEVELS).round()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        result = gradients[0].clone()
        result[x < 0] = 0
        result[x > LEVELS] = 0
        return result


class _Step(torch.autograd.Function):
    """Heaviside with the derivative of a sigmoid."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        s = (4.0 * ctx.saved_tensors[0]).sigmoid()
        return gradients[0] * (1 - s) * s * 4.0


def _naive_stateless(x: Tensor) -> Tensor:
    return _Round.apply(x) / LEVELS


def _naive_temporal(x: Tensor) -> Tensor:
    u, spikes = torch.zeros_like(x[0]), []
    for current in x:
        h = u + current
        count = _Round.apply(h)
        u = 0.25 * (h - count)
        spikes.append(count / LEVELS)
    return torch.stack(spikes)


def _naive_lif(x: Tensor) -> Tensor:
    v, spikes = torch.zeros_like(x[0]), []
    for current in x:
        v = v + (current - v) / 2.0
        spike = _Step.apply(v - 1.0)
        v = v * (1 - spike.detach())
        spikes.append(spike)
    return torch.stack(spikes)


def _as_images(x: Tensor) -> Tensor:
    return x.view(-1, 64, 16, 16)


def _values(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.full((64,), 2.0, device=x.device), torch.ones(64, device=x.device)


def _fused_norm(x: Tensor) -> Tensor:
    spikes, _, _ = batch_norm_integer_lif(
        _as_images(x), *_values(x), eps=1e-5, levels=LEVELS, divisor=LEVELS
    )
    return spikes.view_as(x)


def _layered_norm(x: Tensor) -> Tensor:
    weight, bias = (values.to(x.dtype) for values in _values(x))
    y = nn.functional.batch_norm(_as_images(x), None, None, weight, bias, training=True)
    return integer_lif(y, levels=LEVELS, divisor=LEVELS).view_as(x)


CASES = {
    "stateless": Case(
        "stateless",
        *(2, 2, 0.125),
        ours=lambda x: integer_lif(x, levels=LEVELS, divisor=LEVELS),
        naive=_naive_stateless,
    ),
    "temporal": Case(
        "temporal",
        *(2, 2, 0.125),
        ours=lambda x: integer_lif(x, levels=LEVELS, divisor=LEVELS, dynamics="temporal"),
        naive=_naive_temporal,
    ),
    "binary": Case("binary", 2, 3, 0.0, ours=lif, naive=_naive_lif),
    "norm": Case("norm", 3, 5, 0.25, ours=_fused_norm, naive=_layered_norm),
}


def _straight_through(x: Tensor) -> Tensor:
    clamped = x.clamp(0, LEVELS)
    return (clamped + (clamped.round() - clamped).detach()) / LEVELS


def peers(case: str, *, compile_: bool) -> tuple[dict[str, Neuron], list[str]]:
    """Implementations by other projects, and a line for each that is not here.

    Args:
        case: A key of `CASES`.
        compile_: Whether torch.compile takes part; its first call takes seconds.
    """
    found: dict[str, Neuron] = {}
    skipped: list[str] = []
    if compile_ and case == "stateless":
        found["torch.compile"] = torch.compile(_straight_through, dynamic=False)
    elif case in ("stateless", "temporal"):
        skipped.append("torch.compile: not asked for (--compile, stateless)")
    makers = {
        "temporal": {"spikingjelly triton ILIF": ("spikingjelly.activation_based", _jelly_integer)},
        "binary": {
            "spikingjelly triton LIF": ("spikingjelly.activation_based", _jelly_lif("triton")),
            "spikingjelly cupy LIF": ("spikingjelly.activation_based", _jelly_lif("cupy")),
            "snntorch Leaky": ("snntorch", _snn_leaky),
        },
    }
    for name, (package, make) in makers.get(case, {}).items():
        try:
            found[name] = make(importlib.import_module(package))
        except Exception as error:
            # A peer that cannot be set up must not end the measurement of the others.
            skipped.append(f"{name}: {type(error).__name__}: {error}")
    return found, skipped


def _resetting(node: Any, reset: Callable[[Any], None]) -> Neuron:
    def run(x: Tensor) -> Tensor:
        reset(node)
        return node(x)

    return run


def _jelly_integer(_: Any) -> Neuron:
    neuron = importlib.import_module("spikingjelly.activation_based.neuron")
    functional = importlib.import_module("spikingjelly.activation_based.functional")
    node = neuron.ILIFNode(D=LEVELS, step_mode="m", backend="triton")
    return _resetting(node, functional.reset_net)


def _jelly_lif(backend: str) -> Callable[[Any], Neuron]:
    def make(_: Any) -> Neuron:
        neuron = importlib.import_module("spikingjelly.activation_based.neuron")
        functional = importlib.import_module("spikingjelly.activation_based.functional")
        node = neuron.LIFNode(tau=2.0, detach_reset=True, step_mode="m", backend=backend)
        return _resetting(node, functional.reset_net)

    return make


def _snn_leaky(package: Any) -> Neuron:
    node = package.Leaky(beta=0.5)

    def run(x: Tensor) -> Tensor:
        v, spikes = node.init_leaky(), []
        for current in x:
            spike, v = node(current, v)
            spikes.append(spike)
        return torch.stack(spikes)

    return run
