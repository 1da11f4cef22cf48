"""The backend is chosen once, said aloud, and never silently another."""

import logging
import subprocess
import sys
from importlib.machinery import ModuleSpec

import pytest
import torch

from spikeseg.model.neuron.dispatch import choose_backend


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


def test_a_choice_is_logged_once_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="spikeseg"):
        for _ in range(3):
            assert choose_backend("auto", "cpu") == "torch"
    assert [record.getMessage() for record in caplog.records] == [
        "neurons (cpu, torch.float32) run on the torch backend: the tensors are on cpu"
    ]


@pytest.mark.parametrize(("version", "wheel"), [("12.8", "cupy-cuda12x"), ("13.0", "cupy-cuda13x")])
def test_a_missing_cupy_is_named_for_torchs_cuda(
    monkeypatch: pytest.MonkeyPatch, version: str, wheel: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr("spikeseg.model.neuron.dispatch.importlib.util.find_spec", lambda _: None)
    with pytest.raises(RuntimeError, match=f"cupy is not installed: .* install {wheel}"):
        choose_backend("cuda", "cuda")
    assert choose_backend("auto", "cuda") == "torch"


def test_where_everything_is_there_auto_takes_the_kernels(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    spec = ModuleSpec("cupy", None)
    monkeypatch.setattr("spikeseg.model.neuron.dispatch.importlib.util.find_spec", lambda _: spec)
    with caplog.at_level(logging.INFO, logger="spikeseg"):
        assert choose_backend("auto", "cuda", torch.bfloat16) == "cuda"
    assert "run on the cuda backend: its kernels can run" in caplog.text
    assert choose_backend("torch", "cuda") == "torch"


def test_named_kernels_that_cannot_run_say_why() -> None:
    with pytest.raises(
        RuntimeError, match=r"neuron\.backend is 'cuda', but the tensors are on cpu"
    ):
        choose_backend("cuda", "cpu")
    with pytest.raises(RuntimeError, match=r"and the tensors are torch\.float64"):
        choose_backend("cuda", "cuda", torch.float64)


def test_importing_the_neurons_imports_no_cupy_and_starts_no_cuda() -> None:
    code = (
        "import sys, torch; from spikeseg.model.neuron.integer_lif import integer_lif; "
        "integer_lif(torch.zeros(1, 2), levels=4); "
        "print('cupy' in sys.modules, torch.cuda.is_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
