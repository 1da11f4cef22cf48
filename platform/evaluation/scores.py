"""Scores of a model on a split, exact over any number of workers."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...datasets.packed.reader import PackedDataset
from ...datasets.pictures import view_rgb
from ...datasets.spec import LabelSpace
from ...model.accounting.energy import EnergyReport, estimate_energy, price_earlier
from ...model.accounting.firing import FiringMonitor, FiringRow
from ...model.metrics.panoptic import PanopticCounts
from ...model.metrics.segmentation import confusion_counts, grouped_counts, segmentation_scores
from ...model.postprocess import label_map, semantic_logits
from ..checkpoint.checkpoint import Evaluation
from ..cluster.worker_group import WorkerGroup
from ..config.schema import ExperimentConfig
from ..loading.evaluation_loader import read_evaluation_batches
from ..tracking.metric_table import ENERGY_RULE, split_metrics
from .baselines import baseline_metrics, describe_baselines
from .panoptic import PanopticTotal, class_scores, panoptic_means, predict_segments


class EvaluatedModel(NamedTuple):
    """A network and what it is evaluated on.

    Attributes:
        model: The segmentor; every measurement puts its mode back afterwards.
        dataset: The packed data.
        config: The experiment: transform, batch size, task, images of the energy estimate.
        device: Where the model is.
    """

    model: nn.Module
    dataset: PackedDataset
    config: ExperimentConfig
    device: torch.device


class SplitCounts(NamedTuple):
    """What the scores of a split are computed from.

    Attributes:
        confusion: (K, K + 1) int64 pixels by label and prediction.
        panoptic: Matched segments; None where the task is semantic.
    """

    confusion: Tensor
    panoptic: PanopticCounts | None


@torch.inference_mode()
def predict_labels(model: nn.Module, images: Tensor, size: tuple[int, int]) -> Tensor:
    """Label maps of a batch at the label's size.

    Args:
        model: The segmentor, in eval mode.
        images: (B, 3, h, w), normalized.
        size: Height and width of the label map.

    Returns:
        (B, H, W) int64 train ids.

    Source: published inference: masks upsampled to the input, joined, resized, argmax.
    """
    logits = semantic_logits(model(images), (images.shape[-2], images.shape[-1]))
    return label_map(logits, size)


def score_split(
    evaluated: EvaluatedModel,
    split: str,
    *,
    group: WorkerGroup,
    on_batch: Callable[[], None] | None = None,
) -> tuple[dict[str, float], SplitCounts]:
    """Score a split; each worker predicts every n-th row, counts are summed.

    Args:
        evaluated: The model and its data.
        split: Name of the split.
        group: The workers.
        on_batch: Called after every batch.

    Returns:
        Metrics in percent, mIoU, mAcc and aAcc, mIoU over the categories of a label space that
        has them, PQ, SQ and RQ of panoptic data, and the split's baselines; and the counts, on the
        CPU. Both are the same on every worker.
    """
    model, dataset, config, device = evaluated
    data = config.data
    space = dataset.label_space
    num_classes = len(space.classes)
    counts = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64, device=device)
    total = PanopticTotal(num_classes, device) if data.task == "panoptic" else None
    was_training = model.training
    model.eval()
    share = range(group.rank, dataset.splits[split], group.size)
    batches = read_evaluation_batches(
        dataset,
        split,
        data.transform,
        share,
        data.evaluation_batch,
        segments=total is not None,
    )
    for batch in batches:
        targets, images = batch.targets.to(device), batch.images.to(device)
        size = (targets.shape[1], targets.shape[2])
        if total is None:
            predicted = predict_labels(model, images, size)
        else:
            predicted, maps = predict_segments(model, images, size, space, data)
            total.add(maps, batch.segments)
        counts += confusion_counts(
            predicted, targets, num_classes=num_classes, ignore_label=space.ignore_label
        )
        if on_batch is not None:
            on_batch()
    group.sum(counts)
    model.train(was_training)
    result = SplitCounts(counts.cpu(), None if total is None else total.over(group))
    metrics = compute_metrics(split, result, space)
    return {**metrics, **baseline_metrics(dataset, split)}, result


def compute_metrics(split: str, counts: SplitCounts, space: LabelSpace) -> dict[str, float]:
    """Scores of a split from its counts, in percent, names as in MLflow."""
    classes = segmentation_scores(counts.confusion)
    scores = {"mIoU": classes.miou, "mAcc": classes.macc, "aAcc": classes.aacc}
    if space.categories is not None:
        names = list(dict.fromkeys(space.categories))
        groups = [names.index(name) for name in space.categories]
        categories = segmentation_scores(grouped_counts(counts.confusion, groups))
        scores["category_mIoU"] = categories.miou
    if counts.panoptic is not None:
        scores |= panoptic_means(class_scores(counts.panoptic, space))
    return split_metrics(split, scores)


def summary(evaluation: Evaluation) -> str:
    """One line for a person about an evaluation on val."""
    shown = {"mIoU": "val/mIoU", "aAcc": "val/aAcc", "PQ": "val/PQ"}
    metrics = evaluation.metrics
    beside = {"mIoU": describe_baselines(metrics, "val")}
    scores = "  ".join(
        f"{s} {metrics[name]:.2f}{beside.get(s, '')}"
        for s, name in shown.items()
        if name in metrics
    )
    return (
        f"step {evaluation.step}: val {scores}  energy {metrics['energy/mJ']:.4g} mJ"
        f"  firing rate {metrics['snn/firing_rate']:.3f}"
    )


def health_metrics(layers: Sequence[FiringRow]) -> dict[str, float]:
    """Health of the neuron layers as metrics in [0, 1].

    Args:
        layers: Firing of each neuron layer.

    Returns:
        `snn/dead_layers`, the share of layers that never fired; `snn/dead_fraction` and
        `snn/saturated_fraction`, the share of neuron values that were 0, or D, in the layer where
        this share is largest.
    """
    return {
        "snn/dead_layers": sum(row.rate == 0 for row in layers) / max(1, len(layers)),
        "snn/dead_fraction": max((row.dead for row in layers), default=0.0),
        "snn/saturated_fraction": max((row.saturated for row in layers), default=0.0),
    }


def class_table(space: LabelSpace, counts: SplitCounts) -> list[dict[str, Any]]:
    """IoU, accuracy and, of panoptic counts, PQ, SQ and RQ of every class in percent.

    None stands where a class never occurs.
    """
    scores = segmentation_scores(counts.confusion)
    columns = {"IoU": scores.iou, "Acc": scores.acc}
    if counts.panoptic is not None:
        panoptic = class_scores(counts.panoptic, space)
        columns |= {"PQ": panoptic.pq, "SQ": panoptic.sq, "RQ": panoptic.rq}

    def percent(value: Tensor) -> float | None:
        number = float(value)
        return None if number != number else round(number, 4)

    return [
        {"class": name, **{title: percent(values[k]) for title, values in columns.items()}}
        for k, name in enumerate(space.classes)
    ]


def measure_energy(evaluated: EvaluatedModel) -> EnergyReport:
    """Energy and firing rates on the first `trainer.energy_images` validation images."""
    model, dataset, config, device = evaluated
    count = min(config.trainer.energy_images, dataset.splits["val"])
    batch = next(
        read_evaluation_batches(dataset, "val", config.data.transform, range(count), count)
    )
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        report = estimate_energy(model, batch.images.to(device))
    model.train(was_training)
    return report


def measure_energy_and_health(
    evaluated: EvaluatedModel,
) -> tuple[EnergyReport, list[FiringRow], dict[str, float]]:
    """What `measure_energy` gives, firing of every neuron layer, and both as metrics."""
    with FiringMonitor(evaluated.model) as monitor:
        report = measure_energy(evaluated)
    firing = monitor.rows()
    layers = [row for row in report.rows if row.kind in ("convolution", "linear")]
    rates = [row.rate for row in layers if row.spiking_input]
    energy = {
        "energy/mJ": report.total_mj,
        "energy/mJ.earlier": price_earlier(report.operations),
        "energy/rule": float(ENERGY_RULE),
        "snn/firing_rate": sum(rates) / max(1, len(rates)),
    }
    return report, firing, {**health_metrics(firing), **energy}


def sheet_rows(
    evaluated: EvaluatedModel, split: str, indices: Sequence[int]
) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Id, image, truth and prediction of single rows, for a contact sheet.

    Returns:
        Per row: id, (H, W, 3) uint8 image, (H, W) uint8 truth, (H, W) uint8 prediction.
    """
    model, dataset, config, device = evaluated
    was_training = model.training
    model.eval()
    rows = []
    for batch in read_evaluation_batches(dataset, split, config.data.transform, indices, 1):
        row = dataset.row(split, batch.indices[0])
        predicted = predict_labels(model, batch.images.to(device), row.label.shape[:2])
        rows.append((row.id, view_rgb(row.image), row.label, predicted[0].byte().cpu().numpy()))
    model.train(was_training)
    return rows
