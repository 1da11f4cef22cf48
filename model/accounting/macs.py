"""Multiply-accumulates of every convolution and linear layer, and whether its input is spikes."""

# torch types what a module holds as Tensor | Module; what it is here is asserted or known.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

from collections import OrderedDict
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..neuron.kinds import Neuron, find_neurons

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
_REMEMBERED = 16


@dataclass(frozen=True)
class LayerMacs:
    """Multiply-accumulates of one layer for one image in one time step.

    Attributes:
        name: The layer's name in the model.
        macs: Multiply-accumulates.
        spiking_input: Whether every input value is a spike count over a divisor.
        rate: Mean spike count at its input; 0 for real-valued inputs.
    """

    name: str
    macs: int
    spiking_input: bool
    rate: float


class LayerMeter:
    """Counts the work of convolutions and linear layers while a model runs.

    An input is spikes if it is (a view of) a neuron's output, or, in a head that has an `alpha`,
    that output times alpha: all its values are then whole multiples of alpha / divisor. Sums of
    spikes, images and the inner tensors of linear chains are real-valued, whatever their values.

    Args:
        model: The model.
        steps_and_images: T * B, what totals are divided by.
    """

    def __init__(self, model: nn.Module, *, steps_and_images: int) -> None:
        self._model = model
        self._share = steps_and_images
        self._outputs: OrderedDict[int, tuple[Tensor, float]] = OrderedDict()
        self._rows: dict[str, list[tuple[int, float | None]]] = {}
        self._handles: list[Any] = []
        alphas = {
            name: float(m.alpha)
            for name, m in model.named_modules()
            if isinstance(getattr(m, "alpha", None), float)
        }
        self._scales = sorted(
            {a / n.divisor for a in alphas.values() for _, n in find_neurons(model)}, reverse=True
        )
        self._heads = tuple(name.rpartition(".")[0] for name in alphas)

    def __enter__(self) -> Self:
        for name, module in self._model.named_modules():
            if isinstance(module, Neuron):
                self._handles.append(module.register_forward_hook(self._record_spikes))
            elif isinstance(module, _LAYERS):
                self._handles.append(
                    module.register_forward_hook(
                        lambda m, args, out, name=name: self._record_layer(name, m, args[0], out)
                    )
                )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._outputs.clear()

    def rows(self) -> list[LayerMacs]:
        """One row per layer, in the order of first use; several calls of a layer are summed."""
        rows = []
        for name, calls in self._rows.items():
            macs = sum(count for count, _ in calls)
            rates = [(count, rate) for count, rate in calls if rate is not None]
            spiking = len(rates) == len(calls)
            mean = sum(count * rate for count, rate in rates) / max(1, macs) if spiking else 0.0
            rows.append(LayerMacs(name, macs // self._share, spiking, mean))
        return rows

    def _record_spikes(self, neuron: nn.Module, _: tuple[Any, ...], output: Tensor) -> None:
        # A strong reference keeps the memory from being reused by another tensor.
        key = output.untyped_storage().data_ptr()
        self._outputs[key] = (output, float(neuron.divisor))  # type: ignore[arg-type]
        self._outputs.move_to_end(key)
        while len(self._outputs) > _REMEMBERED:
            self._outputs.popitem(last=False)

    def _record_layer(self, name: str, layer: nn.Module, x: Tensor, output: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        # Conv weights are (out, in / groups, *kernel), linear ones (out, in).
        macs = output.numel() * weight[0].numel()
        self._rows.setdefault(name, []).append((macs, self._measure_rate(name, x)))

    def _measure_rate(self, name: str, x: Tensor) -> float | None:
        """Mean spike count of spikes, None for real values, and where there are no values."""
        if x.is_meta:
            return None
        spikes = self._outputs.get(x.untyped_storage().data_ptr())
        if spikes is not None:
            return float(x.float().mean()) * spikes[1]
        if not name.startswith(self._heads) or float(x.min()) < 0:
            return None
        for scale in self._scales:
            counts = x.float() / scale
            if torch.allclose(counts, counts.round(), rtol=0, atol=1e-4):
                return float(counts.mean())
        return None


@torch.no_grad()
def count_macs(model: nn.Module, image: Tensor) -> list[LayerMacs]:
    """Multiply-accumulates per layer for one image and one time step.

    Attention products, deformable sampling and the mask product are not layers and not counted.

    Args:
        model: The model, in eval mode. On the meta device it costs no time and no memory, and
            every input passes for real-valued, since there are no values to look at.
        image: (B, 3, H, W) or (T, B, 3, H, W).
    """
    steps, images = image.shape[:2] if image.dim() == 5 else (1, image.shape[0])
    if image.dim() == 4 and hasattr(model, "config"):
        steps = model.config.neuron.timesteps
    with LayerMeter(model, steps_and_images=steps * images) as meter:
        model(image)
    return meter.rows()
