"""One trial's training as one worker of a group, and the reason where it fails."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from ..study.trial_records import TrialReport

Given = dict[str, Any]
Work = Callable[[Given], Generator[TrialReport, None, None]]
# Evaluation, whether it is the last one, and how often the folder was claimed.
Evaluations = Generator[tuple[Any, bool, int], None, None]


def train_trial(given: Given, group: Any) -> Evaluations:
    """Train one trial as one worker of a group.

    Args:
        given: The work order, as `reports` takes it.
        group: The workers (`WorkerGroup`).

    Yields:
        Evaluation, whether it is the last one, and how often the folder was claimed.
    """
    from ...checkpoint.run_folder import RunFolder
    from ...config.recipes import Resolved, load_resolved
    from ...tracking.system_metrics import SystemMonitor
    from ...train.loop import Training
    from ...train.worker import make_journal, record_data

    resolved = Resolved(load_resolved(given["config"]).config, given["origins"])
    run = RunFolder(Path(given["folder"]))
    journal = monitor = None
    if group.rank == 0:
        run.claim()
    run.attempt = group.agree(run.attempt)
    if group.rank == 0:
        journal = make_journal(resolved, run, group.size, given["tags"], parent=given["parent"])
        monitor = SystemMonitor(journal, resolved.config.tracking.system_interval)
        monitor.start()
    try:
        training = Training(resolved.config, run, group=group, recorder=journal, progress=None)
        if journal is not None:
            record_data(journal, training)
        for evaluation in training.evaluations():
            final = evaluation.step >= resolved.config.trainer.max_steps
            yield evaluation, final, run.attempt
    finally:
        if monitor is not None:
            monitor.stop()
        if journal is not None:
            journal.close()


def failure_reason(error: Exception) -> str:
    """A failed trial's reason: its class of failure, then the message."""
    import torch

    from ...train.failure import OutOfMemoryForGoodError

    kind = type(error).__name__
    if isinstance(error, torch.OutOfMemoryError | MemoryError | OutOfMemoryForGoodError):
        kind = "out of memory"
    elif kind == "NonFiniteError":
        kind = "not finite"
    elif kind == "WorkersFailedError":
        return str(error)
    return f"{kind}: {error}"
