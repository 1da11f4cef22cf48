"""`spikeseg benchmark neuron`: our neurons against the published form and others, in one run."""

import ctypes
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from ...model.neuron.dispatch import choose_backend
from ...model.neuron.integer_lif import integer_lif
from ...model.neuron.reference import integer_backward, integer_forward
from ..cli import run
from .neuron_peers import CASES, LEVELS, Case, Neuron, peers

_MI = 1 << 20
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_PHASES = ("forward", "forward with grad", "backward", "both")


@click.command("neuron")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--threads", default=1, show_default=True, help="CPU threads of torch.")
@click.option("--seconds", default=240.0, show_default=True, help="Start no new row after this.")
@click.option("--compile", "compile_", is_flag=True, help="Measure torch.compile as well.")
@click.option("--output", type=click.Path(path_type=Path), help="Append JSON lines here.")
def command(device: str, threads: int, seconds: float, compile_: bool, output: Path | None) -> None:
    """Time of forward and backward, saved bytes, host cost; a ratio table at the end."""
    started = time.monotonic()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(threads)
    _keep_large_allocations()
    _tell_machine(device, threads)
    rows: list[dict[str, Any]] = []

    def emit(row: dict[str, Any]) -> None:
        rows.append(row)
        if output is not None:
            with output.open("a") as file:
                file.write(json.dumps(row) + "\n")

    _check_numbers(device)
    _cold_start(device, emit)
    _host_cost(device, emit)
    for case, dtype, steps, elements in _grid(device):
        if time.monotonic() - started > seconds:
            print(f"stopped after {seconds:g} s: the rows that are missing were not measured")
            break
        _measure(CASES[case], dtype, steps, elements, device, compile_, emit)
    _print_ratios(rows)
    print(f"{time.monotonic() - started:.0f} s in all")


