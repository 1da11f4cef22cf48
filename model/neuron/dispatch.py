"""Which implementation runs a neuron: chosen once, logged once, never a silent substitute."""

import functools
import importlib.util
import logging
from typing import Literal

import torch

_log = logging.getLogger(__name__)

Backend = Literal["torch", "cuda"]


@functools.cache
def choose_backend(wanted: Literal["auto", "torch", "cuda"], device_type: str) -> Backend:
    """The implementation for a device.

    Args:
        wanted: What the configuration names.
        device_type: Type of the tensors' device, "cpu" or "cuda".

    Raises:
        RuntimeError: Where `cuda` is named and its kernels cannot run; says what to install.
    """
    if wanted == "cuda":
        missing = _missing(device_type)
        if missing:
            raise RuntimeError(f"neuron.backend is 'cuda', but {missing}")
        return "cuda"
    chosen: Backend = "torch"
    if wanted == "auto" and device_type == "cuda" and not _missing(device_type):
        chosen = "cuda"
    _log.info("neurons on %s run on the %s backend (asked for: %s)", device_type, chosen, wanted)
    return chosen


def _missing(device_type: str) -> str:
    """Why the CUDA kernels cannot run; empty where they can."""
    if device_type != "cuda":
        return f"the tensors are on {device_type}"
    if importlib.util.find_spec(f"{__package__}.cuda") is None:
        return "this version ships no kernels yet; use 'torch'"
    if importlib.util.find_spec("cupy") is None:
        major = (torch.version.cuda or "13").split(".")[0]
        return f"cupy is not installed: for this torch install cupy-cuda{major}x"
    return ""
