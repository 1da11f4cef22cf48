"""`spikeseg benchmark energy`: operations and energy of a recipe's network with drawn weights."""

import json
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click
import torch

from ...model.accounting.energy import EnergyRule, price_earlier, price_layers
from ...model.accounting.operations import LayerOperations, OperationMeter
from ...model.initialize import calibrate_norms
from ...model.segmentor import build_uncalibrated_segmentor
from ...platform.config.recipes import load_experiment
from ...platform.evaluation.energy_rules import load_rules
from ..cli import run

_COUNTS = ("macs", "values", "unary", "bitwise")


@click.command("energy")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option(
    "--side",
    type=click.IntRange(16),  # The model's coarsest stride.
    default=512,
    show_default=True,
    help="Height and width of the images.",
)
@click.option(
    "--images",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Images that BatchNorms see once, and whose operations are counted.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(recipe: str, overrides: tuple[str, ...], side: int, images: int, as_json: bool) -> None:
    """Count what RECIPE's network costs on smooth random images.

    Weights are drawn with seed 0 and BatchNorms see the images once, so firing rates are those of
    an untrained network: products are exact, energies show an order of magnitude.
    """
    report = measure_network(recipe, overrides, side=side, images=images)
    print(json.dumps(report, indent=1) if as_json else format_report(report))


def measure_network(
    recipe: str, overrides: Sequence[str] = (), *, side: int = 512, images: int = 8
) -> dict[str, Any]:
    """Build, calibrate and count the network of a recipe.

    Args:
        recipe: Name or file.
        overrides: `FIELD=VALUE`.
        side: Height and width of the images, pixels.
        images: How many.

    Returns:
        `kinds`: kind of product -> G or millijoules an image; `mj`: rule -> millijoules an image;
        `earlier_mj`: what `energy/mJ.earlier` is; seconds, and peak memory in MB.

    Raises:
        ConfigError: As `load_experiment`.
    """
    torch.manual_seed(0)
    config = load_experiment(recipe, overrides).config.model
    model = build_uncalibrated_segmentor(config)
    channels = config.in_channels
    coarse = torch.randn(images, channels, max(1, side // 16), max(1, side // 16))
    batch = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    started = time.perf_counter()
    calibrate_norms(model, batch)
    calibrated = time.perf_counter()
    with torch.inference_mode(), OperationMeter(model.eval()) as meter:
        for image in batch:
            model(image[None])
    ended = time.perf_counter()
    rows = meter.rows()
    rules = load_rules("all")
    return {
        "recipe": recipe,
        "timesteps": config.neuron.timesteps,
        "levels": config.neuron.levels,
        "images": images,
        "side": side,
        "calibration_seconds": calibrated - started,
        "counting_seconds": ended - calibrated,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "mj": {rule.name: price_layers(rows, rule).total_mj for rule in rules},
        "earlier_mj": price_earlier(rows),
        "kinds": _sum_kinds(rows, next(rule for rule in rules if rule.name == "paper")),
    }


def _sum_kinds(rows: Sequence[LayerOperations], rule: EnergyRule) -> dict[str, dict[str, float]]:
    kinds: dict[str, dict[str, float]] = {}
    for row, priced in zip(rows, price_layers(rows, rule).tabulate(), strict=True):
        name = f"{row.kind}, {'spikes' if row.operands else 'real'}"
        sums = kinds.setdefault(name, dict.fromkeys((*_COUNTS, "mj", "layers"), 0.0))
        for count in _COUNTS:
            sums[count] += asdict(row)[count]
        sums["mj"] += priced["mj"]
        sums["layers"] += 1
    return dict(sorted(kinds.items(), key=lambda item: -item[1]["macs"]))


def format_report(report: dict[str, Any]) -> str:
    """Lines for people: products by kind, energies by rule, time and memory."""
    lines = [
        f"{report['recipe']}, T{report['timesteps']} D{report['levels']}, weights drawn, "
        f"{report['images']} images of {report['side']} x {report['side']}; an image:",
        f"{'products of':28}{'layers':>8}{'M':>10}{'unary M':>10}{'mJ':>10}",
    ]
    for name, sums in report["kinds"].items():
        unary = f"{sums['unary'] / 1e6:10.4g}" if name.endswith("spikes") else f"{'':10}"
        lines.append(
            f"{name:28}{sums['layers']:8.0f}{sums['macs'] / 1e6:10.4g}{unary}{sums['mj']:10.3g}"
        )
    lines.append(f"{'rule':28}{'mJ':>10}")
    lines += [f"{name:28}{value:10.3g}" for name, value in report["mj"].items()]
    lines.append(f"{'earlier':28}{report['earlier_mj']:10.3g}")
    lines.append(
        f"calibrated in {report['calibration_seconds']:.1f} s, counted in "
        f"{report['counting_seconds']:.1f} s, {report['peak_memory_mb']:.0f} MB at most"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    run(command)
