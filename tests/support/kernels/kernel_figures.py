"""Figures of the compiled kernels for sm_90, kept in a table that changes are compared with.

    python tests/support/kernels/kernel_figures.py --write

Needs NVRTC (nvidia-cuda-nvrtc and cupy, of the dev extra) and nvdisasm (nvidia-cuda-nvdisasm, or a
CUDA toolkit), and no GPU. Without `--write` it prints the table.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from cubin import disassemble, find_working_way, read_kernels
from device_limits import compute_occupancy

from spikeseg.model.neuron.backends import cuda

TABLE = Path(__file__).with_suffix(".json")
ARCHITECTURE = 90


class KernelFigures(NamedTuple):
    """Figures of one kernel, of the variant that holds most steps at once.

    Attributes:
        registers: Of a thread.
        occupancy: Share of a multiprocessor's threads that are resident, in blocks of 256.
        code: Instructions of the whole kernel.
        instructions: Executed for one element on the way that does most at once; for `norm_sums`,
            whose threads read single elements, of a thread with one element.
        wide: Accesses of 16 bytes to global memory for one element on that way.
    """

    registers: int
    occupancy: float
    code: int
    instructions: float
    wide: float


def measure_figures(
    tool: str, dtypes: Sequence[torch.dtype] = tuple(cuda.STORAGE)
) -> dict[str, KernelFigures]:
    """Kernel and storage type -> figures, made anew.

    Args:
        tool: Path of nvdisasm.
        dtypes: Storage types.
    """
    figures: dict[str, KernelFigures] = {}
    with tempfile.TemporaryDirectory() as folder:
        for file, unrolls in cuda.UNROLLS.items():
            for dtype in dtypes:
                binary, _ = cuda.compile_binary(file, dtype, max(unrolls), ARCHITECTURE)
                listing = disassemble(binary, tool, Path(folder))
                for kernel, info in read_kernels(binary).items():
                    way = find_working_way(listing[kernel])
                    elements = way.stores * 16 // dtype.itemsize or 1
                    figures[f"{kernel} {str(dtype).removeprefix('torch.')}"] = KernelFigures(
                        info.registers,
                        compute_occupancy(ARCHITECTURE, cuda.BLOCK, info.registers, info.shared),
                        sum(not line.endswith(":") for line in listing[kernel]),
                        round(way.instructions / elements, 2),
                        (way.loads + way.stores) / elements,
                    )
    return dict(sorted(figures.items()))


def read_table() -> dict[str, KernelFigures]:
    """The figures that are kept."""
    content = json.loads(TABLE.read_text())
    return {name: KernelFigures(**values) for name, values in content.items()}


def list_changes(
    kept: dict[str, KernelFigures], seen: dict[str, KernelFigures], factor: float = 2.0
) -> list[str]:
    """Sentences on every figure that got worse by a factor, and on kernels without a row."""
    changes = [f"{name}: not in both" for name in sorted(kept.keys() ^ seen.keys())]
    for name in sorted(kept.keys() & seen.keys()):
        for field, before, now in zip(KernelFigures._fields, kept[name], seen[name], strict=True):
            worse = now * factor <= before if field == "occupancy" else now >= before * factor
            if worse and before:
                changes.append(f"{name}: {field} {before:g}, now {now:g}")
            elif field == "wide" and now != before:
                changes.append(f"{name}: accesses of 16 bytes {before:g} an element, now {now:g}")
    return changes


def format_table(figures: dict[str, KernelFigures]) -> str:
    """The table as Markdown."""
    lines = [
        "| kernel | type | registers | occupancy | code | instructions an element "
        "| 16-byte accesses an element |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in figures.items():
        kernel, dtype = name.split()
        lines.append(
            f"| `{kernel}` | {dtype} | {row.registers} | {100 * row.occupancy:.0f} % | {row.code} "
            f"| {row.instructions:.1f} | {row.wide:g} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table, or write it."""
    from cubin import find_disassembler

    tool = find_disassembler()
    if tool is None:
        sys.exit("no nvdisasm: install nvidia-cuda-nvdisasm (dev extra) or a CUDA toolkit")
    figures = measure_figures(tool)
    if "--write" in sys.argv:
        rows = [f'  "{name}": {json.dumps(row._asdict())}' for name, row in figures.items()]
        TABLE.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    print(format_table(figures))


if __name__ == "__main__":
    main()
