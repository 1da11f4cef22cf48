"""The compiled kernels keep their figures: instructions, wide accesses, registers, occupancy."""

import shutil
from pathlib import Path

import pytest
import torch
from cubin import Way, find_disassembler, find_working_way, list_lines
from device_limits import LIMITS, compute_occupancy
from kernel_figures import KernelFigures, list_changes, measure_figures, read_table

from spikeseg.model.neuron.backends import cuda


def find_tools() -> str:
    """Path of nvdisasm, or a skip that says what is missing."""
    nvrtc = pytest.importorskip("cupy.cuda", reason="compiling needs cupy (dev extra)").nvrtc
    try:
        nvrtc.getVersion()
    except Exception as error:
        pytest.skip(f"no NVRTC: install nvidia-cuda-nvrtc (dev extra): {error}")
    tool = find_disassembler()
    if tool is None:
        pytest.skip("no nvdisasm: install nvidia-cuda-nvdisasm (dev extra) or a CUDA toolkit")
    return tool


def test_the_table_has_every_kernel_in_every_type() -> None:
    names = {
        f"{kernel} {str(dtype).removeprefix('torch.')}"
        for kernel in cuda.FILES
        for dtype in cuda.STORAGE
    }
    assert set(read_table()) == names


@pytest.mark.slow
def test_no_figure_of_a_kernel_has_doubled() -> None:
    assert not list_changes(read_table(), measure_figures(find_tools()))


def test_a_kernel_that_reads_element_by_element_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tool = find_tools()
    source = cuda.read_source("integer.cu")
    narrow = source.replace(
        "  if (WIDE) {\n    unpack(from, to);", "  if (false) {\n    unpack(from, to);"
    )
    assert narrow != source
    monkeypatch.setattr(cuda, "UNROLLS", {"integer.cu": (1,)})
    monkeypatch.setattr(cuda, "read_source", lambda _: narrow)
    seen = measure_figures(tool, [torch.float32])
    kept = {name: row for name, row in read_table().items() if name in seen}
    changes = list_changes(kept, seen)
    assert "integer_forward float32: accesses of 16 bytes 0.5 an element, now 0.25" in changes


ROW = KernelFigures(30, 1.0, 440, 14.1, 0.5)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (ROW._replace(instructions=28.2), ["k float32: instructions 14.1, now 28.2"]),
        (ROW._replace(instructions=28.1), []),
        (ROW._replace(registers=60), ["k float32: registers 30, now 60"]),
        (ROW._replace(occupancy=0.5), ["k float32: occupancy 1, now 0.5"]),
        (ROW._replace(wide=0.25), ["k float32: accesses of 16 bytes 0.5 an element, now 0.25"]),
        (ROW._replace(code=200), []),
    ],
)
def test_what_doubles_is_said(changed: KernelFigures, said: list[str]) -> None:
    assert list_changes({"k float32": ROW}, {"k float32": changed}) == said
    assert list_changes({"k float32": ROW}, {}) == ["k float32: not in both"]


LISTING = """
        /*0000*/                   ISETP.NE.AND P0, PT, R6, 0x8, PT ;
        /*0010*/              @!P0 BRA P3, `(.L_x_0) ;
        /*0020*/               @P1 EXIT ;
        /*0030*/                   STG.E desc[UR4][R2.64], R5 ;
        /*0040*/                   EXIT ;
.L_x_0:
        /*0050*/                   LDG.E.128.CONSTANT R8, desc[UR4][R12.64] ;
        /*0060*/                   FMUL R16, R8, UR6 ;
        /*0070*/                   STG.E.128 desc[UR4][R2.64], R5 ;
        /*0080*/               @P2 BRA `(.L_x_0) ;
        /*0090*/                   EXIT ;
.L_x_1:
        /*00a0*/                   BRA `(.L_x_1) ;
"""


def test_the_way_that_does_most_is_found_in_a_listing() -> None:
    # Comparison, branch, load, product, store, the loop's branch, exit.
    assert find_working_way(list_lines(LISTING)) == Way(7, 1, 1)
    narrow = LISTING.replace(".128", "")
    # Comparison, branch, the first exit not taken, store, exit.
    assert find_working_way(list_lines(narrow)) == Way(5, 0, 0)


@pytest.mark.parametrize(
    ("architecture", "registers", "occupancy"),
    # Registers are handed out to warps by 256: 33 cost as much as 40.
    [(90, 32, 1.0), (90, 33, 0.75), (90, 40, 0.75), (90, 128, 0.25), (75, 64, 1.0), (86, 40, 1.0)],
)
def test_occupancy_is_the_tables(architecture: int, registers: int, occupancy: float) -> None:
    assert compute_occupancy(architecture, 256, registers) == pytest.approx(occupancy)


def test_shared_memory_bounds_occupancy_as_well() -> None:
    assert compute_occupancy(90, 256, 32, LIMITS[90].shared_per_sm // 2) == 0.25


def test_a_disassembler_on_the_path_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvdisasm"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_disassembler() == str(tool) == shutil.which("nvdisasm")
