"""Records an evaluation in the run's journal: metrics, tables, contact sheet."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from ...model.accounting.spike_map import SpikeMaps
from ..checkpoint.checkpoint import Evaluation
from ..figures import charts
from ..figures import contact_sheet as sheets
from ..figures.energy_charts import draw_layer_energy
from ..tracking.journal import Journal, file_of
from ..tracking.metric_table import separate_energy_rules
from .baselines import drop_baselines
from .scores import EvaluatedModel, sheet_rows


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


def record_evaluation(
    recorder: Recorder,
    evaluation: Evaluation,
    best: Evaluation,
    *,
    tables: Mapping[str, list[dict[str, Any]]],
    sheet: bytes | None,
) -> None:
    """Record one evaluation on the validation split.

    Args:
        recorder: The run's journal.
        evaluation: Step and metrics.
        best: The best evaluation so far.
        tables: Name -> rows: `val_classes`; `layers` with firing rate, MACs and energy;
            `neurons` with each neuron layer's firing rate, share of zeros and share of D.
        sheet: PNG of the contact sheet, where one was drawn.
    """
    recorder.metrics(
        evaluation.step,
        {
            **metrics_of_step(evaluation),
            "best/val_mIoU": best.metrics["val/mIoU"],
            "best/step": best.step,
        },
    )
    name = f"{evaluation.step:08d}.json"
    for table, rows in tables.items():
        recorder.text(f"tables/{table}/{name}", json.dumps(rows, indent=1))
    if sheet is not None:
        recorder.image("val/rows", evaluation.step, sheet)
    recorder.sync()


def metrics_of_step(evaluation: Evaluation) -> dict[str, float]:
    """Metrics that an evaluation records at its step.

    Those of `train/` are recorded at steps of their own, baselines once a run.
    """
    measured = drop_baselines(evaluation.metrics)
    return {name: value for name, value in measured.items() if not name.startswith("train/")}


def contact_sheet(evaluated: EvaluatedModel, split: str) -> bytes:
    """PNG of the same few rows each time: image, truth, prediction, error, mean spike count."""
    count = evaluated.dataset.splits[split]
    wanted = max(1, evaluated.config.tracking.images)
    indices = [count * i // wanted for i in range(min(wanted, count))]
    with SpikeMaps(evaluated.model) as spikes:
        rows = sheet_rows(evaluated, split, indices)
    maps = [item[0].numpy() for item in spikes.maps]
    return sheets.draw_contact_sheet(rows, evaluated.dataset.label_space, maps)


class SplitResult(NamedTuple):
    """What the chosen checkpoint scored on the split that is scored last.

    Attributes:
        split: Its name.
        scores: Its metrics.
        classes: Its per-class table, K rows.
        confusion: (K, K + 1) pixels by label and prediction.
    """

    split: str
    scores: Mapping[str, float]
    classes: list[dict[str, Any]]
    confusion: Tensor


def record_result(
    journal: Journal, result: SplitResult, *, history: Sequence[Evaluation], sheet: bytes
) -> dict[str, bytes]:
    """Record what the chosen checkpoint scored, and the run's figures.

    Args:
        journal: The run's journal.
        result: The split's scores.
        history: Every evaluation of the run.
        sheet: PNG of the split's contact sheet.

    Returns:
        File name -> PNG of each figure, the contact sheet included.
    """
    split, classes = result.split, [row["class"] for row in result.classes]
    drawn = {
        "curves.png": charts.draw_curves(_curves(history)),
        "confusion.png": charts.draw_confusion(result.confusion.numpy(), classes),
    }
    tables = sorted(file_of(journal.folder, "tables/layers").glob("*.json"))
    layers = {int(path.stem): json.loads(path.read_text()) for path in tables}
    if layers:
        rates, names = _rates(list(layers.values()))
        newest = layers[max(layers)]
        if all("operations" in row for row in newest):
            drawn["energy.png"] = draw_layer_energy(newest)
        drawn["firing.png"] = charts.draw_firing(rates, names, list(layers))
    last = history[-1].step
    if split == "test":
        journal.metrics(last, result.scores)
    journal.image(f"{split}/rows_of_best", last, sheet)
    journal.text(f"tables/{split}_classes.json", json.dumps(result.classes, indent=1))
    journal.text(f"tables/{split}_confusion.json", json.dumps(result.confusion.tolist()))
    for name, data in drawn.items():
        journal.picture(f"figures/{name}", data)
    return {"contact_sheet.png": sheet, **drawn}


def _curves(history: Sequence[Evaluation]) -> dict[str, list[tuple[int, float]]]:
    """Metric of the last evaluation -> (step, value) of every evaluation that has it."""
    recorded = [(item.step, separate_energy_rules(item.metrics)) for item in history]
    return {
        name: [(step, metrics[name]) for step, metrics in recorded if name in metrics]
        for name in drop_baselines(recorded[-1][1])
    }


def _rates(tables: list[list[dict[str, Any]]]) -> tuple[np.ndarray, list[str]]:
    """(layers, evaluations) firing rates; a layer that was not seen to spike counts 0."""
    names = list(
        dict.fromkeys(row["name"] for rows in tables for row in rows if row["spiking_input"])
    )
    columns = [{row["name"]: row["rate"] for row in rows} for rows in tables]
    return np.array([[column.get(name, 0.0) for column in columns] for name in names]), names
