"""What each function of torch multiplies: dense products, and operations of the spikes it reads."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from ..segmentor import QueryHead
from .fan_out import count_reached, count_slots, spread_reached, sum_reached
from .spike_origins import Origins, Spikes

# Bilinear reads and resizes weigh four neighbours.
_NEIGHBOURS = 4
# A factor with more values than this is not looked at for being 1.
_MOST_FACTORS = 1 << 16
_IMAGE_DIMENSIONS = 4


@dataclass(frozen=True)
class Record:
    """Work of one layer that does not depend on spikes, summed over images and time steps.

    Attributes:
        name: The layer's name in the model.
        kind: As `LayerOperations.kind`.
        macs: Dense multiply-accumulates.
        operands: Spiking operands; the least of all calls.
        levels: D of the first spiking operand.
        weights: Parameters, the same in every call.
        inputs: Values of operands that are no parameters.
        outputs: Values of the result.
        spiking: Values of the first spiking operand.
        other_spiking: Values of the second one.
    """

    name: str
    kind: str
    macs: int
    operands: int = 0
    levels: int = 0
    weights: int = 0
    inputs: int = 0
    outputs: int = 0
    spiking: int = 0
    other_spiking: int = 0

    @classmethod
    def plain(cls, name: str, kind: str, macs: int) -> Self:
        """Work that reads no spikes and no parameters, with a result a product."""
        return cls(name, kind, macs, inputs=macs, outputs=macs)

    def plus(self, other: "Record") -> "Record":
        """Both calls of a layer together; one that reads real values makes the layer real."""
        return replace(
            self,
            macs=self.macs + other.macs,
            operands=min(self.operands, other.operands),
            levels=max(self.levels, other.levels),
            weights=max(self.weights, other.weights),
            inputs=self.inputs + other.inputs,
            outputs=self.outputs + other.outputs,
            spiking=self.spiking + other.spiking,
            other_spiking=self.other_spiking + other.other_spiking,
        )


class _Counted(NamedTuple):
    """Sums of one call: (5, B), and for convolutions the operations by place, (B, h, w)."""

    record: Record
    sums: Tensor | None
    place: Tensor | None


class Call:
    """One forward pass: where images are in a tensor, and what has been counted of it.

    Args:
        steps: T.
        images: B.
        keep_maps: Whether convolutions say where in the image their operations are.
        bitwise: Whether bits of counts are counted.
    """

    def __init__(
        self, steps: int, images: int, *, keep_maps: bool = False, bitwise: bool = True
    ) -> None:
        self.steps = steps
        self.images = images
        self.keep_maps = keep_maps
        self._bitwise = bitwise
        self.maps: list[Tensor] = []
        self._sampled: dict[int, tuple[Tensor, str]] = {}
        self._slots: dict[tuple[Any, ...], Tensor] = {}
        self._counted: list[_Counted] = []

    def begin(
        self, name: str, module: nn.Module, numbers: list[int], origins: Origins, events: bool
    ) -> None:
        """Set which module calls the next function, and how often it has multiplied matrices."""
        self.name, self.module, self.numbers = name, module, numbers
        self.origins, self.events = origins, events

    def take(self) -> list[_Counted]:
        """What was counted since it was last taken."""
        counted, self._counted = self._counted, []
        return counted

    def add(self, record: Record, sums: Tensor | None = None, place: Tensor | None = None) -> None:
        """Count the work of a function."""
        self._counted.append(_Counted(record, sums, place))

    def add_plain(self, kind: str, macs: int) -> None:
        """Count work that reads no spikes."""
        if macs:
            self.add(Record.plain(self.name, kind, macs))

    def find_spikes(self, x: Any) -> Spikes | None:
        """What a tensor of spikes consists of, where spikes are counted."""
        return self.origins.find_spikes(x) if self.events else None

    def count(self, x: Tensor, spikes: Spikes, dims: tuple[int, ...]) -> Tensor:
        """`count_slots` of a tensor, once for all functions that read the same memory alike."""
        memory = x.untyped_storage()._cdata
        key = (memory, x.storage_offset(), x.shape, x.stride(), spikes, dims)
        if key not in self._slots:
            self._slots[key] = count_slots(x, *spikes, dims, bitwise=self._bitwise)
        return self._slots[key]

    def join(self, operations: Tensor, spikes: Tensor, other: Tensor | None = None) -> Tensor:
        """Sums of a call, (5, B).

        Args:
            operations: (3, N...) in the order of `CODINGS`; N... are axes that hold the images.
            spikes: (N...) spikes of the first spiking operand.
            other: (N...) of the second one.
        """
        last = torch.zeros_like(spikes) if other is None else other
        return self._by_image(torch.cat((operations, torch.stack((spikes, last)))))

    def remember_samples(self, sampled: Tensor) -> None:
        """Remember a tensor of bilinear reads until it is known which of them are used."""
        self._sampled[sampled.untyped_storage()._cdata] = (sampled, self.name)

    def find_samples(self, x: Tensor) -> str | None:
        """Name of the layer whose bilinear reads a tensor holds."""
        sampled = self._sampled.get(x.untyped_storage()._cdata)
        return None if sampled is None else sampled[1]

    def _by_image(self, x: Tensor) -> Tensor:
        """(5, N...) to (5, B); N... is (T, B, ...), (T, L, B, ...), or (N, ...) with B fastest."""
        queries = isinstance(self.module, QueryHead) or ".embedding." in f".{self.name}."
        lead = x.shape[1:]
        if queries and len(lead) >= 3 and lead[2] == self.images:
            x = x.movedim(3, 1)
        elif lead[:2] == (self.steps, self.images):
            x = x.transpose(1, 2)
        elif lead and lead[0] % self.images == 0:
            x = x.unflatten(1, (-1, self.images)).transpose(1, 2)
        else:
            # No image's own: each gets the same share.
            return (x.flatten(1).sum(1, keepdim=True) / self.images).expand(-1, self.images)
        return x.flatten(2).sum(2)


def _count_convolution(call: Call, word: str, result: Tensor, args: Any, kwargs: Any) -> None:
    x, weight = args[0], args[1]
    macs = result.numel() * weight[0].numel()
    spikes = call.find_spikes(x)
    record = Record(call.name, "convolution", macs, weights=weight.numel())
    record = replace(record, inputs=x.numel(), outputs=result.numel())
    if spikes is None:
        call.add(record)
        return
    layer: Any = call.module
    reached = [
        count_reached(
            (x.shape[2 + axis], result.shape[2 + axis]),
            weight.shape[2 + axis],
            layer.stride[axis],
            layer.padding[axis],
            layer.dilation[axis],
            layer.transposed,
        )
        for axis in range(x.dim() - 2)
    ]
    targets = result.shape[1] // layer.groups
    slots = call.count(x, spikes, (1,))
    record = replace(record, operands=1, levels=spikes.levels, spiking=x.numel())
    place = None
    if call.keep_maps and x.dim() == _IMAGE_DIMENSIONS:
        place = spread_reached(slots[1], reached) * targets
        place = place.unflatten(0, (-1, call.images)).sum(0).cpu()
    spikes_of = slots[1].flatten(1).sum(1)
    call.add(record, call.join(sum_reached(slots, reached) * targets, spikes_of), place)


def _count_linear(call: Call, word: str, result: Tensor, args: Any, kwargs: Any) -> None:
    x, weight = args[0], args[1]
    macs = result.numel() * weight.shape[-1]
    record = Record(call.name, "linear", macs, weights=weight.numel())
    record = replace(record, inputs=x.numel(), outputs=result.numel())
    spikes = call.find_spikes(x)
    if spikes is None:
        call.add(record)
        return
    slots = call.count(x, spikes, (x.dim() - 1,))
    record = replace(record, operands=1, levels=spikes.levels, spiking=x.numel())
    call.add(record, call.join(slots * weight.shape[0], slots[1]))


def _count_matmul(call: Call, word: str, result: Tensor, args: Any, kwargs: Any) -> None:
    left, right = args[1:3] if word == "baddbmm" else args[:2]
    if word == "baddbmm":
        call.add_plain("addition", result.numel())
    call.numbers[0] += 1
    kind = "product"
    if isinstance(call.module, QueryHead):
        kind = "mask_product"
    elif hasattr(call.module, "order") and hasattr(call.module, "num_heads"):
        kind = "attention"
    record = Record(
        f"{call.name}.{kind}{call.numbers[0]}",
        kind,
        result.numel() * left.shape[-1],
        inputs=left.numel() + right.numel(),
        outputs=result.numel(),
    )
    first, second = call.find_spikes(left), call.find_spikes(right)
    if first is None and second is None:
        call.add(record)
        return
    a = None if first is None else call.count(left, first, (left.dim() - 2,))
    b = None if second is None else call.count(right, second, (right.dim() - 1,))
    if a is not None and b is not None and first is not None:
        both = replace(
            record,
            operands=2,
            levels=first.levels,
            spiking=left.numel(),
            other_spiking=right.numel(),
        )
        call.add(both, call.join((a * b).sum(-1), a[1].sum(-1), b[1].sum(-1)))
        return
    slots, spikes, x, targets = (
        (a, first, left, right.shape[-1]) if a is not None else (b, second, right, left.shape[-2])
    )
    assert slots is not None and spikes is not None
    repeats = result.numel() // (left.shape[-2] * right.shape[-1]) // (x[..., 0, 0].numel())
    record = replace(record, operands=1, levels=spikes.levels, spiking=x.numel())
    sums = slots.sum(-1)
    call.add(record, call.join(sums * targets * repeats, sums[1]))


def _count_product(call: Call, word: str, result: Tensor, args: Any, kwargs: Any) -> None:
    """Elementwise products: with a constant, with spikes, or of two real tensors."""
    divides, inverse = "div" in word, word == "__rdiv__"
    x, y = args[:2]
    if not isinstance(x, Tensor):
        x, y = y, x
    live = [z for z in (x, y) if isinstance(z, Tensor) and call.origins.depends(z)]
    if not live:
        return
    if len(live) == 1:
        constant = y if live[0] is x else x
        if not _is_one(constant):
            call.add_plain("scaling", result.numel())
        spikes = call.origins.find_spikes(live[0])
        if spikes is not None and not isinstance(constant, Tensor) and not inverse and constant > 0:
            factor = 1 / constant if divides else constant
            call.origins.depend(result, Spikes(spikes.unit * factor, spikes.levels))
        return
    spiking = [z for z in live if call.find_spikes(z) is not None]
    if not spiking or divides:
        call.add_plain("elementwise", result.numel())
        return
    gate = spiking[0]
    spikes = call.find_spikes(gate)
    assert spikes is not None
    counted = [call.count(z, s, ()) for z in spiking if (s := call.find_spikes(z)) is not None]
    fan_out = result.numel() // gate.numel()
    operations = counted[0] * (counted[1] if len(counted) == 2 else fan_out)
    record = replace(
        Record.plain(call.name, "modulation", result.numel()),
        operands=len(spiking),
        levels=spikes.levels,
        spiking=gate.numel(),
        inputs=x.numel() + y.numel(),
        other_spiking=spiking[1].numel() if len(spiking) == 2 else 0,
    )
    other = _group_images(call, counted[1])[1] if len(counted) == 2 else None
    slots = _group_images(call, counted[0])
    call.add(record, call.join(_group_images(call, operations), slots[1], other))
    sampled = call.find_samples(y if gate is x else x)
    if sampled is not None:
        # Only places whose modulation is not 0 are read: four real products each, in any coding.
        used = slots[:1] * fan_out * _NEIGHBOURS
        reads = Record(sampled, "sampling", 0)
        call.add(reads, call.join(used.expand(3, *used.shape[1:]), torch.zeros_like(used[0])))


def _group_images(call: Call, x: Tensor) -> Tensor:
    """(3, T * B * G, ...), G fastest, to (3, T, B), with the rest summed."""
    return x.flatten(2).sum(2).unflatten(1, (call.steps, call.images, -1)).sum(-1)


def _is_one(constant: Any) -> bool:
    if isinstance(constant, Tensor):
        small = not constant.is_meta and constant.numel() <= _MOST_FACTORS
        return small and bool((constant == 1).all())
    return constant == 1


def _count_norm(call: Call, word: str, result: Tensor, args: Any, kwargs: Any) -> None:
    call.add_plain("normalization", result.numel())


def _count_sampling(call: Call, word: str, result: Tensor, args: Any, kwargs: Any) -> None:
    call.add(
        replace(
            Record.plain(call.name, "sampling", _NEIGHBOURS * result.numel()),
            inputs=args[0].numel(),
            outputs=result.numel(),
        )
    )
    call.remember_samples(result)


def _count_resize(call: Call, word: str, result: Tensor, args: Any, kwargs: Any) -> None:
    mode = kwargs.get("mode", args[3] if len(args) > 3 else "nearest")
    if mode == "bilinear":
        call.add_plain("interpolation", _NEIGHBOURS * result.numel())
    elif mode != "nearest":
        raise NotImplementedError(f"products of interpolation mode {mode!r} are not counted")


def _count_mean(call: Call, word: str, result: Tensor, args: Any, kwargs: Any) -> None:
    x = args[0]
    if not call.origins.depends(x) or x.numel() == result.numel():
        return
    call.add_plain("addition", x.numel() - result.numel())
    if word == "mean":
        call.add_plain("scaling", result.numel())


def _refuse(call: Call, word: str, result: Tensor, args: Any, kwargs: Any) -> None:
    raise NotImplementedError(f"{call.name}: products of torch's {word} are not counted")


_Counter = Callable[[Call, str, Tensor, Any, Any], None]
COUNTERS: dict[str, _Counter] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv_transpose2d"), _count_convolution),
    "linear": _count_linear,
    **dict.fromkeys(("matmul", "__matmul__", "bmm", "mm", "baddbmm"), _count_matmul),
    **dict.fromkeys(("mul", "__mul__", "__rmul__", "__imul__", "mul_"), _count_product),
    **dict.fromkeys(("div", "__truediv__", "__rdiv__", "__rtruediv__", "div_"), _count_product),
    "batch_norm": _count_norm,
    "grid_sample": _count_sampling,
    "interpolate": _count_resize,
    **dict.fromkeys(("mean", "sum"), _count_mean),
    **dict.fromkeys(("einsum", "addmm", "addmv", "mv", "dot", "bilinear", "tensordot"), _refuse),
    **dict.fromkeys(("addcmul", "addbmm", "conv3d", "pow", "square", "__pow__"), _refuse),
}
"""Name of a function -> what it multiplies; functions of one value (sigmoid) are no products."""


def _count_addition(result: Tensor, args: Any) -> int:
    return result.numel()


ADDITIONS: dict[str, Callable[[Tensor, Any], int]] = dict.fromkeys(
    ("add", "__add__", "__radd__", "__iadd__", "add_", "sub", "__sub__", "__rsub__", "sub_"),
    _count_addition,
)
MOVES = frozenset(
    (
        *("contiguous", "clone", "reshape", "flatten", "unflatten", "view", "permute", "pad"),
        *("transpose", "expand", "expand_as", "repeat", "cat", "stack", "to", "float", "double"),
        *("__getitem__", "detach", "index_select", "gather", "squeeze", "unsqueeze", "movedim"),
        *("flip", "cpu"),
    )
)
"""Functions whose result holds the values of their inputs, zeros beside them."""
IN_PLACE = frozenset(
    (
        *("__iadd__", "__isub__", "__imul__", "__itruediv__", "__setitem__", "add_", "sub_"),
        *("mul_", "div_", "clamp_", "round_", "copy_", "zero_", "fill_", "relu_", "sigmoid_"),
    )
)
