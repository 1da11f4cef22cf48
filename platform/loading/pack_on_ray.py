"""Packing over processes of this machine, or over the tasks of a Ray cluster."""

import logging
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar, Unpack

from ...datasets.packed.pack import PackPlan, PlanOptions, plan_pack, run_plan
from ...datasets.packed.shard import ShardEntry, ShardTask, write_shard
from ...datasets.packed.storage import Storage
from ...datasets.spec import DataError, RawDataset
from ..cluster.session import connected

log = logging.getLogger(__name__)

# Below this many rows starting processes costs more than they save.
_SMALL = 256

Where = Literal["auto", "local", "ray"]
_Running = TypeVar("_Running")


def pack_dataset(  # noqa: PLR0913
    name: str,
    dataset: RawDataset,
    source: Path,
    output: str | Path | Storage,
    *,
    where: Where = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[PlanOptions],
) -> str:
    """Pack a raw data set in parallel; the result does not depend on where or by how many.

    Args:
        name: Name of the data set in the catalog.
        dataset: Its reader.
        source: Folder of the raw files; with Ray all nodes must see it.
        output: Folder of the packed data set: a path, a URI or a storage.
        where: `ray` uses the cluster of this job, or a local one; `local` this machine's
            processes; `auto` takes Ray inside of a Ray job and where a connection is open.
        workers: Processes, or Ray tasks at a time; the number of cores if not given.
        progress: Called with rows done and rows in all.
        options: As `plan_pack` of `datasets/packed/pack.py`.

    Returns:
        The digest over the content of all rows.

    Raises:
        DataError: Names file and rule.
    """
    plan = plan_pack(name, dataset, source, **options)
    storage = output if isinstance(output, Storage) else Storage.at(output)
    if where == "ray" or (where == "auto" and _ray_is_near()):
        with connected(cpus=1):
            tasks = workers or _ray_cores()
            log.info("packing %d shards over %d Ray tasks", len(plan.shards), tasks)
            return run_plan(plan, storage, lambda: _over_ray(plan, storage, tasks), progress)
    count = min(workers or os.cpu_count() or 1, len(plan.shards))
    if count == 1 or plan.rows < _SMALL:
        numbers = range(len(plan.shards))
        return run_plan(
            plan, storage, lambda: (write_shard(plan.task(i), storage) for i in numbers), progress
        )
    log.info("packing %d shards over %d processes", len(plan.shards), count)
    return run_plan(plan, storage, lambda: _over_processes(plan, storage, count), progress)


def _over_processes(plan: PackPlan, storage: Storage, count: int) -> Iterator[ShardEntry]:
    # Not forked: this process may hold threads, and Arrow's and OpenCV's do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        yield from _in_order(
            plan,
            count,
            start=lambda task: pool.submit(write_shard, task, storage),
            result=lambda future: future.result(),
            cancel=lambda future: future.cancel(),
        )


def _over_ray(plan: PackPlan, storage: Storage, count: int) -> Iterator[ShardEntry]:
    import ray

    write: Any = ray.remote(num_cpus=1, max_retries=2)(write_shard)
    yield from _in_order(
        plan,
        count,
        start=lambda task: write.remote(task, storage),
        result=_result,
        cancel=lambda reference: ray.cancel(reference, force=True),
    )


def _in_order(
    plan: PackPlan,
    count: int,
    *,
    start: Callable[[ShardTask], _Running],
    result: Callable[[_Running], ShardEntry],
    cancel: Callable[[_Running], object],
) -> Iterator[ShardEntry]:
    """Entries in the plan's order; one task more than workers is in flight, and holds its rows.

    So neither what is sent nor what is held grows with the number of shards.
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


def _result(reference: Any) -> ShardEntry:
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, DataError):
            raise DataError(str(error.cause)) from error
        raise


def _ray_is_near() -> bool:
    ray = sys.modules.get("ray")
    return bool(os.environ.get("RAY_ADDRESS")) or (ray is not None and ray.is_initialized())


def _ray_cores() -> int:
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))
