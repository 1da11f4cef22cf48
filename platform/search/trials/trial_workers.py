"""A trial on several Ray Train workers: the trial's process starts them and reads their reports."""

import json
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...checkpoint.checkpoint import Evaluation
from .trial_training import Evaluations, Given, failure_reason, train_trial

_POLL_SECONDS = 0.2
_END_SECONDS = 30
_FREE_SECONDS = 10


class WorkersFailedError(RuntimeError):
    """The workers gave up for good; the message is the trial's reason."""


def follow_workers(given: Given) -> Evaluations:
    """Start the workers in an actor of their own, hand on what they report, end them with it.

    The actor is what can be killed: with it go Ray Train's controller and the workers, whose
    folder the next attempt claims anyway. Workers train on while a report is judged.

    Args:
        given: The work order, as `trial.reports` takes it.

    Yields:
        Evaluation, whether it is the last one, and how often the folder was claimed.

    Raises:
        WorkersFailedError: Where a worker met an error that another attempt would meet again.
    """
    import ray

    folder = Path(given["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("reports-*.jsonl"):
        # Of an attempt that was killed with its process.
        left.unlink()
    log = folder / f"reports-{uuid.uuid4().hex}.jsonl"
    log.touch()
    # Zero CPUs and no group of the trial's: the workers alone take resources.
    actor: Any = ray.remote(_Fit)
    options = actor.options(num_cpus=0, scheduling_strategy="DEFAULT")
    fit: Any = options.remote({**given, "log": str(log)})
    running = fit.run.remote()
    final = False
    ended: list[Any] = []
    try:
        with log.open() as lines:
            while True:
                # What a killed attempt left may be all that these workers wait for.
                free_orphans()
                ended, _ = ray.wait([running], timeout=_POLL_SECONDS)
                for line in lines:
                    told = json.loads(line)
                    if "failure" in told:
                        raise WorkersFailedError(told["failure"])
                    if "evaluation" in told:
                        final = told["final"]
                        yield Evaluation(**told["evaluation"]), final, told["attempt"]
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

    def __init__(self, given: Given) -> None:
        self._given = given

    def run(self) -> None:
        """Train to the end."""
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        given = self._given
        on_gpu = given["resources"]["GPU"] > 0
        TorchTrainer(
            _work,
            train_loop_config=given,
            torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=given["workers"],
                use_gpu=on_gpu,
                resources_per_worker={k: v for k, v in given["resources"].items() if v},
            ),
            run_config=RunConfig(
                name=f"ray-{time.time_ns()}",
                storage_path=str(Path(given["folder"]) / "ray"),
                failure_config=FailureConfig(max_failures=given["max_failures"]),
            ),
        ).fit()


def _work(given: dict[str, Any]) -> None:
    """One worker: rank 0 writes a line per evaluation, any worker the line of its failure."""
    import torch

    from ...cluster.worker_group import ProcessGroup
    from ...train.failure import Decision, decide

    group = ProcessGroup()
    log = Path(given["log"])
    try:
        for evaluation, final, attempt in train_trial(given, group):
            if group.rank == 0:
                told = {"evaluation": asdict(evaluation), "final": final, "attempt": attempt}
                _append(log, told)
    except Exception as error:
        if '"failure"' in log.read_text():
            # Another worker gave up for good and left the group: there is nothing to retry.
            return
        if decide(error) is Decision.RETRY:
            raise
        _append(log, {"failure": failure_reason(error)})
        # Workers that wait for this one get an error at once instead of waiting for ever.
        torch.distributed.destroy_process_group()


def _append(log: Path, told: dict[str, Any]) -> None:
    with log.open("a") as file:
        file.write(json.dumps(told) + "\n")
