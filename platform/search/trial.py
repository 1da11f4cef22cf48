"""One trial's work: a training in the trial's own folder, told one evaluation at a time."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .verdict import TrialReport


def reports(given: dict[str, Any]) -> Iterator[TrialReport]:
    """Train one trial in this process; failures come as data, not as exceptions.

    Args:
        given: `config` (YAML), `origins`, `folder`, `tags` and `parent` (the sweep's journal id).

    Yields:
        One report per evaluation, those of an earlier attempt first; a failure is the last one.
    """
    started = time.monotonic()
    try:
        for evaluation, final in _evaluations(given):
            now = time.monotonic()
            yield TrialReport(
                step=evaluation.step,
                metrics=dict(evaluation.metrics),
                final=final,
                replayed=evaluation.replayed,
                seconds=0.0 if evaluation.replayed else now - started,
            )
            started = now
    except Exception as error:
        # An exception would cost the warm process, and Tune would repeat the same bug.
        yield TrialReport(failure=failure_reason(error))


def failure_reason(error: Exception) -> str:
    """A failed trial's reason: its class of failure, then the message."""
    import torch

    kind = type(error).__name__
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        kind = "out of memory"
    elif kind == "NonFiniteError":
        kind = "not finite"
    return f"{kind}: {error}"


def _evaluations(given: dict[str, Any]) -> Iterator[tuple[Any, bool]]:
    from ..config import Resolved, load_resolved
    from ..train.checkpoint import RunFolder
    from ..train.loop import Training
    from ..train.reduction import OneWorker
    from ..train.worker import make_journal

    resolved = Resolved(load_resolved(given["config"]).config, given["origins"])
    run = RunFolder(Path(given["folder"]))
    run.claim()
    journal = make_journal(resolved, run, 1, given["tags"], parent=given["parent"])
    training = Training(resolved.config, run, group=OneWorker(), recorder=journal, progress=None)
    try:
        for evaluation in training.evaluations():
            yield evaluation, evaluation.step >= resolved.config.trainer.max_steps
    finally:
        journal.sync()
        journal.close()
