"""Step 4: forward pass and training step of the 34 M network in every form, largest batch."""

# torch types what a module holds as Tensor | Module; what it is here is asserted or known.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...model.config import LossConfig
from ...model.initialize import calibrate_norms
from ...model.loss.criterion import build_criterion
from ...model.neuron.integer_lif import IntegerLIF
from ...model.published.sizes import spike2former_sdtv2
from ...model.segmentor import build_uncalibrated_segmentor
from ...platform.train.passes.step_graph import capture_cuda_graph
from ..benchmark.neuron_network import build_small_config
from ..benchmark.published_order import PlainCriterion, use_published_order
from .step import Step, run_step

_ROUNDS = 5
_FORMS = ("ours, kernels", "ours, torch", "published order", "torch.compile", "CUDA graph")
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def measure(step: Step) -> None:
    """Time every form of forward and step, both types, then look for the largest batch."""
    torch.manual_seed(0)
    config = build_small_config() if step.rehearse else spike2former_sdtv2()
    size, batch = (64, 1) if step.rehearse else (512, 4)
    network = build_uncalibrated_segmentor(config)
    calibrate_norms(network, torch.randn(1, 3, 128, 128))
    network = network.to(step.device)
    for kind in ("forward", "step"):
        for precision in _TYPES:
            if step.seconds_left() < 0.3 * step.seconds:
                step.emit({"case": "network", "kind": kind, "error": "no time left"})
                continue
            _compare(step, network, kind, precision, (batch, 3, size, size))
    for kind in ("forward", "step"):
        step.try_check(
            f"largest batch, {kind}, bf16", lambda kind=kind: _grow(step, network, kind, size)
        )


def _make_form(network: nn.Module, form: str) -> nn.Module:
    model = copy.deepcopy(network)
    if form == "published order":
        return use_published_order(model)
    if form in ("ours, torch", "torch.compile"):
        for module in model.modules():
            if isinstance(module, IntegerLIF):
                module.backend = "torch"
    if form == "torch.compile":
        model.compile()
    return model


def _make_task(
    model: nn.Module, form: str, kind: str, precision: str, images: Tensor
) -> Callable[[], Any]:
    cast = torch.autocast(images.device.type, _TYPES[precision], enabled=precision != "fp32")
    if kind == "forward":
        model.eval()

        def infer() -> Any:
            with torch.no_grad(), cast:
                return model(images)

        return capture_cuda_graph(infer) if form == "CUDA graph" else infer
    model.train()
    config = model.config
    criterion: nn.Module = build_criterion(LossConfig(), config).to(images.device)
    if form == "published order":
        weights = torch.ones(config.num_classes, device=images.device)
        criterion = PlainCriterion(LossConfig(), config.num_classes, weights)
    # Vertical stripes: every class that is present has a mask of the same size.
    side = images.shape[-1]
    stripes = torch.arange(side, device=images.device) * min(12, config.num_classes) // side
    target = stripes.expand(len(images), side, side).contiguous()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def train() -> None:
        with cast:
            prediction = model(images)
        prediction = prediction._replace(
            class_logits=prediction.class_logits.float(),
            mask_logits=prediction.mask_logits.float(),
        )
        terms = criterion(prediction, target, criterion.count(target))
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return train


def _compare(
    step: Step, network: nn.Module, kind: str, precision: str, shape: tuple[int, ...]
) -> None:
    """Time all forms round by round; a form that fails has its reason in its row."""
    images = torch.randn(shape, device=step.device)
    tasks: dict[str, Callable[[], Any]] = {}
    row = {"case": "network", "kind": kind, "precision": precision, "shape": list(shape)}
    memory: dict[str, float | None] = {}
    for form in _FORMS:
        if form == "CUDA graph" and (kind == "step" or step.device == "cpu"):
            why = "the matcher runs on the host" if kind == "step" else "needs a GPU"
            step.emit(row | {"form": form, "skipped": why})
            continue
        if form == "torch.compile" and step.rehearse:
            step.emit(row | {"form": form, "skipped": "takes minutes on a CPU"})
            continue
        if step.seconds_left() < 0.25 * step.seconds:
            step.emit(row | {"form": form, "skipped": "no time left"})
            continue
        try:
            task = _make_task(_make_form(network, form), form, kind, precision, images)
            _reset_peak(step.device)
            task()
            task()
            memory[form] = _read_peak_gb(step.device)
            tasks[form] = task
        except Exception as error:
            lines = str(error).splitlines() or [""]
            step.emit(row | {"form": form, "error": f"{type(error).__name__}: {lines[0]}"[:300]})
    seconds: dict[str, list[float]] = {form: [] for form in tasks}
    for _ in range(1 if step.rehearse else _ROUNDS):
        for form, task in tasks.items():
            seconds[form].append(_time(task, step.device))
    published = seconds.get("published order")
    base = statistics.median(published) if published else None
    for form, values in seconds.items():
        middle = statistics.median(values)
        columns = {
            "ms": round(1e3 * middle, 3),
            "images_s": round(shape[0] / middle, 2),
            "over_published": None if base is None else round(base / middle, 3),
            "peak_gb": memory[form],
        }
        step.emit(row | {"form": form} | columns)


def _time(task: Callable[[], Any], device: str) -> float:
    """Seconds of one call, the device's work included."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    task()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _grow(step: Step, network: nn.Module, kind: str, size: int) -> dict[str, Any]:
    """Double the batch until memory or time is over; images/s at each."""
    model = _make_form(network, "ours, kernels")
    rates: dict[int, float] = {}
    batch = 1 if step.rehearse else 8
    while batch <= (2 if step.rehearse else 512) and step.seconds_left() > 0.1 * step.seconds:
        try:
            images = torch.randn(batch, 3, size, size, device=step.device)
            task = _make_task(model, "ours, kernels", kind, "bf16", images)
            task()
            rates[batch] = round(batch / min(_time(task, step.device) for _ in range(2)), 2)
        except torch.OutOfMemoryError:
            break
        batch *= 2
    if not rates:
        raise RuntimeError("no batch was measured")
    return {"images_s_by_batch": rates}


def _reset_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _read_peak_gb(device: str) -> float | None:
    return round(torch.cuda.max_memory_allocated() / 1e9, 3) if device == "cuda" else None


if __name__ == "__main__":
    run_step("network", measure)
