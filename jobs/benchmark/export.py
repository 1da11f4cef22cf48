"""`spikeseg benchmark export`: the exported forms beside the published order, in one run."""

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from ..cli import run

if TYPE_CHECKING:
    from torch import Tensor, nn


# Form -> (weights, runtime); the others are torch's.
_FILES: dict[str, tuple[str, Literal["onnx", "openvino"]]] = {
    "ort_fp32": ("float32", "onnx"),
    "ort_int8": ("int8", "onnx"),
    "openvino_fp32": ("float32", "openvino"),
    "openvino_int8": ("int8", "openvino"),
}
_FORMS = ("published", "trained", "folded", *_FILES)


class _Network(NamedTuple):
    """The network that is measured."""

    family: str
    timesteps: int
    dynamics: Literal["stateless", "temporal"]
    size: int


@click.command("export")
@click.option("--size", type=click.IntRange(32), default=512, show_default=True)
@click.option(
    "--batch", "batches", multiple=True, type=click.IntRange(1), default=(1,), show_default=True
)
@click.option(
    "--family",
    type=click.Choice(["sdtv2", "sdtv3"]),
    default="sdtv2",
    show_default=True,
    help="Backbone of the published segmentor.",
)
@click.option("--timesteps", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--dynamics",
    type=click.Choice(["stateless", "temporal"]),
    default="stateless",
    show_default=True,
    help="What neurons keep between steps; nothing as published, so that files compute one step.",
)
@click.option("--form", "forms", multiple=True, type=click.Choice(_FORMS), help="Only these.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def command(batches: tuple[int, ...], rounds: int, as_json: bool, **options: Any) -> None:
    """Times of one forward pass of Spike2Former (ADE20K), all forms interleaved.

    published is the released order of operations, trained what trainings run, folded the
    inference form in torch; the others are files of the folded form. The first form is what the
    others are compared with: trained where neurons are temporal, which published has none of.
    Weights are drawn, BatchNorm is calibrated on 8 images. Times are medians of CPU seconds of this
    process, and of wall time where several threads run.
    """
    import torch

    threads = options["threads"]
    torch.set_num_threads(threads)
    network = _Network(*(options[name] for name in _Network._fields))
    # The released code has no neurons that keep a state.
    default = _FORMS[1:] if network.dynamics == "temporal" else _FORMS
    forms = options["forms"] or default
    tasks, sizes = _build_tasks(network, forms, threads)
    for batch in batches:
        generator = torch.Generator().manual_seed(batch)
        images = torch.randn(batch, 3, network.size, network.size, generator=generator)
        rows = _measure(tasks, images, rounds)
        for row in rows:
            row |= {**network._asdict(), "batch": batch, "threads": threads}
            row["file_mb"] = sizes.get(row["form"])
        _show(rows, as_json)


def build_calibrated(network: _Network) -> "nn.Module":
    """Draw the published segmentor's weights and calibrate its BatchNorms on 8 images."""
    import torch

    from ...model.published.sizes import spike2former_sdtv2, spike2former_sdtv3
    from ...model.segmentor import build_uncalibrated_segmentor

    torch.manual_seed(0)
    make = spike2former_sdtv2 if network.family == "sdtv2" else spike2former_sdtv3
    config = make()
    neuron = dataclasses.replace(
        config.neuron, timesteps=network.timesteps, dynamics=network.dynamics
    )
    model = build_uncalibrated_segmentor(dataclasses.replace(config, neuron=neuron))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(8, 3, 128, 128))
    return model.eval()


