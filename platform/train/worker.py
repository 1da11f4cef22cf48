"""One worker's whole work, the same in this process and on Ray Train."""

import json
import logging
from collections.abc import Callable, Mapping

from ..checkpoint.checkpoint import Evaluation
from ..checkpoint.run_folder import RunFolder
from ..cluster.worker_group import WorkerGroup
from ..config.recipes import Resolved
from ..evaluation.recording import record_result
from ..evaluation.scores import SplitCounts, class_table
from ..tracking.journal import Journal
from .faults.worker_guard import Guard
from .loop import Training
from .tracked_training import TrackedRun, tracked_training

_log = logging.getLogger(__name__)


def run_worker(
    tracked: TrackedRun, group: WorkerGroup, progress: Callable[[str], None] | None
) -> None:
    """Train, load the best checkpoint, score test, write the result.

    Args:
        tracked: The run.
        group: The workers.
        progress: Takes a line for a person; None on ranks other than 0.
    """
    with tracked_training(tracked, group, progress=progress) as (training, journal):
        for _ in training.evaluations():
            pass
        _finish(training, tracked.resolved, training.run, journal)


def _finish(
    training: Training, resolved: Resolved, run: RunFolder, journal: Journal | None
) -> None:
    """Score the chosen checkpoint on test, draw, write the result."""
    trainer = resolved.config.trainer
    split = "test" if trainer.test and training.dataset.splits.get("test") else "val"
    with Guard(trainer, run.path, attempt=run.attempt, rank=training.group.rank) as guard:
        guard.feed()
        best = training.load_best()
        scores, counts = training.score(split, guard.feed)
    metrics = dict(best.metrics)
    metrics.update(scores)
    table = class_table(training.dataset.label_space, counts)
    if journal is None:
        return
    run.check_owner()
    try:
        _draw(
            training, resolved, run, journal, best.step, split=split, scores=scores, counts=counts
        )
    except (ValueError, TypeError, IndexError, KeyError, OSError) as error:
        # A picture must never cost a finished training.
        _log.warning("%s: not every figure could be drawn: %s", run.path.name, error)
        journal.tags({"figures_failed": str(error)})
    result = {
        "best_step": best.step,
        "metrics": metrics,
        "split": split,
        "classes": table,
        "confusion": counts.confusion.tolist(),
    }
    run.check_owner()
    run.write("result.json", json.dumps(result, indent=1))


def _draw(  # noqa: PLR0913
    training: Training,
    resolved: Resolved,
    run: RunFolder,
    journal: Journal,
    best_step: int,
    *,
    split: str,
    scores: Mapping[str, float],
    counts: SplitCounts,
) -> None:
    """Leave scores, pictures, tables and checkpoints in the run."""
    last = training.history[-1].step
    (run.path / "figures").mkdir(exist_ok=True)
    sheet = training.contact_sheet(split)
    drawn = record_result(
        journal,
        split=split,
        step=last,
        scores=scores,
        table=class_table(training.dataset.label_space, counts),
        confusion=counts.confusion.numpy(),
        classes=training.dataset.label_space.classes,
        sheet=sheet,
        series=_curves(training.history),
    )
    for name, data in {"contact_sheet.png": sheet, **drawn}.items():
        (run.path / "figures" / name).write_bytes(data)
    if resolved.config.tracking.checkpoints:
        for name, step in (("best", best_step), ("final", last)):
            folder = run.at(step).path
            for file in sorted(folder.iterdir()):
                journal.link(f"checkpoints/{name}/{folder.name}/{file.name}", file)


def _curves(history: list[Evaluation]) -> dict[str, list[tuple[int, float]]]:
    names = list(history[-1].metrics)
    return {
        name: [(item.step, item.metrics[name]) for item in history if name in item.metrics]
        for name in names
    }
