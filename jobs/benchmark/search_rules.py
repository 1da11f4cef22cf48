"""Rules of other tools, written from their papers and pages, to compare with ours.

Each looks at signed vectors (smaller is better) of all trainings at one evaluation, as ours do.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ...platform.search.study.pareto import layers

Vector = Sequence[float]


class AsyncHalving:
    """The scheduler of Ray Tune's ASHA: stops what is below a quantile of the first objective.

    Rungs at 1, r, r^2, … evaluations; a training that arrives at a rung goes on if its value is
    among the best 1 / r of those recorded there, itself not among them.

    Args:
        reduction: r, 4 in Tune.

    Source: ASHA (Li et al. 2020), as Tune's default `ASHAScheduler` has it.
    """

    def __init__(self, reduction: int = 4) -> None:
        self._reduction = reduction
        self._recorded: dict[int, list[float]] = defaultdict(list)

    def go_on(self, number: int, evaluation: int, vector: Vector) -> bool:
        """Whether a training goes on after an evaluation, which counts from 1."""
        if not _is_rung(evaluation, self._reduction):
            return True
        recorded = self._recorded[evaluation]
        # The quantile that Tune takes, of values of which smaller is better.
        keeps = not recorded or vector[0] <= np.quantile(recorded, 1 / self._reduction)
        recorded.append(vector[0])
        return keeps


class MultiObjectiveHalving:
    """The scheduler MOASHA: successive halving by layers, within a layer by an epsilon net.

    The net takes a layer's vectors one by one, each time the one farthest from those taken; a
    training goes on where it is among the first 1 / r.

    Args:
        reduction: r, 3 in Syne Tune.

    Source: Schmucker et al. 2021, section 4; Syne Tune's `MOASHA`.
    """

    def __init__(self, reduction: int = 3) -> None:
        self._reduction = reduction
        self._recorded: dict[int, list[Vector]] = defaultdict(list)

    def go_on(self, number: int, evaluation: int, vector: Vector) -> bool:
        """Whether a training goes on after an evaluation, which counts from 1."""
        if not _is_rung(evaluation, self._reduction):
            return True
        recorded = self._recorded[evaluation]
        recorded.append(vector)
        if len(recorded) < self._reduction:
            return True
        order = sort_by_epsilon_net(recorded)
        return order.index(len(recorded) - 1) < len(recorded) / self._reduction


class RankMedian:
    """OptunaHub's multi-metric pruner over Optuna's median pruner: layers in place of values.

    A training is stopped where its best layer so far is worse than the median, at the same
    evaluation, of the layers of the trainings that have ended.

    Args:
        startup: Ended trainings before the first stop, 5 in Optuna.

    Source: OptunaHub, `multi_metric_pruner` with `joint=True` and `MedianPruner()`.
    """

    def __init__(self, startup: int = 5) -> None:
        self._startup = startup
        self._vectors: dict[int, dict[int, Vector]] = defaultdict(dict)
        self._ended: set[int] = set()

    def go_on(self, number: int, evaluation: int, vector: Vector) -> bool:
        """Whether a training goes on after an evaluation, which counts from 1."""
        self._vectors[evaluation][number] = vector
        best, others = np.inf, list[int]()
        for step in range(1, evaluation + 1):
            numbers = list(self._vectors[step])
            depth = dict(zip(numbers, layers(list(self._vectors[step].values())), strict=True))
            best = min(best, depth[number])
            others = [depth[item] for item in numbers if item in self._ended]
        keeps = len(self._ended) < self._startup or not others or best <= np.median(others)
        if not keeps:
            self._ended.add(number)
        return keeps

    def end(self, number: int) -> None:
        """Count a training that came to its end."""
        self._ended.add(number)


def sort_by_epsilon_net(vectors: Sequence[Vector]) -> list[int]:
    """Indices of vectors, layer by layer, within a layer the farthest from those before first."""
    data = np.asarray(vectors, dtype=float)
    depth = layers(vectors)
    ordered: list[int] = []
    for layer in sorted(set(depth)):
        left = [index for index, item in enumerate(depth) if item == layer]
        chosen = [left.pop(0)]
        while left:
            gaps = np.linalg.norm(data[left][:, None] - data[chosen][None], axis=2).min(axis=1)
            chosen.append(left.pop(int(np.argmax(gaps))))
        ordered += chosen
    return ordered


def _is_rung(evaluation: int, reduction: int) -> bool:
    while evaluation % reduction == 0:
        evaluation //= reduction
    return evaluation == 1
