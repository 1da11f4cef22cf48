"""One worker reads a checkpoint, the others get its content from it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..cluster.worker_group import WorkerGroup


def share_content(
    content: Mapping[str, Any] | None, group: WorkerGroup, device: torch.device
) -> dict[str, Any]:
    """Give every worker what rank 0 read from a checkpoint, bit for bit.

    Args:
        content: Rank 0's: tensors by name for each file, beside values that JSON can hold; None
            on other ranks.
        group: The workers.
        device: Where the group sums and broadcasts.

    Returns:
        The content, on every rank; tensors on the CPU.
    """
    if group.size == 1:
        assert content is not None
        return dict(content)
    shared = group.broadcast_json(None if content is None else _describe(content))
    for name, entries in shared["tensors"].items():
        num_bytes = sum(_size(entry) for entry in entries.values())
        if content is None:
            flat = torch.empty(num_bytes, dtype=torch.uint8, device=device)
        else:
            flat = _flatten(content[name]).to(device)
        if num_bytes:
            group.broadcast(flat, 0)
        shared["plain"][name] = _split(flat.cpu(), entries) if content is None else content[name]
    return shared["plain"]


def _describe(content: Mapping[str, Any]) -> dict[str, Any]:
    """What is no tensor, and name, type and shape of each tensor, for JSON."""
    tensors, plain = {}, {}
    for name, value in content.items():
        if isinstance(value, Mapping) and all(isinstance(v, Tensor) for v in value.values()):
            tensors[name] = {
                key: [str(item.dtype).removeprefix("torch."), list(item.shape)]
                for key, item in value.items()
            }
        else:
            plain[name] = value
    return {"tensors": tensors, "plain": plain}


def _size(entry: list[Any]) -> int:
    kind, shape = entry
    return getattr(torch, kind).itemsize * torch.Size(shape).numel()


def _flatten(tensors: Mapping[str, Tensor]) -> Tensor:
    parts = [item.contiguous().reshape(-1).view(torch.uint8) for item in tensors.values()]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8)


def _split(flat: Tensor, entries: Mapping[str, list[Any]]) -> dict[str, Tensor]:
    tensors, start = {}, 0
    for key, (kind, shape) in entries.items():
        stop = start + _size([kind, shape])
        # A copy of its own is aligned for any type.
        tensors[key] = flat[start:stop].clone().view(getattr(torch, kind)).reshape(shape)
        start = stop
    return tensors
