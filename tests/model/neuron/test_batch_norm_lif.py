"""BatchNorm fused with the integer neuron equals the two layers, statistics and gradients too."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from neuron_cases import DTYPES, Place, assert_same, currents, firing_rule
from torch import Tensor, nn

from spikeseg.model.neuron.backends import cuda, kernel_calls, operators
from spikeseg.model.neuron.batch_norm_lif import batch_norm_integer_lif, normalize_and_fire
from spikeseg.model.neuron.firing_rule import FiringRule
from spikeseg.model.neuron.integer_lif import IntegerLIF, integer_lif, integer_lif_with_state
from spikeseg.model.neuron.reference import integer_forward

RULE = FiringRule(levels=4, divisor=4.0)
SHAPES = {"planes": (6, 5, 3, 7), "lanes": (2, 8, 4, 8), "vectors": (40, 6), "one": (9, 1, 2, 2)}


def parameters(channels: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    weight = torch.rand(channels, generator=generator) + 0.5
    return weight * 2, torch.randn(channels, generator=generator)


def fused(x: Tensor, g: Tensor, place: Place, **more: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Spikes, and the gradients of x, weight and bias."""
    leaves = [t.detach().to(place.device).requires_grad_() for t in (x, *parameters(x.shape[1]))]
    spikes, _, _ = batch_norm_integer_lif(
        *leaves, RULE._replace(**more), eps=1e-5, backend=place.backend
    )
    spikes.backward(g.to(place.device))
    return spikes, *three_gradients(leaves)


