"""The neurons as torch operators: opaque to `torch.compile` and `torch.export`, on every device.

An operator chooses its backend when it runs (`dispatch.py`), and a fake tensor's device is enough
for it to choose the same. Gradients come from the `autograd.Function` classes of `integer_lif.py`,
`lif.py` and `batch_norm_lif.py`, outside of the operators: half the cost of a call that autograd
is registered with.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..constraints import RULES, require
from ..reference import arithmetic
from . import kernel_calls, torch_norm
from . import torch_ops as torch_path
from .dispatch import choose_backend
from .memory_layout import empty_like_flat, empty_like_planes, empty_like_sequence


def _kernels_run(x: Tensor, backend: str) -> bool:
    return choose_backend(backend, x.device.type, x.dtype) == "cuda"


def _empty_window(x: Tensor, save: bool, backend: str, shape: Tensor, steps: int = 1) -> Tensor:
    """Room for the window: bits for the kernels, bytes of `shape`'s layout in torch."""
    if _kernels_run(x, backend):
        return kernel_calls.empty_mask(x.numel() // steps, x, save=save, steps=steps)
    return (
        torch.empty_like(shape, dtype=torch_path.WINDOW)
        if save
        else x.new_empty(0, dtype=torch_path.WINDOW)
    )


def _integer_stateless(  # noqa: PLR0913
    x: Tensor,
    levels: int,
    divisor: float,
    threshold: float,
    half_up: bool,
    open_window: bool,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    path = kernel_calls.integer_stateless if _kernels_run(x, backend) else torch_path.stateless
    return path(
        x,
        levels=levels,
        divisor=divisor,
        threshold=threshold,
        half_up=half_up,
        open_window=open_window,
        save=save,
    )


def _integer_stateless_fake(  # noqa: PLR0913
    x: Tensor,
    levels: int,
    divisor: float,
    threshold: float,
    half_up: bool,
    open_window: bool,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    spikes = empty_like_flat(x)
    return spikes, _empty_window(x, save, backend, spikes)


def _integer_stateless_backward(
    gradient: Tensor,
    mask: Tensor,
    stride: list[int],
    divisor: float,
    threshold: float,
    backend: str,
) -> Tensor:
    result = gradient.new_empty_strided(gradient.shape, stride)
    if _kernels_run(gradient, backend):
        path = kernel_calls.integer_stateless_backward
    else:
        path = torch_path.stateless_backward
    return path(gradient, mask, result, divisor=divisor, threshold=threshold)


def _integer_temporal(  # noqa: PLR0913
    x: Tensor,
    state: Tensor | None,
    levels: int,
    divisor: float,
    decay: float,
    threshold: float,
    half_up: bool,
    open_window: bool,
    save: bool,
    keep: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    path = kernel_calls.integer_temporal if _kernels_run(x, backend) else torch_path.temporal
    return path(
        x,
        state,
        levels=levels,
        divisor=divisor,
        decay=decay,
        threshold=threshold,
        half_up=half_up,
        open_window=open_window,
        save=save,
        keep=keep,
    )


def _integer_temporal_fake(  # noqa: PLR0913
    x: Tensor,
    state: Tensor | None,
    levels: int,
    divisor: float,
    decay: float,
    threshold: float,
    half_up: bool,
    open_window: bool,
    save: bool,
    keep: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    spikes = empty_like_sequence(x)
    window = _empty_window(x, save, backend, spikes, steps=x.shape[0])
    return spikes, window, _empty_state(x, keep)


def _empty_state(x: Tensor, keep: bool) -> Tensor:
    wide = arithmetic(x.dtype)
    return empty_like_flat(x[0], wide) if keep else x.new_empty(0, dtype=wide)


def _integer_temporal_backward(  # noqa: PLR0913
    gradient: Tensor,
    state_gradient: Tensor | None,
    mask: Tensor,
    stride: list[int],
    divisor: float,
    decay: float,
    threshold: float,
    keep: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    result = gradient.new_empty_strided(gradient.shape, stride)
    if _kernels_run(gradient, backend):
        path = kernel_calls.integer_temporal_backward
    else:
        path = torch_path.temporal_backward
    return path(
        gradient,
        state_gradient,
        mask,
        result,
        divisor=divisor,
        decay=decay,
        threshold=threshold,
        keep=keep,
    )


def _integer_temporal_backward_fake(  # noqa: PLR0913
    gradient: Tensor,
    state_gradient: Tensor | None,
    mask: Tensor,
    stride: list[int],
    divisor: float,
    decay: float,
    threshold: float,
    keep: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    result = gradient.new_empty_strided(gradient.shape, stride)
    return result, _empty_state(result, keep)


def _binary_lif(x: Tensor, tau: float, threshold: float, backend: str) -> Tensor:
    path = kernel_calls.binary_lif if _kernels_run(x, backend) else torch_path.binary
    return path(x, tau=tau, threshold=threshold)


def _binary_lif_backward(
    gradient: Tensor, x: Tensor, tau: float, threshold: float, alpha: float, backend: str
) -> Tensor:
    result = empty_like_sequence(x)
    if _kernels_run(x, backend):
        path = kernel_calls.binary_lif_backward
    else:
        path = torch_path.binary_backward
    return path(gradient, x, result, tau=tau, threshold=threshold, alpha=alpha)


def _norm_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch_norm.norm_statistics(x)


def _norm_integer(  # noqa: PLR0913
    x: Tensor,
    mean: Tensor,
    gain: Tensor,
    bias: Tensor,
    levels: int,
    divisor: float,
    threshold: float,
    half_up: bool,
    open_window: bool,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    path = kernel_calls.norm_integer if _kernels_run(x, backend) else torch_norm.norm_integer
    return path(
        x,
        mean,
        gain,
        bias,
        levels=levels,
        divisor=divisor,
        threshold=threshold,
        half_up=half_up,
        open_window=open_window,
        save=save,
    )


def _norm_integer_fake(  # noqa: PLR0913
    x: Tensor,
    mean: Tensor,
    gain: Tensor,
    bias: Tensor,
    levels: int,
    divisor: float,
    threshold: float,
    half_up: bool,
    open_window: bool,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    spikes = empty_like_planes(x)
    return spikes, _empty_window(x, save, backend, spikes)


def _norm_integer_sums(  # noqa: PLR0913
    gradient: Tensor,
    x: Tensor,
    mask: Tensor,
    mean: Tensor,
    divisor: float,
    threshold: float,
    backend: str,
) -> Tensor:
    fused = _kernels_run(x, backend)
    path = kernel_calls.norm_integer_sums if fused else torch_norm.norm_integer_sums
    return path(gradient, x, mask, mean, divisor=divisor, threshold=threshold)


def _norm_integer_backward(  # noqa: PLR0913
    gradient: Tensor,
    x: Tensor,
    mask: Tensor,
    mean: Tensor,
    gain: Tensor,
    level: Tensor,
    slope: Tensor,
    divisor: float,
    threshold: float,
    backend: str,
) -> Tensor:
    fused = _kernels_run(x, backend)
    path = kernel_calls.norm_integer_backward if fused else torch_norm.norm_integer_backward
    return path(gradient, x, mask, mean, gain, level, slope, divisor=divisor, threshold=threshold)


def _channel_values(x: Tensor, *lead: int) -> Tensor:
    return x.new_empty((*lead, x.shape[1]), dtype=arithmetic(x.dtype))


# Name -> signature, what it does, and what a fake tensor's results look like.
_OPERATORS: dict[str, tuple[str, Callable[..., Any], Callable[..., Any]]] = {
    "integer_stateless": (
        "(Tensor x, int levels, float divisor, float threshold, bool half_up, bool open_window, "
        "bool save, str backend) -> (Tensor, Tensor)",
        _integer_stateless,
        _integer_stateless_fake,
    ),
    "integer_stateless_backward": (
        "(Tensor gradient, Tensor mask, SymInt[] stride, float divisor, float threshold, "
        "str backend) -> Tensor",
        _integer_stateless_backward,
        lambda gradient, mask, stride, *_: gradient.new_empty_strided(gradient.shape, stride),
    ),
    "integer_temporal": (
        "(Tensor x, Tensor? state, int levels, float divisor, float decay, float threshold, "
        "bool half_up, bool open_window, bool save, bool keep, str backend) "
        "-> (Tensor, Tensor, Tensor)",
        _integer_temporal,
        _integer_temporal_fake,
    ),
    "integer_temporal_backward": (
        "(Tensor gradient, Tensor? state_gradient, Tensor mask, SymInt[] stride, float divisor, "
        "float decay, float threshold, bool keep, str backend) -> (Tensor, Tensor)",
        _integer_temporal_backward,
        _integer_temporal_backward_fake,
    ),
    "binary_lif": (
        "(Tensor x, float tau, float threshold, str backend) -> Tensor",
        _binary_lif,
        lambda x, *_: empty_like_sequence(x),
    ),
    "binary_lif_backward": (
        "(Tensor gradient, Tensor x, float tau, float threshold, float alpha, str backend) "
        "-> Tensor",
        _binary_lif_backward,
        lambda gradient, x, *_: empty_like_sequence(x),
    ),
    "norm_statistics": (
        "(Tensor x) -> (Tensor, Tensor)",
        _norm_statistics,
        lambda x: (_channel_values(x), _channel_values(x)),
    ),
    "norm_integer": (
        "(Tensor x, Tensor mean, Tensor gain, Tensor bias, int levels, float divisor, "
        "float threshold, bool half_up, bool open_window, bool save, str backend) "
        "-> (Tensor, Tensor)",
        _norm_integer,
        _norm_integer_fake,
    ),
    "norm_integer_sums": (
        "(Tensor gradient, Tensor x, Tensor mask, Tensor mean, float divisor, float threshold, "
        "str backend) -> Tensor",
        _norm_integer_sums,
        lambda gradient, x, *_: _channel_values(x, 2),
    ),
    "norm_integer_backward": (
        "(Tensor gradient, Tensor x, Tensor mask, Tensor mean, Tensor gain, Tensor level, "
        "Tensor slope, float divisor, float threshold, str backend) -> Tensor",
        _norm_integer_backward,
        lambda gradient, x, *_: empty_like_planes(x),
    ),
}


def _register(name: str) -> Callable[..., Any]:
    """Define an operator; what is returned is how our own code calls it."""
    signature, run, fake = _OPERATORS[name]
    # Masks and results follow x's storage order, so a compiler must not change it in between: not
    # by padding either, as Inductor may on a GPU (no graph on a CPU was found where it would).
    torch.library.define(f"spikeseg::{name}", signature, tags=(torch.Tag.needs_exact_strides,))
    operator = getattr(torch.ops.spikeseg, name).default
    names = [argument.name for argument in operator._schema.arguments]

    def checked(*arguments: Any) -> Any:
        given = zip(names, arguments, strict=True)
        require(**{name: value for name, value in given if name in RULES})
        return run(*arguments)

    torch.library.impl(f"spikeseg::{name}", "default", checked)
    torch.library.register_fake(f"spikeseg::{name}", fake)

    def call(x: Tensor, *arguments: Any) -> Any:
        # In eager mode on a CPU torch's dispatcher would cost more than a small layer's neurons.
        plain = type(x) in (Tensor, nn.Parameter) and x.device.type == "cpu"
        if plain and not torch.compiler.is_compiling():
            return run(x, *arguments)
        return operator(x, *arguments)

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
