"""Runs a trial on several Ray Train workers, which report to the trial's process by a file."""

import json
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...checkpoint.checkpoint import Evaluation
from .trial_training import Evaluations, WorkOrder, failure_reason, train_trial

_POLL_SECONDS = 0.2
_END_SECONDS = 30
_FREE_SECONDS = 10


class WorkersFailedError(RuntimeError):
    """The workers gave up for good; the message is the trial's reason."""


def follow_workers(order: WorkOrder) -> Evaluations:
    """Train on Ray Train workers below an actor of their own and yield what they report.

    The actor is what can be killed: with it go Ray Train's controller and the workers, whose
    folder the next attempt claims anyway. Workers train on while a report is judged.

    Args:
        order: The work order, as `trial.reports` takes it.

    Yields:
        Evaluation, whether it is the last one, and how often the folder was claimed.

    Raises:
        PreemptedError: Where the workers were told to end, and have.
        WorkersFailedError: Where a worker met an error that another attempt would meet again.
    """
    import ray

    from ...train.failure import PreemptedError
    from ...train.ray_workers import PermanentFailure

    folder = Path(order["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ("reports-*.jsonl", "failure-*.json"):
        for leftover in folder.glob(pattern):
            # Of an attempt that was killed with its process.
            leftover.unlink()
    name = uuid.uuid4().hex
    log, failure_file = folder / f"reports-{name}.jsonl", folder / f"failure-{name}.json"
    log.touch()
    # Zero CPUs and no group of the trial's: the workers alone take resources.
    actor: Any = ray.remote(_Fit)
    options = actor.options(num_cpus=0, scheduling_strategy="DEFAULT")
    fit: Any = options.remote({**order, "log": str(log)}, str(failure_file))
    running = fit.run.remote()
    final = False
    ended: list[Any] = []
    try:
        with log.open() as lines:
            while True:
                # What a killed attempt left may be all that these workers wait for.
                free_orphans()
                ended, _ = ray.wait([running], timeout=_POLL_SECONDS)
                # Before the lines are read: what was evaluated until then is reported first.
                failure = PermanentFailure.read(failure_file)
                for line in lines:
                    report = json.loads(line)
                    final = report["final"]
                    yield Evaluation(**report["evaluation"]), final, report["attempt"]
                if failure is not None and failure.again:
                    raise PreemptedError(failure.error)
                if failure is not None:
                    raise WorkersFailedError(failure.error)
                if ended:
                    ray.get(running)
                    return
    finally:
        if final:
            ended, _ = ray.wait([running], timeout=_END_SECONDS)
        ray.kill(fit)
        until = time.monotonic() + _FREE_SECONDS
        while not ended and not free_orphans() and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
        log.unlink()
        failure_file.unlink(missing_ok=True)


def free_orphans() -> int:
    """Remove the placement groups of this job whose makers are actors that died.

    Ray keeps a group until its job ends, too, and Ray Train's own cleaner asks the dashboard
    whether a controller is alive, and waits for ever where there is none. A controller that has
    not died yet when its workers go makes another group, even after Ray counts it as dead: so
    the makers themselves are looked at, each time.

    Returns:
        How many were removed.
    """
    import ray

    # Ray's public calls do not say who made a group.
    from ray._private.state import state
    from ray.core.generated import gcs_pb2
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    job = bytes.fromhex(ray.get_runtime_context().get_job_id())
    tables: Any = gcs_pb2
    dead = tables.ActorTableData.DEAD
    freed = 0
    gcs = state._connect_and_get_accessor()
    for entry in gcs.get_placement_group_table():
        group = tables.PlacementGroupTableData.FromString(entry)
        by_actor = group.creator_actor_id not in (b"", ray.ActorID.nil().binary())
        if not by_actor or group.creator_job_id != job or group.state == group.REMOVED:
            continue
        maker = gcs.get_actor_info(ray.ActorID(group.creator_actor_id))
        if maker is None or tables.ActorTableData.FromString(maker).state == dead:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
            freed += 1
    return freed


class _Fit:
    """Runs Ray Train for one trial; an actor, so that killing it ends everything."""

    def __init__(self, message: dict[str, Any], failure: str) -> None:
        self._message = message
        self._failure = Path(failure)

    def run(self) -> None:
        """Train to the end."""
        from ...train.ray_workers import WorkerPool, fit_workers

        pool = WorkerPool(
            workers=self._message["workers"],
            resources=self._message["resources"],
            max_failures=self._message["max_failures"],
        )
        fit_workers(
            _log_evaluations, self._message, pool, failure=self._failure, describe=failure_reason
        )


def _log_evaluations(message: dict[str, Any], group: Any) -> None:
    """What each worker of a trial does: train; rank 0 writes a line per evaluation."""
    with Path(message["log"]).open("a", buffering=1) as log:
        for evaluation, final, attempt in train_trial(message, group):
            if group.rank == 0:
                line = {"evaluation": asdict(evaluation), "final": final, "attempt": attempt}
                log.write(json.dumps(line) + "\n")
