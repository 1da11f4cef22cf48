"""`spikeseg benchmark neuron`: our neurons against the published form and others, in one run."""

import ctypes
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import torch

from ...model.neuron.backends import kernel_calls
from ...model.neuron.backends.dispatch import choose_backend
from ..cli import run
from .neuron_correctness import DTYPES, check_numbers
from .neuron_machine import describe_machine, read_card_state
from .neuron_network import measure_network, print_network
from .neuron_overhead import measure_cold_start, measure_host_cost
from .neuron_peers import CASES, Neuron, check_peer, find_peers
from .neuron_tables import print_ratios, print_targets, read_rows
from .neuron_timing import (
    GRAPH_UP_TO,
    Call,
    Pair,
    list_phases,
    make_pairs,
    measure_peak_bytes,
    measure_saved_bytes,
    sample_times,
    summarize_times,
)

_MI = 1 << 20
# Beyond 2^31, where ours is measured alone: the published form would need ten times the memory.
_LARGEST = 2048 * _MI + 1024
Emit = Callable[[dict[str, Any]], None]
# Case, type, T, elements, layout.
GridPoint = tuple[str, str, int, int, str]
_TINY: tuple[GridPoint, ...] = (
    ("stateless", "float32", 1, 1 << 14, "dense"),
    ("temporal", "bfloat16", 2, 1 << 14, "dense"),
)


@click.command("neuron")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--threads", default=1, show_default=True, help="CPU threads of torch.")
@click.option("--seconds", default=240.0, show_default=True, help="Start no new row after this.")
@click.option("--compile", "compile_", is_flag=True, help="Measure torch.compile as well.")
@click.option("--network", is_flag=True, help="Measure a small network's training step instead.")
@click.option("--tiny", is_flag=True, help="Few small rows, as in a rehearsal.")
@click.option("--output", type=click.Path(path_type=Path), help="Append JSON lines here.")
@click.option(
    "--table",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Print the tables of JSON lines that were written before; measure nothing.",
)
def command(  # noqa: PLR0913
    device: str,
    threads: int,
    seconds: float,
    compile_: bool,
    network: bool,
    tiny: bool,
    output: Path | None,
    table: Path | None,
) -> None:
    """Time of forward and backward, saved bytes, host cost; ratios and targets at the end."""
    if table is not None:
        _print_tables(read_rows(table))
        return
    started = time.monotonic()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no GPU on this machine")
    torch.set_num_threads(threads)
    _keep_large_allocations()
    rows: list[dict[str, Any]] = []
    # `output` may hold other runs, on other machines.
    name = uuid.uuid4().hex[:8]

    def emit(row: dict[str, Any]) -> None:
        row = {"run": name} | row
        rows.append(row)
        if output is not None:
            with output.open("a") as file:
                file.write(json.dumps(row) + "\n")

    row = describe_machine(device, threads)
    emit(row)
    print(", ".join(f"{column} {value}" for column, value in row.items() if column != "case"))
    if network:
        measure_network(device, emit)
    else:
        check_numbers(device)
        measure_cold_start(device, compile_, emit)
        measure_host_cost(device, emit)
        points = _TINY if tiny else _list_points(device)
        _measure_grid(points, device, compile_, started + seconds, emit)
    if device == "cuda":
        emit({"case": "machine", "when": "at the end"} | read_card_state())
    _print_tables(rows)
    print(f"{time.monotonic() - started:.0f} s in all")


def _print_tables(rows: list[dict[str, Any]]) -> None:
    if any(row["case"] == "network" for row in rows):
        print_network(rows)
    if any("phase" in row for row in rows):
        print_ratios(rows)
        print_targets(rows)


def _measure_grid(
    points: Iterable[GridPoint], device: str, compile_: bool, until: float, emit: Emit
) -> None:
    skipped: set[str] = set()
    for point in points:
        if time.monotonic() > until:
            print("out of --seconds: the rows that are missing were not measured")
            break
        try:
            _measure(point, device, compile_, skipped, emit)
        except torch.OutOfMemoryError:
            print(f"skipped {point}: the card's memory is too small")


