"""What a neuron costs before and beside its work: the first call of a process, the host's share."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

from .neuron_peers import CASES, Neuron, peers
from .neuron_timing import captured, host_seconds, pairs, phases

# Where compilers keep what they made; each is sent to an empty folder.
_CACHES = ("CUPY_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH")
_HOST_ELEMENTS = 1024


def cold_start(device: str, compile_: bool, emit: Callable[[dict[str, Any]], None]) -> None:
    """Seconds from a loaded torch to the first result, and to that of a second shape.

    Args:
        device: `cpu` or `cuda`.
        compile_: Whether torch.compile takes part.
        emit: Takes the rows.
    """
    names = ["ours"]
    if device == "cuda":
        others, _ = peers("stateless", 1, compile_=compile_)
        names += [name for name in others if name in ("torch.compile", "spikingjelly triton ILIF")]
    for name in names:
        with tempfile.TemporaryDirectory() as empty:
            done = subprocess.run(
                [sys.executable, "-m", __name__, name, device],
                capture_output=True,
                text=True,
                env=os.environ | dict.fromkeys(_CACHES, empty),
            )
        if done.returncode != 0:
            print(f"skipped cold start of {name}: {done.stderr.strip().splitlines()[-1]}")
            continue
        row = {"case": "cold start", "who": name, "device": device} | json.loads(done.stdout)
        emit(row)
        print(
            f"cold start: {name}, first result {row['first_s']:.3f} s, at a second shape "
            f"{row['second_shape_s']:.4f} s, variants compiled then "
            f"{row['compiled_at_second_shape']}"
        )


def _first_results(name: str, device: str) -> dict[str, float]:
    """In a fresh process: the two times, and how many kernels the second shape loaded."""
    from ...model.neuron import cuda

    neuron: Neuron = CASES["stateless"].ours
    if name != "ours":
        neuron = peers("stateless", 1, compile_=True)[0][name]
    torch.zeros(1, device=device)
    seconds, loaded = [], []
    for size in (1000, 3000):
        x = torch.zeros(1, size, device=device, requires_grad=True)
        began = time.perf_counter()
        (gradient,) = torch.autograd.grad(neuron(x), x, torch.ones_like(x))
        gradient.tolist()
        seconds.append(time.perf_counter() - began)
        loaded.append(len(cuda._kernels))
    return {
        "first_s": seconds[0],
        "second_shape_s": seconds[1],
        "compiled_at_second_shape": loaded[1] - loaded[0],
    }


def host_cost(device: str, emit: Callable[[dict[str, Any]], None]) -> None:
    """Microseconds of the host for a call on 1024 elements, and for the replay of its graph."""
    who: dict[str, Neuron] = {
        "ours": CASES["stateless"].ours,
        "published form, eager": CASES["stateless"].naive,
        "our LIF": CASES["binary"].ours,
    }
    if device == "cuda":
        others, _ = peers("binary", 1, compile_=False)
        who |= {name: neuron for name, neuron in others.items() if "cupy" in name}
    data = pairs((1, _HOST_ELEMENTS), torch.float32, device, "dense")
    for name, neuron in who.items():
        for phase in ("forward", "both"):
            call = phases(neuron, data)[phase]
            call()
            replay = captured(call) if device == "cuda" else None
            launches = {"stream": call} | ({"graph": replay} if replay is not None else {})
            for launch, its in launches.items():
                micros = host_seconds(its, 400 if device == "cuda" else 200) * 1e6
                row = {"case": "host cost", "device": device, "who": name, "phase": phase}
                emit(row | {"launch": launch, "median_us": micros})
                print(f"host cost: {name}, {phase}, by {launch}: {micros:.0f} us a call")


if __name__ == "__main__":
    print(json.dumps(_first_results(sys.argv[1], sys.argv[2])))
