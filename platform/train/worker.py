"""One worker's whole work, the same in this process and on Ray Train."""

import logging
from collections.abc import Callable, Mapping

from ...datasets.packed.files import write_file
from ..checkpoint.run_folder import RunFolder
from ..checkpoint.trained_model import leave_model
from ..cluster.worker_group import WorkerGroup
from ..config.recipes import Resolved
from ..config.stored_json import to_json
from ..evaluation.baselines import is_degenerate, known_baselines
from ..evaluation.recording import (
    SplitResult,
    contact_sheet,
    draw_page_strip,
    record_result,
)
from ..evaluation.scores import class_table
from ..tracking.journal import Journal
from ..tracking.pages.run_page import NOTE, PICTURES, STRIP, describe_run
from .faults.preemption import Notice
from .faults.worker_guard import Guard
from .loop import Training
from .tracked_training import TrackedRun, tracked_training

_log = logging.getLogger(__name__)


def run_worker(
    tracked: TrackedRun,
    group: WorkerGroup,
    *,
    progress: Callable[[str], None] | None,
    notice: Notice,
) -> None:
    """Train, load the best checkpoint, score test, write the result.

    Args:
        tracked: The run.
        group: The workers.
        progress: Takes a line for a person; None on ranks other than 0.
        notice: Where this process hears that it is to leave.
    """
    with tracked_training(tracked, group, progress=progress, notice=notice) as opened:
        training, journal = opened
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
    if journal is None:
        return
    classes = class_table(training.dataset.label_space, counts)
    result = SplitResult(split, scores, classes, counts.confusion)
    run.check_owner()
    lost: list[str] = []
    try:
        _draw(training, result, journal)
        if resolved.config.tracking.checkpoints:
            last = training.history[-1].step
            _link_checkpoints(run, journal, {"best": best.step, "final": last})
    except (ValueError, TypeError, IndexError, KeyError, OSError) as error:
        # A picture must never cost a finished training.
        _log.warning("%s: not every figure could be drawn: %s", run.path.name, error)
        journal.tags({"figures_failed": str(error)})
        lost.append(f"not every figure could be kept: {error}")
    try:
        checkpoint = run.at(best.step)
        journal.model(leave_model(run.path, checkpoint, training.dataset, resolved.config))
    except (ValueError, OSError) as error:
        _log.warning("%s: its model is not logged: %s", run.path.name, error)
        journal.tags({"model_failed": str(error)})
        lost.append(f"its model could not be logged: {error}")
    metrics = {**best.metrics, **scores}
    journal.tags({NOTE: describe_run(resolved, run.path, metrics, pictures=PICTURES)})
    verdict: dict[str, bool] = {}
    if known_baselines(metrics, split):
        verdict["degenerate"] = is_degenerate(metrics, split)
        journal.tags({"degenerate": str(verdict["degenerate"]).lower()})
    content = {
        "best_step": best.step,
        "metrics": metrics,
        **verdict,
        "split": split,
        "classes": classes,
        "confusion": counts.confusion.tolist(),
    }
    if training.mirror_lacks is not None:
        content["mirror_lacks"] = training.mirror_lacks
    if journal.dropped:
        lost.append(f"{journal.dropped} records could not be kept: {journal.first_drop}")
    if lost:
        content["lost"] = lost
    run.check_owner()
    run.write("result.json", to_json(content))


def _draw(training: Training, result: SplitResult, journal: Journal) -> None:
    """Leave scores, tables and pictures in the run."""
    figures = training.run.path / "figures"
    figures.mkdir(exist_ok=True)
    sheet = contact_sheet(training.evaluated, result.split)
    drawn = record_result(journal, result, history=training.history, sheet=sheet)
    strip = draw_page_strip(training.evaluated, result.split, result.classes, training.history)
    journal.picture(STRIP, strip)
    for name, data in drawn.items():
        write_file(figures / name, data)


def _link_checkpoints(run: RunFolder, journal: Journal, steps: Mapping[str, int]) -> None:
    """Record the files of some checkpoints as artifacts of the run."""
    for name, step in steps.items():
        folder = run.at(step).path
        for file in sorted(folder.iterdir()):
            journal.link(f"checkpoints/{name}/{folder.name}/{file.name}", file)
