"""What one image costs a trained network: operations of a split under named rules."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...model.accounting.energy import (
    EnergyReport,
    EnergyRule,
    Form,
    price_earlier,
    price_layers,
    share_by_stage,
)
from ...model.accounting.operations import LayerOperations
from ...model.deployment.fold import fold
from ..cluster.worker_group import OneWorker
from ..config.errors import ConfigError
from ..evaluation.energy_rules import load_rules
from ..evaluation.scores import EvaluatedModel
from ..evaluation.split_operations import count_split_operations
from ..evaluation.standards import STANDARDS
from ..loading.evaluation_loader import read_evaluation_batches
from ..train.preparation import open_data
from .energy_pictures import write_energy_pictures
from .predict_images import RECORDED_MACHINE, Machine, load_model

_FORM_IMAGES = 8


class EnergyRequest(NamedTuple):
    """What is asked about a checkpoint.

    Attributes:
        split: Split whose images are run.
        images: Rows from its start; None takes all.
        rule: As `load_rules` takes it; under `all` the layers are priced by `paper`.
        forms: Whether the network is also folded, on at most eight images.
        standard: Key of `STANDARDS` whose figures are wanted too.
        pictures: Folder to write pictures into.
        machine: What computes.
    """

    split: str = "val"
    images: int | None = None
    rule: str = "paper"
    forms: bool = False
    standard: str | None = None
    pictures: Path | None = None
    machine: Machine = RECORDED_MACHINE


def measure_checkpoint_energy(
    checkpoint: Path, overrides: Sequence[str], request: EnergyRequest
) -> dict[str, Any]:
    """Count a checkpoint's operations on a split and price them, as JSON types.

    Args:
        checkpoint: A checkpoint's or a run's folder.
        overrides: Items `field=value`.
        request: Split, images, rule.

    Returns:
        `total_mj`, `rows`, `rule`, `form` and `operations` of one image (mean over the split);
        `images` with number, mean, standard deviation and maximum in mJ; `rules`, the total under
        every named rule; and the figures beside them.

    Raises:
        ConfigError: Where checkpoint, data, split or rule are wrong.
    """
    rules = {rule.name: rule for rule in load_rules("all")}
    wanted = load_rules(request.rule)
    rules |= {rule.name: rule for rule in wanted}
    rule = rules["paper"] if request.rule == "all" else wanted[0]
    loaded = load_model(checkpoint, overrides, request.machine)
    config = loaded.resolved.config
    dataset = open_data(config)
    if not dataset.splits.get(request.split):
        raise ConfigError(
            f"split {request.split!r} has no rows in {config.data.path}; there are: "
            f"{', '.join(dataset.splits)}"
        )
    evaluated = EvaluatedModel(loaded.model, dataset, config, loaded.device)
    counted = count_split_operations(
        evaluated, request.split, group=OneWorker(), most=request.images
    )
    report = price_layers(counted.layers, rule)
    result = {
        **describe_energy(report, counted.layers, rules, rule),
        "checkpoint": str(loaded.path),
        "split": request.split,
        "images": _spread(counted.price_images(rule)),
    }
    if request.forms:
        result["forms"] = _price_forms(evaluated, request, rule)
    if request.standard is not None:
        rows = len(counted.images)
        batches = read_evaluation_batches(
            dataset, request.split, config.data.transform, range(rows), config.data.evaluation_batch
        )
        images = [batch.images.to(loaded.device) for batch in batches]
        result[request.standard] = STANDARDS[request.standard](loaded.model, images, counted.layers)
    if request.pictures is not None:
        written = write_energy_pictures(
            evaluated,
            request.split,
            report.tabulate(),
            request.pictures,
            images=len(counted.images),
            rule=rule,
        )
        result["pictures"] = [str(path) for path in written]
    return result


def describe_energy(
    report: EnergyReport,
    layers: list[LayerOperations],
    rules: dict[str, EnergyRule],
    rule: EnergyRule,
) -> dict[str, Any]:
    """Priced layers and the figures that stand beside them.

    Args:
        report: Of the layers under the rule.
        layers: What was counted, of one image.
        rules: All rules to state totals of.
        rule: The one that the layers are priced by.

    Returns:
        JSON types.
    """
    spiking = [row for row in layers if row.operands]
    events = sum(row.unary for row in spiking if row.kind != "sampling")
    shortcut = sum(row.rate_product for row in spiking if row.kind != "sampling")
    dense = sum(row.macs for row in spiking)
    charged = [row for row in layers if row.kind not in rule.leave_out]
    levels = max((row.levels for row in spiking), default=1)
    slots = sum(row.macs * row.rate / row.levels for row in spiking) / max(1.0, dense)
    return {
        **asdict(report),
        "constants": asdict(rule),
        "earlier_mj": price_earlier(layers),
        "rules": {name: price_layers(layers, one).total_mj for name, one in rules.items()},
        "ann_mj": sum(row.macs for row in charged if row.kind != "neuron") * rule.mac * 1e-9,
        "stages": share_by_stage(report.rows),
        "synaptic_operations": {
            "events": events,
            "macs_times_rate": shortcut,
            "difference_percent": 100 * (shortcut - events) / events if events else 0.0,
        },
        "levels": levels,
        "slots_that_fire": slots,
        "break_even": {name: one.break_even(levels) for name, one in rules.items()},
    }


def _spread(prices: torch.Tensor) -> dict[str, float]:
    return {
        "number": len(prices),
        "mean": float(prices.mean()),
        "std": float(prices.std(correction=0)),
        "max": float(prices.max()),
    }


def _price_forms(
    evaluated: EvaluatedModel, request: EnergyRequest, rule: EnergyRule
) -> dict[str, Any]:
    """Energy and operations as the network runs, folded, and folded and sent as binary slots."""
    rows = min(_FORM_IMAGES, request.images or _FORM_IMAGES)
    forms: dict[str, Any] = {}
    networks = {"as it runs": evaluated.model, "folded": fold(evaluated.model)}
    for name, model in networks.items():
        counted = count_split_operations(
            evaluated._replace(model=model), request.split, group=OneWorker(), most=rows
        )
        spikings: tuple[Form, ...] = (
            ("graded",)
            if name != "folded"
            else (
                "graded",
                "unrolled",
                "bitwise",
            )
        )
        for form in spikings:
            priced = price_layers(counted.layers, rule, form)
            multiplying = [row for row in priced.rows if row.multiplies]
            forms[f"{name}, {form}"] = {
                "images": rows,
                "mj": priced.total_mj,
                "products": sum(row.operations for row in multiplying),
                "accumulates": sum(row.operations for row in priced.rows if not row.multiplies),
                "multiplies": sorted({row.kind for row in multiplying}),
                "norms_and_factors": sum(
                    row.macs for row in counted.layers if row.kind in ("normalization", "scaling")
                ),
            }
    return forms
