"""Runs a queue of trials on Ray Tune: the keeper as Tune's searcher and scheduler.

Tune is placement, restart and warm processes. The shapes here are the ones that held under kills:
a class trainable with reused actors, failures as data, decisions stored before STOP is returned, no
pausing (a concurrency limit counts paused trials as running, and stands still for ever), no
checkpoints of Tune's, nothing of Tune restored.
"""

import json
import logging
import os
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from ..study.trial_records import TrialReport
from ..sweep_file.schema import Resources
from .engine import TrialQueue
from .trainable import TrialActor

_SCRATCH = ".tune-"
_SETTINGS = {
    # Reports go to the keeper; a second copy as CSV, JSON and event files serves nobody.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Tune's own state is never restored.
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    # Ctrl-C ends the sweep at once: nothing of Tune's has to be saved first.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # The newer output prints over our own lines, however quiet it is told to be.
    "RAY_AIR_NEW_OUTPUT": "0",
}


class KeeperSearcher(Searcher):
    """Gets trials from the queue; results go to the scheduler, which decides.

    Args:
        queue: The sweep's trials.
        max_failures: Deaths of a trial's process that are survived.
    """

    def __init__(self, queue: TrialQueue, max_failures: int) -> None:
        super().__init__()
        self._queue = queue
        self._max_failures = max_failures
        self._numbers: dict[str, int] = {}
        self._deaths: Counter[int] = Counter()
        self.errors: dict[str, tuple[str, int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles what it is given when it starts, and nobody reads that back: the study is
        # the truth, and open files and locks have no place in a pickle.
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial's work order; FINISHED when none is left, None to be asked again."""
        trial = self._queue.next()
        if trial is None:  # none is left, or the sweep is told to end
            return Searcher.FINISHED if self._queue.keeper.live == 0 else None
        number, order = trial
        self._numbers[trial_id] = number
        return {"number": number, **order}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """End or repeat a trial whose process ended without a decision.

        Tune gives up at once where a process dies before its first step, so deaths are counted
        here, and such a trial is given out once more.
        """
        number = self._numbers.pop(trial_id, None)
        if number is None or number not in self._queue.keeper.live_numbers:
            return
        if not error:
            self._queue.lost(number, "ended without a decision")
            return
        text, deaths = self.errors.pop(trial_id, ("", 1))
        self._deaths[number] += deaths
        if self._deaths[number] > self._max_failures:
            self._queue.lost(number, death_reason(text, self._deaths[number]))
        else:
            self._queue.keeper.again(number)

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: all state is in the study."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: all state is in the study."""


class KeeperScheduler(FIFOScheduler):
    """Hands every report to the keeper and returns its decision to Tune.

    Args:
        queue: The sweep's trials.
        searcher: Receives the reason of a lost process before Tune reports the loss.
    """

    def __init__(self, queue: TrialQueue, searcher: KeeperSearcher) -> None:
        super().__init__()
        self._queue = queue
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as for the searcher

    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        """Judge one report: CONTINUE, or STOP once the study knows the end."""
        report = TrialReport(**json.loads(result["report"]))
        verdict = self._queue.report(trial.config["number"], report)
        return TrialScheduler.CONTINUE if verdict.state is None else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Note why a trial's process died for the last time."""
        text = Path(trial.error_file).read_text() if trial.error_file else ""
        self._searcher.errors[trial.trial_id] = text, trial.run_metadata.num_failures


def death_reason(text: str, deaths: int) -> str:
    """Why a process that Ray lost was lost, in one sentence.

    Args:
        text: Ray's error text.
        deaths: How often the trial's process died.
    """
    times = "once" if deaths == 1 else f"{deaths} times"
    # Of any death Ray's text says that it may have been the kernel's OOM killer: that is no sign.
    if "low on memory" in text or "OutOfMemoryError" in text:
        return f"out of memory: its process was killed {times}"
    return f"killed: its process died {times}"


def run_on_tune(
    queue: TrialQueue,
    *,
    folder: Path,
    resources: Resources,
    workers: int,
    at_once: int,
    max_failures: int,
) -> None:
    """Run a sweep's trials on the cluster that Ray is connected to.

    Args:
        queue: The sweep's trials.
        folder: The sweep's folder, for what Tune writes and nobody reads; every node sees it.
        resources: What one worker takes.
        workers: Workers of one trial; one works in the trial's process.
        at_once: Trials at the same time; they must fit.
        max_failures: Deaths of a trial's process that are survived.
    """
    for key, value in _SETTINGS.items():
        os.environ.setdefault(key, value)
    resources_of_actor: Any = {"cpu": resources.cpu, "gpu": resources.gpu}
    if workers > 1:
        # The trial's process itself takes no CPU: its workers would wait for ever for CPUs that
        # trials hold. Ray refuses a request for nothing at all.
        resources_of_actor = tune.PlacementGroupFactory([{"memory": 2**20}])
    trainable = type(
        "TrialActor", (TrialActor,), {"trial_function": staticmethod(queue.trial_function)}
    )
    searcher = KeeperSearcher(queue, max_failures)
    # A process that died is told as the trial's reason; Tune would add pages of traceback.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    for leftover in folder.glob(f"{_SCRATCH}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_SCRATCH) as scratch:
        tune.Tuner(
            tune.with_resources(trainable, resources_of_actor),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=KeeperScheduler(queue, searcher),
                num_samples=-1,
                max_concurrent_trials=at_once,
                reuse_actors=True,
                # A work order is no name for a folder.
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=f"tune-{time.time_ns()}",
                storage_path=scratch,
                failure_config=tune.FailureConfig(max_failures=max_failures),
                # By default Tune saves at the end, and runs a finished trial again if that fails.
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_frequency=0, checkpoint_at_end=False
                ),
                verbose=0,
            ),
        ).fit()
