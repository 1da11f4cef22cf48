"""`spikeseg benchmark model`: published order, fast path and folded form side by side."""

# torch types what a module holds as Tensor | Module; what it is here is asserted or known.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ..cli import run

if TYPE_CHECKING:
    from torch import nn

_FORMS = {"forward": ("plain", "fast", "folded", "folded_dense"), "step": ("plain", "fast")}
_PRESENT = 12  # Classes in a label map, as in the published measurement.


@click.command("model")
@click.option("--size", default=512, show_default=True, help="Height and width of the image.")
@click.option("--batch", "batches", multiple=True, type=int, default=(1, 2), show_default=True)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(["fp32", "bf16"]),
    default=("fp32", "bf16"),
    show_default=True,
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(["forward", "step"]),
    default=("forward", "step"),
    show_default=True,
    help="Inference, or forward, losses and backward.",
)
@click.option("--rounds", default=3, show_default=True, help="Rounds after one that warms up.")
@click.option("--threads", default=1, show_default=True, help="torch threads.")
@click.option("--memory/--no-memory", default=True, help="Measure peak memory in subprocesses.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@click.option("--probe", hidden=True, help="Run one form once and print its peak memory.")
def command(
    size: int,
    batches: tuple[int, ...],
    precisions: tuple[str, ...],
    kinds: tuple[str, ...],
    rounds: int,
    threads: int,
    memory: bool,
    as_json: bool,
    probe: str | None,
) -> None:
    """Time and memory of Spike2Former (SDT-V2, ADE20K) in three forms, interleaved in one run.

    plain is the published order of operations, fast what trainings run, folded the inference form
    with RepConv as a chain, folded_dense with RepConv as one 3x3 convolution. Times are CPU
    seconds of this process, the median over the rounds.
    """
    import torch

    torch.set_num_threads(threads)
    if probe is not None:
        print(_probe(probe, kinds[0], precisions[0], batches[0], size))
        return
    if not as_json:
        print(
            f"torch {torch.__version__}, {threads} thread(s), {platform.machine()}, "
            f"{size} x {size}, {rounds} rounds"
        )
    for kind in kinds:
        for precision in precisions:
            for batch in batches:
                rows = _compare(kind, precision, batch, size, rounds)
                for row in rows:
                    if memory:
                        row["peak_gb"] = _peak(row["form"], kind, precision, batch, size, threads)
                _show(rows, as_json)


def _model(form: str) -> "nn.Module":
    """The network with statistics of its own, so that spikes fire as in a trained one."""
    import torch

    from ...model.fold import fold
    from ...model.plain import plain_path
    from ...model.published import spike2former_sdtv2
    from ...model.segmentor import build_segmentor

    torch.manual_seed(0)
    model = build_segmentor(spike2former_sdtv2())
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(1, 3, 128, 128))
    model.eval()
    if form == "plain":
        return plain_path(model)
    if form.startswith("folded"):
        return fold(model, rep_conv="dense" if form == "folded_dense" else "chain")
    return model


def _task(form: str, kind: str, precision: str, batch: int, size: int) -> Callable[[], None]:
    """One forward pass, or one training step without its optimizer."""
    import torch

    from ...model.config import LossConfig
    from ...model.loss.criterion import build_criterion

    model = _model(form)
    image = torch.randn(batch, 3, size, size)
    cast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    if kind == "forward":

        def forward() -> None:
            with torch.no_grad(), cast:
                model(image)

        return forward
    # Vertical stripes: every class that is present has a mask of the same size.
    stripes = torch.arange(size) * _PRESENT // size
    target = stripes.expand(batch, size, size).contiguous()
    criterion = build_criterion(LossConfig(), model.config)
    model.train()

    def step() -> None:
        with cast:
            prediction = model(image)
        prediction = prediction._replace(
            class_logits=prediction.class_logits.float(),
            mask_logits=prediction.mask_logits.float(),
        )
        terms = criterion(prediction, target, criterion.count(target))
        torch.stack(list(terms.values())).sum().backward()
        model.zero_grad()

    return step


def _compare(kind: str, precision: str, batch: int, size: int, rounds: int) -> list[dict[str, Any]]:
    tasks = {form: _task(form, kind, precision, batch, size) for form in _FORMS[kind]}
    seconds: dict[str, list[float]] = {form: [] for form in tasks}
    for task in tasks.values():
        task()
    for _ in range(rounds):
        for form, task in tasks.items():
            started = time.process_time()
            task()
            seconds[form].append(time.process_time() - started)
    base = statistics.median(seconds["plain"])
    rows = []
    for form, values in seconds.items():
        row = {"kind": kind, "precision": precision, "batch": batch, "form": form}
        row |= {"cpu_s": statistics.median(values), "lowest_s": min(values)}
        row["speedup"] = base / row["cpu_s"]
        row["parts"] = _parts(form, precision, batch, size) if kind == "forward" else {}
        rows.append(row)
    return rows


def _parts(form: str, precision: str, batch: int, size: int) -> dict[str, float]:
    """CPU seconds of each part in one forward pass; what is left is the mask product."""
    import torch

    model = _model(form)
    head = model.decode_head
    parts = {
        "backbone": model.backbone,
        "encoder": head.pixel_decoder.encoder,
        "pixel decoder": head.pixel_decoder,
        "query decoder": head.transformer_decoder,
        "mask embedding": head.embedding,
    }
    started: dict[str, float] = {}
    spent: dict[str, float] = {}
    for name, module in parts.items():
        module.register_forward_pre_hook(
            lambda m, a, name=name: started.update({name: time.process_time()})
        )
        module.register_forward_hook(
            lambda m, a, o, name=name: spent.update({name: time.process_time() - started[name]})
        )
    cast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    image = torch.randn(batch, 3, size, size)
    with torch.no_grad(), cast:
        begin = time.process_time()
        model(image)
        total = time.process_time() - begin
    spent["pixel decoder"] -= spent["encoder"]
    spent["mask product"] = total - sum(spent.values())
    return spent


def _peak(form: str, kind: str, precision: str, batch: int, size: int, threads: int) -> float:
    """Peak memory of a process of its own that runs one form once, in GB."""
    arguments = ["--probe", form, "--kind", kind, "--precision", precision]
    arguments += ["--batch", str(batch), "--size", str(size), "--threads", str(threads)]
    done = subprocess.run(
        [sys.executable, "-m", f"{__package__}.model", *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout.split()[-1])


def _probe(form: str, kind: str, precision: str, batch: int, size: int) -> float:
    _task(form, kind, precision, batch, size)()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        for row in rows:
            print(json.dumps(row), flush=True)
        return
    first = rows[0]
    print(f"\n{first['kind']}, {first['precision']}, batch {first['batch']}")
    print(f"{'form':14} {'CPU s':>8} {'lowest':>8} {'speedup':>8} {'peak GB':>8}")
    for row in rows:
        peak = f"{row['peak_gb']:8.2f}" if "peak_gb" in row else "       -"
        print(
            f"{row['form']:14} {row['cpu_s']:8.2f} {row['lowest_s']:8.2f} {row['speedup']:7.2f}x "
            f"{peak}"
        )
    names = list(rows[0]["parts"])
    if names:
        print(f"{'part, CPU s':14} " + " ".join(f"{name:>14}" for name in names))
    for row in rows:
        if row["parts"]:
            print(f"{row['form']:14} " + " ".join(f"{row['parts'][name]:14.2f}" for name in names))
    sys.stdout.flush()


if __name__ == "__main__":
    run(command)
