"""`cupy.cuda` without a GPU: sources are built by g++, launches run on CPU tensors in this thread.

All of `cuda.py` stays as it is: source and options to compiler, binary to module, module to
function, function to launch. What a driver refuses is refused, every launch is written down.
"""

import contextlib
import ctypes
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import device_limits
import numpy as np
import pytest
import torch

from spikeseg.jobs.benchmark_gpu import host_kernels
from spikeseg.model.neuron.backends import cuda, operators

ARCHITECTURES = tuple(device_limits.LIMITS)
_OPTIONS = ("-std=c++17", "--fmad=false", "--ptxas-options=-v")


class Launch(NamedTuple):
    """One launch as the driver sees it.

    Attributes:
        kernel: Its name.
        grid: Blocks.
        block: Threads of a block.
        arguments: What was handed over.
        shared: Bytes of shared memory asked for.
        stream: Handle of the stream.
        thread: The thread of Python.
    """

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[Any, ...]
    shared: int
    stream: int
    thread: int


class CupyStandIn:
    """A GPU that runs on the CPU: cupy's module, and torch's device and streams.

    Args:
        build: Whether kernels are built and run; else launches are only written down.
        capability: What torch says of the device.
    """

    def __init__(self, *, build: bool = True, capability: tuple[int, int] = (9, 0)) -> None:
        self.launches: list[Launch] = []
        self.compiled: list[tuple[str, tuple[str, ...]]] = []
        self.capability = capability
        self._build = build
        self._local = threading.local()

    @contextlib.contextmanager
    def stream(self, handle: int) -> Iterator[None]:
        """Make a stream this thread's current one, as `torch.cuda.stream` does."""
        before = self.current_stream()
        self._local.stream = handle
        try:
            yield
        finally:
            self._local.stream = before

    def current_stream(self) -> int:
        """Handle of this thread's stream; 0 is the default one."""
        return getattr(self._local, "stream", 0)

    @contextlib.contextmanager
    def on(self, _: torch.device) -> Iterator[None]:
        """As `torch.cuda.device`."""
        depth = getattr(self._local, "depth", 0)
        self._local.depth = depth + 1
        try:
            yield
        finally:
            self._local.depth = depth

    def make_modules(self) -> SimpleNamespace:
        """What stands for `cupy.cuda`."""
        nvrtc = SimpleNamespace(
            NVRTCError=type("NVRTCError", (Exception,), {}),
            getVersion=lambda: (13, 5),
            getSupportedArchs=lambda: ARCHITECTURES,
            createProgram=lambda source, name, _headers, _names: SimpleNamespace(
                source=source, name=name, options=()
            ),
            compileProgram=self._compile,
            getCUBIN=lambda program: program.binary,
            getProgramLog=lambda _: "",
            destroyProgram=lambda _: None,
        )
        return SimpleNamespace(nvrtc=nvrtc, Module=lambda: _Module(self))

    def _compile(self, program: Any, options: tuple[str, ...]) -> None:
        defines = tuple(option for option in options if option.startswith("-D"))
        targets = [option for option in options if option.startswith("--gpu-architecture=sm_")]
        assert set(options) == {*_OPTIONS, *defines, *targets}, options
        assert [int(target.partition("sm_")[2]) in ARCHITECTURES for target in targets] == [True]
        self.compiled.append((program.name, options))
        header = b"\x7fELF\x02".ljust(64, b"\0")
        if self._build:
            library = host_kernels.build_source(program.name, program.source, defines)
            header = library.read_bytes()
        program.binary = header

    def run(self, library: ctypes.CDLL | None, launch: Launch) -> None:
        """Check a launch as a driver does, write it down, and run it."""
        (grid,), (block,) = launch.grid, launch.block
        assert getattr(self._local, "depth", 0), "the tensor's device is not the current one"
        assert 1 <= grid <= device_limits.BLOCKS_OF_A_GRID
        assert 1 <= block <= device_limits.THREADS_PER_BLOCK
        assert 0 <= launch.shared <= device_limits.SHARED_PER_BLOCK
        self.launches.append(launch)
        if library is not None:
            pack = host_kernels.pack_arguments(launch.arguments)
            function = getattr(library, f"launch_{launch.kernel}")
            function(
                pack.pointers, ctypes.c_longlong(0), ctypes.c_longlong(grid), ctypes.c_int(block)
            )


class _Module:
    def __init__(self, stand_in: CupyStandIn) -> None:
        self._stand_in = stand_in
        self._library: ctypes.CDLL | None = None

    def load(self, binary: bytes) -> None:
        assert binary[:4] == b"\x7fELF"
        if len(binary) > 64:
            with tempfile.NamedTemporaryFile(suffix=".so") as file:
                Path(file.name).write_bytes(binary)
                self._library = ctypes.CDLL(file.name)

    def get_function(self, name: str) -> "_Function":
        return _Function(self._stand_in, self._library, name)


class _Function:
    """As cupy's `Function`: grid, block, arguments, shared memory, stream."""

    def __init__(self, stand_in: CupyStandIn, library: ctypes.CDLL | None, name: str) -> None:
        self._stand_in = stand_in
        self._library = library
        self._name = name

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: tuple[int | np.int32 | np.float32, ...],
        shared: int = 0,
        stream: Any = None,
    ) -> None:
        thread = threading.get_ident()
        launch = Launch(self._name, grid, block, arguments, shared, stream.ptr, thread)
        self._stand_in.run(self._library, launch)


def use_cupy_stand_in(
    monkeypatch: pytest.MonkeyPatch, *, build: bool = True, capability: tuple[int, int] = (9, 0)
) -> CupyStandIn:
    """Put the stand-in where cupy and torch's GPU are, until the test ends; skip without g++."""
    obstacle = host_kernels.find_host_obstacle() if build else ""
    if obstacle:
        pytest.skip(obstacle)
    stand_in = CupyStandIn(build=build, capability=capability)
    monkeypatch.setitem(sys.modules, "cupy.cuda", stand_in.make_modules())
    monkeypatch.setattr(cuda, "_kernels", {})
    monkeypatch.setattr(torch.cuda, "device", stand_in.on)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(
        torch.cuda,
        "current_stream",
        lambda: SimpleNamespace(cuda_stream=stand_in.current_stream()),
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: stand_in.capability)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(
        operators,
        "choose_backend",
        lambda wanted, *_: "torch" if wanted == "torch" else "cuda",
    )
    return stand_in
