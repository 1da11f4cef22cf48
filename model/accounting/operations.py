"""Every product of a running network, with the synaptic operations that its real spikes cause."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..neuron.kinds import find_neurons
from .product_counts import ADDITIONS, COUNTERS, IN_PLACE, MOVES, Call, Record
from .spike_origins import Origins, Spikes

# Order of the per-image sums of a record.
SUMS = ("values", "unary", "bitwise", "spikes", "other_spikes")


@dataclass(frozen=True)
class LayerOperations:
    """One layer's work for one image, all time steps, mean over images.

    Attributes:
        name: The layer's name in the model; products of one attention are numbered behind it.
        kind: `convolution`, `linear`, `attention`, `mask_product`, `product` (another matrix
            product), `sampling` (bilinear reads of the deformable convolution), `modulation` (an
            elementwise product with spikes), `elementwise` (of two real tensors), `interpolation`,
            `normalization`, `scaling` (by a constant), `addition`, `neuron` (membrane updates).
        macs: Multiply-accumulates of the dense computation, padding included; additions and
            updates of those kinds.
        operands: Spiking operands: 0, 1 or 2.
        levels: D of the first spiking operand, 0 without one.
        rate: Mean spike count of the first spiking operand, in [0, D].
        other_rate: Mean spike count of the second one.
        values: Operations that a value other than 0 causes: products of graded spikes. Of
            `sampling` those at places whose modulation is not 0, in all three codings.
        unary: Accumulates that binary spikes cause when a count n is n of D slots.
        bitwise: Accumulates when a count is sent bit by bit.
        weights: Parameters of the product.
        inputs: Values of its operands that are no parameters.
        outputs: Values of its result.
    """

    name: str
    kind: str
    macs: float
    operands: int
    levels: int
    rate: float
    other_rate: float
    values: float
    unary: float
    bitwise: float
    weights: int
    inputs: float
    outputs: float

    @property
    def rate_product(self) -> float:
        """The field's shortcut: MACs times the rate of each spiking operand."""
        rates = (self.rate, self.other_rate)[: self.operands]
        product = self.macs
        for rate in rates:
            product *= rate
        return product


