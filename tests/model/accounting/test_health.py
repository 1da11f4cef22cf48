"""Dead and saturated layers are named at a stated share, and norms are those of all parameters."""

import pytest
import torch
from torch import nn

from spikeseg.model.accounting.firing import FiringRow
from spikeseg.model.accounting.health import judge_firing, step_health

ROWS = [
    FiringRow("dead", 0.0, 1.0, 0.0, 4),
    FiringRow("almost dead", 0.01, 0.995, 0.0, 4),
    FiringRow("firing", 1.5, 0.4, 0.1, 4),
    FiringRow("almost full", 3.9, 0.0, 0.99, 4),
    FiringRow("full", 4.0, 0.0, 1.0, 4),
]


@pytest.mark.parametrize(
    ("tolerance", "dead", "saturated"),
    [
        (0.0, ["dead"], ["full"]),
        (0.005, ["dead", "almost dead"], ["full"]),
        (0.01, ["dead", "almost dead"], ["almost full", "full"]),
    ],
)
def test_layers_are_judged_by_the_share_that_may_differ(
    tolerance: float, dead: list[str], saturated: list[str]
) -> None:
    health = judge_firing(ROWS, tolerance=tolerance)
    assert (health.dead, health.saturated) == (dead, saturated)
    assert not health.alive


def test_a_line_names_what_is_wrong_or_says_that_all_fire() -> None:
    assert str(judge_firing(ROWS)) == "1 dead: dead; 1 saturated: full"
    assert str(judge_firing(ROWS[:1])) == "1 dead: dead"
    assert str(judge_firing(ROWS[2:3])) == "every neuron layer fires"
    assert judge_firing(ROWS[2:3]).alive


def test_gradient_norms_are_euclidean_over_a_layer_and_over_all() -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(2.0)
    health = step_health(model, lambda: model(torch.tensor([[3.0, 4.0]])).sum())
    # Of the first layer 2 * (3, 4) and 2 of the bias, of the second its input 2 * 7 + 2.
    norms = {row.name: row.norm for row in health.gradients}
    assert norms == {"0": pytest.approx((36 + 64 + 4) ** 0.5), "1": pytest.approx(16.0)}
    assert health.gradient_norm == pytest.approx((36 + 64 + 4 + 256) ** 0.5)
    assert all(parameter.grad is None for parameter in model.parameters())
