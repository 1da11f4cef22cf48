"""Pictures of where a trained network's energy goes: layers, images, places in the image."""

from pathlib import Path
from typing import Any

import torch

from ...model.accounting.energy import EnergyRule
from ...model.accounting.operations import OperationMeter
from ...model.metrics.segmentation import confusion_counts, segmentation_scores
from ..cluster.worker_group import OneWorker
from ..evaluation.scores import EvaluatedModel, predict_labels
from ..evaluation.split_operations import collect_operations
from ..figures.energy_charts import draw_energy_maps, draw_image_energy, draw_layer_energy
from ..loading.evaluation_loader import read_evaluation_batches

_MAPS = 4


def write_energy_pictures(
    evaluated: EvaluatedModel,
    split: str,
    layers: list[dict[str, Any]],
    output: Path,
    *,
    images: int,
    rule: EnergyRule,
) -> list[Path]:
    """Write `layers.png`, `images.png` and `places.png` of a split's first images.

    Args:
        evaluated: The model, in eval mode, and its data.
        split: Name of the split.
        layers: Rows as `EnergyReport.tabulate` gives them.
        output: Folder to write into; made if it is not there.
        images: How many of the split's images, at most.
        rule: What an image's operations are charged by.

    Returns:
        The files written.
    """
    model, dataset, config, device = evaluated
    rows = min(images, dataset.splits[split])
    classes, ignored = len(dataset.label_space.classes), dataset.label_space.ignore_label
    scores: list[float] = []
    batches = read_evaluation_batches(dataset, split, config.data.transform, range(rows), 1)
    with torch.inference_mode(), OperationMeter(model, keep_maps=True) as meter:
        for batch in batches:
            targets = batch.targets.to(device)
            size = (targets.shape[1], targets.shape[2])
            predicted = predict_labels(model, batch.images.to(device), size)
            counts = confusion_counts(predicted, targets, num_classes=classes, ignore_label=ignored)
            scores.append(segmentation_scores(counts).miou)
    energies = collect_operations(meter, OneWorker(), rows).price_images(rule)
    shown = [dataset.row(split, index).image for index in range(min(_MAPS, rows))]
    maps = [item[0].numpy() for item in meter.maps[: len(shown)]]
    pictures = {
        "layers.png": draw_layer_energy(layers),
        "images.png": draw_image_energy(energies.tolist(), scores),
        "places.png": draw_energy_maps(shown, maps),
    }
    output.mkdir(parents=True, exist_ok=True)
    for name, content in pictures.items():
        (output / name).write_bytes(content)
    return [output / name for name in pictures]
