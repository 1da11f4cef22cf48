"""The neurons as torch operators: opaque to `torch.compile` and `torch.export`, on every device.

An operator chooses its backend when it runs (`dispatch.py`), and a fake tensor's device is enough
for it to choose the same. Gradients come from the `autograd.Function` classes of `integer_lif.py`,
`lif.py` and `batch_norm_lif.py`, outside of the operators: half the cost of a call that autograd
is registered with.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..constraints import RULES, require
from ..firing_rule import FiringRule
from ..reference import choose_arithmetic
from . import kernel_calls, torch_norm, torch_ops
from .dispatch import choose_backend
from .memory_layout import empty_like_flat, empty_like_planes, empty_like_sequence

# A rule in an operator's signature: one scalar or word for each field, in the order of the fields.
_RULE = (
    "int levels, float divisor, float threshold, str rounding, str window, str dynamics, "
    "float decay"
)


def _runs_on_kernels(x: Tensor, backend: str) -> bool:
    return choose_backend(backend, x.device.type, x.dtype) == "cuda"


def _by_backend(kernels: Callable[..., Any], in_torch: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that picks one of two by the backend, its last argument."""

    def run(x: Tensor, *arguments: Any) -> Any:
        *others, backend = arguments
        return (kernels if _runs_on_kernels(x, backend) else in_torch)(x, *others)

    return run


