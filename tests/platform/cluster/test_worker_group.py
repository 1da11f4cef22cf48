"""Workers give each other tensors and JSON; nothing that one sends runs code on another."""

import math
import multiprocessing
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed
from source_tree import ROOMS

from spikeseg.platform.cluster.worker_group import OneWorker, ProcessGroup

VALUES = [
    None,
    True,
    0,
    -(2**62),
    "Straße \U0001f600",
    [],
    {"val/mIoU": 0.1 + 0.2, "tiny": 5e-324, "huge": 1.7976931348623157e308, "negative": -0.0},
    {"not": float("nan"), "above": math.inf, "below": -math.inf, "nested": [[1, [2.5, None]]]},
    "x" * 300_000,
]


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, file: str) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self._file),)


def in_group(work: Callable[[ProcessGroup, Path], None], folder: Path) -> list[int | None]:
    """Run a function on two workers; returns their exit codes."""
    context = multiprocessing.get_context("fork")

    def run(rank: int) -> None:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{folder}/store",
            rank=rank,
            world_size=2,
            timeout=timedelta(seconds=5),
        )
        work(ProcessGroup(), folder)
        # Not cleaned up: the other one may be gone.
        os._exit(0)

    workers = [context.Process(target=run, args=(rank,)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    return [worker.exitcode for worker in workers]


def exchange(group: ProcessGroup, folder: Path) -> None:
    received = [group.broadcast_json(value if group.rank == 0 else "mine") for value in VALUES]
    # NaN is equal to nothing, so texts are compared, which also tell 0.0 from -0.0 and 1 from True.
    assert repr(received) == repr(VALUES)
    torch.distributed.barrier()


def attack(group: ProcessGroup, folder: Path) -> None:
    """Worker 0 sends a pickle as torch itself would, where worker 1 waits for a value."""
    if group.rank == 0:
        torch.distributed.broadcast_object_list([Payload(f"{folder}/run")], src=0)
        return
    with pytest.raises((ValueError, RuntimeError)):
        group.broadcast_json(None)
    (folder / "refused").touch()


def attack_with_size(group: ProcessGroup, folder: Path) -> None:
    """Worker 0 announces more than there is memory."""
    if group.rank == 0:
        torch.distributed.broadcast(torch.tensor([2**50]), 0)
        return
    with pytest.raises(ValueError, match=f"rank 0 sends {2**50} bytes of JSON: must be 1 to"):
        group.broadcast_json(None)


def test_values_arrive_equal_to_the_last_bit(tmp_path: Path) -> None:
    assert in_group(exchange, tmp_path) == [0, 0]
    assert OneWorker().broadcast_json(VALUES) is VALUES


def test_a_pickle_from_another_worker_is_not_unpickled(tmp_path: Path) -> None:
    assert in_group(attack, tmp_path)[1] == 0
    assert (tmp_path / "refused").is_file()
    assert not (tmp_path / "run").exists(), "a worker ran what another one sent"


def test_an_announced_size_is_bounded(tmp_path: Path) -> None:
    assert in_group(attack_with_size, tmp_path) == [0, 0]


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", Path("x")], ids=["set", "bytes", "path"])
def test_what_json_does_not_have_is_refused_by_who_sends_it(value: Any, tmp_path: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        with pytest.raises(TypeError, match="not JSON serializable"):
            ProcessGroup().broadcast_json(value)
    finally:
        torch.distributed.destroy_process_group()


def test_no_file_of_ours_uses_what_pickles_between_workers(repository: Path) -> None:
    pickling = ("_object_list(", "gather_object(", "torch.distributed.rpc")
    files = [file for room in ROOMS for file in (repository / room).rglob("*.py")]
    assert len(files) > 100
    wrong = [f"{file}: {name}" for file in files for name in pickling if name in file.read_text()]
    assert not wrong
