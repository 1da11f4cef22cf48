"""Tensors of a safetensors file, on file systems with memory maps and without."""

from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

UNREADABLE = (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError)
"""What `load_tensors` raises over a file that is none."""


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Load all tensors, mapped where the file system maps files, else read.

    Args:
        path: The file.

    Raises:
        OSError: Where it cannot be read.
        Exception: One of `UNREADABLE` where it is no safetensors file.
    """
    try:
        return safetensors.torch.load_file(path)
    except (*UNREADABLE, OSError):
        # Some file systems (FUSE, exFAT on some kernels) refuse maps; whether that was the reason
        # only the library's text says. What is damaged is damaged when it is read, too.
        return safetensors.torch.load(path.read_bytes())
