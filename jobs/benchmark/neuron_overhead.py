"""Overhead of a neuron: the first call of a process, and the host's time per call."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .neuron_peers import CASES, Neuron, find_peers
from .neuron_timing import capture_graph, list_phases, make_pairs, time_host

# Where compilers keep what they made; each is sent to an empty folder.
_CACHES = ("CUPY_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH")
_HOST_ELEMENTS = 1024
# Neuron -> T, and a second T, which needs another variant where steps are unrolled.
_STEPS = {"stateless": (1, 2), "temporal": (4, 2), "binary": (4, 8)}


def measure_cold_start(device: str, compile_: bool, emit: Callable[[dict[str, Any]], None]) -> None:
    """Seconds from a loaded torch to the first result, and to those of a second shape and T.

    Args:
        device: `cpu` or `cuda`.
        compile_: Whether torch.compile takes part.
        emit: Takes the rows.
    """
    for neuron in _STEPS:
        _time_cold_start("ours", neuron, device, ("empty",), emit)
    if device == "cuda":
        others, _ = find_peers("stateless", 1, compile_=compile_)
        for name in others:
            if name in ("torch.compile", "spikingjelly triton ILIF"):
                _time_cold_start(name, "stateless", device, ("empty", "warm"), emit)


def _time_cold_start(
    name: str,
    neuron: str,
    device: str,
    caches: Sequence[str],
    emit: Callable[[dict[str, Any]], None],
) -> None:
    """Time one implementation in a fresh process for each state of its compilers' caches."""
    with tempfile.TemporaryDirectory() as folder:
        for cache in caches:
            done = subprocess.run(
                [sys.executable, "-m", __name__, name, neuron, device],
                capture_output=True,
                text=True,
                env=os.environ | dict.fromkeys(_CACHES, folder),
            )
            # A package may print around it.
            answers = [line for line in done.stdout.splitlines() if line.startswith('{"first_s"')]
            if done.returncode != 0 or not answers:
                said = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
                print(f"skipped cold start of {name} ({neuron}, {cache} cache): {said[-1]}")
                return
            row = {"case": "cold start", "who": name, "neuron": neuron, "device": device}
            row |= {"cache": cache} | json.loads(answers[-1])
            emit(row)
            compiled = f", variants compiled: {row['compiled_at_second_shape']}"
            compiled += f" then, {row['compiled_at_second_steps']} at a second T"
            print(
                f"cold start: {name}, {neuron}, {cache} cache, first result {row['first_s']:.3f} "
                f"s, second shape {row['second_shape_s']:.4f} s, second T "
                f"{row['second_steps_s']:.4f} s{compiled if name == 'ours' else ''}"
            )


def _time_first_results(name: str, case: str, device: str) -> dict[str, float | None]:
    """Run in a fresh process: times, and how many variants of our kernels each shape loaded."""
    from ...model.neuron.backends import cuda

    steps, other = _STEPS[case]
    neuron: Neuron = CASES[case].ours
    if name != "ours":
        neuron = find_peers(case, steps, compile_=True)[0][name]
    torch.zeros(1, device=device)
    seconds, loaded = [], []
    for shape in ((steps, 1000), (steps, 3000), (other, 3000)):
        x = torch.zeros(shape, device=device, requires_grad=True)
        began = time.perf_counter()
        (gradient,) = torch.autograd.grad(neuron(x), x, torch.ones_like(x))
        gradient.tolist()
        seconds.append(time.perf_counter() - began)
        # Kernels of one file are loaded together.
        loaded.append(len({(cuda.FILES[key[2]], *key[3:]) for key in cuda._kernels}))
    # What others compile is not seen.
    ours = name == "ours"
    return {
        "first_s": seconds[0],
        "second_shape_s": seconds[1],
        "second_steps_s": seconds[2],
        "compiled_at_second_shape": loaded[1] - loaded[0] if ours else None,
        "compiled_at_second_steps": loaded[2] - loaded[1] if ours else None,
    }


def measure_host_cost(device: str, emit: Callable[[dict[str, Any]], None]) -> None:
    """Microseconds of the host for a call on 1024 elements, and for the replay of its graph."""
    who: dict[str, Neuron] = {
        "ours": CASES["stateless"].ours,
        "published form, eager": CASES["stateless"].naive,
        "our LIF": CASES["binary"].ours,
    }
    if device == "cuda":
        others, _ = find_peers("binary", 1, compile_=False)
        who |= {name: neuron for name, neuron in others.items() if "cupy" in name}
    data = make_pairs((1, _HOST_ELEMENTS), torch.float32, device, "dense")
    for name, neuron in who.items():
        for phase in ("forward", "both"):
            call = list_phases(neuron, data)[phase]
            call()
            replay = capture_graph(call) if device == "cuda" else None
            launches = {"stream": call} | ({"graph": replay} if replay is not None else {})
            for launch, its in launches.items():
                micros = time_host(its, 400 if device == "cuda" else 200) * 1e6
                row = {"case": "host cost", "device": device, "who": name, "phase": phase}
                emit(row | {"launch": launch, "median_us": micros})
                print(f"host cost: {name}, {phase}, by {launch}: {micros:.0f} us a call")


if __name__ == "__main__":
    print(json.dumps(_time_first_results(*sys.argv[1:])))