class OperationMeter(TorchFunctionMode):
    """Counts every product of a model between enter and exit, over any number of passes.

    What a product reads is spikes if it is a neuron's output, moved, copied or times a number;
    everything else is real-valued, whatever its values. Gradients are not needed: run the model
    under `torch.inference_mode()` or `torch.no_grad()`.

    Args:
        model: The model, in eval mode; takes (B, 3, H, W) or (T, B, 3, H, W).
        events: Whether spikes are counted; else only dense products are, which also works on the
            meta device.
        keep_maps: Whether `maps` is filled.
        bitwise: Whether bits of counts are counted, most of the cost; else `bitwise` is 0.

    Attributes:
        maps: One (B, h, w) per pass, on the CPU: accumulates of unary slots of convolutions at the
            place of the spike, resized to the finest of them; their sum is that of the layers.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        events: bool = True,
        keep_maps: bool = False,
        bitwise: bool = True,
    ) -> None:
        super().__init__()
        self._model = model
        self._events = events
        self._keep_maps = keep_maps
        self._bitwise = bitwise
        self._handles: list[Any] = []
        self._stack: list[tuple[str, nn.Module, list[int]]] = []
        self._records: dict[tuple[str, str], Record] = {}
        self._sums: dict[tuple[str, str], Tensor] = {}
        self._totals: list[tuple[list[tuple[str, str]], Tensor]] = []
        self._images = 0
        self._origins = Origins()
        self._neurons = {neuron for _, neuron in find_neurons(model)}
        self._call = Call(1, 1)
        self.maps: list[Tensor] = []

    def __enter__(self) -> Self:
        for name, module in self._model.named_modules():
            self._handles += [
                module.register_forward_pre_hook(
                    lambda m, args, name=name: self._begin(name, m, args)
                ),
                module.register_forward_hook(
                    lambda m, args, out: self._end(m, args, out), always_call=True
                ),
            ]
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._stack.clear()
        self._origins.clear()

    @property
    def images(self) -> int:
        """Images seen so far."""
        return self._images

    def sums(self) -> tuple[list[tuple[str, str]], Tensor]:
        """Name and kind of each layer, and its sums (images, layers, 5) float64, on the CPU.

        The last axis is `SUMS`: whole numbers, so that sums over images and workers are exact.
        """
        keys = list(self._records)
        table = torch.zeros(self._images, len(keys), len(SUMS), dtype=torch.float64)
        place = {key: index for index, key in enumerate(keys)}
        first = 0
        for names, total in self._totals:
            last = first + total.shape[-1]
            table[first:last, [place[name] for name in names]] = total.permute(2, 0, 1)
            first = last
        return keys, table

    def rows(self) -> list[LayerOperations]:
        """One row per layer and kind, in the order of first use; calls of a layer are summed."""
        keys, table = self.sums()
        mean = table.sum(0) / max(1, self._images)
        return describe_layers([self._records[key] for key in keys], mean, self._images)

    def records(self) -> list[Record]:
        """What does not depend on spikes, in the order of `sums`."""
        return list(self._records.values())

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch and count what it multiplies."""
        result = func(*args, **(kwargs or {}))
        word = getattr(func, "__name__", "")
        if not self._stack or self._stack[-1][1] in self._neurons:
            return result
        name, module, numbers = self._stack[-1]
        origins = self._origins
        if word in IN_PLACE:
            origins.overwrite(args[0], args[1:])
        if not isinstance(result, Tensor):
            return result
        if word in COUNTERS:
            call = self._call
            call.begin(name, module, numbers, origins, self._events)
            COUNTERS[word](call, word, result, args, kwargs or {})
            for record, sums, place in call.take():
                self._add(record, sums, place)
        elif word in ADDITIONS and any(origins.depends(x) for x in args if isinstance(x, Tensor)):
            self._add(Record.plain(name, "addition", ADDITIONS[word](result, args)), None, None)
        if word in MOVES:
            origins.move(result, args)
        else:
            origins.derive(result, args)
        return result

    def _begin(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        if module is self._model:
            image = args[0]
            steps = image.shape[0] if image.dim() == 5 else self._steps()
            self._call = Call(
                steps, image.shape[-4], keep_maps=self._keep_maps, bitwise=self._bitwise
            )
            self._images += image.shape[-4]
            self._origins.clear()
            self._origins.depend(image)
            self._stack.clear()
        self._stack.append((name, module, [0]))

    def _steps(self) -> int:
        config = getattr(self._model, "config", None)
        return config.neuron.timesteps if config is not None else 1

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not self._stack:
            return
        name, _, _ = self._stack.pop()
        if module in self._neurons:
            self._origins.depend(output, _read_unit(module))
            self._add(Record.plain(name, "neuron", output.numel()), None, None)
        if module is self._model:
            self._finish()

    def _add(self, record: Record, sums: Tensor | None, place: Tensor | None) -> None:
        key = (record.name, record.kind)
        known = self._records.get(key)
        self._records[key] = record if known is None else known.plus(record)
        if sums is not None:
            before = self._sums.get(key)
            self._sums[key] = sums if before is None else before + sums
        if place is not None:
            self._call.maps.append(place)

    def _finish(self) -> None:
        names = list(self._sums)
        images = self._call.images
        if names:
            total = torch.stack(list(self._sums.values())).cpu()
        else:
            total = torch.zeros(0, len(SUMS), images, dtype=torch.float64)
        self._totals.append((names, total))
        if self._keep_maps:
            self.maps.append(_join_maps(self._call.maps))
            self._call.maps = []
        self._sums = {}
        self._origins.clear()


def _read_unit(neuron: Any) -> Spikes:
    return Spikes(1 / neuron.divisor, neuron.levels)


def describe_layers(records: list[Record], mean: Tensor, images: int) -> list[LayerOperations]:
    """Rows of what was counted.

    Args:
        records: Of each layer.
        mean: (layers, 5) mean over images of `SUMS`.
        images: Images that the records are the sum over.
    """
    rows = []
    share = max(1, images)
    for record, sums in zip(records, mean.tolist(), strict=True):
        values, unary, bitwise, spikes, other = sums
        # A layer that also read real values is real, and has no rate.
        both, one = record.operands == 2, record.operands > 0
        rows.append(
            LayerOperations(
                name=record.name,
                kind=record.kind,
                macs=record.macs / share,
                operands=record.operands,
                levels=record.levels if one else 0,
                rate=spikes * share / record.spiking if one else 0.0,
                other_rate=other * share / record.other_spiking if both else 0.0,
                values=values,
                unary=unary,
                bitwise=bitwise,
                weights=record.weights,
                inputs=record.inputs / share,
                outputs=record.outputs / share,
            )
        )
    return rows


def _join_maps(maps: list[Tensor]) -> Tensor:
    """Sum maps of several sizes at the largest of them, each keeping its sum."""
    if not maps:
        return torch.zeros(0, 0, 0)
    height = max(item.shape[-2] for item in maps)
    width = max(item.shape[-1] for item in maps)
    total = torch.zeros(maps[0].shape[0], height, width, dtype=torch.float64)
    for item in maps:
        size = (height, width)
        spread = nn.functional.interpolate(item[:, None], size=size, mode="nearest")[:, 0]
        factor = item.sum((1, 2)) / spread.sum((1, 2)).clamp(min=1e-300)
        total += (spread * factor[:, None, None]).cpu()
    return total
