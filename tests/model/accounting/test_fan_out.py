"""Slots and reached outputs against counting one by one."""

import itertools
from typing import Any

import pytest
import torch

from spikeseg.model.accounting.fan_out import (
    count_reached,
    count_slots,
    spread_reached,
    sum_reached,
)


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("unit", [1.0, 0.25, 1 / 3])
@pytest.mark.parametrize("dims", [(), (1,), (0, 2)])
def test_slots_are_messages_counts_and_ones_of_every_value(
    levels: int, unit: float, dims: tuple[int, ...]
) -> None:
    torch.manual_seed(levels)
    counts = torch.randint(0, levels + 1, (3, 4, 5))
    expected = torch.tensor(
        [[float(n > 0), float(n), float(n.bit_count())] for n in counts.flatten().tolist()],
        dtype=torch.float64,
    ).T.reshape(3, 3, 4, 5)
    if dims:
        expected = expected.sum([axis + 1 for axis in dims])
    found = count_slots(counts * unit, unit, levels, dims)
    assert torch.equal(found, expected)
    fewer = count_slots(counts * unit, unit, levels, dims, bitwise=False)
    assert torch.equal(fewer[:2], expected[:2])


_CASES = [
    (size, kernel, stride, padding, dilation)
    for size, kernel, stride, padding, dilation in itertools.product(
        (5, 8), (1, 2, 3), (1, 2), (0, 1), (1, 2)
    )
    if padding <= dilation * (kernel - 1)
]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("size", "kernel", "stride", "padding", "dilation"), _CASES)
def test_an_input_reaches_as_many_outputs_as_it_changes(
    size: int, kernel: int, stride: int, padding: int, dilation: int, transposed: bool
) -> None:
    function = torch.nn.functional.conv_transpose1d if transposed else torch.nn.functional.conv1d
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    reached = [
        int((function(one[None, None], torch.ones(1, 1, kernel), **options) != 0).sum())
        for one in torch.eye(size)
    ]
    out = function(torch.zeros(1, 1, size), torch.ones(1, 1, kernel), **options).shape[-1]
    found = count_reached((size, out), kernel, stride, padding, dilation, transposed)
    assert found.tolist() == reached


def test_sums_and_maps_of_slots_times_reached_agree() -> None:
    slots = torch.randint(0, 5, (3, 2, 4, 6)).double()
    rows, columns = torch.tensor([1.0, 2, 2, 1]).double(), torch.arange(6).double()
    spread = spread_reached(slots, (rows, columns))
    assert spread[2, 1, 3, 5] == slots[2, 1, 3, 5] * 1 * 5
    assert torch.equal(sum_reached(slots, (rows, columns)), spread.sum((-1, -2)))
