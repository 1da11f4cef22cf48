"""Concurrency that cannot fit is refused with the sum, since it would wait for ever."""

import pytest

from spikeseg.platform.config.recipes import ConfigError
from spikeseg.platform.search.sweep_file.schema import Resources
from spikeseg.platform.search.trials.capacity import trials_at_once


def at_once(
    cpu: float, gpu: float, workers: int, wanted: int | None, *nodes: tuple[float, float]
) -> int:
    return trials_at_once(
        Resources(cpu=cpu, gpu=gpu),
        workers=workers,
        wanted=wanted,
        nodes=[{"CPU": cpus, "GPU": gpus} for cpus, gpus in nodes],
    )


@pytest.mark.parametrize(
    ("cpu", "gpu", "workers", "wanted", "nodes", "fits"),
    [
        (1, 0, 1, None, [(2, 0)], 2),
        (1, 0, 1, 1, [(2, 0)], 1),
        (0.5, 0, 1, None, [(2, 0)], 4),
        (0.1, 0, 1, None, [(1, 0)], 10),
        (1, 0, 2, None, [(2, 0)], 1),
        (1, 0, 2, None, [(1, 0), (1, 0)], 1),
        (1, 0.25, 1, None, [(16, 1)], 4),
        (0, 0.5, 1, None, [(16, 1)], 2),
        (3, 0, 1, None, [(4, 0), (4, 0)], 2),
    ],
)
def test_as_many_trials_run_as_their_workers_find_room(
    cpu: float,
    gpu: float,
    workers: int,
    wanted: int | None,
    nodes: list[tuple[float, float]],
    fits: int,
) -> None:
    assert at_once(cpu, gpu, workers, wanted, *nodes) == fits


def test_too_many_trials_are_refused_with_the_sum() -> None:
    with pytest.raises(ConfigError) as caught:
        at_once(1, 0, 2, 2, (2, 0))
    assert str(caught.value) == (
        "concurrency: 2 trials at once x 2 workers x (1 CPU + 0 GPU) = 4 CPU + 0 GPU; the "
        "cluster's 1 node has 2 CPU + 0 GPU, which is room for 2 workers, 1 trials: they would "
        "wait for ever"
    )


def test_a_worker_that_no_node_can_hold_is_refused_though_the_sum_would_do() -> None:
    with pytest.raises(ConfigError, match="2 nodes have 4 CPU"):
        at_once(3, 0, 1, None, (2, 0), (2, 0))
