"""Count operations of our networks with NeuroBench and SpikingJelly, and write what they say.

    python tests/peers/count_with_peers.py [--check]

Run by `make test-peers` in an environment of its own. Without `--check` it writes `figures.json`
beside this file, which the tests compare our figures with.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from neurobench.metrics.workload import SynapticOperations
from neurobench.models import TorchModel
from spikingjelly.activation_based.op_counter import (
    DispatchCounterMode,
    MACCounter,
    SynOpCounter,
)
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from peer_networks import NETWORKS, build_network

from spikeseg.model.accounting.operations import OperationMeter
from spikeseg.platform.evaluation.standards import STANDARDS

_FIGURES = Path(__file__).with_name("figures.json")


def count_with_neurobench(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """Synaptic operations of one image, by NeuroBench."""
    from neurobench.hooks.layer import LayerHook

    class _Watched(TorchModel):
        pass

    watched = _Watched(model)
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Linear))]
    watched.connection_hooks = [LayerHook(layer) for layer in layers]
    metric = SynapticOperations()
    with torch.no_grad():
        predictions = model(images)
        counted = metric(watched, predictions, (images, None))
    for hook in watched.connection_hooks:
        hook.hook.remove()
    return {name: float(value) for name, value in counted.items()}


def count_with_spikingjelly(model: nn.Module, images: Tensor) -> dict[str, float]:
    """SynOps and MACs of one image, by SpikingJelly."""
    counters = {"SynOpCounter": SynOpCounter(), "MACCounter": MACCounter()}
    with torch.no_grad(), DispatchCounterMode(list(counters.values())):
        model(images)
    return {name: counter.get_total() / len(images) for name, counter in counters.items()}


def main() -> None:
    """Count all networks, print both sides, and write or check."""
    figures: dict[str, Any] = {}
    wrong = []
    for name in NETWORKS:
        model, images = build_network(name)
        with torch.inference_mode(), OperationMeter(model) as meter:
            model(images)
        ours = {key: measure(model, [images], meter.rows()) for key, measure in STANDARDS.items()}
        figures[name] = {
            "neurobench": count_with_neurobench(model, images),
            "spikingjelly": count_with_spikingjelly(model, images),
        }
        pairs = [
            (key, value, ours["neurobench"]["synaptic_operations"][key])
            for key, value in figures[name]["neurobench"].items()
        ]
        pairs += [
            (key, value, ours["spikingjelly"][key])
            for key, value in figures[name]["spikingjelly"].items()
        ]
        if "--check" not in sys.argv:
            _FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
        if name.endswith("_binary"):
            unrolled = ours["spikingjelly"]["unrolled"]
            peers = figures[name]["spikingjelly"]
            # A real tensor or a weight of zeros alone passes for binary there, and costs nothing.
            print(f"{name:20} unrolled {unrolled}")
            if (
                not 0
                <= unrolled["SynOpCounter"] - peers["SynOpCounter"]
                <= 1e-3 * peers["SynOpCounter"]
            ):
                wrong.append(f"{name} unrolled: {peers} there, {unrolled} here")
        for key, theirs, our in pairs:
            print(f"{name:20} {key:24} {theirs:16,.1f} {our:16,.1f}")
            if abs(theirs - our) > 1e-6 * max(1.0, theirs):
                wrong.append(f"{name} {key}: {theirs} there, {our} here")
    if wrong:
        sys.exit("\n".join(["figures differ:", *wrong]))


if __name__ == "__main__":
    main()
