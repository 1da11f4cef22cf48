"""The CUDA kernels built for the CPU by g++ and put where `cuda.launch` stands.

Everything but the launch itself is then what runs on a GPU: the kernels' source with its indexing,
the layouts, the allocations, and the arguments in their order and width.
"""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from spikeseg.model.neuron.backends import cuda

_HEADER = Path(__file__).with_suffix(".h")
_CTYPES = {int: ctypes.c_int64, np.int32: ctypes.c_int32, np.float32: ctypes.c_float}


def use_host_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let backend `cuda` run on CPU tensors, with the kernels that g++ made of the CUDA source."""
    if shutil.which("g++") is None:
        pytest.skip("no g++: the CUDA source cannot be built for the CPU")
    if not _takes_half():
        pytest.skip("this g++ has no _Float16: version 12 or newer is needed on x86-64")
    monkeypatch.setattr(cuda, "launch", launch)
    monkeypatch.setattr(
        "spikeseg.model.neuron.backends.operators.choose_backend",
        lambda wanted, *_: "torch" if wanted == "torch" else "cuda",
    )


def launch(
    kernel: str,
    like: Tensor,
    threads: int,
    arguments: Sequence[int | np.int32 | np.float32],
    *,
    unroll: int = 1,
    last_blocks: int | None = None,
) -> None:
    """Run a kernel over all its threads, or those of the last blocks, one after the other."""
    if threads == 0:
        return
    values = [_CTYPES[type(argument)](argument) for argument in arguments]
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    function = getattr(_library(cuda.FILES[kernel], like.dtype, unroll), f"launch_{kernel}")
    grid = -(-threads // cuda.BLOCK)
    first = 0 if last_blocks is None else max(0, grid - last_blocks)
    function(pointers, ctypes.c_longlong(first), ctypes.c_longlong(grid), ctypes.c_int(cuda.BLOCK))


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="spikeseg-host-kernels-")


@functools.cache
def _library(file: str, dtype: torch.dtype, unroll: int) -> ctypes.CDLL:
    """A variant of a kernel file as a shared library."""
    assert unroll in cuda.UNROLLS[file], (file, unroll)
    folder = Path(_folder().name)
    name = f"{file.removesuffix('.cu')}_{cuda.STORAGE[dtype]}_{unroll}"
    launchers = "".join(
        f"LAUNCHER({kernel})\n" for kernel, its in cuda.FILES.items() if its == file
    )
    text = f'#include "{_HEADER}"\n{cuda.read_source(file)}\n{launchers}'
    (folder / f"{name}.cpp").write_text(text)
    defines = [
        option for option in cuda.list_compile_options(dtype, unroll) if option.startswith("-D")
    ]
    command = ["g++", "-O1", "-std=c++17", "-ffp-contract=off", "-fno-strict-aliasing", "-Wall"]
    command += ["-Werror", "-Wno-unknown-pragmas", "-fPIC", "-shared", *defines]
    # As on a GPU, a 16-byte access that is not aligned ends the process.
    command += ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]
    command += [str(folder / f"{name}.cpp"), "-o", str(folder / f"{name}.so")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(folder / f"{name}.so"))


@functools.cache
def _takes_half() -> bool:
    command = ["g++", "-x", "c++", "-fsyntax-only", "-"]
    return (
        subprocess.run(command, input="_Float16 x;", text=True, capture_output=True).returncode == 0
    )
