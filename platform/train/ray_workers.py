"""Runs a function on Ray Train workers; a permanent failure is passed on in a file.

Ray Train starts a group anew whatever one of its workers raised. A worker whose error the next
attempt would meet again therefore writes it to a file and returns. Whoever started the group reads
that file; the other workers of the group, and those of a group that is started anyway, return
once it is there.
"""

import contextlib
import functools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..checkpoint.run_folder import RunFolder
from ..cluster.worker_group import ProcessGroup
from .failure import Decision, PreemptedError, decide

_POLL_SECONDS = 1.0
_END_SECONDS = 10.0

WorkerFunction = Callable[[dict[str, Any], ProcessGroup], None]
"""A module's function that does one worker's work: takes the message and the group."""


class PermanentFailure(NamedTuple):
    """Why a group of workers must not be started again.

    Attributes:
        error: A sentence.
        rank: The worker that met it.
        again: Whether the run can be continued all the same: its workers were asked to leave.
    """

    error: str
    rank: int
    again: bool

    @classmethod
    def read(cls, path: Path) -> "PermanentFailure | None":
        """What a worker wrote; None where none failed for good."""
        return cls(**json.loads(path.read_text())) if path.is_file() else None

    def write(self, path: Path) -> None:
        """Write it where the other workers and whoever started them look."""
        RunFolder(path.parent).write(path.name, json.dumps(self._asdict()))


@dataclass(frozen=True, kw_only=True)
class WorkerPool:
    """The workers that Ray Train starts.

    Attributes:
        workers: Their number.
        fewest: A smaller number that the work may go on with; None for no other number.
        resources: What each takes (`CPU`, `GPU`).
        max_failures: How often the group is started anew.
        environment: Environment variables of each.
    """

    workers: int
    fewest: int | None = None
    resources: Mapping[str, float]
    max_failures: int
    environment: Mapping[str, str] = field(default_factory=dict)


def fit_workers(
    work: WorkerFunction,
    message: dict[str, Any],
    pool: WorkerPool,
    *,
    failure: Path,
    describe: Callable[[Exception], str],
) -> None:
    """Run a function on Ray Train workers until all of them have ended.

    Args:
        work: What each worker does.
        message: Its first argument, plain values.
        pool: The workers.
        failure: File in the run's folder that a worker makes where it failed for good; look there
            first, whether this returns or raises.
        describe: Makes the sentence of a permanent failure.

    Raises:
        ray.train.TrainingFailedError: Where workers failed more often than the pool allows.
    """
    # Not at the top: Ray reads its authentication mode when it is first imported, and a training
    # without workers must do without it.
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from ..cluster.torch_backend import PrivateTorchConfig

    class Trainer(TorchTrainer):
        def _register_sigint_handler(self, controller: Any) -> None:
            """Leave Ctrl-C to whoever started the group; Ray would end it without a checkpoint."""

    on_gpu = pool.resources.get("GPU", 0) > 0
    number = pool.workers if pool.fewest is None else (pool.fewest, pool.workers)
    environment = {"env_vars": dict(pool.environment)} if pool.environment else None
    Trainer(
        functools.partial(_work, work, describe, str(failure)),
        train_loop_config=message,
        torch_config=PrivateTorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=number,
            use_gpu=on_gpu,
            resources_per_worker={kind: n for kind, n in pool.resources.items() if n},
        ),
        run_config=RunConfig(
            name=f"ray-{failure.parent.name}-{time.time_ns()}",
            storage_path=str(failure.parent / "ray"),
            failure_config=FailureConfig(max_failures=pool.max_failures),
            worker_runtime_env=environment,
        ),
    ).fit()


def _work(
    work: WorkerFunction,
    describe: Callable[[Exception], str],
    failure: str,
    message: dict[str, Any],
) -> None:
    """One worker of the group."""
    path = Path(failure)
    if path.is_file():
        # Restarted only because a worker that waited for one that gave up had to be ended.
        return
    group = ProcessGroup()
    with _exit_if_others_failed(path):
        try:
            work(message, group)
        except Exception as error:
            if path.is_file():
                # Another worker gave up for good: there is nothing to retry.
                return
            again = isinstance(error, PreemptedError)
            if decide(error) is Decision.RETRY and not again:
                raise
            PermanentFailure(describe(error), group.rank, again).write(path)
            # Workers that wait for this one usually get an error at once.
            torch.distributed.destroy_process_group()


@contextlib.contextmanager
def _exit_if_others_failed(failure: Path) -> Iterator[None]:
    """While the block runs, end this process if another worker failed and this one waits for it.

    Leaving a gloo group closes its connections only once nothing refers to it any more, so a
    worker inside of a collective may wait for the rest of its life.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_SECONDS):
            if failure.is_file():
                if not done.wait(_END_SECONDS):
                    os._exit(1)
                return

    threading.Thread(target=watch, daemon=True, name="failure-watch").start()
    try:
        yield
    finally:
        done.set()
