"""Provenance of a run: code, configuration, packages, machine."""

import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ..config.recipes import Resolved, config_digest
from ..config.redaction import (
    LONGEST_MESSAGE,
    SECRET_VARIABLE,
    scrubbed,
    scrubbed_argument,
    shorten,
)
from ..config.schema import ExperimentConfig
from .code_state import code_digest, git_state

_PACKAGES = ("torch", "ray", "mlflow", "optuna", "pyarrow", "numpy", "cupy-cuda13x")
_LONGEST_COMMAND = 20_000
# Variables that can change a result or where it goes; whatever else is set is never recorded.
_VARIABLES = re.compile(
    r"^(OMP|MKL|OPENBLAS|KMP|CUDA|CUBLAS|CUDNN|CUPY|NCCL|GLOO|TORCH|PYTORCH|RAY|MLFLOW|SPIKESEG)_"
    r"|^(PYTHONHASHSEED|SLURM_JOB_ID)$"
)


def run_tags(config: ExperimentConfig, *, world_size: int, attempt: int) -> dict[str, str]:
    """Tags that every run carries.

    Args:
        config: The experiment.
        world_size: Number of workers.
        attempt: How often the run was started.
    """
    neuron = config.model.neuron
    tags = {
        **git_state(),
        "code_digest": code_digest(),
        "config_digest": config_digest(config),
        "recipe": config.name,
        "seed": str(config.seed),
        "T": str(neuron.timesteps),
        "D": str(neuron.levels),
        "normalization": neuron.normalization,
        "world_size": str(world_size),
        "attempt": str(attempt),
        **{f"version.{name}": version for name, version in versions().items()},
    }
    job = os.environ.get("SPIKESEG_JOB_ID") or os.environ.get("RAY_JOB_ID")
    return {**tags, "ray_job_id": job} if job else tags


def provenance(resolved: Resolved, *, world_size: int) -> dict[str, Any]:
    """Collect what decides a run: code, configuration, packages, machine, environment, as JSON.

    Args:
        resolved: The experiment.
        world_size: Number of workers.
    """
    config = resolved.config
    return {
        "code": _describe_code(with_difference=config.tracking.code_diff),
        "command": scrubbed(shorten(command_line(), _LONGEST_COMMAND)),
        "config_digest": config_digest(config),
        "origins": resolved.origins,
        "seed": config.seed,
        "world_size": world_size,
        "threads": config.trainer.threads,
        "python": platform.python_version(),
        "packages": packages(),
        "hardware": hardware(),
        "environment": environment(os.environ),
    }


def _describe_code(*, with_difference: bool) -> dict[str, str]:
    """Commit and digests of the code, and where its difference from the commit stands."""
    code = {**git_state(), "digest": code_digest()}
    if code.get("dirty") == "true":
        code["difference"] = (
            "artifact code.diff"
            if with_difference
            else "left out, since it may hold secrets; tracking.code_diff=true records it"
        )
    return code


def packages() -> dict[str, str]:
    """Every installed package and its version."""
    installed = ((item.metadata["Name"], item.version) for item in metadata.distributions())
    return dict(sorted((name.lower(), version) for name, version in installed if name))


def hardware() -> dict[str, Any]:
    """Processor, memory and GPUs of this machine."""
    import torch

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = re.findall(r"model name\s*:\s*(.+)", info.read_text())
        model = names[0] if names else model
    try:
        import psutil

        memory = round(psutil.virtual_memory().total / 2**30, 1)
    except ImportError:
        memory = None
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": memory,
        "gpus": gpus,
        "cuda": torch.version.cuda,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(),
    }


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that matter, without secrets.

    Args:
        variables: Such as `os.environ`.
    """
    return {
        name: scrubbed(shorten(value, LONGEST_MESSAGE))
        for name, value in sorted(variables.items())
        if _VARIABLES.search(name) and not SECRET_VARIABLE.search(name)
    }


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide results."""
    installed = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def command_line() -> str:
    """The command line of this process, without values that are named like secrets."""
    arguments = [scrubbed_argument(shorten(word, LONGEST_MESSAGE)) for word in sys.argv[1:]]
    return shlex.join([Path(sys.argv[0]).name, *arguments])
