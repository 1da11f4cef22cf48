"""Every metric that a run records: meaning, unit, range, which way is better, where it is measured.

Runs, sweeps, reports and `docs/run_contents.md` take names from here; a new score of a split is one
entry of `_SCORES`, and what `evaluation/scores.py` computes under its name.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MEASURED = {
    "start": "once, at the start, of the data",
    "step": "every `trainer.log_every` steps",
    "evaluation": "every evaluation of the validation split, first of the untrained network",
    "best": "every evaluation of the validation split, of the best one so far",
    "end": "once, at the end, of the checkpoint that the validation split chose",
    "system": "every `tracking.system_interval` seconds, on the machine of rank 0",
}
"""Where a metric is measured, in words. Sweeps are about those of `evaluation`."""

NEEDS = {
    "": "",
    "panoptic": "data.task=panoptic",
    "categories": "a label space with categories",
}
"""What an experiment must have for a metric to be measured, in words."""


@dataclass(frozen=True)
class Metric:
    """A metric; none can be below 0.

    Attributes:
        meaning: What the number is.
        unit: Its unit; empty for a pure number.
        measured: Key of `MEASURED`.
        better: Which way is better; None where that depends on what is asked.
        high: Largest possible value.
        needs: Key of `NEEDS`.
    """

    meaning: str
    unit: str
    measured: Literal["start", "step", "evaluation", "best", "end", "system"]
    better: Literal["maximize", "minimize"] | None = None
    high: float = math.inf
    needs: Literal["", "panoptic", "categories"] = ""


def _score(meaning: str, needs: Literal["", "panoptic", "categories"] = "") -> Metric:
    return Metric(meaning, "%", "evaluation", "maximize", 100.0, needs)


_BASELINES_MEASURED: dict[str, Literal["start", "end"]] = {"val": "start", "test": "end"}
_SCORES = {
    "mIoU": _score("mean IoU over the classes"),
    "mAcc": _score("mean accuracy over the classes"),
    "aAcc": _score("share of pixels that are right"),
    "category_mIoU": _score("mean IoU over the categories", "categories"),
    **{
        f"{name}{part}": _score(f"{meaning}{of}", "panoptic")
        for part, of in (("", ""), ("_things", " of things"), ("_stuff", " of stuff"))
        for name, meaning in (
            ("PQ", "panoptic quality"),
            ("SQ", "segmentation quality"),
            ("RQ", "recognition quality"),
        )
    },
}
"""Scores of a split, named without it."""

METRICS = {
    "train/loss": Metric(
        "sum of the weighted loss terms; logged as its terms are, and an evaluation takes the last",
        *("", "evaluation", "minimize"),
    ),
    "train/loss_class": Metric("class term", "", "step", "minimize"),
    "train/loss_mask": Metric("mask term", "", "step", "minimize"),
    "train/loss_dice": Metric("dice term", "", "step", "minimize"),
    "train/loss_pixel": Metric("cross entropy of the pixel head", "", "step", "minimize"),
    "train/loss_semantic": Metric("cross entropy of the joined masks", "", "step", "minimize"),
    "train/loss_lovasz": Metric("Lovász-softmax term", "", "step", "minimize"),
    "train/lr": Metric("base learning rate of the step", "", "step"),
    "train/grad_norm": Metric("global norm of the gradient before clipping", "", "step"),
    "perf/images_per_s": Metric(
        "images trained on per second since the last evaluation", "1/s", "step", "maximize"
    ),
    "perf/memory_mb": Metric(
        "largest memory of the process, or of the GPU where there is one", "MB", "step", "minimize"
    ),
    **{f"val/{name}": score for name, score in _SCORES.items()},
    **{
        f"test/{name}": dataclasses.replace(score, measured="end")
        for name, score in _SCORES.items()
    },
    **{
        f"{split}/baseline_{name}": Metric(
            f"mIoU on {split} of an answer that ignores the image: {meaning} of the training split",
            "%",
            measured,
            high=100.0,
        )
        for split, measured in _BASELINES_MEASURED.items()
        for name, meaning in (
            ("majority", "the most frequent class"),
            ("position", "the most frequent class at each position"),
        )
    },
    "energy/mJ": Metric(
        "theoretical energy of one image: spikes as binary slots, every product, rule `paper`",
        *("mJ", "evaluation", "minimize"),
    ),
    "energy/mJ.earlier": Metric(
        "the same under the rule before: MACs x rate of convolutions and linear layers alone",
        *("mJ", "evaluation", "minimize"),
    ),
    "energy/rule": Metric("version of the rule behind energy/mJ", "", "evaluation"),
    "snn/firing_rate": Metric(
        "mean spike count per neuron and time step over layers, in [0, D]", "spikes", "evaluation"
    ),
    "snn/dead_layers": Metric(
        "share of layers that never fired on the measured images",
        *("", "evaluation", "minimize", 1.0),
    ),
    "snn/dead_fraction": Metric(
        "share of neuron values that were 0, in the layer where it is largest",
        *("", "evaluation", "minimize", 1.0),
    ),
    "snn/saturated_fraction": Metric(
        "share of neuron values that were D, in the layer where it is largest",
        *("", "evaluation", "minimize", 1.0),
    ),
    "best/val_mIoU": Metric("highest val/mIoU", "%", "best", "maximize", 100.0),
    "best/step": Metric("step of the highest val/mIoU", "steps", "best"),
    "system/cpu_utilization_percentage": Metric("use of all cores", "%", "system", None, 100.0),
    "system/system_memory_usage_percentage": Metric("use of memory", "%", "system", None, 100.0),
    "system/process_memory_megabytes": Metric("resident memory of rank 0", "MB", "system"),
    "system/gpu_memory_usage_megabytes": Metric("memory used on rank 0's GPU", "MB", "system"),
    "system/gpu_utilization_percentage": Metric(
        "share of time in which rank 0's GPU computes", "%", "system", None, 100.0
    ),
    "system/gpu_power_usage_watts": Metric("power of rank 0's GPU", "W", "system"),
}
"""Name in MLflow -> metric."""


ENERGY_RULE = 2
"""Version of the rule behind `energy/mJ`; what was recorded without one is of version 1."""


def is_of_earlier_rule(metrics: Mapping[str, float]) -> bool:
    """Whether `energy/mJ` among metrics was measured under the rule before `ENERGY_RULE`."""
    return "energy/mJ" in metrics and metrics.get("energy/rule", 1) < ENERGY_RULE


def separate_energy_rules(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics whose energy of the earlier rule has that rule's name, never `energy/mJ`.

    Whoever compares recorded runs takes their metrics through here.

    Args:
        metrics: As they were recorded.
    """
    if not is_of_earlier_rule(metrics):
        return dict(metrics)
    renamed = {"energy/mJ": "energy/mJ.earlier"}
    return {renamed.get(name, name): value for name, value in metrics.items()}


