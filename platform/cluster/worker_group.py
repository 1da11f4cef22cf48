"""The workers of one training: sums and broadcasts over one process or torch.distributed.

What one worker takes from another is a tensor or JSON, never a pickle, which would run code.
"""

import json
from typing import Any, Protocol

import torch
import torch.distributed
from torch import Tensor

_MOST_BYTES = 2**24


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

    def broadcast_json(self, value: Any) -> Any:
        """Return rank 0's value on every worker: numbers, text, None, lists, dicts of text keys."""
        ...


class OneWorker:
    """A training in a single process."""

    rank = 0
    size = 1

    def sum(self, tensor: Tensor) -> None:
        """Leave the tensor as it is: it is the sum over one worker."""

    def broadcast(self, tensor: Tensor, source: int) -> None:
        """Leave the tensor as it is: the only worker is the source."""

    def broadcast_json(self, value: Any) -> Any:
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

    def broadcast_json(self, value: Any) -> Any:
        """Return rank 0's value on every worker, equal to the last bit.

        Args:
            value: Numbers, text, None, lists, and dicts with text as keys; only rank 0's counts.

        Raises:
            TypeError: Where JSON has no such value.
            ValueError: Where what arrives is no JSON, or longer than 16 MiB.
        """
        device = torch.device("cpu")
        if torch.distributed.get_backend() == "nccl":
            device = torch.device("cuda", torch.cuda.current_device())
        content = json.dumps(value).encode() if self.rank == 0 else b""
        length = torch.tensor([len(content)], device=device)
        torch.distributed.broadcast(length, 0)
        size = int(length.item())
        if not 0 < size <= _MOST_BYTES:
            raise ValueError(f"rank 0 sends {size} bytes of JSON: must be 1 to {_MOST_BYTES}")
        sent = torch.zeros(size, dtype=torch.uint8, device=device)
        if self.rank == 0:
            sent.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        torch.distributed.broadcast(sent, 0)
        return json.loads(bytes(sent.tolist()))
