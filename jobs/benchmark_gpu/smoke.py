"""Step 1: versions, one kernel of each kind against the law, and CuPy beside torch (CuPy #9827)."""

import importlib
from typing import Any

import torch

from ..benchmark.neuron_correctness import list_checks
from ..benchmark.neuron_machine import describe_machine
from .step import Step, run_step


def measure(step: Step) -> None:
    """Describe the machine and run every kernel once, each by itself."""
    step.emit(describe_machine(step.device, torch.get_num_threads()) | _describe_card(step))
    step.try_check("cupy on torch's side stream", lambda: _run_plain_cupy(step))
    for name, check in list_checks(step.device, (torch.float32,)).items():
        step.try_check(name, check)


def _describe_card(step: Step) -> dict[str, Any]:
    if step.device == "cpu":
        return {}
    card = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "capability": f"{card.major}.{card.minor}",
        "multiprocessors": card.multi_processor_count,
        "memory_gb": round(card.total_memory / 1e9, 1),
        "nccl": ".".join(map(str, importlib.import_module("torch.cuda.nccl").version())),
    }


def _run_plain_cupy(step: Step) -> dict[str, Any]:
    """A kernel by CuPy's own means on a stream of torch, compared with torch."""
    if step.device == "cpu":
        return {"skipped": "needs a GPU"}
    cupy: Any = importlib.import_module("cupy")
    source = (
        'extern "C" __global__ void twice(const float* x, float* y, long long n) {'
        " long long i = blockIdx.x * 256LL + threadIdx.x; if (i < n) y[i] = 2 * x[i]; }"
    )
    x = torch.arange(1 << 20, device="cuda", dtype=torch.float32)
    y = torch.empty_like(x)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with cupy.cuda.ExternalStream(stream.cuda_stream):
        kernel = cupy.RawKernel(source, "twice")
        kernel((x.numel() // 256,), (256,), (x.data_ptr(), y.data_ptr(), x.numel()))
    stream.synchronize()
    if not torch.equal(y, 2 * x):
        raise RuntimeError("a kernel launched by CuPy gave other numbers than torch")
    return {"cupy": cupy.__version__}


if __name__ == "__main__":
    run_step("smoke", measure)
