"""One trial's training as one worker of a group, and the reason where it fails."""

from collections.abc import Callable, Generator
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
    from ...train.tracked_training import TrackedRun, tracked_training

    tracked = TrackedRun.from_message(given)
    last = tracked.resolved.config.trainer.max_steps
    with tracked_training(tracked, group) as (training, _):
        for evaluation in training.evaluations():
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
