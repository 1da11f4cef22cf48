"""Offsets beyond 2^31 elements, without the memory: the last block alone of a launch is run.

Pages that nobody touches take no memory, so a tensor of 4 GiB costs its last ones.
"""

import functools
import math

import pytest
import torch
from host_kernels import use_host_kernels
from neuron_cases import assert_same, currents, firing_rule
from torch import Tensor

from spikeseg.jobs.benchmark_gpu.host_kernels import launch
from spikeseg.model.neuron.backends import cuda, kernel_calls
from spikeseg.model.neuron.reference import (
    integer_backward,
    integer_forward,
    lif_backward,
    lif_forward,
)

LAST = 1003  # neurons looked at; the last block has at least as many


@pytest.fixture(autouse=True)
def _last_block(monkeypatch: pytest.MonkeyPatch) -> None:
    use_host_kernels(monkeypatch)
    monkeypatch.setattr(cuda, "launch", functools.partial(launch, last_blocks=1))


def untouched(*shape: int) -> Tensor:
    """A tensor of 16 bits an element, none of which is written."""
    try:
        return torch.empty(shape, dtype=torch.bfloat16)
    except RuntimeError:
        pytest.skip(f"no address space for {2 * math.prod(shape) >> 30} GiB")


def pair(steps: int, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Input and gradient of (steps, n), and what stands at their ends."""
    x, g = untouched(steps, n), untouched(steps, n)
    some = currents((steps, LAST), torch.bfloat16)
    other = torch.randn(steps, LAST, generator=torch.Generator().manual_seed(5)).bfloat16()
    x[:, -LAST:], g[:, -LAST:] = some, other
    return x, g, some, other


@pytest.mark.parametrize(("steps", "n"), [(1, 2**31 + 1500), (1, 2**32 + 1504), (3, 2**30 + 1504)])
def test_integer_neurons_reach_their_last_elements(steps: int, n: int) -> None:
    dynamics = "stateless" if steps == 1 else "temporal"
    rule = firing_rule("counts", dynamics=dynamics)
    x, g, some, other = pair(steps, n)
    after = before = torch.empty(0)
    if steps == 1:
        spikes, mask = kernel_calls.integer_stateless(x, rule, True)
        result = kernel_calls.integer_stateless_backward(g, mask, x.stride(), rule)
    else:
        spikes, mask, after = kernel_calls.integer_temporal(x, None, rule, True, True)
        result, before = kernel_calls.integer_temporal_backward(
            g, None, mask, x.stride(), rule, True
        )
    expected, inside, left = integer_forward(some, rule)
    wanted, first = integer_backward(other, inside, rule)
    assert_same(spikes[:, -LAST:], expected)
    assert_same(result[:, -LAST:], wanted)
    if steps > 1:
        assert_same(after[-LAST:], left)
        assert_same(before[-LAST:], first)


def test_binary_neurons_reach_their_last_elements() -> None:
    # More than the eight steps that backward holds: the first of them are computed once more.
    x, g, some, other = pair(9, 2**29 + 1504)
    rule = {"tau": 2.0, "threshold": 0.5}
    spikes = kernel_calls.binary_lif(x, **rule)
    result = kernel_calls.binary_lif_backward(g, x, **rule, alpha=4.0)
    assert_same(spikes[:, -LAST:], lif_forward(some, **rule))
    wanted = lif_backward(other, some, **rule, alpha=4.0)
    torch.testing.assert_close(result[:, -LAST:], wanted, rtol=1.6e-2, atol=1e-4)


def test_channels_are_told_apart_beyond_two_to_the_32_elements() -> None:
    channels, rows = 7, 100
    x, g = (untouched((2**32 + 1500) // channels, channels) for _ in range(2))
    some = currents((rows, channels), torch.bfloat16)
    generator = torch.Generator().manual_seed(5)
    other = torch.randn(rows, channels, generator=generator).bfloat16()
    x[-rows:], g[-rows:] = some, other
    mean, gain, bias, level, slope = torch.randn(5, channels, generator=generator)
    rule = firing_rule("counts", divisor=2.0)
    spikes, mask = kernel_calls.norm_integer(x, mean, gain, bias, rule, True)
    result = kernel_calls.norm_integer_backward(g, x, mask, [mean, gain, level, slope], rule)
    y = (some.float() - mean) * gain + bias
    expected, inside, _ = integer_forward(y, rule)
    assert_same(spikes[-rows:], expected.bfloat16())
    d = torch.where(inside, other.float() * 0.5, 0.0)
    assert_same(result[-rows:], ((d - level - (some.float() - mean) * slope) * gain).bfloat16())
