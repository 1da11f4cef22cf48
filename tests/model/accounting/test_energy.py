"""Energy and firing of a network of three layers, by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from spikeseg.model.accounting.energy import estimate_energy
from spikeseg.model.accounting.firing import FiringMonitor
from spikeseg.model.neuron.firing_rule import FiringRule
from spikeseg.model.neuron.integer_lif import IntegerLIF

T, B = 2, 3


class Net(nn.Module):
    """A convolution of the image, a neuron, a grouped convolution and a linear layer, T = 2."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(neuron=SimpleNamespace(timesteps=T))
        self.first = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.neuron = IntegerLIF(FiringRule(levels=4, divisor=2))
        self.grouped = nn.Conv2d(4, 6, 1, groups=2, bias=False)
        self.mixed = nn.Linear(5, 2)
        nn.init.constant_(self.first.weight, 0.0)

    def forward(self, images: Tensor) -> Tensor:
        currents = self.first(images.repeat(T, 1, 1, 1))
        # Half of the channels emit 3 spikes, a quarter 4 (they saturate), a quarter none.
        currents = currents + torch.tensor([3.0, 3.0, 9.0, -1.0]).view(4, 1, 1)
        spikes = self.neuron(currents.unflatten(0, (T, -1))).flatten(0, 1)
        out = self.grouped(spikes)
        # Once on spikes, once on real values: then the layer is not behind spikes.
        self.mixed(spikes)
        return self.mixed(out)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(B, 3, 7, 5)


def test_energy_is_counted_by_hand(images: Tensor) -> None:
    with torch.no_grad():
        report = estimate_energy(Net(), images)
        graded = estimate_energy(Net(), images, form="graded")
    first, grouped, mixed = report.rows
    pixels, rate = 7 * 5, (3 + 3 + 4 + 0) / 4
    assert (first.name, first.spiking_input) == ("first", False)
    assert (grouped.name, grouped.spiking_input) == ("grouped", True)
    assert (mixed.name, mixed.spiking_input) == ("mixed", False)
    assert first.macs == T * pixels * 4 * 27
    assert grouped.macs == T * pixels * 12
    assert mixed.macs == T * 10 * 7 * (4 + 6)
    assert (first.rate, mixed.rate) == (0.0, 0.0)
    assert grouped.rate == pytest.approx(rate)
    # Kernels of one pixel have no border: every spike reaches all three outputs of its group.
    assert grouped.operations == grouped.shortcut == pytest.approx(rate * grouped.macs)
    # Picojoule of an operation x operations; 1e9 of them are a millijoule.
    assert first.mj == pytest.approx(4.6 * first.macs * 1e-9)
    assert grouped.mj == pytest.approx(0.9 * rate * grouped.macs * 1e-9)
    assert report.total_mj == pytest.approx(first.mj + grouped.mj + mixed.mj)
    assert "1 layers accumulate" in report.rule and "2 multiply" in report.rule
    # Sent as integers, three of four values are products.
    assert graded.rows[1].multiplies and graded.rows[1].operations == 0.75 * grouped.macs
    assert graded.rows[1].mj == pytest.approx(4.6 * 0.75 * grouped.macs * 1e-9)


def test_firing_is_counted_over_all_passes_and_not_after_them(images: Tensor) -> None:
    model = Net().eval()
    with torch.no_grad(), FiringMonitor(model) as monitor:
        model(images)
        model(images[:1])
    (row,) = monitor.rows()
    assert (row.name, row.levels) == ("neuron", 4)
    assert (row.rate, row.dead, row.saturated) == (2.5, 0.25, 0.25)
    model(images)
    assert monitor.rows() == [row]
