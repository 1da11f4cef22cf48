"""Tasks over processes of this machine or over a Ray cluster, each with a worker built once."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, NamedTuple, TypeVar

from ...datasets.cpu_count import count_usable_cpus
from .session import connected, offered_cpus

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")
# The worker of this process, built when its process started.
_worker: list[Callable[[Any], Any]] = []


class PoolSize(NamedTuple):
    """Where tasks run.

    Attributes:
        processes: Processes of this machine, or Ray actors; 0 takes one for each CPU.
        ray: Whether the cluster of this job, or a local one, runs them.
        threads: Threads that each of them computes with; its CPUs on Ray.
    """

    processes: int = 1
    ray: bool = False
    threads: int = 1


class TaskPool(Generic[_Task, _Result]):
    """Runs tasks side by side; results come as they finish.

    Args:
        build: Makes a worker, called once in every process; it can be pickled, as tasks and
            results can.
        size: Where tasks run.
    """

    def __init__(self, build: Callable[[], Callable[[_Task], _Result]], size: PoolSize) -> None:
        self._build = build
        self._size = size

    def run(self, tasks: Iterable[_Task]) -> Iterator[_Result]:
        """Yield results in the order in which they finish, twice as many tasks out as workers.

        Raises:
            RuntimeError: Where a process died, as for lack of memory.
        """
        return self._run_on_ray(tasks) if self._size.ray else self._run_in_processes(tasks)

    def _run_in_processes(self, tasks: Iterable[_Task]) -> Iterator[_Result]:
        count = self._size.processes or count_usable_cpus()
        # Not forked: this process holds threads, and those of Arrow, OpenCV, torch survive no fork.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(
            count, mp_context=context, initializer=_build_worker, initargs=(self._build,)
        )
        running: set[Future[_Result]] = set()
        try:
            for task in tasks:
                running.add(pool.submit(_work, task))
                if len(running) >= 2 * count:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a process of the pool ended without a result (killed, or out of memory): take "
                "fewer processes or smaller batches"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _run_on_ray(self, tasks: Iterable[_Task]) -> Iterator[_Result]:
        threads = self._size.threads
        with connected(cpus=threads * max(1, self._size.processes)):
            import ray

            count = self._size.processes or max(1, int(offered_cpus()) // threads)
            # Ray's types know no option of an actor but its resources.
            remote: Any = ray.remote
            actor = remote(num_cpus=threads, max_restarts=2, max_task_retries=2)(_Actor)
            actors = [actor.remote(self._build) for _ in range(count)]
            owners: dict[Any, Any] = {}
            waiting = iter(tasks)
            for worker in [*actors, *actors]:
                _send(worker, waiting, owners)
            while owners:
                (reference, *_), _ = ray.wait(list(owners), num_returns=1)
                worker = owners.pop(reference)
                _send(worker, waiting, owners)
                yield _get(reference)


class _Actor:
    """A worker in a process of the cluster."""

    def __init__(self, build: Callable[[], Callable[[Any], Any]]) -> None:
        self._work = build()

    def work(self, task: Any) -> Any:
        """Do one task."""
        return self._work(task)


def _send(worker: Any, tasks: Iterator[Any], owners: dict[Any, Any]) -> None:
    """Give a worker the next task, where there is one."""
    for task in tasks:
        owners[worker.work.remote(task)] = worker
        return


def _get(reference: Any) -> Any:
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, ValueError | RuntimeError | OSError):
            raise error.cause from error
        raise
    except RayActorError as error:
        raise RuntimeError(f"a worker of the cluster ended without a result: {error}") from error


def _build_worker(build: Callable[[], Callable[[Any], Any]]) -> None:
    _worker[:] = [build()]


def _work(task: Any) -> Any:
    return _worker[0](task)
