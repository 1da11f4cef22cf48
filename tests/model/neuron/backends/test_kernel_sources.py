"""The CUDA source compiles for every architecture, within its registers; no GPU is needed."""

import re
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from spikeseg.model.neuron.backends import cuda

# The oldest and the usual one in every run, all of them in `make test-all`.
ARCHITECTURES = [
    architecture if architecture in (75, 90) else pytest.param(architecture, marks=pytest.mark.slow)
    for architecture in (75, 80, 86, 89, 90, 100, 120)
]
DTYPES = list(cuda.STORAGE)

# Most registers a kernel may take, in any variant on any architecture, so that blocks of 256
# threads leave a multiprocessor (65536 registers) at least eight of them at 32, four at 64, two at
# 128. Seen with NVRTC 13.5: 30, 24, 63, 64, 63, 126, 54, 34 and 64, most of them on sm_75.
REGISTERS = {
    "integer_forward": 32,
    "integer_backward": 32,
    "temporal_forward": 64,
    "temporal_backward": 64,
    "lif_forward": 64,
    "lif_backward": 128,
    "norm_forward": 64,
    "norm_sums": 40,
    "norm_backward": 64,
    "lane_copy": 48,
}


def compiler() -> Any:
    """NVRTC as cupy has it, or a skip."""
    nvrtc = pytest.importorskip("cupy.cuda", reason="compiling needs cupy (dev extra)").nvrtc
    try:
        nvrtc.getVersion()
    except Exception as error:
        pytest.skip(f"no NVRTC: install nvidia-cuda-nvrtc (dev extra): {error}")
    return nvrtc


def assert_fits(log: str, file: str, where: str) -> None:
    """The assembler's report names every kernel of the file, within its registers, in no memory."""
    names = re.findall(r"Compiling entry function '(\w+)'", log)
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", log)]
    memory = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+)", log)
    assert set(names) == {kernel for kernel, its in cuda.FILES.items() if its == file}
    assert len(registers) == len(memory) == len(names)
    assert all(numbers == ("0", "0", "0") for numbers in memory), (where, log)
    over = {
        name: count for name, count in zip(names, registers, strict=True) if count > REGISTERS[name]
    }
    assert not over, (over, where)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_variant_compiles_for_every_architecture(architecture: int) -> None:
    compiler()
    variants = [
        (file, dtype, unroll)
        for file, unrolls in cuda.UNROLLS.items()
        for unroll in unrolls
        for dtype in DTYPES
    ]
    # NVRTC works without the interpreter's lock.
    with ThreadPoolExecutor(2) as threads:
        made = threads.map(lambda variant: cuda.compile_binary(*variant, architecture), variants)
        for (file, dtype, unroll), (binary, log) in zip(variants, made, strict=True):
            assert binary[:4] == b"\x7fELF"
            assert_fits(log, file, f"{file}, {dtype}, unroll {unroll}, sm_{architecture}")


def assembly(source: str, dtype: torch.dtype) -> str:
    """PTX of a source for sm_90, one step at a time."""
    nvrtc = compiler()
    program = nvrtc.createProgram(source, "", [], [])
    options = (*cuda.list_compile_options(dtype, 1), "--gpu-architecture=compute_90")
    nvrtc.compileProgram(program, options)
    text = nvrtc.getPTX(program)
    nvrtc.destroyProgram(program)
    return text.decode() if isinstance(text, bytes) else text


@pytest.mark.parametrize("file", ["integer.cu", "temporal.cu", "binary.cu", "batch_norm.cu"])
def test_denormals_are_not_flushed_and_nothing_is_fused(file: str) -> None:
    # An open window begins at the smallest denormal, and the law rounds every operation.
    text = assembly(cuda.read_source(file), torch.float32)
    arithmetic = [
        line for line in text.splitlines() if re.match(r"\s*(add|sub|mul|setp)\S*f32", line)
    ]
    assert len(arithmetic) > 10
    assert not [line for line in arithmetic if ".ftz" in line]
    # The exponential of the binary LIF is the one place that is not the law's bits.
    if file != "binary.cu":
        assert "fma." not in text


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_global_memory_is_reached_sixteen_bytes_at_a_time(dtype: torch.dtype) -> None:
    text = assembly(cuda.read_source("integer.cu"), dtype)
    wide = 2 if dtype == torch.float32 else 1
    bodies = dict(re.findall(r"\.entry (\w+)\((.*?)\n}\n", text, flags=re.DOTALL))
    for kernel in ("integer_forward", "integer_backward"):
        body = bodies[kernel]
        loads = re.findall(r"ld\.global(?:\.nc)?(?:\.L\d::\S+)?\.v4\.\w?32", body)
        stores = re.findall(r"st\.global\.v4\.\w?32", body)
        # A body may stand there more than once, as for each way to round.
        assert loads and len(loads) % wide == 0, (kernel, loads)
        assert stores and len(stores) % wide == 0, (kernel, stores)


@pytest.mark.parametrize(
    ("dtype", "expression", "said"),
    [
        # The first source of a conversion to a pair becomes the upper half, so it is the second.
        (torch.float16, "narrow_pair(a, b, Half{})", "cvt.rn.f16x2.f32 _, b, a;"),
        (torch.bfloat16, "narrow_pair(a, b, Brain{})", "cvt.rn.bf16x2.f32 _, b, a;"),
        (torch.float32, "__float_as_uint(clamp(a, b))", "max.NaN.f32 _, a, 0f00000000;"),
        (torch.float32, "__float_as_uint(clamp(a, b))", "min.NaN.f32 _, _, b;"),
    ],
    ids=["half", "brain", "clamp at 0", "clamp at D"],
)
def test_instructions_that_only_a_gpu_has_get_their_operands_in_order(
    dtype: torch.dtype, expression: str, said: str
) -> None:
    # g++ builds the other branch, so what these two compute is not seen without a GPU.
    kernel = f"""
extern "C" __global__ void probe(const float* values, uint32* result) {{
  float a = values[0], b = values[1];
  *result = {expression};
}}
"""
    headers = [(cuda.SOURCES / name).read_text() for name in ("storage.cuh", "spike.cuh")]
    text = assembly("".join([*headers, kernel]), dtype)
    for name, place in (("a", r"\]"), ("b", r"\+4\]")):
        (register,) = re.findall(rf"ld\.global\.[\w.]+\s+(%\w+), \[%\w+{place}", text)
        text = re.sub(rf"{register}\b", name, text)
    assert said in re.sub(r"%\w+", "_", text)


def test_a_binary_is_whole_to_its_last_byte() -> None:
    # cupy takes a byte off, which tools that read files refuse.
    compiler()
    binary, _ = cuda.compile_binary("copy.cu", torch.float32, 1, 90)
    (start,) = struct.unpack_from("<Q", binary, 0x20)
    size, count = struct.unpack_from("<HH", binary, 0x36)
    assert count > 0
    assert len(binary) >= start + size * count


def test_no_cuda_header_is_included() -> None:
    for file in cuda.UNROLLS:
        assert "#include" not in cuda.read_source(file)


def test_every_kernel_is_where_the_table_says() -> None:
    for kernel, file in cuda.FILES.items():
        assert re.search(rf"\b{kernel}\(", (Path(cuda.SOURCES) / file).read_text())


def test_a_source_error_comes_with_the_compilers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler()
    monkeypatch.setattr(cuda, "read_source", lambda _: "__global__ void k() { nonsense; }")
    with pytest.raises(RuntimeError, match="nonsense"):
        cuda.compile_binary("integer.cu", torch.float32, 1, 90)
