"""Timing for `spikeseg benchmark neuron`: phases, rotating buffers, CUDA graphs, clocks."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .neuron_peers import Neuron

PHASES = ("forward", "forward with grad", "backward", "both")
# Up to this many elements a launch from Python takes longer than a kernel: a graph is replayed.
GRAPH_UP_TO = 4 << 20
_SAMPLES = {"cuda": 5, "cpu": 7}
_SECONDS = 0.02

Call = Callable[[], object]
# An input and the gradient that arrives for its spikes.
Pair = tuple[Tensor, Tensor]


def make_pairs(shape: Sequence[int], dtype: torch.dtype, device: str, layout: str) -> list[Pair]:
    """Make inputs and gradients, on a GPU more than its cache holds.

    Below 1 Mi elements there is one pair, in the cache as it is in a network.

    Args:
        shape: (T, neurons).
        dtype: Their type.
        device: Where they are.
        layout: `dense`, `odd` (a few neurons more, so that lanes are cut off) or `channels_last`.
    """
    size = shape[0] * shape[1]
    count = 1
    if device == "cuda" and size >= 1 << 20:
        cache = torch.cuda.get_device_properties(device).L2_cache_size
        count = -(-3 * cache // (2 * size * dtype.itemsize))
    return [_make_pair(shape, dtype, device, layout) for _ in range(count)]


def _make_pair(shape: Sequence[int], dtype: torch.dtype, device: str, layout: str) -> Pair:
    steps, neurons = shape
    wanted = (steps, neurons + 3 if layout == "odd" else neurons)
    x = torch.randn(wanted, device=device).mul_(2).add_(1).to(dtype)
    g = torch.randn(wanted, device=device).to(dtype)
    if layout == "channels_last":
        x, g = (t.view(steps, -1, 16, 16, 64).permute(0, 1, 4, 2, 3) for t in (x, g))
    return x, g


def list_phases(neuron: Neuron, data: Sequence[Pair]) -> dict[str, Call]:
    """Calls to time, each over all pairs, always with the same arriving gradients."""
    leaves = [x.detach().requires_grad_() for x, _ in data]
    gradients = [g for _, g in data]
    graphs: list[Tensor] = []

    def forward() -> None:
        with torch.no_grad():
            for x, _ in data:
                neuron(x)

    def forward_with_grad() -> None:
        for leaf in leaves:
            neuron(leaf)

    def backward() -> None:
        if not graphs:
            graphs.extend(neuron(leaf) for leaf in leaves)
        for spikes, leaf, g in zip(graphs, leaves, gradients, strict=True):
            torch.autograd.grad(spikes, leaf, g, retain_graph=True)

    def both() -> None:
        for leaf, g in zip(leaves, gradients, strict=True):
            torch.autograd.grad(neuron(leaf), leaf, g)

    return dict(zip(PHASES, (forward, forward_with_grad, backward, both), strict=True))


def capture_graph(call: Call) -> Call | None:
    """Capture a call as a CUDA graph; None if it cannot be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(side)
        # On the stream that autograd's nodes were recorded on: backward runs there.
        with torch.cuda.graph(graph, stream=side):
            call()
    except RuntimeError:
        # Waits, allocations outside of torch and other streams all end a capture.
        torch.cuda.synchronize()
        return None
    return graph.replay


def sample_times(
    runs: dict[str, dict[str, Call]], device: str, *, graphs: bool = False
) -> dict[tuple[str, str], dict[str, Any]]:
    """Time every phase of every implementation, interleaved against a noisy machine.

    Args:
        runs: Who -> phase -> what to call.
        device: `cpu` (CPU time of the process) or `cuda` (events on the stream).
        graphs: Whether calls are captured and replayed, where that works.

    Returns:
        (who, phase) -> `seconds` of a call, sorted, and `launch`: `graph` or `stream`.
    """
    clock = time_on_cuda if device == "cuda" else time_on_cpu
    calls: dict[tuple[str, str], tuple[Call, str]] = {}
    for who, its in runs.items():
        for phase, call in its.items():
            replay = capture_graph(call) if graphs else None
            if replay is None:
                call()
            calls[who, phase] = (call, "stream") if replay is None else (replay, "graph")
    counts = {
        key: max(1, round(_SECONDS / max(1e-7, clock(call, 1)))) for key, (call, _) in calls.items()
    }
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for _ in range(_SAMPLES[device]):
        for key, (call, _) in calls.items():
            seconds[key].append(
                clock(call, min(counts[key], 50) if device == "cpu" else counts[key])
            )
    return {key: {"seconds": sorted(seconds[key]), "launch": calls[key][1]} for key in calls}


def time_on_cpu(call: Call, count: int) -> float:
    """Measure CPU seconds of the process for one of `count` calls."""
    began = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - began) / count


def time_on_cuda(call: Call, count: int) -> float:
    """Measure seconds between two events on the stream for one of `count` calls."""
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    for _ in range(count):
        call()
    after.record()
    after.synchronize()
    return before.elapsed_time(after) / count / 1e3


def time_host(call: Call, count: int) -> float:
    """Measure the host's seconds for an asynchronous call; the least of five samples."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(count):
            call()
        times.append((time.perf_counter() - began) / count)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
    return min(times)


def measure_saved_bytes(neuron: Neuron, x: Tensor) -> int:
    """Measure bytes saved for backward, without the input."""
    leaf = x.detach().requires_grad_()
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() != leaf.data_ptr():
            saved[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        neuron(leaf)
    return sum(saved.values())


def measure_peak_bytes(neuron: Neuron, x: Tensor, g: Tensor) -> int | None:
    """Measure peak bytes of both passes beside input and arriving gradient; None on a CPU."""
    if x.device.type != "cuda":
        return None
    leaf = x.detach().requires_grad_()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.autograd.grad(neuron(leaf), leaf, g)
    return torch.cuda.max_memory_allocated() - before


def summarize_times(seconds: Sequence[float], elements: int) -> dict[str, float]:
    """Summarize times as the columns of a row."""
    return {
        "min_us": min(seconds) * 1e6,
        "median_us": statistics.median(seconds) * 1e6,
        "ns_per_element": statistics.median(seconds) / elements * 1e9,
    }
