"""What an evaluation leaves in the run's record: numbers, tables and the contact sheet."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ...datasets.packed.reader import PackedDataset
from ...model.accounting.spike_map import SpikeMaps
from ..checkpoint.checkpoint import Evaluation
from ..config.schema import ExperimentConfig
from ..figures import charts
from ..figures import contact_sheet as sheets
from ..tracking.journal import Journal, file_of
from .scores import sheet_rows


class Recorder(Protocol):
    """Where rank 0 writes what it measured (the run's journal)."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers of one step."""
        ...

    def image(self, name: str, step: int, png: bytes) -> None:
        """Record a picture of one step."""
        ...

    def picture(self, path: str, png: bytes) -> None:
        """Record a picture of no step."""
        ...

    def text(self, path: str, content: str) -> None:
        """Record a small file."""
        ...

    def sync(self) -> None:
        """Make all of it survive a power loss."""
        ...


def record_evaluation(  # noqa: PLR0913
    recorder: Recorder,
    evaluation: Evaluation,
    best: Evaluation,
    *,
    classes: list[dict[str, Any]],
    layers: list[dict[str, Any]],
    neurons: list[dict[str, Any]],
    sheet: bytes | None,
) -> None:
    """Record one evaluation on the validation split.

    Args:
        recorder: The run's journal.
        evaluation: Step and metrics.
        best: The best evaluation so far.
        classes: Per-class table.
        layers: Per-layer table of firing rate, MACs and energy.
        neurons: Per neuron layer its firing rate, share of zeros and share of D.
        sheet: PNG of the contact sheet, where one was drawn.
    """
    recorder.metrics(
        evaluation.step,
        {**measured(evaluation), "best/val_mIoU": best.metrics["val/mIoU"], "best/step": best.step},
    )
    name = f"{evaluation.step:08d}.json"
    recorder.text(f"tables/val_classes/{name}", json.dumps(classes, indent=1))
    recorder.text(f"tables/layers/{name}", json.dumps(layers, indent=1))
    recorder.text(f"tables/neurons/{name}", json.dumps(neurons, indent=1))
    if sheet is not None:
        recorder.image("val/rows", evaluation.step, sheet)
    recorder.sync()


def measured(evaluation: Evaluation) -> dict[str, float]:
    """What an evaluation itself measured; training metrics have steps of their own."""
    return {k: v for k, v in evaluation.metrics.items() if not k.startswith("train/")}


def contact_sheet(
    model: nn.Module,
    dataset: PackedDataset,
    split: str,
    config: ExperimentConfig,
    device: torch.device,
) -> bytes:
    """PNG of the same few rows each time: image, truth, prediction, error, mean spike count."""
    count = dataset.splits[split]
    wanted = max(1, config.tracking.images)
    indices = [count * i // wanted for i in range(min(wanted, count))]
    with SpikeMaps(model) as spikes:
        rows = sheet_rows(
            model, dataset, split=split, indices=indices, data=config.data, device=device
        )
    maps = [item[0].numpy() for item in spikes.maps]
    return sheets.contact_sheet(rows, dataset.label_space, maps)


def record_result(  # noqa: PLR0913
    journal: Journal,
    *,
    split: str,
    step: int,
    scores: Mapping[str, float],
    table: list[dict[str, Any]],
    confusion: np.ndarray,
    classes: Sequence[str],
    sheet: bytes,
    series: Mapping[str, Sequence[tuple[int, float]]],
) -> dict[str, bytes]:
    """Record what the chosen checkpoint scored, and the run's figures.

    Args:
        journal: The run's journal.
        split: The split that was scored.
        step: The run's last step.
        scores: Metrics of the split.
        table: Its per-class table.
        confusion: (K, K + 1) pixels by label and prediction.
        classes: K names.
        sheet: PNG of the split's contact sheet.
        series: Metric name -> (step, value) of every evaluation.

    Returns:
        File name -> PNG of each figure.
    """
    drawn = {
        "curves.png": charts.curves(series),
        "confusion.png": charts.confusion(confusion, classes),
    }
    tables = sorted(file_of(journal.folder, "tables/layers").glob("*.json"))
    layers = {int(path.stem): json.loads(path.read_text()) for path in tables}
    if layers:
        rates, names = _rates(list(layers.values()))
        drawn["firing.png"] = charts.firing(rates, names, list(layers))
    if split == "test":
        journal.metrics(step, scores)
    journal.image(f"{split}/rows_of_best", step, sheet)
    journal.text(f"tables/{split}_classes.json", json.dumps(table, indent=1))
    journal.text(f"tables/{split}_confusion.json", json.dumps(confusion.tolist()))
    for name, data in drawn.items():
        journal.picture(f"figures/{name}", data)
    return drawn


def _rates(tables: list[list[dict[str, Any]]]) -> tuple[np.ndarray, list[str]]:
    """(layers, evaluations) firing rates; a layer that was not seen to spike counts 0."""
    names = list(
        dict.fromkeys(row["name"] for rows in tables for row in rows if row["spiking_input"])
    )
    columns = [{row["name"]: row["rate"] for row in rows} for rows in tables]
    return np.array([[column.get(name, 0.0) for column in columns] for name in names]), names
