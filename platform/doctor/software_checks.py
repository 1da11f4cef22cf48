"""Checks of what is installed: Python, packages that fit together, GPU, CuPy, NVRTC, driver."""

import importlib.util
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from .findings import Finding, fail, ok, skipped, warn
from .subject import Subject

_PYTHON = (3, 11)
_NEEDED = ("torch", "numpy", "pydantic", "pyarrow", "ray", "mlflow", "optuna")
_NO_GPU = "there is no GPU on this machine"


def check_python(subject: Subject) -> Finding:
    """Python is of a version that the package is written for."""
    version = sys.version.split()[0]
    if sys.version_info < _PYTHON:
        return fail(f"Python {version}", "make the environment with Python 3.11 or newer")
    return ok(f"Python {version}")


def check_packages(subject: Subject) -> Finding:
    """Every package that a command needs is installed."""
    versions = {name: find_version(name) for name in _NEEDED}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return fail(
            f"not installed: {', '.join(missing)}",
            "install spikeseg with its dependencies: pip install -e .",
        )
    return ok(", ".join(f"{name} {version}" for name, version in versions.items()))


def check_versions(subject: Subject) -> Finding:
    """Installed packages have the versions that spikeseg's own metadata asks for."""
    try:
        wanted = metadata.requires("spikeseg") or []
    except metadata.PackageNotFoundError:
        return skipped("spikeseg itself is not installed, so nothing says which versions it needs")
    wrong = []
    for line in wanted:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = find_version(requirement.name)
        if version is not None and not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} (needs {requirement.specifier})")
    if wrong:
        return warn("; ".join(wrong), "install the versions that spikeseg was tested with")
    return ok("all versions are those that spikeseg asks for")


def check_device(subject: Subject) -> Finding:
    """The device that the experiment names is one that torch sees."""
    import torch

    wanted = "auto" if subject.config is None else subject.config.trainer.device
    if torch.cuda.is_available():
        return ok(f"trainer.device {wanted}: torch sees {torch.cuda.get_device_name()}")
    if wanted == "cuda":
        return fail(
            "trainer.device is cuda, and torch sees no GPU",
            "set trainer.device=auto, or install torch for CUDA and NVIDIA's driver",
        )
    if subject.config is not None and subject.config.trainer.precision == "fp16":
        return fail(
            "trainer.precision is fp16, which needs a GPU, and torch sees none",
            "set trainer.precision=bf16 or fp32",
        )
    return ok(f"trainer.device {wanted}: torch sees no GPU, the CPU computes")


def check_driver(subject: Subject) -> Finding:
    """NVIDIA's driver is one that torch's CUDA can use."""
    import torch

    if torch.cuda.is_available():
        return ok(f"torch for CUDA {torch.version.cuda} sees {torch.cuda.device_count()} GPUs")
    if not subject.machine.gpu_devices:
        return skipped(_NO_GPU)
    if torch.version.cuda is None:
        return warn(
            "there is a GPU, and torch is built for the CPU alone",
            "install torch for CUDA (its download page names the wheel)",
        )
    return fail(
        f"there is a GPU, and torch for CUDA {torch.version.cuda} cannot use its driver",
        "install a driver for this CUDA or newer, or torch for an older CUDA",
    )


def check_cupy(subject: Subject) -> Finding:
    """CuPy is that of torch's CUDA, so that the neurons run on the kernels."""
    import torch

    from ...model.neuron.backends.dispatch import find_obstacle

    forced = subject.config is not None and subject.config.model.neuron.backend == "cuda"
    if not torch.cuda.is_available():
        if forced:
            return fail(
                "model.neuron.backend is cuda, and torch sees no GPU",
                "set model.neuron.backend=auto",
            )
        return skipped("torch sees no GPU; neurons run on the torch backend")
    lacking = find_obstacle("cuda", torch.float32)
    if not lacking:
        return ok("neurons run on the cuda backend")
    said = f"neurons run on the torch backend: {lacking}"
    remedy = "install the cupy that this says: the same results in a fraction of the time"
    return fail(said, remedy) if forced else warn(said, remedy)


def check_nvrtc(subject: Subject) -> Finding:
    """NVRTC, which compiles the kernels, is that of torch's CUDA."""
    import torch

    if not torch.cuda.is_available() or torch.version.cuda is None:
        return skipped("torch sees no GPU")
    major = torch.version.cuda.split(".")[0]
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    files = [f.name for folder in folders for f in folder.rglob("libnvrtc.so.*")]
    if any(name.startswith(f"libnvrtc.so.{major}") for name in files):
        return ok(f"NVRTC of CUDA {major}")
    system = sorted(Path("/usr/local").glob(f"cuda*/lib64/libnvrtc.so.{major}*"))
    if system:
        return ok(f"NVRTC of CUDA {major}: {system[0]}")
    return warn(
        f"no NVRTC of CUDA {major} was found ({', '.join(sorted(set(files))) or 'none at all'})",
        f"pip install 'nvidia-cuda-nvrtc>={major},<{int(major) + 1}' nvidia-cuda-runtime",
    )


def find_version(name: str) -> str | None:
    """Version of an installed package; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
