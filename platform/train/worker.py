"""One worker's whole work, the same in this process and on Ray Train."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint.checkpoint import Evaluation
from ..checkpoint.mirror import newest_journal
from ..checkpoint.run_folder import FencedError, RunFolder
from ..cluster.worker_group import WorkerGroup
from ..config.recipes import Resolved, dump, flat
from ..evaluation.recording import measured, record_result
from ..evaluation.scores import SplitCounts, class_table
from ..tracking.journal import Journal, file_of
from ..tracking.provenance import code_diff, provenance, run_description, run_tags
from ..tracking.system_metrics import SystemMonitor
from ..tracking.tracking_uri import tracking_uri
from .failure import PreemptedError
from .faults.worker_guard import Guard
from .loop import Training

if TYPE_CHECKING:
    from ..tracking.upload.upload_thread import Sender

_log = logging.getLogger(__name__)


def run_worker(  # noqa: C901
    resolved: Resolved,
    folder: Path,
    group: WorkerGroup,
    progress: Callable[[str], None] | None,
    tags: Mapping[str, str],
) -> None:
    """One worker's whole work: train, load the best, score test, write the result.

    Args:
        resolved: The experiment.
        folder: The run's folder.
        group: The workers.
        progress: Takes a line for a person; None on ranks other than 0.
        tags: Further tags for the tracker.
    """
    run = RunFolder(folder)
    journal = sender = monitor = None
    if group.rank == 0:
        run.claim()
    run.attempt = group.agree(run.attempt)
    try:
        if group.rank == 0:
            if resolved.config.trainer.mirror is not None:
                newest_journal(run, resolved.config.trainer.mirror)
            journal = make_journal(resolved, run, group.size, tags)
            sender = start_sender(journal, folder, resolved.config.tracking.experiment)
            monitor = SystemMonitor(journal, resolved.config.tracking.system_interval)
            monitor.start()
        training = Training(resolved.config, run, group=group, recorder=journal, progress=progress)
        if journal is not None:
            # A kill between a checkpoint and its record would leave a hole otherwise.
            for past in training.history:
                journal.metrics(past.step, measured(past))
            record_data(journal, training)
        for _ in training.evaluations():
            pass
        _finish(training, resolved, run, journal)
        if monitor is not None:
            monitor.stop()
        if journal is not None:
            journal.finish("FINISHED")
    except BaseException as error:
        # A run that another process took over has not failed.
        if journal is not None and not isinstance(error, FencedError):
            journal.finish("KILLED" if isinstance(error, PreemptedError) else "FAILED")
        raise
    finally:
        if monitor is not None:
            monitor.stop()
        if sender is not None:
            sender.stop(timeout=30)
        if journal is not None:
            journal.close()


def make_journal(
    resolved: Resolved,
    run: RunFolder,
    world_size: int,
    tags: Mapping[str, str],
    parent: str | None = None,
) -> Journal:
    """The run's journal, with parameters, tags and configuration recorded.

    Args:
        resolved: The experiment; its values become parameters and tags.
        run: The run's folder.
        world_size: Number of workers.
        tags: Further tags.
        parent: Journal id of the run that this one is a child of.
    """
    config = resolved.config
    kept = run.path / "journal"
    local = config.tracking.journal
    journal = Journal(
        kept if local is None else Path(local) / _flat_name(run.path),
        mirror=None if local is None else kept,
        limit=config.tracking.journal_limit_mb * 1_000_000,
        run_name=tags.get("run_name", run.path.name),
        tags={
            **run_tags(config, world_size=world_size, attempt=run.attempt),
            "mlflow.note.content": run_description(resolved),
            **tags,
        },
        params={key: str(value) for key, value in flat(config).items()},
        parent=parent,
    )
    journal.text("config.yaml", dump(config))
    made_of = provenance(resolved, world_size=world_size)
    made_of["starts"] = starts(journal.folder, made_of["command"], config.trainer.log_every)
    journal.text("provenance.json", json.dumps(made_of, indent=1))
    journal.text("code.diff", code_diff())
    return journal


def starts(journal: Path, command: str, log_every: int) -> list[dict[str, Any]]:
    """Every different start of a run, this one last: its command line and what it logs.

    Args:
        journal: The journal's folder, which has those before.
        command: This start's command line.
        log_every: This start's `trainer.log_every`.
    """
    try:
        before = json.loads(file_of(journal, "provenance.json").read_text())["starts"]
    except (OSError, ValueError, KeyError, TypeError):
        before = []
    this = {"command": command, "log_every": log_every}
    return [*before, this] if before[-1:] != [this] else before


def _flat_name(path: Path) -> str:
    """One name per run folder, for journals of many storages in one local folder."""
    digest = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:8]
    return f"{path.name}-{digest}"


def record_data(journal: Journal, training: Training) -> None:
    """Record what a run reads: the data's digest, and every split as an input of the run."""
    dataset = training.dataset
    journal.tags({"data_digest": dataset.digest})
    for split in dataset.splits:
        # MLflow keeps one input per name and digest, with its first context only.
        name = f"{dataset.label_space.name}-{split}"
        journal.dataset(name, dataset.digest, split, training.config.data.path)


def start_sender(journal: Journal, folder: Path, experiment: str) -> "Sender | None":
    """The thread that sends a journal to MLflow; None, with a warning, where MLflow is missing."""
    try:
        from ..tracking.upload.upload_thread import Sender

        sender = Sender(journal.folder, tracking_uri(folder.parent), experiment, folder)
    except Exception as error:  # A tracker must never end a training.
        _log.warning("not sent to MLflow: %s; send it with: spikeseg track sync %s", error, folder)
        return None
    sender.start()
    return sender


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
