"""Which tensors of a running network are spikes, and which depend on the image at all."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


class Spikes(NamedTuple):
    """What the values of a tensor of spikes are multiples of.

    Attributes:
        unit: Value of one spike.
        levels: D, largest count.
    """

    unit: float
    levels: int


class Origins:
    """Marks tensors by their memory, so that every view of a marked one is marked.

    A weak reference to the memory keeps its number from being used again.
    """

    def __init__(self) -> None:
        self._marks: dict[int, tuple[StorageWeakRef, Spikes | None]] = {}

    def clear(self) -> None:
        """Forget every mark."""
        self._marks.clear()

    def depend(self, x: Tensor, spikes: Spikes | None = None) -> None:
        """Mark a tensor as one that depends on the image, as spikes where they are given."""
        reference = StorageWeakRef(x.untyped_storage())
        self._marks[reference.cdata] = (reference, spikes)

    def depends(self, x: Tensor) -> bool:
        """Whether a tensor depends on the image."""
        return x.untyped_storage()._cdata in self._marks

    def find_spikes(self, x: Any) -> Spikes | None:
        """What a tensor of spikes consists of; None for every other value."""
        if not isinstance(x, Tensor):
            return None
        mark = self._marks.get(x.untyped_storage()._cdata)
        return None if mark is None else mark[1]

    def derive(self, result: Tensor, args: Iterable[Any]) -> None:
        """Mark the result of a function of marked tensors as real-valued, unless it is a view."""
        if not self.depends(result) and any(map(self.depends, _find_tensors(args))):
            self.depend(result)

    def move(self, result: Tensor, args: Iterable[Any]) -> None:
        """Mark the result of a function that only moves values as its inputs are marked."""
        if self.depends(result):
            return
        inputs = _find_tensors(args)
        if any(map(self.depends, inputs)):
            kinds = {self.find_spikes(x) for x in inputs}
            self.depend(result, kinds.pop() if len(kinds) == 1 else None)

    def overwrite(self, target: Tensor, args: Iterable[Any]) -> None:
        """Mark a tensor that is written to as real-valued."""
        if self.depends(target) or any(map(self.depends, _find_tensors(args))):
            self.depend(target)


def _find_tensors(values: Iterable[Any]) -> list[Tensor]:
    tensors = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, (list, tuple)):
            tensors += [item for item in value if isinstance(item, Tensor)]
    return tensors
