"""Time as part of the batch in a folded segmentor: four axes from the image to the maps.

Inference runtimes fuse a convolution with what stands behind it only where no reshape stands
between: the sequences (T, B, C, H, W) of training need two around every layer.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..decoder import fpn, pixel_decoder
from ..neuron.kinds import Neuron
from ..segmentor import QueryHead, Spike2Former, SpikeFPNSegmentor


class _OverSteps(nn.Module):
    """A neuron that needs its steps apart, between layers that have them in the batch.

    Args:
        neuron: Takes (T, B, C, ...).
        timesteps: T.
    """

    def __init__(self, neuron: nn.Module, timesteps: int) -> None:
        super().__init__()
        self.neuron = neuron
        self.timesteps = timesteps

    def forward(self, x: Tensor) -> Tensor:
        """(T * B, C, ...) to the same shape."""
        return self.neuron(x.unflatten(0, (self.timesteps, -1))).flatten(0, 1)


def merge_time(folded: Spike2Former | SpikeFPNSegmentor) -> None:
    """Let a folded segmentor hold time in the batch, in place; its outputs stay the same.

    Layers of tokens become 1x1 convolutions of maps, neurons with a state see their steps apart,
    and residual factors that were folded to one are left out. What reads the queries at the end
    keeps its axes: it is small.

    Args:
        folded: As `fold` makes it.
    """
    timesteps = folded.config.neuron.timesteps
    for module in list(folded.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv1d) and not _is_in_embedding(folded, child):
                setattr(module, name, _as_map_layer(child))
            elif _keeps_state(child) and not _is_in_embedding(folded, child):
                setattr(module, name, _OverSteps(child, timesteps))
    for module in folded.modules():
        module.merged = True  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
        if isinstance(module, QueryHead | fpn.SpikeFPNHead):
            module.merged_steps = timesteps
        if isinstance(module, pixel_decoder.EncoderLayer | pixel_decoder.AttentionEncoderLayer):
            _drop_ones(module)


def _is_in_embedding(model: nn.Module, part: nn.Module) -> bool:
    """Whether a layer or neuron belongs to the mask embedding, whose axes stay."""
    head: Any = getattr(model, "decode_head", None)
    embedding = getattr(head, "embedding", None)
    return embedding is not None and any(part is module for module in embedding.modules())


def _keeps_state(module: nn.Module) -> bool:
    rule = getattr(module, "rule", None)
    return isinstance(module, Neuron) and (rule is None or rule.dynamics == "temporal")


def _as_map_layer(layer: nn.Conv1d) -> nn.Conv2d:
    """The same 1x1 layer over maps (B, C, H, W)."""
    conv = nn.Conv2d(layer.in_channels, layer.out_channels, 1, bias=layer.bias is not None)
    conv.weight = nn.Parameter(layer.weight[..., None], requires_grad=False)
    if layer.bias is not None:
        conv.bias = nn.Parameter(layer.bias, requires_grad=False)
    return conv


def _drop_ones(layer: nn.Module) -> None:
    for name in ("gamma1", "gamma2", "gamma3"):
        gamma = getattr(layer, name, None)
        if gamma is not None and bool(torch.all(gamma == 1)):
            setattr(layer, name, None)
