"""The CUDA kernels built for the CPU by g++ and put where `cuda.launch` stands.

Everything but the launch itself is then what runs on a GPU: the kernels' source with its indexing,
the layouts, the allocations, and the arguments in their order and width. For tests and rehearsals:
threads run one after the other, which is slow.
"""

import contextlib
import ctypes
import functools
import hashlib
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from ...model.neuron.backends import cuda, operators

_HEADER = Path(__file__).with_suffix(".h")
_CTYPES = {int: ctypes.c_int64, np.int32: ctypes.c_int32, np.float32: ctypes.c_float}
_building = threading.Lock()


def find_host_obstacle() -> str:
    """Reason why the kernels cannot be built for this CPU; empty if they can."""
    if shutil.which("g++") is None:
        return "no g++: the CUDA source cannot be built for the CPU"
    if not _takes_half():
        return "this g++ has no _Float16: version 12 or newer is needed on x86-64"
    return ""


def list_replacements() -> list[tuple[Any, str, Any]]:
    """Object, attribute and value of everything that lets backend `cuda` run on CPU tensors."""
    return [
        (cuda, "launch", launch),
        (operators, "choose_backend", lambda wanted, *_: "torch" if wanted == "torch" else "cuda"),
    ]


@contextlib.contextmanager
def host_kernels() -> Iterator[None]:
    """Let backend `cuda` run on CPU tensors in this block.

    Raises:
        RuntimeError: Where the kernels cannot be built here.
    """
    obstacle = find_host_obstacle()
    if obstacle:
        raise RuntimeError(obstacle)
    with contextlib.ExitStack() as stack:
        for replacement in list_replacements():
            stack.enter_context(mock.patch.object(*replacement))
        yield


def launch(
    kernel: str,
    like: Tensor,
    threads: int,
    arguments: Sequence[int | np.int32 | np.float32],
    *,
    unroll: int = 1,
    last_blocks: int | None = None,
) -> None:
    """Run a kernel over all its threads, or those of the last blocks, one after the other.

    Args:
        kernel: As in `cuda.launch`, and so the next ones.
        like: A CPU tensor of the kernel's storage type.
        threads: How many threads have work.
        arguments: In the order of the kernel's signature.
        unroll: Steps a thread holds at once.
        last_blocks: Run only this many blocks, the last ones; None runs all.
    """
    if threads == 0:
        return
    pack = pack_arguments(arguments)
    function = getattr(_build_library(cuda.FILES[kernel], like.dtype, unroll), f"launch_{kernel}")
    grid = -(-threads // cuda.BLOCK)
    first = 0 if last_blocks is None else max(0, grid - last_blocks)
    function(
        pack.pointers, ctypes.c_longlong(first), ctypes.c_longlong(grid), ctypes.c_int(cuda.BLOCK)
    )


class PackedArguments(NamedTuple):
    """Arguments as a CUDA launch takes them.

    Attributes:
        pointers: One to each value.
        values: What they point to, kept alive.
    """

    pointers: ctypes.Array[ctypes.c_void_p]
    values: list[Any]


def pack_arguments(arguments: Sequence[int | np.int32 | np.float32]) -> PackedArguments:
    """Give each argument the width that cupy gives it: an `int` has 64 bits."""
    values = [_CTYPES[type(argument)](argument) for argument in arguments]
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    return PackedArguments(pointers, values)


def build_source(file: str, source: str, defines: Sequence[str]) -> Path:
    """Build the source of a kernel file as a shared library; a second time it is there already.

    Args:
        file: A key of `cuda.UNROLLS`, whose kernels get launchers.
        source: Its text, headers written in.
        defines: Compiler options of the variant, as `-DNEURON_UNROLL=1`.

    Raises:
        RuntimeError: With the compiler's words.
    """
    launchers = "".join(
        f"LAUNCHER({kernel})\n" for kernel, its in cuda.FILES.items() if its == file
    )
    text = f'#include "{_HEADER}"\n{source}\n{launchers}'
    digest = hashlib.sha256("\0".join([text, *defines]).encode()).hexdigest()[:16]
    # Two threads may ask for the folder, and for the same library, at once.
    with _building:
        path = Path(_make_folder().name) / f"{file.removesuffix('.cu')}_{digest}.so"
        if not path.exists():
            path.with_suffix(".cpp").write_text(text)
            command = ["g++", "-O1", "-std=c++17", "-ffp-contract=off", "-fno-strict-aliasing"]
            command += ["-Wall", "-Werror", "-Wno-unknown-pragmas", "-fPIC", "-shared", *defines]
            # As on a GPU, a 16-byte access that is not aligned ends the process.
            command += ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]
            command += [str(path.with_suffix(".cpp")), "-o", str(path)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"g++ refused {file}: {done.stderr}")
    return path


@functools.cache
def _make_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="spikeseg-host-kernels-")


@functools.cache
def _build_library(file: str, dtype: torch.dtype, unroll: int) -> ctypes.CDLL:
    """Build a variant of a kernel file as a shared library, and load it."""
    if unroll not in cuda.UNROLLS[file]:
        raise ValueError(f"{file} has no variant of unroll {unroll}")
    options = cuda.list_compile_options(dtype, unroll)
    defines = tuple(option for option in options if option.startswith("-D"))
    return ctypes.CDLL(str(build_source(file, cuda.read_source(file), defines)))


@functools.cache
def _takes_half() -> bool:
    command = ["g++", "-x", "c++", "-fsyntax-only", "-"]
    return (
        subprocess.run(command, input="_Float16 x;", text=True, capture_output=True).returncode == 0
    )