def _grid(device: str) -> Iterator[tuple[str, str, int, int]]:
    """Case, type, steps, elements; what matters most comes first."""
    if device == "cpu":
        for case, steps in (("stateless", 1), ("temporal", 4), ("binary", 4), ("norm", 1)):
            for dtype in ("float32", "bfloat16"):
                for elements in (_MI // 8, 4 * _MI):
                    yield case, dtype, steps, elements
        return
    for elements in (64 * _MI, 4 * _MI, 256 * _MI, 16 * _MI, _MI):
        for case, steps in (
            *(("stateless", 1), ("temporal", 1), ("temporal", 4), ("temporal", 8)),
            *(("binary", 4), ("norm", 1), ("temporal", 2)),
        ):
            for dtype in _DTYPES:
                yield case, dtype, steps, elements


def _measure(
    case: Case,
    dtype: str,
    steps: int,
    elements: int,
    device: str,
    compile_: bool,
    emit: Callable[[dict[str, Any]], None],
) -> None:
    """All who take part, phase by phase, interleaved so that a noisy machine is fair."""
    shape = (steps, elements // steps)
    x = torch.randn(shape, device=device).mul_(2).add_(1).to(_DTYPES[dtype])
    g = torch.randn(shape, device=device).to(x.dtype)
    who: dict[str, Neuron] = {"ours": case.ours, "published form, eager": case.naive}
    if case.name == "norm":
        who = {"ours": case.ours, "BatchNorm, then our neuron": case.naive}
    if elements in (4 * _MI, 64 * _MI, 256 * _MI):
        others, skipped = peers(case.name, compile_=compile_)
        who |= others
        for line in skipped:
            print(f"skipped {line}")
    runs: dict[str, dict[str, Callable[[], object]]] = {
        name: _phases(neuron, x, g) for name, neuron in who.items()
    }
    ceiling = _sample({"copy": {"copy": lambda: g.copy_(x)}}, device)["copy", "copy"]
    times = _sample(runs, device)
    saved = {name: _saved_bytes(neuron, x) / elements for name, neuron in who.items()}
    for (name, phase), samples in times.items():
        moved = case.bytes_moved(x.element_size(), phase)
        least = min(ceiling) * moved / (2 * x.element_size())
        row = {
            "case": case.name,
            "who": name,
            "phase": phase,
            "dtype": dtype,
            "T": steps,
            "elements": elements,
            "device": device,
            "in_cache": device == "cuda" and elements <= _MI,
            "min_us": min(samples) * 1e6,
            "median_us": statistics.median(samples) * 1e6,
            "ns_per_element": statistics.median(samples) / elements * 1e9,
            "bytes_model": moved,
            "gb_s": moved * elements / min(samples) / 1e9,
            "ceiling_share": least / min(samples),
            "saved_bytes_per_element": saved[name],
        }
        emit(row)
    ours = statistics.median(times["ours", "both"])
    line = f"{case.name:9} {dtype:8} T={steps} {elements / _MI:6.3f} Mi"
    for name in who:
        both = statistics.median(times[name, "both"])
        line += f" | {name} {both / elements * 1e9:.2f} ns ({both / ours:.2f}x)"
    print(line, flush=True)


def _phases(neuron: Neuron, x: Tensor, g: Tensor) -> dict[str, Callable[[], object]]:
    """What is timed: never a sum(), always the same incoming gradient."""
    leaf = x.detach().requires_grad_()
    graph = neuron(leaf)

    def forward() -> Tensor:
        with torch.no_grad():
            return neuron(x)

    def backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(graph, leaf, g, retain_graph=True)

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(neuron(leaf), leaf, g)

    return dict(zip(_PHASES, (forward, lambda: neuron(leaf), backward, both), strict=True))


def _sample(
    runs: dict[str, dict[str, Callable[[], object]]], device: str, samples: int = 5
) -> dict[tuple[str, str], list[float]]:
    """Seconds of every phase of everyone: CPU time of the process, or CUDA events."""
    clock = _cuda_clock if device == "cuda" else _cpu_clock
    each = [(name, phase, call) for name, of in runs.items() for phase, call in of.items()]
    for _, _, call in each:
        call()
    counts = [max(1, round(0.02 / max(1e-7, clock(call, 1)))) for _, _, call in each]
    counts = counts if device == "cuda" else [min(count, 50) for count in counts]
    times: dict[tuple[str, str], list[float]] = {(name, phase): [] for name, phase, _ in each}
    for _ in range(samples if device == "cuda" else 7):
        for (name, phase, call), count in zip(each, counts, strict=True):
            times[name, phase].append(clock(call, count))
    return times


def _cpu_clock(call: Callable[[], object], count: int) -> float:
    began = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - began) / count


def _cuda_clock(call: Callable[[], object], count: int) -> float:
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    for _ in range(count):
        call()
    after.record()
    after.synchronize()
    return before.elapsed_time(after) / count / 1e3


def _saved_bytes(neuron: Neuron, x: Tensor) -> int:
    """Bytes kept for backward beside the input, which the layer before keeps alive anyway."""
    leaf = x.detach().requires_grad_()
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() != leaf.data_ptr():
            saved[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        neuron(leaf)
    return sum(saved.values())


def _check_numbers(device: str) -> None:
    """Our backend on this device gives the law's bits, on a side stream too; else stop."""
    for dtype in _DTYPES.values():
        x = torch.randn(4, 1003).mul_(3)
        x[0, :6] = torch.tensor([0.5, 1.5, 4.0, float("nan"), float("inf"), -float("inf")])
        x = x.to(dtype)
        g = torch.randn(x.shape).to(dtype)
        for dynamics in ("stateless", "temporal"):
            rule = {"divisor": float(LEVELS), "dynamics": dynamics, "decay": 0.25, "threshold": 1.0}
            more = {"levels": LEVELS, "rounding": "half_even", "window": "closed"}
            spikes, inside, _ = integer_forward(x, **rule, **more)
            wanted, _ = integer_backward(g, inside, **rule)
            actual, gradient = _on_side_stream(x, g, device, rule | more)
            same = torch.equal(actual.nan_to_num(9.0), spikes.nan_to_num(9.0))
            if not same or not torch.equal(gradient, wanted):
                raise RuntimeError(f"{dynamics} {dtype} on {device} differs from the law")
    print("numbers: equal to the law, both dynamics, all types")


def _on_side_stream(
    x: Tensor, g: Tensor, device: str, arguments: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    def work() -> tuple[Tensor, Tensor]:
        leaf = x.to(device).requires_grad_()
        spikes = integer_lif(leaf, **arguments)
        (gradient,) = torch.autograd.grad(spikes, leaf, g.to(device))
        return spikes.detach().cpu(), gradient.cpu()

    if device == "cpu":
        return work()
    with torch.cuda.stream(torch.cuda.Stream()):
        return work()


def _cold_start(device: str, emit: Callable[[dict[str, Any]], None]) -> None:
    """Seconds from a loaded torch to the first result, and to that of a second shape."""
    code = (
        "import time, torch\n"
        "from spikeseg.model.neuron.integer_lif import integer_lif\n"
        f"device = {device!r}\n"
        "torch.zeros(1, device=device)\n"
        "for n in (1000, 3000):\n"
        "    x = torch.zeros(1, n, device=device, requires_grad=True)\n"
        "    began = time.perf_counter()\n"
        "    integer_lif(x, levels=4).sum().backward(); x.grad.tolist()\n"
        "    print(time.perf_counter() - began)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = (float(line) for line in done.stdout.split())
    emit({"case": "cold start", "device": device, "first_s": first, "second_shape_s": second})
    print(f"cold start: first result {first:.3f} s, at a second shape {second:.4f} s")


def _host_cost(device: str, emit: Callable[[dict[str, Any]], None]) -> None:
    """Microseconds of the host for one call on 1024 elements."""
    count = 2000 if device == "cuda" else 500
    x = torch.randn(1, 1024, device=device)
    runs = {
        name: _phases(neuron, x, torch.ones_like(x))
        for name, neuron in (
            ("ours", CASES["stateless"].ours),
            ("published form, eager", CASES["stateless"].naive),
        )
    }
    for name, phases in runs.items():
        for phase in ("forward", "both"):
            phases[phase]()
            seconds = min(_cpu_clock(phases[phase], count // 5) for _ in range(5))
            row = {"case": "host cost", "device": device, "who": name, "phase": phase}
            emit(row | {"median_us": seconds * 1e6})
            print(f"host cost: {name}, {phase}: {seconds * 1e6:.0f} us a call")


def _print_ratios(rows: list[dict[str, Any]]) -> None:
    """Everyone's time over ours, forward and backward together."""
    timed = [row for row in rows if row.get("phase") == "both" and "T" in row]
    key = ("case", "dtype", "T", "elements")
    ours = {tuple(row[k] for k in key): row for row in timed if row["who"] == "ours"}
    print(f"\n{'case':9} {'type':8} T {'elements':>10} {'against':27} {'ratio':>6} {'saved B':>8}")
    for row in timed:
        own = ours[tuple(row[k] for k in key)]
        ratio = row["median_us"] / own["median_us"]
        note = f"  {own['ceiling_share']:.0%} of copy" if row["who"] == "ours" else ""
        print(
            f"{row['case']:9} {row['dtype']:8} {row['T']} {row['elements']:10d} {row['who']:27} "
            f"{ratio:5.2f}x {row['saved_bytes_per_element']:8.3f}{note}"
        )


def _tell_machine(device: str, threads: int) -> None:
    backend = choose_backend("auto", device)
    print(f"torch {torch.__version__}, python {platform.python_version()}, backend {backend}")
    if device == "cuda":
        print(f"GPU: {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
        if backend == "cuda":
            import importlib.metadata as metadata

            found = [d for d in metadata.distributions() if d.name.startswith("cupy-cuda")]
            print(", ".join(f"{d.name} {d.version}" for d in found))
    else:
        print(f"CPU: {platform.processor() or platform.machine()}, {threads} thread(s)")


def _keep_large_allocations() -> None:
    """Let glibc reuse large blocks: page faults of fresh ones would be most of a CPU's time."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_threshold = -1, -3
        libc.mallopt(mmap_threshold, 32 << 20)
        libc.mallopt(trim_threshold, 1 << 30)


if __name__ == "__main__":
    run(command)
