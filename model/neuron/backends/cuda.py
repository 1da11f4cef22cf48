"""The CUDA kernels: compiled by NVRTC when first needed, launched on torch's device and stream.

The one file that imports cupy, and only when a kernel is to run or to be compiled. A loaded kernel
belongs to one process and one device. Its variants are few (file, storage type, steps a thread
holds at once) and know no shape: a new shape compiles nothing, but for a new T, which may need
another variant of `temporal.cu` (1, 2 or 4 steps at once) or `binary.cu` (1, 2, 4 or 8).

cupy's own way from source to kernel (RawModule) compiles with -ftz=true, which nothing undoes: its
kernels take denormal numbers for zeros, and so would neither give the law's bits nor tell an open
window from a closed one. Hence NVRTC is called here, and cupy loads and launches the binary.
"""

import functools
import importlib
import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

BLOCK = 256  # as in kernels/storage.cuh
SOURCES = Path(__file__).parent / "kernels"

# Kernel -> the file that holds it.
FILES = {
    "integer_forward": "integer.cu",
    "integer_backward": "integer.cu",
    "temporal_forward": "temporal.cu",
    "temporal_backward": "temporal.cu",
    "lif_forward": "binary.cu",
    "lif_backward": "binary.cu",
    "norm_forward": "batch_norm.cu",
    "norm_sums": "batch_norm.cu",
    "norm_backward": "batch_norm.cu",
    "lane_copy": "copy.cu",
}
STORAGE = {torch.float32: "float", torch.float16: "Half", torch.bfloat16: "Brain"}
UNROLLS = {
    "integer.cu": (1,),
    "temporal.cu": (1, 2, 4),
    "binary.cu": (1, 2, 4, 8),
    "batch_norm.cu": (1,),
    "copy.cu": (1,),
}

# (process, device, kernel, storage, unroll) -> cupy's Function.
_kernels: dict[tuple[int, int, str, torch.dtype, int], Any] = {}


class _Stream(NamedTuple):
    """A stream as cupy reads it: its handle."""

    ptr: int


