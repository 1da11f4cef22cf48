"""Which implementation runs a neuron: chosen once, logged once, never a silent substitute."""

import functools
import importlib.util
import logging
from typing import Literal

import torch

from . import cuda

_log = logging.getLogger(__name__)

Backend = Literal["torch", "cuda"]

_UNWANTED = ("cuda", "torch", "auto")

# What the kernels read and write; their arithmetic is float32.
STORAGE = (torch.float32, torch.float16, torch.bfloat16)


class BackendError(RuntimeError):
    """The backend that is named cannot run here; another attempt would meet the same."""


@functools.cache
def choose_backend(wanted: str, device_type: str, dtype: torch.dtype = torch.float32) -> Backend:
    """The implementation for tensors of a kind.

    Args:
        wanted: What the configuration names: `auto`, `torch` or `cuda`.
        device_type: Type of the tensors' device, "cpu" or "cuda".
        dtype: Type of the tensors.

    Raises:
        BackendError: Where `cuda` is named and its kernels cannot run; says what to install.
        ValueError: Where another backend is named.
    """
    if wanted not in ("auto", "torch", "cuda"):
        raise ValueError(f"neuron.backend must be auto, torch or cuda, got {wanted!r}")
    reason = "it was asked for"
    chosen: Backend = "torch"
    if wanted != "torch":
        lacking = missing(device_type, dtype)
        if not lacking:
            chosen = "cuda"
        elif wanted == "cuda":
            raise BackendError(f"neuron.backend is 'cuda', but {lacking}")
        if wanted == "auto":
            reason = lacking or "its kernels can run"
    # On a GPU the torch path is the same result at several times the cost: nobody wants it unasked.
    level = logging.WARNING if (device_type, chosen, wanted) == _UNWANTED else logging.INFO
    told = "neurons (%s, %s) run on the %s backend: %s"
    _log.log(level, told, device_type, dtype, chosen, reason)
    return chosen


def missing(device_type: str, dtype: torch.dtype) -> str:
    """Why the CUDA kernels cannot run on tensors of a kind; empty where they can."""
    if device_type != "cuda":
        seen = "" if torch.cuda.is_available() else ", and torch sees no GPU"
        return f"the tensors are on {device_type}{seen}"
    if dtype not in STORAGE:
        return f"its kernels take float32, float16 and bfloat16, and the tensors are {dtype}"
    if torch.version.cuda is None:
        return "this torch is not built for CUDA"
    if importlib.util.find_spec("cupy") is None:
        major = torch.version.cuda.split(".")[0]
        return f"cupy is not installed: for this torch install cupy-cuda{major}x"
    return cuda.missing(torch.version.cuda)
