"""Packing over processes of this machine, or over the tasks of a Ray cluster."""

import logging
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

from ...datasets.cpu_count import count_usable_cpus
from ...datasets.packed.pack import run_plan
from ...datasets.packed.plan import PackPlan
from ...datasets.packed.shard import ShardTask, WrittenShard, write_shard
from ...datasets.packed.storage import Storage
from ...datasets.spec import DataError
from ..cluster.session import connected

log = logging.getLogger(__name__)

# Below this many rows starting processes costs more than they save.
_SMALL = 256

Where = Literal["auto", "local", "ray"]
_Running = TypeVar("_Running")


def pack_dataset(
    plan: PackPlan,
    output: str | Path | Storage,
    *,
    where: Where = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Pack a raw data set in parallel; the result does not depend on where or by how many.

    Args:
        plan: What `plan_pack` made; with Ray all nodes must see its source.
        output: Folder of the packed data set: a path, a URI or a storage.
        where: `ray` uses the cluster of this job, or a local one; `local` this machine's
            processes; `auto` takes Ray inside of a Ray job and where a connection is open.
        workers: Processes, or Ray tasks at a time; the number of cores if not given.
        progress: Called with rows done and rows in all.

    Returns:
        The digest over the content of all rows.

    Raises:
        DataError: Names file and rule.
    """
    storage = output if isinstance(output, Storage) else Storage.at(output)
    if where == "ray" or (where == "auto" and _uses_ray()):
        with connected(cpus=1):
            tasks = workers or _count_ray_cores()
            log.info("packing %d shards over %d Ray tasks", len(plan.shards), tasks)
            return run_plan(plan, storage, lambda: _pack_over_ray(plan, storage, tasks), progress)
    count = min(workers or count_usable_cpus(), len(plan.shards))
    if count == 1 or plan.rows < _SMALL:
        numbers = range(len(plan.shards))
        return run_plan(
            plan, storage, lambda: (write_shard(plan.task(i), storage) for i in numbers), progress
        )
    log.info("packing %d shards over %d processes", len(plan.shards), count)
    return run_plan(plan, storage, lambda: _pack_over_processes(plan, storage, count), progress)


def _pack_over_processes(plan: PackPlan, storage: Storage, count: int) -> Iterator[WrittenShard]:
    # Not forked: this process may hold threads, and Arrow's and OpenCV's do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context)
    try:
        yield from _run_in_order(
            plan,
            count,
            start=lambda task: pool.submit(write_shard, task, storage),
            result=lambda future: future.result(),
            # Python 3.11's pool can wait for ever at its end for futures cancelled one by one.
            cancel=lambda future: None,
        )
    finally:
        pool.shutdown(cancel_futures=True)


def _pack_over_ray(plan: PackPlan, storage: Storage, count: int) -> Iterator[WrittenShard]:
    import ray

    write: Any = ray.remote(num_cpus=1, max_retries=2)(write_shard)
    yield from _run_in_order(
        plan,
        count,
        start=lambda task: write.remote(task, storage),
        result=_get_entry,
        cancel=lambda reference: ray.cancel(reference, force=True),
    )


def _run_in_order(
    plan: PackPlan,
    count: int,
    *,
    start: Callable[[ShardTask], _Running],
    result: Callable[[_Running], WrittenShard],
    cancel: Callable[[_Running], object],
) -> Iterator[WrittenShard]:
    """Run tasks with one more in flight than workers; yields entries in the plan's order.

    A task holds its own rows: neither what is sent nor what is held grows with the shards.
    """
    waiting: deque[_Running] = deque()
    try:
        for index in range(len(plan.shards)):
            waiting.append(start(plan.task(index)))
            if len(waiting) > count:
                yield result(waiting.popleft())
        while waiting:
            yield result(waiting.popleft())
    finally:
        for running in waiting:
            cancel(running)


def _get_entry(reference: Any) -> WrittenShard:
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, DataError):
            raise DataError(str(error.cause)) from error
        raise


def _uses_ray() -> bool:
    ray = sys.modules.get("ray")
    return bool(os.environ.get("RAY_ADDRESS")) or (ray is not None and ray.is_initialized())


def _count_ray_cores() -> int:
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))