def _empty_window(x: Tensor, save: bool, backend: str, shape: Tensor, steps: int = 1) -> Tensor:
    """Empty window tensor: bits for the kernels, bytes of `shape`'s layout in torch."""
    if _runs_on_kernels(x, backend):
        return kernel_calls.empty_mask(x.numel() // steps, x, save=save, steps=steps)
    window = torch_ops.WINDOW
    return torch.empty_like(shape, dtype=window) if save else x.new_empty(0, dtype=window)


def _empty_state(x: Tensor, keep: bool) -> Tensor:
    wide = choose_arithmetic(x.dtype)
    return empty_like_flat(x[0], wide) if keep else x.new_empty(0, dtype=wide)


def _empty_channels(x: Tensor, *lead: int) -> Tensor:
    return x.new_empty((*lead, x.shape[1]), dtype=choose_arithmetic(x.dtype))


def _fake_stateless(x: Tensor, rule: FiringRule, save: bool, backend: str) -> tuple[Tensor, Tensor]:
    spikes = empty_like_flat(x)
    return spikes, _empty_window(x, save, backend, spikes)


def _fake_temporal(
    x: Tensor, state: Tensor | None, rule: FiringRule, save: bool, keep: bool, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    spikes = empty_like_sequence(x)
    window = _empty_window(x, save, backend, spikes, steps=x.shape[0])
    return spikes, window, _empty_state(x, keep)


def _fake_temporal_backward(gradient: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    _, _, stride, _, keep, _ = arguments
    result = gradient.new_empty_strided(gradient.shape, stride)
    return result, _empty_state(result, keep)


def _fake_norm(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    *_, save, backend = arguments
    spikes = empty_like_planes(x)
    return spikes, _empty_window(x, save, backend, spikes)


# Name -> signature, what it does, and what a fake tensor's results look like.
_OPERATORS: dict[str, tuple[str, Callable[..., Any], Callable[..., Any]]] = {
    "integer_stateless": (
        f"(Tensor x, {_RULE}, bool save, str backend) -> (Tensor, Tensor)",
        _by_backend(kernel_calls.integer_stateless, torch_ops.integer_stateless),
        _fake_stateless,
    ),
    "integer_stateless_backward": (
        f"(Tensor gradient, Tensor mask, SymInt[] stride, {_RULE}, str backend) -> Tensor",
        _by_backend(kernel_calls.integer_stateless_backward, torch_ops.integer_stateless_backward),
        lambda gradient, mask, stride, *_: gradient.new_empty_strided(gradient.shape, stride),
    ),
    "integer_temporal": (
        f"(Tensor x, Tensor? state, {_RULE}, bool save, bool keep, str backend) "
        "-> (Tensor, Tensor, Tensor)",
        _by_backend(kernel_calls.integer_temporal, torch_ops.integer_temporal),
        _fake_temporal,
    ),
    "integer_temporal_backward": (
        "(Tensor gradient, Tensor? state_gradient, Tensor mask, SymInt[] stride, "
        f"{_RULE}, bool keep, str backend) -> (Tensor, Tensor)",
        _by_backend(kernel_calls.integer_temporal_backward, torch_ops.integer_temporal_backward),
        _fake_temporal_backward,
    ),
    "binary_lif": (
        "(Tensor x, float tau, float threshold, str backend) -> Tensor",
        _by_backend(kernel_calls.binary_lif, torch_ops.binary_lif),
        lambda x, *_: empty_like_sequence(x),
    ),
    "binary_lif_backward": (
        "(Tensor gradient, Tensor x, float tau, float threshold, float alpha, str backend) "
        "-> Tensor",
        _by_backend(kernel_calls.binary_lif_backward, torch_ops.binary_lif_backward),
        lambda gradient, x, *_: empty_like_sequence(x),
    ),
    "norm_statistics": (
        "(Tensor x) -> (Tensor, Tensor)",
        torch_norm.norm_statistics,
        lambda x: (_empty_channels(x), _empty_channels(x)),
    ),
    "norm_integer": (
        f"(Tensor x, Tensor mean, Tensor gain, Tensor bias, {_RULE}, bool save, str backend) "
        "-> (Tensor, Tensor)",
        _by_backend(kernel_calls.norm_integer, torch_norm.norm_integer),
        _fake_norm,
    ),
    "norm_integer_sums": (
        f"(Tensor gradient, Tensor x, Tensor mask, Tensor mean, {_RULE}, str backend) -> Tensor",
        _by_backend(kernel_calls.norm_integer_sums, torch_norm.norm_integer_sums),
        lambda gradient, x, *_: _empty_channels(x, 2),
    ),
    "norm_integer_backward": (
        f"(Tensor gradient, Tensor x, Tensor mask, Tensor[] channels, {_RULE}, str backend) "
        "-> Tensor",
        _by_backend(kernel_calls.norm_integer_backward, torch_norm.norm_integer_backward),
        lambda gradient, x, *_: empty_like_planes(x),
    ),
}


def _flatten_rule(arguments: Iterable[Any]) -> list[Any]:
    """Arguments as an operator's signature has them: a rule's fields one by one."""
    flat: list[Any] = []
    for argument in arguments:
        flat += argument if isinstance(argument, FiringRule) else (argument,)
    return flat


def _gather_rule(names: Sequence[str], arguments: Sequence[Any]) -> list[Any]:
    """Arguments as our functions have them: the fields of a rule as one value."""
    if "levels" not in names:
        return list(arguments)
    start = names.index("levels")
    end = start + len(FiringRule._fields)
    return [*arguments[:start], FiringRule(*arguments[start:end]), *arguments[end:]]


def _register(name: str) -> Callable[..., Any]:
    """Define an operator; returns a function that calls it with the rule as one value."""
    signature, run, fake = _OPERATORS[name]
    # Masks and results follow x's storage order, so a compiler must not change it in between: not
    # by padding either, as Inductor may on a GPU (no graph on a CPU was found where it would).
    torch.library.define(f"spikeseg::{name}", signature, tags=(torch.Tag.needs_exact_strides,))
    operator = getattr(torch.ops.spikeseg, name).default
    names = [argument.name for argument in operator._schema.arguments]

    def run_checked(*arguments: Any) -> Any:
        named = zip(names, arguments, strict=True)
        require(**{name: value for name, value in named if name in RULES})
        return run(*_gather_rule(names, arguments))

    def run_fake(*arguments: Any) -> Any:
        return fake(*_gather_rule(names, arguments))

    torch.library.impl(f"spikeseg::{name}", "default", run_checked)
    torch.library.register_fake(f"spikeseg::{name}", run_fake)

    def call(x: Tensor, *arguments: Any) -> Any:
        # In eager mode on a CPU torch's dispatcher would cost more than a small layer's neurons.
        plain = type(x) in (Tensor, nn.Parameter) and x.device.type == "cpu"
        if plain and not torch.compiler.is_compiling():
            return run(x, *arguments)
        return operator(x, *_flatten_rule(arguments))

    return call


integer_stateless = _register("integer_stateless")
integer_stateless_backward = _register("integer_stateless_backward")
integer_temporal = _register("integer_temporal")
integer_temporal_backward = _register("integer_temporal_backward")
binary_lif = _register("binary_lif")
binary_lif_backward = _register("binary_lif_backward")
norm_statistics = _register("norm_statistics")
norm_integer = _register("norm_integer")
norm_integer_sums = _register("norm_integer_sums")
norm_integer_backward = _register("norm_integer_backward")
