"""`spikeseg benchmark model`: published order, fast path and folded form side by side."""

# torch types what a module holds as Tensor | Module; what it is here is asserted or known.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..cli import run

if TYPE_CHECKING:
    from torch import nn

_FORMS = {"forward": ("plain", "fast", "folded", "folded_dense"), "step": ("plain", "fast")}
_PROFILED = 14
_PRESENT = 12  # Classes in a label map, as in the published measurement.


class _Case(NamedTuple):
    """One comparison: all forms in this kind, precision and batch."""

    kind: str
    precision: str
    batch: int
    size: int

    def __str__(self) -> str:
        return f"{self.kind}, {self.precision}, batch {self.batch}, {self.size} x {self.size}"


@dataclass
class _Task:
    """One form, ready to run; `parts` are the CPU seconds of its last run."""

    run: Callable[[], None]
    parts: dict[str, float]


@click.command("model")
@click.option(
    "--size",
    type=click.IntRange(16),  # The model's coarsest stride.
    default=512,
    show_default=True,
    help="Height and width of the image.",
)
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=click.IntRange(1),
    default=(1, 2),
    show_default=True,
)
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
@click.option(
    "--form", "forms", multiple=True, help="Only these forms besides plain; all if not given."
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Rounds after one that warms up.",
)
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="torch threads."
)
@click.option("--memory/--no-memory", default=True, help="Measure peak memory in subprocesses.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@click.option("--profile", is_flag=True, help="Where one run of each form goes, by operation.")
@click.option("--probe", hidden=True, help="Run one form alone and print its memory.")
def command(  # noqa: PLR0913
    size: int,
    batches: tuple[int, ...],
    precisions: tuple[str, ...],
    kinds: tuple[str, ...],
    forms: tuple[str, ...],
    rounds: int,
    threads: int,
    memory: bool,
    as_json: bool,
    profile: bool,
    probe: str | None,
) -> None:
    """Time and memory of Spike2Former (SDT-V2, ADE20K) in three forms, interleaved in one run.

    plain is the published order of operations, fast what trainings run, folded the inference form
    with RepConv as a chain, folded_dense with RepConv as one 3x3 convolution. Times are CPU
    seconds of this process, the median over the rounds; memory is the highest resident size of a
    process that runs one form alone, and what of it was there before the first run. Every single
    measurement goes to the error stream as it ends.
    """
    import torch

    torch.set_num_threads(threads)
    if probe is not None:
        print(json.dumps(_probe(probe, _Case(kinds[0], precisions[0], batches[0], size))))
        return
    known = {form for kind in kinds for form in _FORMS[kind]}
    if not known.issuperset(forms):
        raise ValueError(f"--form: {', '.join(forms)}; there are {', '.join(sorted(known))}")
    if not as_json:
        print(
            f"torch {torch.__version__}, {threads} thread(s), {platform.machine()} "
            f"({torch.backends.cpu.get_cpu_capability()}), median of {rounds} rounds",
            flush=True,
        )
    for kind in kinds:
        for precision in precisions:
            for batch in batches:
                case = _Case(kind, precision, batch, size)
                chosen = [f for f in _FORMS[kind] if not forms or f in ("plain", *forms)]
                if profile:
                    for form in chosen:
                        _show_profile(form, case)
                    continue
                rows = _compare(case, chosen, rounds)
                for row in rows if memory else ():
                    row |= _measure_memory(row["form"], case, threads)
                _show(case, rows, as_json)


def _print_progress(text: str) -> None:
    """Print progress to the error stream, so that tables stay clean."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _build_model(form: str) -> "nn.Module":
    """Build the network with running statistics of its own, so that it fires as a trained one."""
    import torch

    from ...model.deployment.fold import fold
    from ...model.initialize import calibrate_norms
    from ...model.published.sizes import spike2former_sdtv2
    from ...model.segmentor import build_uncalibrated_segmentor
    from .published_order import use_published_order

    torch.manual_seed(0)
    model = build_uncalibrated_segmentor(spike2former_sdtv2())
    calibrate_norms(model, torch.randn(1, 3, 128, 128))
    model.eval()
    if form == "plain":
        return use_published_order(model)
    if form.startswith("folded"):
        return fold(model, rep_conv="dense" if form == "folded_dense" else "chain")
    return model


def _build_task(form: str, case: _Case) -> _Task:
    """Build one forward pass, or one training step without its optimizer."""
    import torch

    from ...model.config import LossConfig
    from ...model.loss.criterion import build_criterion
    from .published_order import PlainCriterion

    model = _build_model(form)
    image = torch.randn(case.batch, 3, case.size, case.size)
    cast = torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bf16")
    parts = _time_parts(model)

    def forward() -> Any:
        started = time.process_time()
        with cast:
            prediction = model(image)
        parts["rest of forward"] = time.process_time() - started - sum(parts.values())
        return prediction

    def infer() -> None:
        parts.clear()
        with torch.no_grad():
            forward()

    if case.kind == "forward":
        return _Task(infer, parts)
    # Vertical stripes: every class that is present has a mask of the same size.
    stripes = torch.arange(case.size) * _PRESENT // case.size
    target = stripes.expand(case.batch, case.size, case.size).contiguous()
    criterion = build_criterion(LossConfig(), model.config)
    if form == "plain":
        classes = model.config.num_classes
        criterion = PlainCriterion(LossConfig(), classes, torch.ones(classes))
    model.train()

    def step() -> None:
        parts.clear()
        prediction = forward()
        started = time.process_time()
        prediction = prediction._replace(
            class_logits=prediction.class_logits.float(),
            mask_logits=prediction.mask_logits.float(),
        )
        terms = criterion(prediction, target, criterion.count(target))
        loss = torch.stack(list(terms.values())).sum()
        parts["losses"] = time.process_time() - started
        del prediction, terms
        started = time.process_time()
        loss.backward()
        parts["backward"] = time.process_time() - started
        model.zero_grad()

    return _Task(step, parts)


def _time_parts(model: "nn.Module") -> dict[str, float]:
    """Register hooks that fill in CPU seconds of each part of the last forward pass."""
    head = model.decode_head
    watched = {
        "backbone": model.backbone,
        "encoder": head.pixel_decoder.encoder,
        "pixel decoder": head.pixel_decoder,
        "query decoder": head.transformer_decoder,
        "embedding": head.embedding,
    }
    started: dict[str, float] = {}
    spent: dict[str, float] = {}

    def begin(name: str) -> None:
        started[name] = time.process_time()

    def end(name: str) -> None:
        spent[name] = time.process_time() - started[name]
        if name == "pixel decoder":
            spent[name] -= spent["encoder"]

    for name, module in watched.items():
        module.register_forward_pre_hook(lambda m, a, name=name: begin(name))
        module.register_forward_hook(lambda m, a, o, name=name: end(name))
    return spent


def _compare(case: _Case, forms: list[str], rounds: int) -> list[dict[str, Any]]:
    tasks = {form: _build_task(form, case) for form in forms}
    seconds: dict[str, list[float]] = {form: [] for form in tasks}
    parts: dict[str, list[dict[str, float]]] = {form: [] for form in tasks}
    for number in range(rounds + 1):
        for form, task in tasks.items():
            started = time.process_time()
            task.run()
            spent = time.process_time() - started
            _print_progress(f"{case}, {form}: {spent:.2f} CPU s, round {number} of {rounds}")
            if number:
                seconds[form].append(spent)
                parts[form].append(dict(task.parts))
    base = statistics.median(seconds["plain"])
    rows = []
    for form, values in seconds.items():
        middle = statistics.median(values)
        names = parts[form][0]
        rows.append(
            {
                **case._asdict(),
                "form": form,
                "cpu_s": middle,
                "lowest_s": min(values),
                "speedup": base / middle,
                "parts": {n: statistics.median(run[n] for run in parts[form]) for n in names},
            }
        )
    return rows


def _show_profile(form: str, case: _Case) -> None:
    """Print the operations that one run spends most of its time on, children not counted."""
    import torch

    task = _build_task(form, case)
    task.run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        task.run()
    rows = sorted(profiler.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in rows)
    print(f"{case}, {form}: {total / 1e6:.2f} s with the profiler's own")
    for row in rows[:_PROFILED]:
        share = 100 * row.self_cpu_time_total / total
        spent = row.self_cpu_time_total / 1e6
        print(f"  {row.key:<40}{row.count:>7}{spent:>9.3f} s{share:>6.1f} %", flush=True)


def _measure_memory(form: str, case: _Case, threads: int) -> dict[str, float]:
    """Measure resident memory of a separate process that runs one form, in GB."""
    arguments = ["--probe", form, "--kind", case.kind, "--precision", case.precision]
    arguments += ["--batch", str(case.batch), "--size", str(case.size), "--threads", str(threads)]
    done = subprocess.run(
        [sys.executable, "-m", f"{__package__}.model", *arguments],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        _print_progress(
            f"{case}, {form}: its memory could not be measured: {done.stderr.strip()[-300:]}"
        )
        return {}
    memory = json.loads(done.stdout.splitlines()[-1])
    _print_progress(
        f"{case}, {form}: peak {memory['peak_gb']:.2f} GB, before {memory['before_gb']:.2f} GB"
    )
    return memory


def _probe(form: str, case: _Case) -> dict[str, float]:
    """Measure the highest resident size before and after two runs of a form."""
    task = _build_task(form, case)
    before = _read_resident_gb()
    for _ in range(2):
        task.run()
    return {"before_gb": before, "peak_gb": _read_resident_gb()}


def _read_resident_gb() -> float:
    """Read the highest resident size of this process so far, in GB."""
    try:
        # What getrusage says begins with the size of the process that this one was forked from.
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _show(case: _Case, rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        for row in rows:
            print(json.dumps(row), flush=True)
        return
    names = list(rows[0]["parts"])
    head = ("CPU s", "lowest", "speedup", "peak GB", "of plain", *names)
    print(f"\n{case}")
    print(f"{'form':14}" + "".join(f"{name:>{max(8, len(name)) + 2}}" for name in head))
    for row in rows:
        cells = [f"{row['cpu_s']:.2f}", f"{row['lowest_s']:.2f}", f"{row['speedup']:.2f}x"]
        peak, base = row.get("peak_gb"), rows[0].get("peak_gb")
        cells += ["-", "-"] if not (peak and base) else [f"{peak:.2f}", f"{peak / base:.2f}"]
        cells += [f"{row['parts'][name]:.2f}" for name in names]
        columns = zip(head, cells, strict=True)
        print(
            f"{row['form']:14}"
            + "".join(f"{cell:>{max(8, len(name)) + 2}}" for name, cell in columns)
        )
    sys.stdout.flush()


if __name__ == "__main__":
    run(command)
