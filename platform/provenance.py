"""What a run was made of: code, configuration, machine, and the line that repeats it."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from .config import Resolved, config_digest
from .experiment import ExperimentConfig

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("torch", "ray", "mlflow", "optuna", "pyarrow", "numpy", "cupy-cuda13x")


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
        "config_digest": config_digest(config),
        "recipe": config.name,
        "seed": str(config.seed),
        "T": str(neuron.timesteps),
        "D": str(neuron.levels),
        "normalization": neuron.normalization,
        "world_size": str(world_size),
        "attempt": str(attempt),
        "host": platform.node(),
        **{f"version.{name}": version for name, version in versions().items()},
    }
    job = os.environ.get("SPIKESEG_JOB_ID") or os.environ.get("RAY_JOB_ID")
    return {**tags, "ray_job_id": job} if job else tags


def git_state() -> dict[str, str]:
    """Commit and whether the checkout differs from it; empty outside of a checkout."""
    if not (_ROOT / ".git").exists():
        return {}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {
            "git_sha": git("rev-parse", "HEAD"),
            "dirty": str(bool(git("status", "--porcelain"))).lower(),
        }
    except (OSError, subprocess.CalledProcessError):
        return {}


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide results."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def rerun_line(resolved: Resolved) -> str:
    """The command that repeats a run: recipe and what was given beside it."""
    given = [
        f"{key}={_at(resolved.config.model_dump(mode='json'), key)}"
        for key, origin in resolved.origins.items()
        if origin in ("command line", "sweep")
    ]
    return shlex.join(["spikeseg", "train", resolved.config.name, *given])


def run_description(resolved: Resolved) -> str:
    """Markdown for the top of the run's page."""
    return f"Repeat this run:\n\n```\n{rerun_line(resolved)}\n```\n"


def command_line() -> str:
    """What this process was started with."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _at(tree: Mapping[str, Any], key: str) -> Any:
    node: Any = tree
    for part in key.split("."):
        node = node[part]
    return node
