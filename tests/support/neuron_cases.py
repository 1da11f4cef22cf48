"""Inputs that a neuron is most easily wrong at, where it runs, and what equal means."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from spikeseg.model.neuron.backends import kernel_calls
from spikeseg.model.neuron.firing_rule import FiringRule

DTYPES = [torch.float32, torch.float16, torch.bfloat16]

# Every parameter away from its default at least once.
RULES = {
    "published": FiringRule(levels=8, divisor=8.0),
    "counts": FiringRule(levels=4, divisor=1.0),
    "large": FiringRule(levels=4, divisor=4.0, rounding="half_up", window="open"),
    "odd": FiringRule(levels=3, divisor=3.0, threshold=0.7, window="open"),
    "half_up": FiringRule(levels=5, divisor=6.0, threshold=1.5, rounding="half_up"),
    "many": FiringRule(levels=300, divisor=300.0),
}


class Place(NamedTuple):
    """Where a neuron runs and which backend it is asked for."""

    device: str
    backend: Any


def firing_rule(name: str, **changes: Any) -> FiringRule:
    """One of the rules, with other values for some of its fields."""
    return RULES[name]._replace(**changes)


def currents(shape: tuple[int, ...], dtype: torch.dtype, levels: int = 4, seed: int = 0) -> Tensor:
    """Input with ties, window edges and neighbours, denormals, infinities and NaN among it."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * levels + levels / 3
    top = float(levels)
    special = [0.5, 1.5, 2.5, top - 0.5, top + 0.5, 0.0, -0.0, top, -0.5, 1e-6, -1e-6]
    special += [1e-40, -1e-40]  # denormal in float32
    special += [top * (1 + 2**-7), top * (1 - 2**-7), float("inf"), -float("inf"), float("nan")]
    flat = x.view(-1)
    step = max(1, flat.numel() // (2 * len(special)))
    for index, value in zip(range(0, flat.numel(), step), special * 2, strict=False):
        flat[index] = value
    return x.to(dtype)


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Equal bit for bit, but for the sign of zeros and the payload of NaN."""
    actual, expected = actual.detach().cpu(), expected.detach().cpu()
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    same = (actual == expected) | (actual.isnan() & expected.isnan())
    assert bool(same.all()), (
        f"{int((~same).sum())} of {same.numel()} differ, first at {(~same).nonzero()[0].tolist()}: "
        f"{actual[~same][:4].tolist()} for {expected[~same][:4].tolist()}"
    )


def require_gpu() -> None:
    """Skip where the kernels cannot run."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU that torch sees")
    pytest.importorskip("cupy", reason="the kernels need cupy-cuda12x or cupy-cuda13x")


def call_every_kernel(x: Tensor, *, with_state: bool = True) -> None:
    """All entry points of `kernel_calls` on (T, N, C), whatever is in it."""
    rule = FiringRule(levels=4, divisor=4.0)
    stride = x.stride()
    state = torch.empty(x.shape[1:], device=x.device) if with_state else None
    _, mask = kernel_calls.integer_stateless(x, rule, True)
    kernel_calls.integer_stateless_backward(x, mask, stride, rule)
    _, mask, _ = kernel_calls.integer_temporal(x, state, rule, True, with_state)
    kernel_calls.integer_temporal_backward(x, state, mask, stride, rule, with_state)
    kernel_calls.binary_lif(x, tau=2.0, threshold=1.0)
    kernel_calls.binary_lif_backward(x, x, tau=2.0, threshold=1.0, alpha=4.0)
    y, values = x.flatten(0, 1), torch.empty(x.shape[-1], device=x.device)
    _, mask = kernel_calls.norm_integer(y, values, values, values, rule, True)
    kernel_calls.norm_integer_sums(y, y, mask, values, rule)
    kernel_calls.norm_integer_backward(y, y, mask, [values] * 4, rule)
    kernel_calls.copy(x, x)
