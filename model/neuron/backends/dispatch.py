"""Choose the backend of the neurons, once per device and type, logged, without silent fallback."""

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
def choose_backend(requested: str, device_type: str, dtype: torch.dtype = torch.float32) -> Backend:
    """Choose the backend for tensors of a device and type.

    Args:
        requested: What the configuration names: `auto`, `torch` or `cuda`.
        device_type: Type of the tensors' device, "cpu" or "cuda".
        dtype: Type of the tensors.

    Raises:
        BackendError: Where `cuda` is named and its kernels cannot run; says what to install.
        ValueError: Where another backend is named.
    """
    if requested not in ("auto", "torch", "cuda"):
        raise ValueError(f"neuron.backend must be auto, torch or cuda, got {requested!r}")
    reason = "it was asked for"
    chosen: Backend = "torch"
    if requested != "torch":
        reason_against = find_obstacle(device_type, dtype)
        if not reason_against:
            chosen = "cuda"
        elif requested == "cuda":
            raise BackendError(f"neuron.backend is 'cuda', but {reason_against}")
        if requested == "auto":
            reason = reason_against or "its kernels can run"
    # On a GPU the torch path is the same result at several times the cost: nobody wants it unasked.
    level = logging.WARNING if (device_type, chosen, requested) == _UNWANTED else logging.INFO
    message = "neurons (%s, %s) run on the %s backend: %s"
    _log.log(level, message, device_type, dtype, chosen, reason)
    return chosen


def find_obstacle(device_type: str, dtype: torch.dtype) -> str:
    """Reason why the CUDA kernels cannot run on tensors of a device and type; empty if they can."""
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
    return cuda.find_obstacle(torch.version.cuda)
