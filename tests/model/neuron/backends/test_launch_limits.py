"""Every launch fits what GPUs take, and its arguments what the binaries and the source declare."""

import re
from collections.abc import Iterator
from typing import Any

import device_limits
import numpy as np
import pytest
import torch
from cubin import KernelInfo, Parameter, read_kernels
from cupy_stand_in import CupyStandIn, Launch, use_cupy_stand_in
from neuron_cases import call_every_kernel
from torch import Tensor

from spikeseg.model.neuron.backends import cuda, kernel_calls

# C's types of a parameter -> what `kernel_calls` hands over, and its bytes.
TYPES: dict[str, tuple[type, int]] = {
    "*": (int, 8),
    "int64": (int, 8),
    "int": (np.int32, 4),
    "float": (np.float32, 4),
}
# The last is a terabyte of 16-bit numbers, more than a GPU holds.
LENGTHS = [1, 7, 8, 9, 2047, 2048, 2049, 10**6 + 3, 2**31 - 1, 2**31, 2**31 + 5, 2**32 + 1, 2**39]


def list_declared(kernel: str) -> list[tuple[str, str]]:
    """Type and name of a kernel's parameters, as its source declares them; pointers are `*`."""
    text = cuda.read_source(cuda.FILES[kernel])
    found = re.search(rf"__global__ void __launch_bounds__\(BLOCK\) {kernel}\((.*?)\)", text, re.S)
    assert found, kernel
    declared = []
    for parameter in found[1].split(","):
        words = parameter.replace("__restrict__", "").replace("const", "").split()
        kind = "*" if "*" in parameter else words[0]
        declared.append((kind, words[-1].lstrip("*")))
    return declared


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> CupyStandIn:
    return use_cupy_stand_in(monkeypatch, build=False)


def named(launch: Launch) -> dict[str, Any]:
    """Arguments by the names in the source."""
    names = [name for _, name in list_declared(launch.kernel)]
    assert len(names) == len(launch.arguments), launch.kernel
    return dict(zip(names, launch.arguments, strict=True))


