"""Run a search through a world on a simulated clock, and what it reached at which cost."""

import heapq
from typing import NamedTuple

from ...platform.search.study.pareto import front
from .search_methods import Searcher
from .search_worlds import EVALUATIONS, Truth, World, measure_volume

WORKERS = 4
"""Devices, each with one training at a time."""


class Result(NamedTuple):
    """A training that came to its end.

    Attributes:
        spent: Device-seconds of the whole sweep until then.
        measured: mIoU and energy that the search saw.
        truth: What the point is worth.
    """

    spent: float
    measured: tuple[float, float]
    truth: Truth


class Score(NamedTuple):
    """What a search had reached at some cost.

    Attributes:
        volume: Hypervolume of the points that it would show as its front, at their true values,
            over the largest one possible.
        regret: True mIoU of the best point minus that of the one it would name the best, in
            points; of a search without a result, that of a network that answers nothing.
        results: Trainings that came to their end.
    """

    volume: float
    regret: float
    results: int


def replay(world: World, searcher: Searcher, *, budget: float) -> list[Result]:
    """Run a search until its device-seconds are spent.

    All devices work at all times; an evaluation is reported when it is due, so that the searcher
    sees what a driver would have seen by then.

    Args:
        world: Where it searches.
        searcher: What it does.
        budget: Device-seconds.
    """
    results: list[Result] = []
    curves: dict[int, list[tuple[float, float]]] = {}
    truths: dict[int, Truth] = {}
    due: list[tuple[float, int, int]] = []

    def begin(now: float) -> None:
        number, point = searcher.propose()
        truths[number], curves[number] = world.truth(point), world.curve(point, number)
        heapq.heappush(due, (now + truths[number].seconds, number, 1))

    for _ in range(WORKERS):
        begin(0.0)
    while due:
        now, number, evaluation = heapq.heappop(due)
        if now * WORKERS > budget:
            break
        measured = curves[number][evaluation - 1]
        keeps = searcher.go_on(number, evaluation, measured, truths[number].seconds)
        if evaluation == EVALUATIONS:
            results.append(Result(now * WORKERS, measured, truths[number]))
        if evaluation < EVALUATIONS and keeps:
            heapq.heappush(due, (now + truths[number].seconds, number, evaluation + 1))
        else:
            begin(now)
    return results


def score(world: World, results: list[Result], *, spent: float) -> Score:
    """Score what a search had found by some cost.

    Args:
        world: Where it searched.
        results: Its results.
        spent: Device-seconds until then.
    """
    done = [item for item in results if item.spent <= spent]
    miou, volume = world.best
    if not done:
        return Score(0.0, miou, 0)
    shown = front([(-item.measured[0], item.measured[1]) for item in done])
    named = max(done, key=lambda item: item.measured[0])
    return Score(
        measure_volume([done[index].truth for index in shown]) / volume,
        miou - named.truth.miou,
        len(done),
    )
