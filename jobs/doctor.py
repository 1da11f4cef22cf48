"""`spikeseg doctor`: what is installed here, and what that means."""

import os
import sys
from importlib import metadata
from pathlib import Path

import click

from .cli import run
from .options import storage_option

_PACKAGES = ("torch", "ray", "mlflow", "optuna", "pyarrow", "numpy", "pydantic", "psutil")


@click.command("doctor")
@storage_option
def command(storage: Path) -> int:
    """Print versions, devices and whether the storage can be written; 1 where a need is unmet."""
    from ..datasets.cpu_count import count_usable_cpus

    problems = []
    cpus = count_usable_cpus()
    print(f"python {sys.version.split()[0]}, {cpus} of {os.cpu_count()} CPUs may be used here")
    for name in _PACKAGES:
        try:
            print(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            print(f"{name} is not installed")
            if name in ("torch", "numpy", "pydantic", "pyarrow"):
                problems.append(name)
    import torch

    from ..model.neuron.backends.dispatch import find_obstacle

    if torch.cuda.is_available():
        print(f"GPU: {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
        lacking = find_obstacle("cuda", torch.float32)
        why = f"torch backend: {lacking}" if lacking else "cuda backend"
        print(f"neurons run on the {why}")
    else:
        print("GPU: none that torch sees; neurons run on the torch backend")
    try:
        storage.mkdir(parents=True, exist_ok=True)
        (storage / ".doctor").touch()
        (storage / ".doctor").unlink()
        print(f"storage {storage.absolute()}: writable")
    except OSError as error:
        problems.append(f"storage {storage}: {error.strerror}")
    for problem in problems:
        print(f"problem: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    run(command)
