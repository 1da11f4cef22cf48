"""How kernels are loaded and launched, against a driver that only writes down what it is told."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from neuron_cases import call_every_kernel

from spikeseg.model.neuron.backends import cuda


class Driver:
    """Stands for torch.cuda and cupy.cuda: two devices, a stream for every thread and device."""

    def __init__(self) -> None:
        self.device = 0
        self.capturing = False
        self.compiled: list[tuple[str, torch.dtype, int, int]] = []
        self.launches: list[SimpleNamespace] = []

    def stream(self) -> SimpleNamespace:
        return SimpleNamespace(cuda_stream=hash((threading.get_ident(), self.device)))

    @contextlib.contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        before, self.device = self.device, device.index
        try:
            yield
        finally:
            self.device = before

    def compile(self, *variant: Any) -> tuple[bytes, str]:
        self.compiled.append(variant)
        return repr(variant).encode(), ""

    def module(self) -> SimpleNamespace:
        loaded_on, loaded = self.device, []

        def get_function(name: str) -> Any:
            def function(grid: Any, block: Any, arguments: Any, shared: int, stream: Any) -> None:
                assert loaded and loaded_on == self.device, "a module of another device"
                self.launches.append(
                    SimpleNamespace(
                        kernel=name,
                        grid=grid,
                        block=block,
                        arguments=arguments,
                        shared=shared,
                        stream=stream.ptr,
                        device=self.device,
                        thread=threading.get_ident(),
                    )
                )

            return function

        return SimpleNamespace(load=loaded.append, get_function=get_function)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    nvrtc = SimpleNamespace(getSupportedArchs=lambda: (75, 80, 86, 90, 100, 120))
    nvrtc.getVersion = lambda: (13, 0)
    fake = SimpleNamespace(Module=driver.module, nvrtc=nvrtc)
    monkeypatch.setitem(sys.modules, "cupy.cuda", fake)
    monkeypatch.setattr(cuda, "_kernels", {})
    monkeypatch.setattr(cuda, "compile_binary", driver.compile)
    monkeypatch.setattr(torch.cuda, "device", driver.on)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: driver.device)
    monkeypatch.setattr(torch.cuda, "current_stream", driver.stream)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: driver.capturing)
    return driver


def like(index: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """What `launch` looks at of a tensor on a GPU that is not there."""
    return SimpleNamespace(device=torch.device("cuda", index), dtype=dtype)


def test_a_launch_goes_to_the_tensors_device_and_to_torchs_stream_there(driver: Driver) -> None:
    cuda.launch("integer_forward", like(1), 1000, (1 << 40, np.int32(1), np.float32(0.5)))
    (seen,) = driver.launches
    assert (seen.kernel, seen.grid, seen.block, seen.shared) == ("integer_forward", (4,), (256,), 0)
    assert seen.arguments == (1 << 40, np.int32(1), np.float32(0.5))
    assert seen.device == 1
    assert seen.stream == hash((threading.get_ident(), 1))
    assert driver.device == 0


def test_the_callers_device_is_restored_when_a_launch_fails(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "launches", None)
    with pytest.raises(AttributeError):
        cuda.launch("integer_forward", like(1), 8, ())
    assert driver.device == 0


def test_another_thread_launches_on_its_own_stream(driver: Driver) -> None:
    cuda.launch("integer_forward", like(), 8, ())
    thread = threading.Thread(target=cuda.launch, args=("integer_backward", like(), 8, ()))
    thread.start()
    thread.join()
    first, second = driver.launches
    assert first.thread != second.thread
    assert second.stream == hash((second.thread, 0)) != first.stream


def test_a_file_is_compiled_once_a_type_and_loaded_once_a_device(driver: Driver) -> None:
    for index in (0, 1, 0):
        for threads in (1, 257, 100_000):
            cuda.launch("integer_forward", like(index), threads, ())
            cuda.launch("integer_backward", like(index), threads, ())
    assert driver.compiled == [("integer.cu", torch.float32, 1, 90)] * 2
    assert {key[1] for key in cuda._kernels} == {0, 1}
    cuda.launch("integer_forward", like(0, torch.bfloat16), 1, ())
    assert driver.compiled[2:] == [("integer.cu", torch.bfloat16, 1, 90)]


def test_a_forked_process_loads_its_own(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda.launch("integer_forward", like(), 1, ())
    monkeypatch.setattr(cuda.os, "getpid", lambda: 1)
    cuda.launch("integer_forward", like(), 1, ())
    assert len(driver.compiled) == 2


def test_nothing_is_compiled_while_a_graph_is_captured(driver: Driver) -> None:
    driver.capturing = True
    with pytest.raises(RuntimeError, match=r"run the model once before, or call cuda\.load_all"):
        cuda.launch("integer_forward", like(), 1, ())
    assert not driver.compiled and not driver.launches
    driver.capturing = False
    cuda.load_all(torch.device("cuda", 0))
    count = sum(len(unrolls) for unrolls in cuda.UNROLLS.values()) * len(cuda.STORAGE)
    assert len(driver.compiled) == count
    driver.capturing = True
    for kernel, file in cuda.FILES.items():
        cuda.launch(kernel, like(), 1, (), unroll=max(cuda.UNROLLS[file]))
    assert len(driver.compiled) == count
    assert len(driver.launches) == len(cuda.FILES)


def test_without_work_nothing_is_launched(driver: Driver) -> None:
    cuda.launch("integer_forward", like(), 0, ())
    assert not driver.compiled and not driver.launches


@pytest.mark.parametrize(
    ("capability", "architecture"), [((8, 6), 86), ((8, 9), 86), ((12, 1), 120), ((9, 0), 90)]
)
def test_a_binary_of_the_same_generation_runs(
    driver: Driver, capability: tuple[int, int], architecture: int
) -> None:
    assert cuda._choose_architecture(*capability) == architecture


def test_a_gpu_that_the_compiler_does_not_know_is_named(driver: Driver) -> None:
    with pytest.raises(RuntimeError, match=r"no GPU of compute capability 7\.0: install another"):
        cuda._choose_architecture(7, 0)


Recorded = list[tuple[str, int, tuple[Any, ...], int]]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """What would be launched: kernel, threads, arguments, unroll."""
    calls: Recorded = []

    def launch(kernel: str, _: Any, threads: int, arguments: Any, *, unroll: int = 1) -> None:
        calls.append((kernel, threads, tuple(arguments), unroll))

    monkeypatch.setattr(cuda, "launch", launch)
    return calls


def test_more_than_two_to_the_31_elements_are_counted_in_64_bits(recorded: Recorded) -> None:
    x = torch.empty(4, (1 << 30) + 3, 2, dtype=torch.bfloat16, device="meta")
    call_every_kernel(x, with_state=False)
    assert {call[0] for call in recorded} == set(cuda.FILES)
    for kernel, threads, arguments, _ in recorded:
        step = kernel.startswith(("temporal", "lif"))
        n = x[0].numel() if step else x.numel()
        # An int is 64 bits wide at the launch; a numpy scalar would be what it is.
        assert any(type(value) is int and value == n for value in arguments), kernel
        assert -(-threads // cuda.BLOCK) < 1 << 31
        if kernel != "norm_sums":
            assert threads == -(-n // 8)


def test_constants_go_by_value_and_in_the_kernels_width(recorded: Recorded) -> None:
    call_every_kernel(torch.empty(2, 24, 8, device="meta"), with_state=False)
    for kernel, _, arguments, unroll in recorded:
        assert {type(value) for value in arguments} <= {int, np.int32, np.float32}, kernel
        assert unroll in cuda.UNROLLS[cuda.FILES[kernel]]