def _list_points(device: str) -> Iterator[GridPoint]:  # noqa: C901
    """List what is measured, the most important first."""
    if device == "cpu":
        for case, steps in (
            *(("stateless", 1), ("temporal", 4), ("temporal", 2), ("temporal", 8)),
            *(("binary", 4), ("norm", 1)),
        ):
            for dtype in ("float32", "bfloat16"):
                for elements in (_MI // 8, 4 * _MI):
                    yield case, dtype, steps, elements, "dense"
        return
    usual = (("stateless", 1), ("temporal", 4), ("binary", 4), ("norm", 1), ("stateless", 4))
    more = (("temporal", 1), ("temporal", 2), ("temporal", 8), ("stateful", 4))
    for elements in (64 * _MI, 4 * _MI, 16 * _MI, _MI, 64 << 10, 1 << 10, 256 * _MI):
        for case, steps in usual + (more if elements == 64 * _MI else ()):
            # A channel of one image of 64 x 16 x 16 is the least that BatchNorm is given.
            if case != "norm" or elements >= 64 << 10:
                for dtype in DTYPES:
                    yield case, dtype, steps, elements, "dense"
        if elements == 64 * _MI:
            for layout in ("odd", "channels_last"):
                for dtype in ("float32", "bfloat16"):
                    yield "stateless", dtype, 1, elements, layout
    # Beyond 32-bit offsets, and the other T where they matter less.
    yield "stateless", "bfloat16", 1, _LARGEST, "dense"
    for elements in (16 * _MI, 4 * _MI, 256 * _MI):
        for case, steps in more:
            for dtype in DTYPES:
                yield case, dtype, steps, elements, "dense"


def _measure(point: GridPoint, device: str, compile_: bool, skipped: set[str], emit: Emit) -> None:
    """Time all implementations phase by phase, interleaved against a noisy machine."""
    name, dtype, steps, elements, layout = point
    case = CASES[name]
    data = make_pairs((steps, elements // steps), DTYPES[dtype], device, layout)
    x = data[0][0]
    elements = x.numel()
    who: dict[str, Neuron] = {"ours": case.ours}
    if elements < _LARGEST:
        who["published form, eager"] = case.naive
    if layout == "dense" and elements in (_MI // 8, 4 * _MI, 64 * _MI, 256 * _MI):
        others, missing = find_peers(name, steps, compile_=compile_)
        for peer, neuron in others.items():
            why = check_peer(neuron, x)
            if why:
                missing.append(f"{peer} ({name}, {dtype}): {why}")
            else:
                who[peer] = neuron
        for line in sorted(set(missing) - skipped):
            print(f"skipped {line}")
        skipped.update(missing)
    graphs = device == "cuda" and elements <= GRAPH_UP_TO
    setting = {"dtype": dtype, "T": steps, "elements": elements, "layout": layout, "device": device}
    setting |= {"buffers": len(data), "in_cache": device == "cuda" and elements < _MI}
    copies = sample_times({"ceiling": _time_copies(data, device)}, device, graphs=graphs)
    for (_, phase), result in copies.items():
        seconds = [each / len(data) for each in result["seconds"]]
        row = {"case": "ceiling", "who": phase, "launch": result["launch"]} | setting
        emit(row | summarize_times(seconds, elements) | {"gb_s": 2 * x.nbytes / seconds[0] / 1e9})
    ceiling = min(result["seconds"][0] for result in copies.values()) / len(data)
    times = sample_times(
        {peer: list_phases(neuron, data) for peer, neuron in who.items()}, device, graphs=graphs
    )
    saved = {peer: measure_saved_bytes(neuron, x) / elements for peer, neuron in who.items()}
    peaks = {peer: measure_peak_bytes(neuron, *data[0]) for peer, neuron in who.items()}
    for (implementation, phase), taken in times.items():
        seconds = [each / len(data) for each in taken["seconds"]]
        moved = case.bytes_moved(x.element_size(), phase, steps)
        row = {
            "case": name,
            "who": implementation,
            "phase": phase,
            "launch": taken["launch"],
        } | setting
        row |= summarize_times(seconds, elements)
        peak = peaks[implementation]
        row |= {
            "peak_bytes_per_element": None if peak is None else peak / elements,
            "bytes_model": moved,
            "gb_s": moved * elements / seconds[0] / 1e9,
            "ceiling_share": ceiling * moved / (2 * x.element_size()) / seconds[0],
            "saved_bytes_per_element": saved[implementation],
        }
        emit(row)
    _print_times(
        point,
        {
            peer: summarize_times(times[peer, "both"]["seconds"], elements * len(data))
            for peer in who
        },
    )


def _time_copies(data: list[Pair], device: str) -> dict[str, Call]:
    """Time plain copies as the ceiling: torch's, and one with the kernels' own accesses."""
    rooms = [torch.empty_like(x) for x, _ in data]

    def torchs() -> None:
        for room, (x, _) in zip(rooms, data, strict=True):
            room.copy_(x)

    def ours() -> None:
        for room, (x, _) in zip(rooms, data, strict=True):
            kernel_calls.copy(x, room)

    fused = choose_backend("auto", device, data[0][0].dtype) == "cuda"
    copies: dict[str, Call] = {"torch copy": torchs}
    if fused:
        copies["own copy"] = ours
    return copies


def _print_times(point: GridPoint, times: dict[str, dict[str, float]]) -> None:
    case, dtype, steps, elements, _ = point
    line = f"{case:9} {dtype:8} T={steps} {elements / _MI:7.3f} Mi"
    ours = times["ours"]["median_us"]
    for who, columns in times.items():
        per_element, ratio = columns["ns_per_element"], columns["median_us"] / ours
        line += f" | {who} {per_element:.3f} ns ({ratio:.2f}x)"
    print(line, flush=True)


def _keep_large_allocations() -> None:
    """Let glibc reuse large blocks: page faults of fresh ones would be most of a CPU's time."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_threshold = -1, -3
        libc.mallopt(mmap_threshold, 32 << 20)
        libc.mallopt(trim_threshold, 1 << 30)


if __name__ == "__main__":
    run(command)
