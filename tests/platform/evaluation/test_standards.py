"""Our figures under other counters' names equal what those counters said of the same networks.

`tests/peers/count_with_peers.py` made the stored figures (`make test-peers`).
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peer_networks import build_network

from spikeseg.model.accounting.operations import OperationMeter
from spikeseg.platform.evaluation.standards import STANDARDS

FIGURES = Path(__file__).parents[2] / "peers" / "figures.json"
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[] if n.startswith("shapes") else [SLOW])
        for n in json.loads(FIGURES.read_text())
    ],
)
def test_figures_equal_those_of_the_packages(name: str) -> None:
    stored: dict[str, Any] = json.loads(FIGURES.read_text())[name]
    model, images = build_network(name)
    with torch.inference_mode(), OperationMeter(model) as meter:
        model(images)
    rows = meter.rows()
    ours = {key: measure(model, [images], rows) for key, measure in STANDARDS.items()}
    # Another processor's rounding moves single spikes; dense products are the same everywhere.
    near = 0.02
    bench = ours["neurobench"]["synaptic_operations"]
    assert bench["Dense"] == stored["neurobench"]["Dense"]
    for key in ("Effective_MACs", "Effective_ACs"):
        assert bench[key] == pytest.approx(stored["neurobench"][key], rel=near), key
    for key, value in stored["spikingjelly"].items():
        assert ours["spikingjelly"][key] == pytest.approx(value, rel=near), key
    if name.endswith("_binary"):
        # Binary spikes are their own unrolled form.
        counted = stored["spikingjelly"]["SynOpCounter"]
        assert ours["spikingjelly"]["unrolled"]["SynOpCounter"] == pytest.approx(counted, rel=near)
    assert 0 < ours["neurobench"]["activation_sparsity"] < 1
    assert ours["neurobench"]["footprint"] > 4 * sum(p.numel() for p in model.parameters())


def test_a_graded_spike_is_a_multiply_there_and_slots_here() -> None:
    model, images = build_network("shapes_tiny")
    with torch.inference_mode(), OperationMeter(model) as meter:
        model(images)
    figures = STANDARDS["neurobench"](model, [images], meter.rows())
    graded, unrolled = figures["synaptic_operations"], figures["unrolled"]
    assert graded["Effective_MACs"] > unrolled["Effective_MACs"] > 0
    assert unrolled["Effective_ACs"] > graded["Effective_ACs"]


def test_parameters_ask_for_no_gradient_where_none_is_taken() -> None:
    model, images = build_network("shapes_tiny")
    asked: list[bool] = []
    for module in model.modules():
        module.register_forward_pre_hook(
            lambda _, args: asked.extend(x.requires_grad for x in args if torch.is_tensor(x))
        )
    with torch.no_grad():
        model(images)
    assert asked and not any(asked)
