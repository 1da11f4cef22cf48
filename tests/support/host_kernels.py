"""Run a test on the CUDA kernels that g++ built for the CPU."""

import pytest

from spikeseg.jobs.benchmark_gpu.host_kernels import find_host_obstacle, list_replacements


def use_host_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let backend `cuda` run on CPU tensors until the test ends; skip where g++ cannot build it."""
    obstacle = find_host_obstacle()
    if obstacle:
        pytest.skip(obstacle)
    for place, name, value in list_replacements():
        monkeypatch.setattr(place, name, value)