def separate_energy_series(
    series: Mapping[str, list[tuple[int, float]]],
) -> dict[str, list[tuple[int, float]]]:
    """Series of a run whose points of the earlier rule are none of `energy/mJ`.

    Args:
        series: Metric -> (step, value), as recorded; a resumed run may have points of both rules.
    """
    ruled = {step for step, version in series.get("energy/rule", ()) if version >= ENERGY_RULE}
    points = series.get("energy/mJ", [])
    earlier = [point for point in points if point[0] not in ruled]
    if not earlier:
        return dict(series)
    parts = {
        "energy/mJ": [point for point in points if point[0] in ruled],
        "energy/mJ.earlier": sorted(earlier + series.get("energy/mJ.earlier", [])),
    }
    return {name: part for name, part in {**series, **parts}.items() if part}


def restore_earlier_rule(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics of now as the earlier rule would have recorded them.

    A sweep that was started under it goes on with it, so that its trials stay comparable.

    Args:
        metrics: As they are measured now.
    """
    if "energy/mJ.earlier" not in metrics:
        return dict(metrics)
    names = {"energy/mJ.earlier": "energy/mJ"}
    dropped = ("energy/mJ", "energy/rule")
    return {names.get(k, k): value for k, value in metrics.items() if k not in dropped}


def split_metrics(split: str, scores: Mapping[str, float]) -> dict[str, float]:
    """Scores of a split under their names in MLflow.

    Args:
        split: Such as `val`.
        scores: Name without the split -> value.
    """
    unknown = sorted(set(scores) - set(_SCORES))
    assert not unknown, f"scores {unknown} are not in the table of metrics"
    return {f"{split}/{name}": value for name, value in scores.items()}


def evaluation_metrics(task: str) -> list[str]:
    """Names that an evaluation of the validation split measures; those over categories among them.

    Args:
        task: `data.task` of the experiment.
    """
    return [
        name
        for name, metric in METRICS.items()
        if metric.measured == "evaluation" and (task == "panoptic" or metric.needs != "panoptic")
    ]


def metric_label(name: str) -> str:
    """A metric's name for a person, with its unit and which way is better."""
    metric = METRICS.get(name)
    if metric is None:
        return name
    better = {"maximize": "higher is better", "minimize": "lower is better", None: ""}
    details = ", ".join(part for part in (metric.unit, better[metric.better]) if part)
    return f"{name} ({details})" if details else name
