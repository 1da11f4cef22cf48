"""Reduces a step's gradients, BatchNorm statistics and losses over micro-batches and workers."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.distributed
from torch import Tensor, nn

from ...cluster.worker_group import WorkerGroup


def micro_batch_range(count: int, group: WorkerGroup, rank: int | None = None) -> range:
    """Indices of the micro-batches that one worker computes: whole, contiguous, in order.

    Args:
        count: Micro-batches of one step.
        group: The workers.
        rank: Of which worker; of this one if not given.
    """
    rank = group.rank if rank is None else rank
    return range(count * rank // group.size, count * (rank + 1) // group.size)


class StepVector:
    """Gradients, BatchNorm statistics and loss terms of a step as one flat vector.

    The parameters' `.grad` are views of it, in parameter order, so that summing over workers is
    one all-reduce of fixed layout (stock DDP rebuilds its buckets after the first step, so that a
    resumed run sums in another order). Running statistics advance once per step by the mean over
    the micro-batches: each micro-batch starts from the statistics at the start of the step, and
    mean(0.9 s + 0.1 b_j) = 0.9 s + 0.1 mean(b_j).

    Args:
        model: The model; its parameters' `.grad` are set, so the last vector made for it counts.
        num_terms: Numbers reported per micro-batch (loss terms), summed along.
        micro_batches: Micro-batches of a step, over all workers.
        group: The workers.
        reduction: `flat` adds in the order of arrival on each worker, then over workers; `strict`
            adds in the order of the micro-batches, so that the number of workers does not matter.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        num_terms: int,
        micro_batches: int,
        group: WorkerGroup,
        reduction: Literal["flat", "strict"],
    ) -> None:
        self._group = group
        self._strict = reduction == "strict"
        self._micro_batches = micro_batches
        parameters = [p for p in model.parameters() if p.requires_grad]
        self._statistics = [
            buffer
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]
        self._counters = [
            module.num_batches_tracked
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            and module.num_batches_tracked is not None
        ]
        sizes = [
            sum(p.numel() for p in parameters),
            sum(s.numel() for s in self._statistics),
            num_terms,
            1,
        ]
        device = parameters[0].device
        self._vector = torch.zeros(sum(sizes), device=device)
        segments = self._vector.split(sizes)
        self.gradient, self._mean_statistics, self.terms, self._failures = segments
        self._parts: dict[int, Tensor] = {}
        start = 0
        for parameter in parameters:
            stop = start + parameter.numel()
            parameter.grad = _view_like(self.gradient[start:stop], parameter)
            start = stop

    def begin(self) -> None:
        """Clear the vector and remember the statistics that every micro-batch starts from."""
        self._vector.zero_()
        self._parts.clear()
        self._start = _flatten(self._statistics)
        self._counts = [counter.clone() for counter in self._counters]

    def add(self, index: int, terms: Sequence[Tensor]) -> None:
        """Add micro-batch `index` after its backward pass.

        Args:
            index: Number of the micro-batch within the step.
            terms: Its detached loss terms, scalars.
        """
        self._mean_statistics += _flatten(self._statistics)
        self.terms += torch.stack([term.to(self.terms) for term in terms])
        self._set_statistics(self._start)
        if self._strict:
            self._parts[index] = self._vector.clone()
            self._vector.zero_()

    def fail(self) -> None:
        """Mark this worker's part of the step as failed; `reduce` returns False on every worker."""
        self._vector.zero_()
        self._failures.fill_(1.0)
        self._parts.clear()
        if self._strict:
            mine = micro_batch_range(self._micro_batches, self._group)
            self._parts = {index: self._vector.clone() for index in mine}
            self._vector.zero_()

    def reduce(self) -> bool:
        """Sum over all micro-batches of all workers; statistics become their mean.

        Returns:
            Whether every worker did its part; else the step is undone (`undo`).
        """
        if self._strict:
            for rank in range(self._group.size):
                for index in micro_batch_range(self._micro_batches, self._group, rank):
                    part = self._parts.pop(index, None)
                    part = torch.empty_like(self._vector) if part is None else part
                    self._group.broadcast(part, rank)
                    self._vector += part
        else:
            self._group.sum(self._vector)
        if self._failures.item():
            self.undo()
            return False
        self._mean_statistics /= self._micro_batches
        self._set_statistics(self._mean_statistics)
        for counter, start in zip(self._counters, self._counts, strict=True):
            counter.copy_(start + 1)
        return True

    def undo(self) -> None:
        """Put the statistics of the start of the step back, as if it had not been done."""
        self._set_statistics(self._start)
        for counter, start in zip(self._counters, self._counts, strict=True):
            counter.copy_(start)

    def _set_statistics(self, flat: Tensor) -> None:
        start = 0
        for statistic in self._statistics:
            stop = start + statistic.numel()
            statistic.copy_(flat[start:stop].view_as(statistic))
            start = stop


def _view_like(flat: Tensor, parameter: Tensor) -> Tensor:
    """A view with the parameter's shape and memory layout, so that autograd adds into it."""
    channels_last = torch.channels_last
    if parameter.dim() == 4 and parameter.is_contiguous(memory_format=channels_last):
        O, I, H, W = parameter.shape  # noqa: E741
        return flat.view(O, H, W, I).permute(0, 3, 1, 2)
    return flat.view(parameter.shape)


def _flatten(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
