"""Operations and energy of a recipe's network with drawn weights, calibrated on a few images."""

import json
import resource
import time
from dataclasses import asdict

import click
import torch

from ...model.accounting.energy import price_earlier, price_layers
from ...model.accounting.operations import OperationMeter
from ...model.segmentor import build_uncalibrated_segmentor
from ...platform.config.recipes import load_experiment
from ...platform.evaluation.energy_rules import load_rules


@click.command()
@click.argument("recipe")
@click.option("--side", default=512, show_default=True, help="Height and width of the images.")
@click.option("--images", default=8, show_default=True, help="Images to calibrate on and to count.")
@click.option("--set", "overrides", multiple=True, metavar="FIELD=VALUE")
def command(recipe: str, side: int, images: int, overrides: tuple[str, ...]) -> None:
    """Count what RECIPE's network costs on smooth random images: BatchNorms see them once.

    Weights are drawn with seed 0, so rates are those of an untrained network: totals of dense
    products are exact, energies show an order of magnitude.
    """
    torch.manual_seed(0)
    config = load_experiment(recipe, overrides).config.model
    model = build_uncalibrated_segmentor(config)
    coarse = torch.randn(images, 3, side // 16, side // 16)
    batch = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.momentum = None
    started = time.perf_counter()
    with torch.no_grad():
        for image in batch:
            model.train()(image[None])
    calibrated = time.perf_counter()
    with torch.inference_mode(), OperationMeter(model.eval()) as meter:
        for image in batch:
            model(image[None])
    ended = time.perf_counter()
    rows = meter.rows()
    paper = next(rule for rule in load_rules("all") if rule.name == "paper")
    kinds: dict[str, dict[str, float]] = {}
    for row, priced in zip(rows, price_layers(rows, paper).tabulate(), strict=True):
        of_kind = kinds.setdefault(f"{row.kind}, {'spikes' if row.operands else 'real'}", {})
        for name, value in asdict(row).items():
            if name in ("macs", "values", "unary", "bitwise"):
                of_kind[name] = of_kind.get(name, 0.0) + value
        of_kind["mj"] = of_kind.get("mj", 0.0) + priced["mj"]
        of_kind["layers"] = of_kind.get("layers", 0) + 1
    report = {
        "recipe": recipe,
        "images": images,
        "side": side,
        "calibration_seconds": calibrated - started,
        "counting_seconds": ended - calibrated,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "mj": {rule.name: price_layers(rows, rule).total_mj for rule in load_rules("all")},
        "earlier_mj": price_earlier(rows),
        "kinds": kinds,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    command()
