"""One worker's part of a trial's training, and the reason of a trial that failed."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from ..study.trial_records import TrialReport

WorkOrder = dict[str, Any]
TrialFunction = Callable[[WorkOrder], Generator[TrialReport, None, None]]
# Evaluation, whether it is the last one, and how often the folder was claimed.
Evaluations = Generator[tuple[Any, bool, int], None, None]


def train_trial(order: WorkOrder, group: Any) -> Evaluations:
    """Train one trial as one worker of a group.

    Args:
        order: The work order, as `reports` takes it.
        group: The workers (`WorkerGroup`).

    Raises:
        PreemptedError: Where the sweep is told to end: a checkpoint of this step is written.

    Yields:
        Evaluation, whether it is the last one, and how often the folder was claimed.
    """
    from ...evaluation.recording import record_trial
    from ...train.faults.preemption import Notice
    from ...train.tracked_training import TrackedRun, tracked_training

    tracked = TrackedRun.from_message(order)
    last = tracked.resolved.config.trainer.max_steps
    notice = Notice()
    if order.get("leave"):
        notice.watch(lambda: False, Path(order["leave"]))
    with tracked_training(tracked, group, notice=notice) as (training, journal):
        for evaluation in training.evaluations():
            # Before the driver hears of it: that may end this process.
            if journal is not None and evaluation.step >= last and not evaluation.replayed:
                record_trial(journal, training.evaluated, training.history)
            yield evaluation, evaluation.step >= last, training.run.attempt


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
