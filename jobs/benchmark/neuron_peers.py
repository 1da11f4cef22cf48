"""What `spikeseg benchmark neuron` compares: our neurons, the published form, other packages."""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...model.neuron.batch_norm_lif import normalize_and_fire
from ...model.neuron.firing_rule import FiringRule
from ...model.neuron.integer_lif import IntegerLIF, integer_lif, integer_lif_with_state
from ...model.neuron.lif import lif

LEVELS = 4
_STATELESS = FiringRule(levels=LEVELS, divisor=LEVELS)
_TEMPORAL = _STATELESS._replace(dynamics="temporal")
Neuron = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """One kind of neuron, with the bytes that it must move.

    Attributes:
        name: What rows call it.
        forward: Reads and writes of an element's width in the forward pass.
        backward: The same in the backward pass.
        mask: Further bytes an element in each pass.
        ours: Our implementation.
        naive: The published or plain eager form.
        state: Bytes of a potential that a neuron reads or writes in each pass.
    """

    name: str
    forward: int
    backward: int
    mask: float
    ours: Neuron
    naive: Neuron
    state: float = 0.0

    def bytes_moved(self, element_size: int, phase: str, steps: int) -> float:
        """Bytes an element for a phase, the potential's shared by T steps."""
        state = self.state / steps
        each = {
            "forward": self.forward * element_size + state,
            "forward with grad": self.forward * element_size + self.mask + state,
            "backward": self.backward * element_size + self.mask + state,
        }
        return each.get(phase, each["forward with grad"] + each["backward"])


class _Round(torch.autograd.Function):
    """The published form: the whole input saved, two indexed writes in backward."""

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


@functools.cache
def _build_layers(device: torch.device) -> tuple[nn.BatchNorm2d, IntegerLIF]:
    norm = nn.BatchNorm2d(64, device=device)
    nn.init.constant_(norm.weight, 2.0)
    nn.init.ones_(norm.bias)
    return norm, IntegerLIF(_STATELESS)


def _view_as_images(x: Tensor) -> Tensor:
    return x.view(1, -1, 64, 16, 16)


def _our_norm(x: Tensor) -> Tensor:
    return normalize_and_fire(*_build_layers(x.device), _view_as_images(x)).view_as(x)


def build_norm_then(neuron: Neuron) -> Neuron:
    """BatchNorm in training and a neuron behind it, as two layers."""

    def run(x: Tensor) -> Tensor:
        norm, _ = _build_layers(x.device)
        return neuron(norm(_view_as_images(x).flatten(0, 1)).unsqueeze(0)).view_as(x)

    return run


def _stateless(x: Tensor) -> Tensor:
    return integer_lif(x, _STATELESS)


@functools.lru_cache(maxsize=1)
def _make_potential(shape: torch.Size, device: torch.device) -> Tensor:
    """Of the step before; made once, outside of what is timed."""
    return torch.zeros(shape, device=device)


def _with_state(x: Tensor) -> Tensor:
    u = _make_potential(x.shape[1:], x.device)
    return integer_lif_with_state(x, u, _TEMPORAL)[0]


CASES = {
    "stateless": Case("stateless", *(2, 2, 0.125), ours=_stateless, naive=_naive_stateless),
    "temporal": Case(
        "temporal",
        *(2, 2, 0.125),
        ours=lambda x: integer_lif(x, _TEMPORAL),
        naive=_naive_temporal,
    ),
    "stateful": Case(
        "stateful", *(2, 2, 0.125), state=8.0, ours=_with_state, naive=_naive_temporal
    ),
    "binary": Case("binary", 2, 3, 0.0, ours=lif, naive=_naive_lif),
    "norm": Case("norm", 3, 5, 0.1875, ours=_our_norm, naive=build_norm_then(_naive_stateless)),
}


def _straight_through(x: Tensor) -> Tensor:
    clamped = x.clamp(0, LEVELS)
    return (clamped + (clamped.round() - clamped).detach()) / LEVELS


