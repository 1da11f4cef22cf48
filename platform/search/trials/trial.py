"""Train one trial in its own folder and report one evaluation at a time."""

import json
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from ...config.stored_json import read_stored
from ..study.trial_records import VERDICT, TrialReport
from .trial_training import Evaluations, WorkOrder, failure_reason, train_trial

_SPENT = "seconds.json"


def reports(order: WorkOrder) -> Generator[TrialReport, None, None]:
    """Train one trial; failures come as data, not as exceptions.

    Args:
        order: The trial's work order: `config` (YAML), `origins`, `folder`, `tags`, `parent` (the
            sweep's journal id), `workers` (1 trains in this process, more on Ray Train),
            `resources` (`CPU` and `GPU` of one worker), `leave` (the file that tells it to end with
            a checkpoint; None where nobody makes one).

    Raises:
        PreemptedError: Where the trial was told to end; it goes on when the sweep does.

    Yields:
        One report per evaluation, those of an earlier attempt first; a failure is the last one,
        and the only one of a trial whose folder says that it has ended.
    """
    ended = Path(order["folder"]) / VERDICT
    if ended.is_file():
        yield TrialReport(failure=f"not run again: {ended} says that this trial has ended")
        return
    from ...checkpoint.run_folder import RunFolder
    from ...train.failure import PreemptedError

    spent_file = Path(order["folder"]) / _SPENT
    started = time.monotonic()
    try:
        spent = read_stored(spent_file, dict[str, float]) if spent_file.is_file() else {}
        with closing(_evaluations(order)) as evaluations:
            for evaluation, final, attempt in evaluations:
                now = time.monotonic()
                if not evaluation.replayed:
                    spent[str(evaluation.step)] = now - started
                    # A driver that dies now hears of this evaluation from the next attempt.
                    RunFolder(Path(order["folder"])).write(_SPENT, json.dumps(spent))
                yield TrialReport(
                    step=evaluation.step,
                    metrics=dict(evaluation.metrics),
                    final=final,
                    replayed=evaluation.replayed,
                    seconds=spent.get(str(evaluation.step), 0.0),
                    attempt=attempt,
                )
                started = now
    except PreemptedError:
        raise
    except Exception as error:
        # An exception would cost the warm process, and Tune would repeat the same bug.
        yield TrialReport(failure=failure_reason(error), seconds=time.monotonic() - started)


def _evaluations(order: WorkOrder) -> Evaluations:
    if order["workers"] > 1:
        from .trial_workers import follow_workers

        yield from follow_workers(order)
        return
    from ...cluster.worker_group import OneWorker

    yield from train_trial(order, OneWorker())
