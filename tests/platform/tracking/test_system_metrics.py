"""System metrics: those of a GPU from NVML, of which the functions here stand in for the driver."""

import logging
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest
import torch

from spikeseg.platform.tracking import system_metrics
from spikeseg.platform.tracking.metric_table import METRICS
from spikeseg.platform.tracking.system_metrics import sample

Patch = pytest.MonkeyPatch


class NVMLError(Exception):
    """As NVML's own: no class of Python's but this one."""


class Driver(ModuleType):
    """NVML as `nvidia-ml-py` has it, of two GPUs."""

    NVMLError_DriverNotLoaded = type("NVMLError_DriverNotLoaded", (NVMLError,), {})

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.error: Exception | None = None

    def nvmlInit(self) -> None:  # noqa: N802 (NVML names it so)
        if self.error is not None:
            raise self.error

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=(3, 87)[handle], memory=0)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        return (70_000, 612_345)[handle]


@pytest.fixture
def gpu(monkeypatch: Patch) -> Iterator[None]:
    """A process that has begun to use a GPU, the second of its machine."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (40 * 10**9, 140 * 10**9))
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "_get_device_index", lambda *given, **named: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    system_metrics._warn_once.cache_clear()
    yield
    system_metrics._warn_once.cache_clear()


@pytest.fixture
def driver(monkeypatch: Patch, gpu: None) -> Driver:
    made = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    monkeypatch.setattr(torch.cuda, "pynvml", made, raising=False)
    monkeypatch.setattr(torch.cuda, "_HAS_PYNVML", True)
    return made


def test_use_and_power_of_the_visible_gpu_are_measured(driver: Driver) -> None:
    values = sample()
    assert values["system/gpu_utilization_percentage"] == 87.0
    assert values["system/gpu_power_usage_watts"] == 612.345
    assert values["system/gpu_memory_usage_megabytes"] == 100_000.0
    assert set(values) <= set(METRICS)


@pytest.mark.parametrize(
    "error", [NVMLError("Not Supported"), Driver.NVMLError_DriverNotLoaded("Driver Not Loaded")]
)
def test_a_gpu_without_sensors_costs_one_line_and_the_rest_is_measured(
    driver: Driver, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    driver.error = error
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            values = sample()
            assert "system/gpu_memory_usage_megabytes" in values
            assert "system/gpu_power_usage_watts" not in values
    assert len(caplog.messages) == 1
    assert "power and use of the GPU are not recorded" in caplog.messages[0]


def test_without_nvidias_library_a_line_says_what_to_install(
    gpu: None, monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "_HAS_PYNVML", False)
    monkeypatch.setattr(torch.cuda, "_PYNVML_ERR", None, raising=False)
    with caplog.at_level(logging.WARNING):
        assert "system/gpu_power_usage_watts" not in sample()
    assert "pip install nvidia-ml-py" in caplog.text


def test_without_a_gpu_nothing_is_asked_and_nothing_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not [name for name in sample() if "gpu" in name]
    assert not caplog.messages
