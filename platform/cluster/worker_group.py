"""The workers of one training: sums and broadcasts over one process or torch.distributed."""

from typing import Any, Protocol

import torch
import torch.distributed
from torch import Tensor


class WorkerGroup(Protocol):
    """The workers of one training."""

    rank: int
    size: int

    def sum(self, tensor: Tensor) -> None:
        """Replace the tensor by its sum over all workers."""
        ...

    def broadcast(self, tensor: Tensor, source: int) -> None:
        """Replace the tensor by the source worker's."""
        ...

    def broadcast_object(self, value: Any) -> Any:
        """Return rank 0's value on every worker."""
        ...


class OneWorker:
    """A training in a single process."""

    rank = 0
    size = 1

    def sum(self, tensor: Tensor) -> None:
        """Leave the tensor as it is: it is the sum over one worker."""

    def broadcast(self, tensor: Tensor, source: int) -> None:
        """Leave the tensor as it is: the only worker is the source."""

    def broadcast_object(self, value: Any) -> Any:
        """Return the value."""
        return value


class ProcessGroup:
    """The workers of torch's default process group (gloo or NCCL)."""

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.size = torch.distributed.get_world_size()

    def sum(self, tensor: Tensor) -> None:
        """Replace the tensor by its sum over all workers, one all-reduce."""
        torch.distributed.all_reduce(tensor)

    def broadcast(self, tensor: Tensor, source: int) -> None:
        """Replace the tensor by the source worker's."""
        torch.distributed.broadcast(tensor, source)

    def broadcast_object(self, value: Any) -> Any:
        """Return rank 0's value on every worker; any picklable object of ours."""
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]
