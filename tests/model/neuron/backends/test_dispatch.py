"""The backend is chosen once, said aloud, and never silently another."""

import logging
import re
import subprocess
import sys
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import pytest
import torch

from spikeseg.model.neuron.backends.dispatch import choose_backend
from spikeseg.model.neuron.firing_rule import FiringRule
from spikeseg.model.neuron.integer_lif import integer_lif


@pytest.fixture(autouse=True)
def _forget() -> None:
    choose_backend.cache_clear()


def test_a_gpu_without_kernels_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="spikeseg"):
        assert choose_backend("auto", "cpu") == "torch"
        assert not caplog.records
        assert choose_backend("auto", "cuda", torch.float64) == "torch"
    (record,) = caplog.records
    assert "run on the torch backend: its kernels take" in record.getMessage()


def test_a_choice_is_logged_once_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.INFO, logger="spikeseg"):
        for _ in range(3):
            assert choose_backend("auto", "cpu") == "torch"
    assert [record.getMessage() for record in caplog.records] == [
        "neurons (cpu, torch.float32) run on the torch backend: the tensors are on cpu, "
        "and torch sees no GPU"
    ]


@pytest.mark.parametrize(("version", "wheel"), [("12.8", "cupy-cuda12x"), ("13.0", "cupy-cuda13x")])
def test_a_missing_cupy_is_named_for_torchs_cuda(
    monkeypatch: pytest.MonkeyPatch, version: str, wheel: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(
        "spikeseg.model.neuron.backends.dispatch.importlib.util.find_spec", lambda _: None
    )
    with pytest.raises(RuntimeError, match=f"cupy is not installed: .* install {wheel}"):
        choose_backend("cuda", "cuda")
    assert choose_backend("auto", "cuda") == "torch"


def install_cupy(
    monkeypatch: pytest.MonkeyPatch, *, torchs: str, cupys: int, driver: int, nvrtc: str = ""
) -> None:
    """A torch and a cupy for these versions of CUDA; `nvrtc` is what loading it fails with."""

    def version() -> tuple[int, int]:
        if nvrtc:
            raise RuntimeError(nvrtc)
        return cupys, 0

    fake = SimpleNamespace(
        driver=SimpleNamespace(get_build_version=lambda: 1000 * cupys),
        runtime=SimpleNamespace(driverGetVersion=lambda: 1000 * driver + 80),
        nvrtc=SimpleNamespace(getVersion=version),
    )
    monkeypatch.setattr(torch.version, "cuda", torchs)
    spec = ModuleSpec("cupy", None)
    monkeypatch.setattr(
        "spikeseg.model.neuron.backends.dispatch.importlib.util.find_spec", lambda _: spec
    )
    monkeypatch.setitem(sys.modules, "cupy.cuda", fake)


def test_where_everything_is_there_auto_takes_the_kernels(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install_cupy(monkeypatch, torchs="13.0", cupys=13, driver=13)
    with caplog.at_level(logging.INFO, logger="spikeseg"):
        assert choose_backend("auto", "cuda", torch.bfloat16) == "cuda"
    assert "run on the cuda backend: its kernels can run" in caplog.text
    assert choose_backend("torch", "cuda") == "torch"


NO_LIBRARY = "CuPy failed to load libnvrtc.so.12"


@pytest.mark.parametrize(
    ("torchs", "cupys", "driver", "nvrtc", "said"),
    [
        ("13.0", 12, 13, "", "cupy is built for CUDA 12 .* 13: install cupy-cuda13x instead"),
        ("12.8", 13, 12, "", "cupy is built for CUDA 13 .* 12: install cupy-cuda12x instead"),
        ("13.0", 13, 12, "", "the driver knows CUDA 12: install cupy-cuda12x instead"),
        ("12.8", 12, 13, NO_LIBRARY, rf"\({NO_LIBRARY}\): install nvidia-cuda-nvrtc-cu12$"),
        ("13.0", 13, 13, "no file", r"no NVRTC for CUDA 13 .*: install nvidia-cuda-nvrtc$"),
    ],
)
def test_a_cupy_that_cannot_run_is_noticed_before_the_first_kernel(  # noqa: PLR0913
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    torchs: str,
    cupys: int,
    driver: int,
    nvrtc: str,
    said: str,
) -> None:
    install_cupy(monkeypatch, torchs=torchs, cupys=cupys, driver=driver, nvrtc=nvrtc)
    with pytest.raises(RuntimeError, match=said):
        choose_backend("cuda", "cuda")
    with caplog.at_level(logging.WARNING, logger="spikeseg"):
        for _ in range(3):
            assert choose_backend("auto", "cuda") == "torch"
    (record,) = caplog.records
    assert re.search(said, record.getMessage())


def test_a_cupy_that_does_not_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    install_cupy(monkeypatch, torchs="13.0", cupys=13, driver=13)
    monkeypatch.setitem(sys.modules, "cupy.cuda", None)
    with pytest.raises(
        RuntimeError, match=r"cannot be loaded \(.*cupy\.cuda.*\): install cupy-cuda13x"
    ):
        choose_backend("cuda", "cuda")


def test_a_backend_that_is_none_is_named() -> None:
    rule = FiringRule(levels=4, divisor=1.0)
    with pytest.raises(ValueError, match="must be auto, torch or cuda, got 'gpu'"):
        integer_lif(torch.zeros(1, 2), rule, backend="gpu")  # pyright: ignore[reportArgumentType]


def test_named_kernels_that_cannot_run_say_why() -> None:
    with pytest.raises(
        RuntimeError, match=r"neuron\.backend is 'cuda', but the tensors are on cpu"
    ):
        choose_backend("cuda", "cpu")
    with pytest.raises(RuntimeError, match=r"and the tensors are torch\.float64"):
        choose_backend("cuda", "cuda", torch.float64)


def test_importing_the_neurons_imports_no_cupy_and_starts_no_cuda() -> None:
    code = (
        "import sys, torch; from spikeseg.model.neuron.firing_rule import FiringRule; "
        "from spikeseg.model.neuron.integer_lif import integer_lif; "
        "integer_lif(torch.zeros(1, 2), FiringRule(levels=4, divisor=1.0)); "
        "print('cupy' in sys.modules, torch.cuda.is_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