def launch(
    kernel: str,
    like: Tensor,
    threads: int,
    arguments: Sequence[int | np.int32 | np.float32],
    *,
    unroll: int = 1,
) -> None:
    """Run a kernel on torch's current stream of a tensor's device.

    Args:
        kernel: A key of `FILES`.
        like: Tensor whose device and type the kernel works on.
        threads: How many threads have work; none launches nothing.
        arguments: In the order of the kernel's signature; an `int` is 64 bits wide there.
        unroll: Steps a thread holds at once, one of `UNROLLS`.

    Raises:
        RuntimeError: Where the first use of a kernel falls into the capture of a CUDA graph.
    """
    if threads == 0:
        return
    # Backward runs on another thread: device and stream are those that torch has there.
    with torch.cuda.device(like.device):
        function = _load_kernel(kernel, like.dtype, unroll)
        stream = _Stream(torch.cuda.current_stream().cuda_stream)
        function((-(-threads // BLOCK),), (BLOCK,), tuple(arguments), 0, stream)


def load_all(device: torch.device, dtypes: Sequence[torch.dtype] = tuple(STORAGE)) -> None:
    """Compile and load every kernel for a device, as before the capture of a CUDA graph."""
    with torch.cuda.device(device):
        for dtype in dtypes:
            for kernel, file in FILES.items():
                for unroll in UNROLLS[file]:
                    _load_kernel(kernel, dtype, unroll)


def find_obstacle(torch_cuda: str) -> str:
    """Reason why cupy cannot compile and load kernels; empty if it can.

    Args:
        torch_cuda: Version of CUDA that torch is built for, as "13.0".
    """
    torch_major = torch_cuda.split(".")[0]
    try:
        cupy_cuda: Any = importlib.import_module("cupy.cuda")
        cupy_major = cupy_cuda.driver.get_build_version() // 1000
        driver = cupy_cuda.runtime.driverGetVersion() // 1000
    except Exception as error:
        # cupy passes on whatever its libraries raise, in a frame of several lines.
        lines = [line.strip() for line in str(error).splitlines() if line.strip(" =")]
        reason = lines[-1] if lines else repr(error)
        return f"cupy cannot be loaded ({reason}): install cupy-cuda{torch_major}x"
    if str(cupy_major) != torch_major:
        return (
            f"cupy is built for CUDA {cupy_major} and this torch for CUDA {torch_major}: "
            f"install cupy-cuda{torch_major}x instead"
        )
    if 0 < driver < cupy_major:
        return (
            f"cupy is built for CUDA {cupy_major} and the driver knows CUDA {driver}: "
            f"install cupy-cuda{driver}x instead, or a newer driver"
        )
    try:
        cupy_cuda.nvrtc.getVersion()
    except Exception as error:
        package = "nvidia-cuda-nvrtc" if cupy_major > 12 else f"nvidia-cuda-nvrtc-cu{cupy_major}"
        return f"cupy finds no NVRTC for CUDA {cupy_major} ({error}): install {package}"
    return ""


def list_compile_options(dtype: torch.dtype, unroll: int) -> tuple[str, ...]:
    """Compiler options of a variant; every operation rounds by itself."""
    return (
        "-std=c++17",
        "--fmad=false",
        f"-DNEURON_STORAGE={STORAGE[dtype]}",
        f"-DNEURON_UNROLL={unroll}",
    )


@functools.cache
def read_source(file: str) -> str:
    """A kernel file with our own headers written in, so that nothing has to be found."""
    text = (SOURCES / file).read_text()
    return re.sub(r'#include "(\S+)"\n', lambda match: (SOURCES / match[1]).read_text(), text)


def compile_binary(
    file: str, dtype: torch.dtype, unroll: int, architecture: int
) -> tuple[bytes, str]:
    """The binary of a variant, and the assembler's report (registers, spills). Needs no GPU.

    Args:
        file: One of the files of `FILES`.
        dtype: Storage type.
        unroll: One of `UNROLLS[file]`.
        architecture: Compute capability without the point, as 90.

    Raises:
        RuntimeError: With the compiler's log, where it does not compile.
    """
    nvrtc: Any = importlib.import_module("cupy.cuda").nvrtc

    program = nvrtc.createProgram(read_source(file), file, [], [])
    options = (
        *list_compile_options(dtype, unroll),
        f"--gpu-architecture=sm_{architecture}",
        "--ptxas-options=-v",
    )
    try:
        nvrtc.compileProgram(program, options)
        return _complete_binary(nvrtc.getCUBIN(program)), nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError as error:
        raise RuntimeError(f"{file}: {error}\n{nvrtc.getProgramLog(program)}") from error
    finally:
        nvrtc.destroyProgram(program)


def _complete_binary(binary: bytes) -> bytes:
    """A binary whose program headers, its last part, are whole.

    cupy takes the last byte, a zero, for the end of a string and cuts it off. The driver reads a
    zero there again, behind the bytes of Python; tools that read files refuse it.
    """
    start, size, count = (
        *struct.unpack_from("<Q", binary, 0x20),
        *struct.unpack_from("<HH", binary, 0x36),
    )
    return binary.ljust(start + size * count, b"\0")


def _load_kernel(kernel: str, dtype: torch.dtype, unroll: int) -> Any:
    """The kernel for the current device, loaded if this is its first use in this process."""
    key = (os.getpid(), torch.cuda.current_device(), kernel, dtype, unroll)
    if key not in _kernels:
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"kernel {kernel} for {dtype} is not loaded, and cannot be while a CUDA graph is "
                "captured: run the model once before, or call cuda.load_all(device)"
            )
        architecture = _choose_architecture(*torch.cuda.get_device_capability())
        binary, _ = compile_binary(FILES[kernel], dtype, unroll, architecture)
        module: Any = importlib.import_module("cupy.cuda").Module()
        module.load(binary)
        for name, file in FILES.items():
            if file == FILES[kernel]:
                _kernels[(*key[:2], name, *key[3:])] = module.get_function(name)
    return _kernels[key]


def _choose_architecture(major: int, minor: int) -> int:
    """The newest architecture whose binaries run on a device and that NVRTC compiles for.

    Raises:
        RuntimeError: Where there is none; says what to install.
    """
    nvrtc: Any = importlib.import_module("cupy.cuda").nvrtc
    supported = [number for number in nvrtc.getSupportedArchs() if number // 10 == major]
    runnable = [number for number in supported if number % 10 <= minor]
    if not runnable:
        version = ".".join(map(str, nvrtc.getVersion()))
        raise RuntimeError(
            f"NVRTC {version} compiles for no GPU of compute capability {major}.{minor}: install "
            f"another nvidia-cuda-nvrtc, or set neuron.backend to torch"
        )
    return max(runnable)
