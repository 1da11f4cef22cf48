"""Evaluates a finished run: one pass over a split, in any number of processes, one report."""

import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

from ...datasets.packed.reader import PackedDataset
from ...datasets.spec import LabelSpace
from ...model.accounting.energy import PAPER_RULE, price_layers
from ...model.accounting.operations import OperationMeter
from ...model.metrics.segmentation import segmentation_scores
from ..cluster.task_pool import TaskPool
from ..config.errors import ConfigError
from ..evaluation.baselines import baseline_metrics
from ..evaluation.calibration import describe_calibration
from ..evaluation.image_scores import boundary_ious, mean_percent
from ..evaluation.panoptic import counts_of
from ..evaluation.scores import SplitCounts, class_table, compute_metrics
from .image_worker import (
    EvaluateRequest,
    FormCounts,
    ImageWorker,
    RowScores,
    add_row_scores,
    build_image_worker,
)

_log = logging.getLogger(__name__)

REPORT_VERSION = 1
"""Version of the report's keys; docs/inference.md describes them."""


def evaluate_run(
    request: EvaluateRequest,
    *,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, Any], ImageWorker]:
    """Score a run on a split at label resolution.

    Counts are whole numbers over batches that depend on no number of processes: any number of
    them gives the same report.

    Args:
        request: What to score, and how.
        on_rows: Called with rows done and rows in all.

    Returns:
        The report, as docs/inference.md describes it; and the worker of this process.

    Raises:
        ConfigError: Where checkpoint, data, split or form are wrong.
    """
    if request.submission is not None:
        try:
            request.submission.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{request.submission.folder}: cannot be written ({error.strerror})"
            ) from error
    worker = ImageWorker(request)
    dataset, config = worker.dataset, worker.config
    rows = dataset.splits.get(request.split)
    if not rows:
        raise ConfigError(
            f"split {request.split!r} has no rows in {config.data.path}; there are: "
            f"{', '.join(dataset.splits)}"
        )
    size = config.data.evaluation_batch
    tasks = [range(start, min(start + size, rows)) for start in range(0, rows, size)]
    pool = request.pool
    if pool.processes == 1 and not pool.ray:
        finished: Iterator[RowScores] = worker.score_tasks(tasks)
    else:
        work: TaskPool[Any, RowScores] = TaskPool(
            functools.partial(build_image_worker, request), pool
        )
        finished = work.run(tasks)

    def report_each() -> Iterator[RowScores]:
        done = 0
        for part in finished:
            done += len(part.images)
            on_rows(done, rows)
            yield part

    if not request.counts_operations:
        return describe_evaluation(worker, add_row_scores(report_each())), worker
    with OperationMeter(worker.loaded.model, bitwise=False) as meter:
        total = add_row_scores(report_each())
    priced = price_layers(meter.rows(), PAPER_RULE)
    counted = {"energy_mj": priced.total_mj, "layers": priced.tabulate()}
    return {**describe_evaluation(worker, total), **counted}, worker


def describe_evaluation(worker: ImageWorker, total: RowScores) -> dict[str, Any]:
    """The report of everything that was counted."""
    request, space, dataset = worker.request, worker.loaded.space, worker.dataset
    split = request.split
    first = total.forms[0]
    metrics = _score_form(split, first, space, dataset)
    boundary = boundary_ious(total.boundary)
    mean_boundary = mean_percent(boundary)
    calibration = describe_calibration(total.calibration)
    if mean_boundary is not None:
        metrics[f"{split}/boundary_mIoU"] = mean_boundary
    metrics[f"{split}/ECE"] = calibration["ece"]
    classes = class_table(space, _split_counts(first))
    for line, value in zip(classes, boundary.tolist(), strict=True):
        line["boundary_IoU"] = None if value != value else round(value, 4)
    return {
        "version": REPORT_VERSION,
        "checkpoint": str(worker.loaded.path),
        "data": dataset.name,
        "data_digest": dataset.digest,
        "split": split,
        "rows": len(total.images),
        "settings": describe_settings(request),
        "metrics": metrics,
        "classes": classes,
        "confusion": first.confusion.tolist(),
        "calibration": calibration,
        "images": total.images,
        "forms": [
            _describe_form(form.name, counts, total.pixels, (split, space, dataset))
            for form, counts in zip(worker.forms, total.forms, strict=True)
        ],
        "curve": [],
    }


def describe_settings(request: EvaluateRequest) -> dict[str, Any]:
    """How images were shown, as JSON types."""
    inference = request.inference
    return {
        "window": None if inference.window is None else list(inference.window),
        "stride": None if inference.stride is None else list(inference.stride),
        "scales": list(inference.scales),
        "flip": inference.flip,
        "overrides": list(request.overrides),
    }


def _split_counts(counts: FormCounts) -> SplitCounts:
    panoptic = None if counts.panoptic is None else counts_of(counts.panoptic)
    return SplitCounts(counts.confusion, panoptic)


def _score_form(
    split: str, counts: FormCounts, space: LabelSpace, dataset: PackedDataset
) -> dict[str, float]:
    metrics = compute_metrics(split, _split_counts(counts), space)
    scores = segmentation_scores(counts.confusion)
    return {
        **metrics,
        **baseline_metrics(dataset, split),
        f"{split}/mDice": scores.mdice,
        f"{split}/mFscore": scores.mfscore,
    }


def _describe_form(
    name: str,
    counts: FormCounts,
    pixels: int,
    scored: tuple[str, LabelSpace, PackedDataset],
) -> dict[str, Any]:
    split, space, dataset = scored
    metrics = _score_form(split, counts, space, dataset)
    return {
        "form": name,
        "metrics": {key: metrics[key] for key in metrics if "/baseline_" not in key},
        "different_pixels": counts.different,
        "different_percent": round(100 * counts.different / pixels, 6),
    }
