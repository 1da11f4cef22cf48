"""The map of mean spike counts, by hand and on the network."""

import torch
from torch import Tensor, nn

from spikeseg.model.accounting.spike_map import SpikeMaps
from spikeseg.model.config import NeuronConfig
from spikeseg.model.neuron.integer_lif import IntegerLIF


class Two(nn.Module):
    """A neuron at full and one at half resolution, and one over positions without place."""

    def __init__(self) -> None:
        super().__init__()
        config = NeuronConfig(timesteps=2, levels=4, normalization="levels")
        self.fine = IntegerLIF.from_config(config)
        self.coarse = IntegerLIF.from_config(config)
        self.flat = IntegerLIF.from_config(config)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fine(x)
        self.coarse(4 * x[..., ::2, ::2])
        self.flat(x.flatten(3))
        return x


def test_counts_are_averaged_over_time_channels_and_layers() -> None:
    model = Two()
    x = torch.zeros(2, 1, 1, 2, 2)
    # Step 0: 4, 0 / 0, 1 spikes; step 1: 2, 0 / 0, 1. The half-size layer sees 4 and 2.
    x[0, 0, 0] = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    x[1, 0, 0] = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    with SpikeMaps(model) as spikes:
        model(x)
        model(0 * x)
    first, second = spikes.maps
    # One value is no picture: the coarse layer is 1 x 1 here and is left out.
    assert first.tolist() == [[[3.0, 0.0], [0.0, 1.0]]]
    assert second.tolist() == [[[0.0, 0.0], [0.0, 0.0]]]


def test_a_coarser_layer_is_spread_over_its_pixels() -> None:
    model = Two()
    x = torch.ones(1, 1, 1, 4, 4)
    with SpikeMaps(model) as spikes:
        model(x)
    # Fine: 1 everywhere. Coarse: 4 x (1 / 4) = 1 everywhere.
    assert torch.equal(spikes.maps[0], torch.ones(1, 4, 4))


def test_nothing_is_watched_after_the_block() -> None:
    model = Two()
    with SpikeMaps(model) as spikes:
        pass
    model(torch.ones(1, 1, 1, 4, 4))
    assert spikes.maps == []
