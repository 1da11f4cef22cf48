"""One trial's work: a training in the trial's own folder, told one evaluation at a time."""

import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

from .verdict import TrialReport

Given = dict[str, Any]
# Evaluation, whether it is the last one, and how often the folder was claimed.
Evaluations = Generator[tuple[Any, bool, int], None, None]


def reports(given: Given) -> Generator[TrialReport, None, None]:
    """Train one trial; failures come as data, not as exceptions.

    Args:
        given: The trial's work order: `config` (YAML), `origins`, `folder`, `tags`, `parent` (the
            sweep's journal id), `workers` (1 trains in this process, more on Ray Train),
            `resources` (`CPU` and `GPU` of one worker).

    Yields:
        One report per evaluation, those of an earlier attempt first; a failure is the last one.
    """
    started = time.monotonic()
    try:
        with closing(_evaluations(given)) as evaluations:
            for evaluation, final, attempt in evaluations:
                now = time.monotonic()
                yield TrialReport(
                    step=evaluation.step,
                    metrics=dict(evaluation.metrics),
                    final=final,
                    replayed=evaluation.replayed,
                    seconds=0.0 if evaluation.replayed else now - started,
                    attempt=attempt,
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
    elif kind == "WorkersFailedError":
        return str(error)
    return f"{kind}: {error}"


def _evaluations(given: Given) -> Evaluations:
    if given["workers"] > 1:
        from .trial_workers import follow_workers

        yield from follow_workers(given)
        return
    from ..train.reduction import OneWorker

    yield from train_trial(given, OneWorker())


def train_trial(given: Given, group: Any) -> Evaluations:
    """Train one trial as one worker of a group.

    Args:
        given: The work order, as `reports` takes it.
        group: The workers (`WorkerGroup`).

    Yields:
        Evaluation, whether it is the last one, and how often the folder was claimed.
    """
    from ..config import Resolved, load_resolved
    from ..train.checkpoint import RunFolder
    from ..train.loop import Training
    from ..train.worker import make_journal

    resolved = Resolved(load_resolved(given["config"]).config, given["origins"])
    run = RunFolder(Path(given["folder"]))
    journal = None
    if group.rank == 0:
        run.claim()
    run.attempt = group.agree(run.attempt)
    if group.rank == 0:
        journal = make_journal(resolved, run, group.size, given["tags"], parent=given["parent"])
    try:
        training = Training(resolved.config, run, group=group, recorder=journal, progress=None)
        if journal is not None:
            journal.tags({"data_digest": training.dataset.digest})
        for evaluation in training.evaluations():
            final = evaluation.step >= resolved.config.trainer.max_steps
            yield evaluation, final, run.attempt
    finally:
        if journal is not None:
            journal.close()
