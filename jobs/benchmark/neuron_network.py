"""A training step of a small network with our neurons, and with plainer ones in their place."""

import copy
import operator
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...model.config import (
    BackboneConfig,
    FPNConfig,
    LossConfig,
    ModelConfig,
    NeuronConfig,
    QueryDecoderConfig,
)
from ...model.initialize import start_alive
from ...model.loss.criterion import build_criterion
from ...model.neuron.integer_lif import IntegerLIF
from ...model.segmentor import build_uncalibrated_segmentor
from .neuron_timing import time_on_cpu, time_on_cuda
from .published_order import PlainNeuron

_SIZES = (64, 160)
_BATCH = 2
_CLASSES = 9
_LEVELS = 4
_ROUNDS = 9


class _KeepWindow(torch.autograd.Function):
    """Eager neuron that saves the window as a bool, with one product in backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, levels: int, divisor: float) -> Tensor:
        ctx.save_for_backward((x >= 0) & (x <= levels))
        ctx.divisor = divisor
        return x.clamp(0, levels).round() / divisor

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (window,) = ctx.saved_tensors
        return gradients[0] * window / ctx.divisor, None, None


class _WindowNeuron(nn.Module):
    def __init__(self, neuron: IntegerLIF) -> None:
        super().__init__()
        self.levels, self.divisor = neuron.levels, neuron.divisor

    def forward(self, x: Tensor) -> Tensor:
        return _KeepWindow.apply(x, self.levels, self.divisor)


def measure_network(device: str, emit: Callable[[dict[str, Any]], None]) -> None:
    """Time forward, losses and backward with each kind of neuron, interleaved round by round.

    Args:
        device: `cpu` (CPU time of the process) or `cuda` (events on the stream).
        emit: Takes a row for each kind and size of image.
    """
    clock = time_on_cuda if device == "cuda" else time_on_cpu
    networks = _build_networks(device)
    criterion = build_criterion(LossConfig(), build_small_config()).to(device)
    for size in _SIZES:
        image = torch.randn(_BATCH, 3, size, size, device=device)
        # Vertical stripes: every class has a mask of the same size.
        stripes = torch.arange(size, device=device) * _CLASSES // size
        target = stripes.expand(_BATCH, size, size).contiguous()

        def step(network: nn.Module, image: Tensor = image, target: Tensor = target) -> Tensor:
            prediction = network(image)
            terms = criterion(prediction, target, criterion.count(target))
            torch.stack(list(terms.values())).sum().backward()
            network.zero_grad()
            return prediction.mask_logits.detach()

        first = {who: step(network) for who, network in networks.items()}
        seconds: dict[str, list[float]] = {who: [] for who in networks}
        for _ in range(_ROUNDS):
            for who, network in networks.items():
                seconds[who].append(clock(lambda network=network: step(network), 1))
        for who, its in seconds.items():
            row = {"case": "network", "who": who, "device": device, "image": size}
            row |= {"batch": _BATCH, "rounds": _ROUNDS}
            row |= {"median_s": statistics.median(its), "min_s": min(its)}
            difference = (first[who] - first["ours"]).abs().max().item()
            emit(row | {"largest_difference": difference})


def print_network(rows: Sequence[dict[str, Any]], say: Callable[[str], None] = print) -> None:
    """Print seconds of a step, their ratio to ours, and the difference of mask logits."""
    rows = [row for row in rows if row["case"] == "network"]
    same_setting = operator.itemgetter("run", "device", "image")
    say(f"\n{'training step':48} {'image':>5} {'median s':>9} {'least s':>9} {'ratio':>7}  logits")
    for row in rows:
        ours = [r for r in rows if r["who"] == "ours" and same_setting(r) == same_setting(row)]
        if not ours:
            continue
        apart = row["largest_difference"]
        same = f"differ by {apart:.1e}" if apart else "equal"
        say(
            f"{row['who']:48} {row['image']:5} {row['median_s']:9.4f} {row['min_s']:9.4f} "
            f"{row['median_s'] / ours[0]['median_s']:6.2f}x  {same}"
        )


def build_small_config() -> ModelConfig:
    """Configuration of a small network with a query decoder, 9 classes."""
    width = 64
    return ModelConfig(
        num_classes=_CLASSES,
        neuron=NeuronConfig(timesteps=1, levels=_LEVELS, normalization="levels"),
        backbone=BackboneConfig(family="meta_spikeformer", embed_dims=(16, 32, 64, 96)),
        decoder="query",
        query=QueryDecoderConfig(
            width=width,
            num_queries=20,
            num_groups=8,
            num_encoder_layers=2,
            encoder_hidden=2 * width,
            num_decoder_layers=3,
            decoder_hidden=2 * width,
        ),
        fpn=FPNConfig(width=width),
        compat="corrected",
    )


def _build_networks(device: str) -> dict[str, nn.Module]:
    """Build the same network with each kind of neuron, ours first."""
    torch.manual_seed(0)
    ours = build_uncalibrated_segmentor(build_small_config())
    start_alive(ours)
    ours.to(device)
    networks: dict[str, nn.Module] = {"ours": ours}
    if device == "cuda":
        apart = copy.deepcopy(ours)
        for module in apart.modules():
            if isinstance(module, IntegerLIF):
                # Who looks at a neuron gets BatchNorm and neuron as two layers.
                module.register_forward_hook(lambda *_: None)
        networks["ours, BatchNorm and neuron apart"] = apart
    kinds = {"published form, eager": PlainNeuron, "eager, window kept as a bool": _WindowNeuron}
    for who, kind in kinds.items():
        other = copy.deepcopy(ours)
        for module in list(other.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, IntegerLIF):
                    setattr(module, name, kind(child))
        networks[who] = other
    return networks
