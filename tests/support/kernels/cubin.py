"""What a compiled binary says of its kernels: parameters, registers; by nvdisasm, instructions.

A cubin is an ELF file. Its sections `.nv.info` (of all kernels) and `.nv.info.KERNEL` are lists of
attributes: format, number, then a value of 16 bits or its length and bytes.
"""

import heapq
import importlib.util
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_FORMAT_SIZED = 4
_PARAMETER, _REGISTERS, _PARAMETER_BYTES = 0x17, 0x2F, 0x19


class Parameter(NamedTuple):
    """Place of one parameter among the bytes that a launch hands over."""

    offset: int
    size: int


class KernelInfo(NamedTuple):
    """What the binary says of one kernel.

    Attributes:
        parameters: In the order of its signature.
        parameter_bytes: Of all of them together.
        registers: Of a thread.
        shared: Bytes of static shared memory.
    """

    parameters: list[Parameter]
    parameter_bytes: int
    registers: int
    shared: int


class Section(NamedTuple):
    """A section of an ELF file: its size in memory, which it may have without content."""

    content: bytes
    size: int


def read_kernels(binary: bytes) -> dict[str, KernelInfo]:
    """Kernel -> what the binary says of it."""
    sections = read_sections(binary)
    registers = {}
    names = _read_symbols(sections)
    for number, value in _list_attributes(sections[".nv.info"].content):
        if number == _REGISTERS:
            symbol, count = struct.unpack("<II", value)
            registers[names[symbol]] = count
    return {kernel: _read_kernel(sections, kernel, count) for kernel, count in registers.items()}


def read_sections(binary: bytes) -> dict[str, Section]:
    """Name -> section of a 64-bit ELF file."""
    assert binary[:5] == b"\x7fELF\x02"
    (table,) = struct.unpack_from("<Q", binary, 0x28)
    count, names_at = struct.unpack_from("<HH", binary, 0x3C)
    headers = [struct.unpack_from("<IIQQQQIIQQ", binary, table + 64 * i) for i in range(count)]
    names = binary[headers[names_at][4] :]
    found = {}
    for name, kind, _, _, offset, size, *_ in headers:
        without_content = 8
        content = b"" if kind == without_content else binary[offset : offset + size]
        found[_read_word(names, name)] = Section(content, size)
    return found


def _read_kernel(sections: dict[str, Section], kernel: str, registers: int) -> KernelInfo:
    parameters: dict[int, Parameter] = {}
    together = 0
    for number, value in _list_attributes(sections[f".nv.info.{kernel}"].content):
        if number == _PARAMETER:
            _, place, offset, packed = struct.unpack("<IHHI", value)
            parameters[place] = Parameter(offset, packed >> 18)
        elif number == _PARAMETER_BYTES:
            (together,) = struct.unpack("<H", value)
    shared = sections.get(f".nv.shared.{kernel}")
    assert sorted(parameters) == list(range(len(parameters)))
    return KernelInfo(
        [parameters[place] for place in range(len(parameters))],
        together,
        registers,
        shared.size if shared else 0,
    )


def _list_attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place < len(content):
        form, number, value = struct.unpack_from("<BB2s", content, place)
        place += 4
        if form == _FORMAT_SIZED:
            (length,) = struct.unpack("<H", value)
            value = content[place : place + length]
            place += length
        yield number, value


def _read_symbols(sections: dict[str, Section]) -> list[str]:
    symbols, words = sections[".symtab"].content, sections[".strtab"].content
    return [
        _read_word(words, struct.unpack_from("<I", symbols, place)[0])
        for place in range(0, len(symbols), 24)
    ]


def _read_word(words: bytes, start: int) -> str:
    return words[start : words.index(b"\0", start)].decode()


def find_disassembler() -> str | None:
    """Path of nvdisasm: of the PATH, a CUDA toolkit, or the package nvidia-cuda-nvdisasm."""
    folders = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"]
    nvidia = importlib.util.find_spec("nvidia")
    for folder in (nvidia and nvidia.submodule_search_locations) or ():
        folders += sorted(Path(folder).glob("*/bin"))
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders)])
    return shutil.which("nvdisasm", path=path)


