"""Trainings that are killed anywhere: workers forked from one warm parent, gloo between them.

`python crash.py` is the warm parent: it reads one order per line (a group of workers, and where
one of them is to be killed) and answers with exit codes and what the workers passed through. Every
place where a worker may die is an event: a row read, a micro-batch, an update, a prediction of an
evaluation, and each system call of a checkpoint's writing, in whatever thread it happens.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 180


class Kill(NamedTuple):
    """Where a worker is killed.

    Attributes:
        rank: Which worker.
        event: Which kind of event.
        number: At which of its events of that kind, from 0.
        whole: Whether all workers are killed with it, as when the driver dies; else the others
            meet the end of their peer by themselves.
    """

    rank: int
    event: str
    number: int
    whole: bool


class Group:
    """The warm parent, seen from a test."""

    def __init__(self) -> None:
        here = Path(__file__).resolve()
        self._process = subprocess.Popen(
            [sys.executable, str(here)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def attempt(
        self, run: Path, config: str, workers: int, kill: Kill | None = None
    ) -> tuple[list[int], list[dict[str, int]]]:
        """Start a group of workers on a run's folder and wait for its end.

        Args:
            run: The run's folder.
            config: The experiment as JSON.
            workers: 0 trains in one process without a process group.
            kill: Where one is killed.

        Returns:
            Exit code of each worker (-9 where it was killed), and events by kind of each that
            ended by itself.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        order = {"run": str(run), "config": config, "workers": workers, "kill": kill}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the warm parent is gone"
        outcome = json.loads(answer)
        return outcome["codes"], outcome["events"]

    def close(self) -> None:
        """End the warm parent."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


class _Counter:
    """Counts events and kills this process at one of them."""

    def __init__(self, kill: Kill | None) -> None:
        self.counts: dict[str, int] = {}
        self._kill = kill
        self._lock = threading.Lock()

    def wrap(self, event: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                number = self.counts.get(event, 0)
                self.counts[event] = number + 1
            if self._kill is not None and (event, number) == (self._kill.event, self._kill.number):
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return counted


def _patch(counter: _Counter) -> None:
    import shutil

    import torch

    from spikeseg.platform.checkpoint import checkpoint, run_folder
    from spikeseg.platform.evaluation import scores as evaluate
    from spikeseg.platform.loading.training_loader import TrainingRows
    from spikeseg.platform.train.passes.reduction import StepVector

    places: list[tuple[Any, str, str]] = [
        (TrainingRows, "read", "row"),
        (StepVector, "begin", "forward"),
        (StepVector, "add", "backward"),
        (StepVector, "reduce", "reduce"),
        (torch.optim.AdamW, "step", "update"),
        (evaluate, "predict_labels", "evaluation"),
        (checkpoint, "write_synced", "checkpoint file"),
        (run_folder, "write_synced", "checkpoint file"),
        (os, "fsync", "checkpoint fsync"),
        (Path, "mkdir", "checkpoint folder"),
        (Path, "rename", "checkpoint rename"),
        (shutil, "rmtree", "checkpoint delete"),
    ]
    for owner, name, event in places:
        setattr(owner, name, counter.wrap(event, getattr(owner, name)))


def _work(order: dict[str, Any], rank: int, store: str) -> None:
    import torch.distributed

    from spikeseg.platform.checkpoint.run_folder import RunFolder
    from spikeseg.platform.cluster.worker_group import OneWorker, ProcessGroup
    from spikeseg.platform.config.schema import ExperimentConfig
    from spikeseg.platform.train.loop import Training

    kill = None if order["kill"] is None else Kill(*order["kill"])
    counter = _Counter(kill if kill is not None and kill.rank == rank else None)
    config = ExperimentConfig.model_validate_json(order["config"])
    group: OneWorker | ProcessGroup = OneWorker()
    if order["workers"]:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=order["workers"]
        )
        group = ProcessGroup()
    run = RunFolder(Path(order["run"]))
    if rank == 0:
        run.claim()
    _patch(counter)
    training = Training(
        config, run, group=group, recorder=None, progress=print if rank == 0 else None
    )
    training.start()
    for _ in training.evaluations():
        pass
    training.load_best()
    Path(f"{store}.{rank}.json").write_text(json.dumps(counter.counts))


def _child(order: dict[str, Any], rank: int, store: str) -> None:
    log = os.open(f"{order['run']}-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.alarm(SECONDS)
    try:
        _work(order, rank, store)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def _group(order: dict[str, Any], number: int) -> dict[str, Any]:
    size = max(1, order["workers"])
    store = f"{order['run']}-store-{number}"
    ranks: dict[int, int] = {}
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            _child(order, rank, store)
        ranks[pid] = rank
    codes = [0] * size
    left = set(ranks)
    while left:
        pid, status = os.waitpid(-1, 0)
        left.discard(pid)
        codes[ranks[pid]] = os.waitstatus_to_exitcode(status)
        if order["kill"] is not None and Kill(*order["kill"]).whole and codes[ranks[pid]] == -9:
            for other in left:
                os.kill(other, signal.SIGKILL)
    done = [Path(f"{store}.{rank}.json") for rank in range(size)]
    events = [json.loads(path.read_text()) for path in done if path.is_file()]
    return {"codes": codes, "events": events}


def _warm() -> None:
    import torch

    from spikeseg.platform.train import loop

    assert loop.Training
    torch.set_num_threads(1)
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    _warm()
    for number, line in enumerate(sys.stdin):
        answers.write(json.dumps(_group(json.loads(line), number)) + "\n")
        answers.flush()
    # Quicker than tearing the interpreter down, and there is nothing to save.
    os._exit(0)
