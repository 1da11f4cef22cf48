"""Neurons in plain operations: the law's values for every rule."""

import pytest
import torch
from torch import nn

from spikeseg.model.deployment.traceable import TraceableLIF, make_traceable
from spikeseg.model.neuron.firing_rule import FiringRule
from spikeseg.model.neuron.integer_lif import IntegerLIF
from spikeseg.model.neuron.lif import LIF
from spikeseg.model.neuron.reference import integer_forward

RULES = {
    "plain": FiringRule(levels=4, divisor=1.0),
    "three_levels": FiringRule(levels=3, divisor=3.0),
    "half_up": FiringRule(levels=4, divisor=4.0, rounding="half_up"),
    "threshold": FiringRule(levels=2, divisor=2.0, threshold=0.7),
    "temporal": FiringRule(levels=2, divisor=2.0, threshold=0.7, dynamics="temporal", decay=0.3),
}


@pytest.mark.parametrize("name", RULES)
def test_values_are_those_of_the_law(name: str) -> None:
    torch.manual_seed(0)
    # Halves among them, which round by the rule.
    x = torch.cat(
        (
            torch.randn(3, 2, 5, 7) * 2,
            torch.arange(-3, 9).expand(3, 1, 12)[..., None].expand(3, 2, 12, 7) / 2,
        ),
        2,
    )
    assert torch.equal(TraceableLIF(RULES[name])(x), integer_forward(x, RULES[name])[0])


def test_other_neurons_are_refused() -> None:
    model = nn.Sequential(IntegerLIF(RULES["plain"]), LIF())
    with pytest.raises(ValueError, match="LIF cannot be exported: integer neurons can"):
        make_traceable(model)
