"""Spike maps: mean spike count per pixel over all spatial layers."""

from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..decoder.mask_embedding import MaskEmbedding
from ..neuron.kinds import Neuron, find_neurons

_SPATIAL_DIMENSIONS = 5


class SpikeMaps:
    """Collects one map per forward pass of a model between enter and exit.

    A neuron layer with output (T, B, C, H, W) is averaged over T and C, so that each of its values
    is a mean spike count in [0, D]; layers are resized to the finest of them and averaged. Layers
    over queries or flattened positions have no place in the image and are left out.

    Args:
        model: The model to watch.

    Attributes:
        maps: (B, h, w) per pass, on the CPU.
    """

    def __init__(self, model: nn.Module) -> None:
        self.maps: list[Tensor] = []
        self._model = model
        self._layers: list[Tensor] = []
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        # The mask embedding's neurons are over prediction layers and queries.
        queries = [
            name for name, part in self._model.named_modules() if isinstance(part, MaskEmbedding)
        ]
        for name, neuron in find_neurons(self._model):
            if not name.startswith(tuple(queries)):
                self._handles.append(neuron.register_forward_hook(self._collect))
        self._handles.append(self._model.register_forward_hook(self._finish))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def _collect(self, neuron: Neuron, _: Any, output: Tensor) -> None:
        if output.dim() == _SPATIAL_DIMENSIONS and min(output.shape[-2:]) > 1:
            self._layers.append((output.detach().float() * neuron.divisor).mean((0, 2)))

    @torch.no_grad()
    def _finish(self, model: nn.Module, _: Any, output: Any) -> None:
        if self._layers:
            finest = max((layer.shape[-2:] for layer in self._layers), key=lambda s: s[0] * s[1])
            resized = [
                F.interpolate(layer[:, None], size=tuple(finest), mode="nearest")[:, 0]
                for layer in self._layers
            ]
            self.maps.append(torch.stack(resized).mean(0).cpu())
        self._layers = []
