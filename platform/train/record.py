"""What an evaluation leaves in the run's record: numbers, tables and the contact sheet."""

import json
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from ...datasets.reader import PackedDataset
from .. import figures
from ..experiment import ExperimentConfig
from .checkpoint import Evaluation
from .evaluate import sheet_rows


class Recorder(Protocol):
    """Where rank 0 writes what it measured (the run's journal)."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers of one step."""
        ...

    def image(self, name: str, step: int, png: bytes) -> None:
        """Record a picture of one step."""
        ...

    def text(self, path: str, content: str) -> None:
        """Record a small file."""
        ...

    def sync(self) -> None:
        """Make all of it survive a power loss."""
        ...


def record_evaluation(
    recorder: Recorder,
    evaluation: Evaluation,
    best: Evaluation,
    *,
    classes: list[dict[str, Any]],
    layers: list[dict[str, Any]],
    sheet: bytes | None,
) -> None:
    """Record one evaluation on the validation split.

    Args:
        recorder: The run's journal.
        evaluation: Step and metrics.
        best: The best evaluation so far.
        classes: Per-class table.
        layers: Per-layer table of firing rate, MACs and energy.
        sheet: PNG of the contact sheet, where one was drawn.
    """
    measured = {k: v for k, v in evaluation.metrics.items() if not k.startswith("train/")}
    recorder.metrics(
        evaluation.step,
        {**measured, "best/val_mIoU": best.metrics["val/mIoU"], "best/step": best.step},
    )
    name = f"{evaluation.step:08d}.json"
    recorder.text(f"tables/val_classes/{name}", json.dumps(classes, indent=1))
    recorder.text(f"tables/layers/{name}", json.dumps(layers, indent=1))
    if sheet is not None:
        recorder.image("val", evaluation.step, sheet)
    recorder.sync()


def contact_sheet(
    model: nn.Module,
    dataset: PackedDataset,
    split: str,
    config: ExperimentConfig,
    device: torch.device,
) -> bytes:
    """PNG of the same few rows each time: image, truth, prediction, error."""
    count = dataset.splits[split]
    wanted = max(1, config.tracking.images)
    indices = [count * i // wanted for i in range(min(wanted, count))]
    rows = sheet_rows(model, dataset, split=split, indices=indices, data=config.data, device=device)
    return figures.contact_sheet(rows, dataset.label_space)
