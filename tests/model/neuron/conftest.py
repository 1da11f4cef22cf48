"""The places that every test of a neuron runs at."""

import pytest
from host_kernels import use_host_kernels
from neuron_cases import Place, require_gpu


@pytest.fixture(
    params=[
        pytest.param("torch", id="torch"),
        pytest.param("host", id="kernels-on-cpu"),
        pytest.param("cuda", id="kernels-on-gpu", marks=pytest.mark.gpu),
    ]
)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Torch on the CPU, the CUDA source built by g++ on the CPU, and the kernels on a GPU."""
    if request.param == "host":
        use_host_kernels(monkeypatch)
        return Place("cpu", "cuda")
    if request.param == "cuda":
        require_gpu()
        return Place("cuda", "cuda")
    return Place("cpu", "torch")