def disassemble(binary: bytes, tool: str, folder: Path) -> dict[str, list[str]]:
    """Kernel -> lines of its instructions and labels, in the order of the code.

    Args:
        binary: A cubin.
        tool: Path of nvdisasm.
        folder: Where it is written for the tool.
    """
    file = folder / "kernels.cubin"
    file.write_bytes(binary)
    text = subprocess.run([tool, "-c", file], check=True, capture_output=True, text=True).stdout
    kernels: dict[str, list[str]] = {}
    for part in re.split(r"\n(?=\.text\.\w+:)", text)[1:]:
        name, _, rest = part.removeprefix(".text.").partition(":")
        kernels[name] = list_lines(rest)
    return kernels


def list_lines(text: str) -> list[str]:
    """Instructions and labels of a listing, without addresses and encodings."""
    lines = []
    for line in text.splitlines():
        label = re.match(r"\s*(\.L_\w+):", line)
        instruction = re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;", line)
        if label:
            lines.append(f"{label[1]}:")
        elif instruction:
            lines.append(instruction[1])
    return lines


class Way(NamedTuple):
    """A way of a thread through a kernel: instructions executed, those with a loop's body once.

    Attributes:
        instructions: All of them.
        loads: Loads of 16 bytes from global memory among them.
        stores: Stores of 16 bytes.
    """

    instructions: int
    loads: int
    stores: int

    def __add__(self, other: "Way") -> "Way":  # pyright: ignore[reportIncompatibleMethodOverride]
        return Way(*(mine + its for mine, its in zip(self, other, strict=True)))


def find_working_way(lines: list[str]) -> Way:
    """Find the way of a thread that does most at once, by the fewest instructions.

    Of the shortest ways from entry to exit through each store to global memory, the one with the
    most stores of 16 bytes: unrolled loops and whole lanes, not the remainders beside them.

    Args:
        lines: As `list_lines` gives them.
    """
    code, following = _list_edges(lines)
    before: list[list[int]] = [[] for _ in code]
    for place, others in enumerate(following):
        for other in others:
            before[other].append(place)
    costs = [Way(1, *(_is_access(line, name, ".128") for name in ("LDG", "STG"))) for line in code]
    exits = [place for place, line in enumerate(code) if re.search(r"\bEXIT\b", line)]
    reached = _measure_ways(following, costs, [0])
    left = _measure_ways(before, costs, exits)
    ways = []
    for place, line in enumerate(code):
        if _is_access(line, "STG", "") and reached[place] and left[place]:
            # The store itself is in both.
            double = reached[place] + left[place]
            ways.append(Way(*(all_ - own for all_, own in zip(double, costs[place], strict=True))))
    return min(ways, key=lambda way: (-way.stores, way.instructions))


def _measure_ways(following: list[list[int]], costs: list[Way], starts: list[int]) -> list[Way]:
    """The shortest way from one of some places to each place, both included (Dijkstra)."""
    ways = [Way(0, 0, 0)] * len(costs)
    waiting = [(costs[start].instructions, start, costs[start]) for start in starts]
    while waiting:
        _, place, way = heapq.heappop(waiting)
        if ways[place].instructions:
            continue
        ways[place] = way
        for other in following[place]:
            if not ways[other].instructions:
                longer = way + costs[other]
                heapq.heappush(waiting, (longer.instructions, other, longer))
    return ways


def _list_edges(lines: list[str]) -> tuple[list[str], list[list[int]]]:
    """Instructions without labels, and the places that may come after each."""
    labels: dict[str, int] = {}
    code: list[str] = []
    for line in lines:
        if line.endswith(":"):
            labels[line[:-1]] = len(code)
        else:
            code.append(line)
    edges = [_list_following(line, place, labels) for place, line in enumerate(code)]
    return code, [[place for place in places if place < len(code)] for places in edges]


def _list_following(line: str, place: int, labels: dict[str, int]) -> list[int]:
    """Places that may come after an instruction; a call is taken for one instruction."""
    operation = re.sub(r"^@!?U?P\w+\s+", "", line)
    conditional = operation != line
    if re.match(r"(EXIT|RET)\b", operation):
        return [place + 1] if conditional else []
    if not operation.startswith("BRA"):
        return [place + 1]
    target = re.search(r"\.L_\w+", line)
    assert target, line
    conditional |= re.match(r"BRA\S*\s+!?U?P\w+,", operation) is not None
    return [labels[target[0]], *([place + 1] if conditional else [])]


def _is_access(line: str, operation: str, width: str) -> bool:
    return re.search(rf"\b{operation}\.E\S*{re.escape(width)}\b", line) is not None
