"""A trial on several Ray Train workers: the trial's process starts them and reads their reports."""

import json
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..train.checkpoint import Evaluation
from .trial_training import Evaluations, Given, failure_reason, train_trial

_POLL_SECONDS = 0.2
_END_SECONDS = 30


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
        # An attempt that was killed with its process.
        _give_back(left)
    log = folder / f"reports-{uuid.uuid4().hex}.jsonl"
    log.touch()
    # Zero CPUs and no group of the trial's: the workers alone take resources.
    actor: Any = ray.remote(_Fit)
    options = actor.options(num_cpus=0, scheduling_strategy="DEFAULT")
    fit: Any = options.remote({**given, "log": str(log)})
    running = fit.run.remote()
    final = False
    try:
        with log.open() as lines:
            while True:
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
            ray.wait([running], timeout=_END_SECONDS)
        ray.kill(fit)
        _give_back(log)


def _give_back(log: Path) -> None:
    """Free what a killed attempt's workers had reserved.

    Ray Train's own cleaner asks the dashboard whether a controller is alive, and waits for ever
    where there is none.
    """
    import ray
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    # Without the line that a kill may have cut.
    lines = log.read_text().rpartition("\n")[0].splitlines()
    places = {told["place"] for told in map(json.loads, lines) if "place" in told}
    for place in places & set(ray.util.placement_group_table()):
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(place))))
    log.unlink()


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
    from ray.util.placement_group import get_current_placement_group

    from ..train.failure import Decision, decide
    from ..train.reduction import ProcessGroup

    group = ProcessGroup()
    log = Path(given["log"])
    place = get_current_placement_group()
    if group.rank == 0 and place is not None:
        _append(log, {"place": place.id.hex()})
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