def count_threads(launch: Launch) -> int:
    """Threads that have work, by the kernel's own arguments."""
    values = named(launch)
    if launch.kernel == "norm_sums":
        return values["channels"] * values["workers"]
    return -(-values["n"] // kernel_calls.LANE)


@pytest.mark.parametrize("dtype", cuda.STORAGE, ids=str)
def test_grids_and_blocks_fit_every_architecture(stand_in: CupyStandIn, dtype: torch.dtype) -> None:
    for length in LENGTHS:
        for steps in (1, 2, 5):
            for channels in (1, 3, 64):
                x = torch.empty(steps, -(-length // channels), channels, dtype=dtype, device="meta")
                call_every_kernel(x)
    assert {launch.kernel for launch in stand_in.launches} == set(cuda.FILES)
    for launch in stand_in.launches:
        (grid,), (block,), threads = launch.grid, launch.block, count_threads(launch)
        assert 1 <= grid <= device_limits.BLOCKS_OF_A_GRID
        assert (grid - 1) * block < threads <= grid * block, launch
        assert block % device_limits.WARP == 0
        assert block <= device_limits.THREADS_PER_BLOCK
        assert launch.shared == 0
        for limits in device_limits.LIMITS.values():
            assert block <= limits.threads_per_sm
            # Whole blocks fill a multiprocessor.
            assert limits.threads_per_sm % block == 0
    longest = max(named(launch).get("n", 0) for launch in stand_in.launches)
    assert longest > 1 << 39


def test_nothing_is_launched_for_nothing(stand_in: CupyStandIn) -> None:
    call_every_kernel(torch.empty(2, 0, 3, device="meta"))
    assert not [launch for launch in stand_in.launches if launch.kernel != "norm_sums"]


def list_views(dtype: torch.dtype) -> Iterator[Tensor]:
    """Inputs that begin at any element after a 16-byte border, of whole and of odd steps."""
    for offset in range(9):
        for shape in ((1, 4, 8), (3, 4, 8), (3, 1, 4), (2, 5, 7)):
            count = shape[0] * shape[1] * shape[2]
            flat = torch.zeros(count + offset, dtype=dtype)
            yield flat[offset:].view(shape)


@pytest.mark.parametrize("dtype", cuda.STORAGE, ids=str)
def test_wide_accesses_are_aligned_and_are_used_where_they_can_be(
    stand_in: CupyStandIn, dtype: torch.dtype
) -> None:
    seen = set()
    for x in list_views(dtype):
        before = len(stand_in.launches)
        for with_state in (False, True):
            call_every_kernel(x, with_state=with_state)
        for launch in stand_in.launches[before:]:
            values = named(launch)
            stored = [name for kind, name in list_stored(launch.kernel)]
            potentials = [name for name in ("before", "after") if name in values]
            wide = values.get("wide", 0)
            stride = values["n"] * dtype.itemsize if values.get("steps", 1) > 1 else 0
            aligned = all(values[name] % 16 == 0 for name in stored) and stride % 16 == 0
            assert wide == aligned or launch.kernel == "norm_sums", launch
            # Potentials are float32 and read by the same lanes, so always aligned.
            assert all(values[name] % 16 == 0 for name in potentials)
            assert all(values[name] % dtype.itemsize == 0 for name in stored)
            seen.add((launch.kernel, bool(wide)))
    kernels = set(cuda.FILES) - {"norm_sums"}
    assert seen >= {(kernel, wide) for kernel in kernels for wide in (False, True)}


def list_stored(kernel: str) -> list[tuple[str, str]]:
    """Pointers to the storage type."""
    text = cuda.read_source(cuda.FILES[kernel])
    found = re.search(rf"__global__ void __launch_bounds__\(BLOCK\) {kernel}\((.*?)\)", text, re.S)
    assert found
    return re.findall(r"(Storage)\* __restrict__ (\w+)", found[1])


def test_arguments_have_the_types_that_the_source_declares(stand_in: CupyStandIn) -> None:
    for shape in ((1, 4, 8), (3, 5, 7)):
        for with_state in (False, True):
            call_every_kernel(torch.zeros(shape), with_state=with_state)
    assert {launch.kernel for launch in stand_in.launches} == set(cuda.FILES)
    for launch in stand_in.launches:
        for (kind, name), argument in zip(
            list_declared(launch.kernel), launch.arguments, strict=True
        ):
            assert type(argument) is TYPES[kind][0], f"{launch.kernel}: {name}"


def lay_out(kernel: str) -> list[Parameter]:
    """Where the source's parameters lie: each at a multiple of its size."""
    places: list[Parameter] = []
    end = 0
    for kind, _ in list_declared(kernel):
        size = TYPES[kind][1]
        start = -(-end // size) * size
        places.append(Parameter(start, size))
        end = start + size
    return places


def read_compiled(
    file: str, dtype: torch.dtype, unroll: int, architecture: int
) -> dict[str, KernelInfo]:
    """The kernels of a file as the compiler made them, or a skip where it is not there."""
    nvrtc = pytest.importorskip("cupy.cuda", reason="compiling needs cupy (dev extra)").nvrtc
    try:
        nvrtc.getVersion()
    except Exception as error:
        pytest.skip(f"no NVRTC: install nvidia-cuda-nvrtc (dev extra): {error}")
    return read_kernels(cuda.compile_binary(file, dtype, unroll, architecture)[0])


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [
        pytest.param(
            architecture,
            dtype,
            marks=[] if (architecture, dtype) == (90, torch.bfloat16) else pytest.mark.slow,
            id=f"sm_{architecture} {dtype}",
        )
        for architecture in device_limits.LIMITS
        for dtype in cuda.STORAGE
    ],
)
def test_arguments_lie_where_the_binaries_look_for_them(
    architecture: int, dtype: torch.dtype
) -> None:
    for file, unrolls in cuda.UNROLLS.items():
        for unroll in unrolls if architecture == 75 else unrolls[-1:]:
            compiled = read_compiled(file, dtype, unroll, architecture)
            assert set(compiled) == {kernel for kernel, its in cuda.FILES.items() if its == file}
            for kernel, info in compiled.items():
                places = lay_out(kernel)
                assert info.parameters == places, kernel
                assert info.parameter_bytes == places[-1].offset + places[-1].size
                assert info.shared <= device_limits.SHARED_PER_BLOCK
                assert info.registers <= device_limits.REGISTERS_PER_THREAD
                occupancy = device_limits.compute_occupancy(
                    architecture, cuda.BLOCK, info.registers, info.shared
                )
                assert occupancy > 0, f"{kernel}: not one block fits"


def test_a_parameter_of_another_width_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    source = cuda.read_source("copy.cu")
    monkeypatch.setattr(cuda, "read_source", lambda _: source.replace("int wide)", "int64 wide)"))
    info = read_compiled("copy.cu", torch.float32, 1, 90)["lane_copy"]
    monkeypatch.undo()
    assert info.parameters != lay_out("lane_copy")
    assert info.parameters[-1] == Parameter(24, 8)
