"""A neuron kind of its own file, a configuration and an entry of the dictionary is all it takes."""

import dataclasses
from typing import ClassVar, Self

import pytest
import torch
from models import shapes_batch, small_config
from torch import Tensor, nn

from spikeseg.model.accounting.firing import FiringMonitor
from spikeseg.model.config import BinaryNeuronConfig, NeuronConfig
from spikeseg.model.deployment.fold import fold
from spikeseg.model.neuron.integer_lif import IntegerLIF
from spikeseg.model.neuron.kinds import NEURON_KINDS, Neuron, build_neuron
from spikeseg.model.neuron.lif import LIF
from spikeseg.model.segmentor import build_segmentor


@dataclasses.dataclass(frozen=True, kw_only=True)
class FloorConfig(NeuronConfig):
    kind: ClassVar[str] = "floor"


class FloorNeuron(nn.Module):
    """Counts whole thresholds; the gradient passes wherever the input does."""

    def __init__(self, levels: int, threshold: float) -> None:
        super().__init__()
        self.levels, self.divisor, self.threshold = levels, float(levels), threshold

    @classmethod
    def from_config(cls, config: NeuronConfig, *, levels: int | None, role: str) -> Self:
        assert role in ("plain", "cross_attention")
        return cls(config.levels if levels is None else levels, config.threshold)

    def forward(self, x: Tensor) -> Tensor:
        ratio = (x / self.threshold).clamp(0, self.levels)
        return (ratio + (ratio.floor() - ratio).detach()) / self.divisor


def test_a_configuration_is_built_as_the_kind_that_it_names() -> None:
    integer = build_neuron(NeuronConfig(timesteps=1, levels=4, normalization="levels"), levels=2)
    assert isinstance(integer, IntegerLIF) and integer.levels == integer.divisor == 2
    binary = build_neuron(BinaryNeuronConfig(threshold=0.5))
    assert isinstance(binary, LIF) and binary.threshold == 0.5
    assert isinstance(integer, Neuron) and isinstance(binary, Neuron)
    assert not isinstance(nn.BatchNorm2d(2), Neuron)


def test_a_network_of_a_new_kind_trains_is_watched_and_folds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(NEURON_KINDS, "floor", FloorNeuron)
    config = small_config()
    neuron = FloorConfig(timesteps=1, levels=4, normalization="levels")
    images, _ = shapes_batch(2)
    torch.manual_seed(0)
    model = build_segmentor(dataclasses.replace(config, neuron=neuron), images)
    neurons = [module for module in model.modules() if isinstance(module, FloorNeuron)]
    assert len(neurons) > 40 and not any(isinstance(m, IntegerLIF) for m in model.modules())
    with FiringMonitor(model) as monitor:
        model(images).mask_logits.square().sum().backward()
    assert len(monitor.rows()) == len(neurons)
    assert max(row.rate for row in monitor.rows()) > 0.1
    with torch.no_grad():
        expected = model.eval()(images).mask_logits[-1:]
        actual = fold(model)(images).mask_logits
    assert actual.shape == expected.shape and bool(actual.isfinite().all())