def layered(x: Tensor, g: Tensor, **more: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same by two layers, in float64."""
    weight, bias = parameters(x.shape[1])
    leaves = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    y = nn.functional.batch_norm(leaves[0], None, None, *leaves[1:], training=True, eps=1e-5)
    spikes = integer_lif(y, RULE._replace(**more), backend="torch")
    spikes.backward(g.double())
    return spikes, *three_gradients(leaves)


def three_gradients(leaves: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    x, weight, bias = (leaf.grad for leaf in leaves)
    assert x is not None and weight is not None and bias is not None
    return x, weight, bias


@pytest.mark.parametrize("shape", [*SHAPES])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
def test_fused_is_batch_norm_and_then_the_neuron(place: Place, shape: str, layout: str) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(SHAPES[shape], generator=generator) * 3 + 1
    g = torch.randn(SHAPES[shape], generator=generator)
    if layout == "channels_last" and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "transposed":
        x = x.transpose(0, -1).contiguous().transpose(0, -1)
    for more in ({}, {"rounding": "half_up", "window": "open", "threshold": 0.7}):
        actual, expected = fused(x, g, place, **more), layered(x, g, **more)
        # No value of these inputs is near a boundary, so that float32 counts like float64.
        assert_same(actual[0], expected[0].float())
        for ours, theirs in zip(actual[1:], expected[1:], strict=True):
            torch.testing.assert_close(ours.cpu(), theirs.float(), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_normalized_spikes_are_the_laws_bits(place: Place, dtype: torch.dtype) -> None:
    mean, (gain, bias) = torch.randn(5), parameters(5)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = currents((4, 5, 3, 7), dtype).contiguous(memory_format=layout)
        y = (x.float() - mean.view(-1, 1, 1)) * gain.view(-1, 1, 1) + bias.view(-1, 1, 1)
        spikes, _ = operators.norm_integer(
            *(t.to(place.device) for t in (x, mean, gain, bias)),
            *(RULE, True, place.backend),
        )
        assert_same(spikes, integer_forward(y, firing_rule("counts", divisor=4.0))[0].to(dtype))
        assert spikes.stride() == x.stride()


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_sixteen_bit_storage_keeps_gradients_close(place: Place, dtype: torch.dtype) -> None:
    x, g = torch.randn(4, 6, 5, 5).to(dtype), torch.randn(4, 6, 5, 5).to(dtype)
    actual, expected = fused(x, g, place), layered(x, g)
    assert actual[1].dtype == dtype
    differing = actual[0].cpu().double() != expected[0].to(dtype).double()
    assert differing.float().mean() < 1e-2
    for ours, theirs in zip(actual[1:], expected[1:], strict=True):
        torch.testing.assert_close(ours.cpu().double(), theirs, rtol=3e-2, atol=3e-2)


def test_many_values_a_channel_are_summed_by_many_workers(place: Place) -> None:
    generator = torch.Generator().manual_seed(0)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(3, 4, 37, 41, generator=generator).contiguous(memory_format=layout)
        g = torch.randn(x.shape, generator=generator)
        actual, expected = fused(x, g, place), layered(x, g)
        for ours, theirs in zip(actual[1:], expected[1:], strict=True):
            torch.testing.assert_close(ours.cpu(), theirs.float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_layers_state_and_output_are_those_of_two_layers(
    place: Place, momentum: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = "torch" if place.backend == "torch" else "cuda"
    monkeypatch.setattr("spikeseg.model.neuron.batch_norm_lif.choose_backend", lambda *_: kernels)
    norm = nn.BatchNorm2d(4, momentum=momentum)
    nn.init.uniform_(norm.weight, 1, 3)
    twin = copy.deepcopy(norm)
    neuron = IntegerLIF(RULE, backend=place.backend)
    norm.to(place.device)
    for seed in range(3):
        x = torch.randn(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(seed))
        spikes = normalize_and_fire(norm, neuron, x.to(place.device))
        y = twin(x.flatten(0, 1)).unflatten(0, (2, 3))
        assert_same(spikes, integer_lif(y, RULE, backend="torch"))
    for ours, theirs in zip(norm.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs)
    norm.eval()
    twin.eval()
    x = torch.randn(2, 3, 4, 5, 5)
    spikes = normalize_and_fire(norm, neuron, x.to(place.device))
    y = twin(x.flatten(0, 1)).unflatten(0, (2, 3))
    assert_same(spikes, integer_lif(y, RULE, backend="torch"))


def test_a_channel_of_one_value_is_refused() -> None:
    with pytest.raises(ValueError, match="more than one value in training, got 1"):
        batch_norm_integer_lif(torch.randn(1, 3), *parameters(3), RULE, eps=1e-5)


@pytest.mark.parametrize("size", [1, 7])
def test_a_bias_of_other_channels_is_refused(size: int) -> None:
    x = torch.randn(2, 8, 4, 4)
    said = rf"bias must be one value for each of 8 channels on cpu, got shape \({size},\)"
    with pytest.raises(ValueError, match=said):
        batch_norm_integer_lif(x, torch.ones(8), torch.zeros(size), RULE, eps=1e-5)


@pytest.mark.parametrize("place", ["host"], indirect=True)
def test_kernels_are_given_no_statistics_of_another_size_or_device(place: Place) -> None:
    x, good = torch.randn(2, 8, 3, 3), torch.ones(8)
    for bad in (good[:1], good.to("meta")):
        for values in ((bad, good, good), (good, bad, good), (good, good, bad)):
            with pytest.raises(ValueError, match=r"values of the channels must be \(8,\) on cpu"):
                operators.norm_integer(x, *values, RULE, True, place.backend)


def test_a_state_of_another_device_is_refused(place: Place) -> None:
    x, state = torch.randn(2, 3, 4, device=place.device), torch.zeros(3, 4, device="meta")
    rule = RULE._replace(dynamics="temporal")
    with pytest.raises(ValueError, match=r"state must be on x's device, .*, got meta"):
        integer_lif_with_state(x, state, rule, backend=place.backend)


def summed(inner: int, workers: int, planes: int, channels: int) -> tuple[Tensor, Tensor]:
    """Sums by the kernel and in the order that it states, (2, channels, workers)."""
    generator = torch.Generator().manual_seed(inner)
    shape = (planes, channels, inner)
    x, g = (torch.randn(shape, generator=generator) for _ in range(2))
    mean = torch.randn(channels, generator=generator)
    mask = torch.randint(256, (kernel_calls.count_lanes(x.numel()),), generator=generator).byte()
    sums = torch.zeros(2, channels, workers)
    pointers = (tensor.data_ptr() for tensor in (g, x, mask, mean, sums))
    cuda.launch(
        "norm_sums",
        x,
        channels * workers,
        (*pointers, x.numel(), inner, channels, workers, np.float32(0.25)),
    )
    bits = (mask.unsqueeze(1) >> torch.arange(8)) & 1
    d = torch.where(bits.view(-1)[: x.numel()].view(shape).bool(), g * 0.25, 0.0)
    each = torch.stack([d, d * (x - mean.view(-1, 1))]).transpose(1, 2).flatten(2)
    padded = nn.functional.pad(each, (0, -each.shape[2] % workers))
    total = torch.zeros(2, channels, workers)
    for part in padded.unflatten(2, (-1, workers)).unbind(2):
        total = total + part
    return sums, total


@pytest.mark.parametrize("place", ["host"], indirect=True)
@pytest.mark.parametrize("inner", [1, 2, 3, 16, 100])
def test_a_worker_adds_every_so_manieth_element_of_its_channel(place: Place, inner: int) -> None:
    for workers in (1, 3, 5, 64, 150):
        actual, expected = summed(inner, workers, planes=30, channels=3)
        assert_same(actual, expected)