def find_peers(case: str, steps: int, *, compile_: bool) -> tuple[dict[str, Neuron], list[str]]:
    """Find implementations by other projects, and a line for each that cannot be used.

    Args:
        case: A key of `CASES`.
        steps: T; torch.compile takes part at T = 1.
        compile_: Whether torch.compile takes part; its first call takes seconds.
    """
    peers: dict[str, Neuron] = {}
    skipped: list[str] = []
    if case == "norm":
        peers["BatchNorm, then our neuron"] = build_norm_then(_stateless)
    if case == "stateless" and steps == 1:
        if compile_:
            # Past its limit of variants torch would run the function eagerly without a word.
            torch.compiler.reset()
            compile_whole = functools.partial(
                torch.compile, _straight_through, dynamic=False, fullgraph=True
            )
            peers["torch.compile"] = compile_whole()
            peers["torch.compile max-autotune"] = compile_whole(mode="max-autotune-no-cudagraphs")
        else:
            skipped.append("torch.compile: not asked for (--compile)")
    for name, (package, make) in _MAKERS.get(case, {}).items():
        try:
            importlib.import_module(package)
            peers[name] = make()
        except Exception as error:
            # A peer that cannot be set up must not end the measurement of the others.
            skipped.append(f"{name}: {type(error).__name__}: {error}")
    return peers, skipped


def check_peer(neuron: Neuron, x: Tensor) -> str:
    """Reason why an implementation fails on an input, forward and backward; empty if it runs."""
    try:
        leaf = x.detach().requires_grad_()
        torch.autograd.grad(neuron(leaf), leaf, torch.ones_like(leaf))
    except Exception as error:
        # Whatever a peer raises (types, compilers, devices), the others are measured.
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""


def _reset_before(node: Any) -> Neuron:
    functional = importlib.import_module(f"{_JELLY}.functional")

    def run(x: Tensor) -> Tensor:
        functional.reset_net(node)
        return node(x)

    return run


def _jelly_integer() -> Neuron:
    neuron = importlib.import_module(f"{_JELLY}.neuron")
    return _reset_before(neuron.ILIFNode(D=LEVELS, step_mode="m", backend="triton"))


def _jelly_divided() -> Neuron:
    counts = _jelly_integer()
    return lambda x: counts(x) / LEVELS


def _jelly_lif(backend: str) -> Neuron:
    neuron = importlib.import_module(f"{_JELLY}.neuron")
    node = neuron.LIFNode(tau=2.0, detach_reset=True, step_mode="m", backend=backend)
    return _reset_before(node)


def _snn_leaky() -> Neuron:
    node = importlib.import_module("snntorch").Leaky(beta=0.5)

    def run(x: Tensor) -> Tensor:
        v, spikes = node.init_leaky(), []
        for current in x:
            spike, v = node(current, v)
            spikes.append(spike)
        return torch.stack(spikes)

    return run


_JELLY = "spikingjelly.activation_based"
_INTEGER_PEERS: dict[str, tuple[str, Callable[[], Neuron]]] = {
    "spikingjelly triton ILIF": (_JELLY, _jelly_integer),
    "spikingjelly triton ILIF / D": (_JELLY, _jelly_divided),
}
# Case -> peer -> the package it needs, and what makes it.
_MAKERS: dict[str, dict[str, tuple[str, Callable[[], Neuron]]]] = {
    "stateless": _INTEGER_PEERS,
    "temporal": _INTEGER_PEERS,
    "binary": {
        "spikingjelly triton LIF": (_JELLY, lambda: _jelly_lif("triton")),
        "spikingjelly cupy LIF": (_JELLY, lambda: _jelly_lif("cupy")),
        "snntorch Leaky": ("snntorch", _snn_leaky),
    },
    "norm": {
        "BatchNorm, then spikingjelly triton ILIF": (
            _JELLY,
            lambda: build_norm_then(_jelly_integer()),
        ),
    },
}