def _build_tasks(
    network: _Network, forms: tuple[str, ...], threads: int
) -> "tuple[dict[str, Callable[[Tensor], Any]], dict[str, float]]":
    """Ready forward passes by form, and megabytes of the files."""
    from ...model.deployment.fold import fold
    from .published_order import use_published_order

    tasks: dict[str, Callable[..., Any]] = {}
    sizes: dict[str, float] = {}
    model = build_calibrated(network)
    if "published" in forms:
        tasks["published"] = use_published_order(build_calibrated(network))
    if "trained" in forms:
        tasks["trained"] = model
    if "folded" in forms:
        tasks["folded"] = fold(model)
    wanted = {form: _FILES[form] for form in _FILES if form in forms}
    if wanted:
        _report("exporting")
        for form, (content, run_file) in _export(model, network.size, wanted, threads).items():
            sizes[form] = len(content) / 1e6
            tasks[form] = lambda images, run_file=run_file: run_file(images.numpy())
    return tasks, sizes


def _export(
    model: "nn.Module", size: int, wanted: dict[str, tuple[str, Any]], threads: int
) -> dict[str, tuple[bytes, Callable[..., Any]]]:
    from ...platform.export.integer_weights import quantize_weights
    from ...platform.export.onnx_graph import build_onnx
    from ...platform.export.open_exported import start_runtime
    from ...platform.export.traced_program import ExportedForm, has_free_size, trace

    form: ExportedForm = ExportedForm(model, "prediction")
    config: Any = model.config
    program = trace(form, (size, size), free_size=has_free_size(config))
    graph = build_onnx(program, form)
    opened = {}
    for name, (weights, runtime) in wanted.items():
        copy = type(graph).FromString(graph.SerializeToString())
        if weights == "int8":
            count = quantize_weights(copy, runtime)
            _report(f"{name}: {count} convolutions with int8 weights")
        content = copy.SerializeToString()
        run_file, described = start_runtime(content, runtime, threads=threads)
        _report(f"{name}: {described}, float32 where weights are not int8")
        opened[name] = (content, run_file)
    return opened


def _measure(
    tasks: "dict[str, Callable[[Tensor], Any]]", images: "Tensor", rounds: int
) -> list[dict[str, Any]]:
    import torch

    cpu: dict[str, list[float]] = {name: [] for name in tasks}
    wall: dict[str, list[float]] = {name: [] for name in tasks}
    with torch.inference_mode():
        for number in range(rounds + 1):
            for name, task in tasks.items():
                started = time.process_time(), time.perf_counter()
                task(images)
                spent = time.process_time() - started[0], time.perf_counter() - started[1]
                _report(f"{name}: {spent[0]:.3f} CPU s, round {number} of {rounds}")
                if number:
                    cpu[name].append(spent[0])
                    wall[name].append(spent[1])
    first = next(iter(tasks))
    base = statistics.median(cpu[first]), statistics.median(wall[first])
    return [
        {
            "form": name,
            "cpu_s": statistics.median(cpu[name]),
            "lowest_s": min(cpu[name]),
            "speedup": base[0] / statistics.median(cpu[name]),
            "wall_s": statistics.median(wall[name]),
            "wall_speedup": base[1] / statistics.median(wall[name]),
        }
        for name in tasks
    ]


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        for row in rows:
            print(json.dumps(row), flush=True)
        return
    first = rows[0]
    print(
        f"\n{first['family']}, T = {first['timesteps']} ({first['dynamics']}), "
        f"batch {first['batch']}, {first['size']} x {first['size']}, {first['threads']} thread(s)"
    )
    print(f"{'form':15} {'CPU s':>8} {'lowest':>8} {'speedup':>8} {'wall s':>8} {'wall x':>7} MB")
    for row in rows:
        size = "-" if row["file_mb"] is None else f"{row['file_mb']:.0f}"
        print(
            f"{row['form']:15} {row['cpu_s']:8.3f} {row['lowest_s']:8.3f} {row['speedup']:7.2f}x "
            f"{row['wall_s']:8.3f} {row['wall_speedup']:6.2f}x {size}"
        )
    sys.stdout.flush()


def _report(text: str) -> None:
    """Print progress to the error stream, so that tables stay clean."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run(command)
