"""Records an evaluation in the run's journal: metrics, tables, contact sheet."""

import csv
import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from ...model.accounting.spike_map import SpikeMaps
from ..checkpoint.checkpoint import Evaluation
from ..config.stored_json import to_json
from ..figures import charts
from ..figures import contact_sheet as sheets
from ..figures.energy_charts import draw_layer_energy
from ..figures.strip import draw_strip, fit_page
from ..tracking.journal import Journal, file_of
from ..tracking.metric_table import separate_energy_rules
from ..tracking.pages.run_page import SHEET, SMALL, STRIP
from .baselines import drop_baselines
from .scores import EvaluatedModel, sheet_rows

_log = logging.getLogger(__name__)


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
        recorder.text(f"tables/{table}/{name}", to_json(rows))
        # MLflow's pages show this one as a table that sorts; it has the newest evaluation.
        recorder.text(f"tables/{table}.csv", table_csv(rows))
    if sheet is not None:
        recorder.image("val/rows", evaluation.step, sheet)
    recorder.sync()


def table_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of one table as CSV; what has no value is an empty cell."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


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


def draw_page_strip(
    evaluated: EvaluatedModel,
    split: str,
    classes: Sequence[Mapping[str, Any]],
    history: Sequence[Evaluation],
) -> bytes:
    """PNG for the top of a run's page: the split's first row, IoU per class, the curve."""
    rows = sheet_rows(evaluated, split, [0])
    curve = [(item.step, item.metrics["val/mIoU"]) for item in history]
    return draw_strip(rows[0][1:], evaluated.dataset.label_space, classes, curve)


def record_figures(
    journal: Journal, classes: Sequence[Mapping[str, Any]], history: Sequence[Evaluation]
) -> dict[str, bytes]:
    """Record what can be drawn without the network: curves, classes, firing over steps.

    Args:
        journal: The run's journal.
        classes: Per-class table.
        history: Every evaluation of the run.

    Returns:
        File name -> PNG.
    """
    drawn = {
        "curves.png": charts.draw_curves(_curves(history)),
        "classes.png": charts.draw_class_bars({row["class"]: row["IoU"] for row in classes}),
    }
    tables = sorted(file_of(journal.folder, "tables/layers").glob("*.json"))
    layers = {int(path.stem): json.loads(path.read_text()) for path in tables}
    if layers:
        rates, names = _rates(list(layers.values()))
        newest = layers[max(layers)]
        if all("operations" in row for row in newest):
            drawn["energy.png"] = draw_layer_energy(newest)
        drawn["firing.png"] = charts.draw_firing(rates, names, list(layers))
    _record_drawn(journal, drawn)
    return drawn


def _record_drawn(journal: Journal, drawn: Mapping[str, bytes]) -> None:
    """Record figures as artifacts, and copies of them that fit the run's page."""
    for name, data in drawn.items():
        journal.picture(f"figures/{name}", data)
        journal.picture(f"{SMALL}/{name}", fit_page(data))


def record_trial(
    journal: Journal, evaluated: EvaluatedModel, history: Sequence[Evaluation]
) -> None:
    """Record the figures of a trial that has its full budget, from its last evaluation.

    A picture that cannot be drawn costs a tag, never the trial.

    Args:
        journal: The trial's journal.
        evaluated: Its network and data.
        history: Every evaluation.
    """
    try:
        table = file_of(journal.folder, f"tables/val_classes/{history[-1].step:08d}.json")
        classes = json.loads(table.read_text())
        record_figures(journal, classes, history)
        journal.picture(STRIP, draw_page_strip(evaluated, "val", classes, history))
        if evaluated.config.tracking.images:
            sheet = f"pictures/val/rows/{history[-1].step:08d}.png"
            name, data = Path(SHEET).name, file_of(journal.folder, sheet).read_bytes()
            _record_drawn(journal, {name: data})
    except (ValueError, TypeError, IndexError, KeyError, OSError) as error:
        _log.warning("%s: not every figure could be drawn: %s", journal.folder, error)
        journal.tags({"figures_failed": str(error)})


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
    confusion = charts.draw_confusion(result.confusion.numpy(), classes)
    drawn = {"confusion.png": confusion, "contact_sheet.png": sheet}
    last = history[-1].step
    if split == "test":
        journal.metrics(last, result.scores)
    journal.image(f"{split}/rows_of_best", last, sheet)
    journal.text(f"tables/{split}_classes.json", to_json(result.classes))
    journal.text(f"tables/{split}_classes.csv", table_csv(result.classes))
    journal.text(f"tables/{split}_confusion.json", json.dumps(result.confusion.tolist()))
    _record_drawn(journal, drawn)
    return {**drawn, **record_figures(journal, result.classes, history)}


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
