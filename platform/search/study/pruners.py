"""Pruners: rules that stop a trial early, by what all trials measured at the same step.

A rung is a training step at which the value of every trial is compared. All rules are
asynchronous: a trial is judged when it arrives, against those that were there before it and itself,
and is never judged again at that rung. Vectors are signed so that smaller is better.

Constraints come first, as in NSGA-II's constrained domination (Deb et al. 2002, section VI): a
trial that breaks the constraints by less, summed over them, is ahead of one that breaks them by
more, whatever their objectives are; a rule compares objectives among equals, such as those that
keep all.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ..sweep_file.schema import Pruner
from .pareto import Vector, crowding, layers


class AtRung(NamedTuple):
    """What a trial measured at a rung: excess over the constraints, signed objectives."""

    number: int
    excess: float
    vector: tuple[float, ...]


@dataclass(frozen=True)
class Judgement:
    """Whether a trial goes on, and why.

    Attributes:
        go_on: False stops the trial.
        reason: A sentence for the study, the table and MLflow.
    """

    go_on: bool
    reason: str


class RungRule(Protocol):
    """Decides at a rung."""

    def judge(
        self, vector: Vector, others: Sequence[Vector], *, ahead: int = 0, behind: int = 0
    ) -> Judgement:
        """Decide about one trial.

        Args:
            vector: Its objectives at this rung.
            others: Those of all other trials that reached this rung and break the constraints by as
                much as it does.
            ahead: Further trials at this rung, which break the constraints by less.
            behind: Further ones, which break them by more.
        """
        ...


@dataclass(frozen=True)
class NoRule:
    """Every trial runs to its end."""

    def judge(
        self, vector: Vector, others: Sequence[Vector], *, ahead: int = 0, behind: int = 0
    ) -> Judgement:
        """Never stop a trial."""
        return Judgement(True, "no pruning")


@dataclass(frozen=True)
class Halving:
    """Successive halving: of n values at a rung the best max(1, n // eta) go on.

    Attributes:
        eta: Share 1 / eta goes on; at least 2.
        minimum: With fewer values than this at the rung, everyone goes on.

    Source: ASHA (Li et al. 2020), algorithm 2, judged on arrival; paused trials are not promoted.
    """

    eta: int
    minimum: int

    def judge(
        self, vector: Vector, others: Sequence[Vector], *, ahead: int = 0, behind: int = 0
    ) -> Judgement:
        """Stop unless fewer than max(1, n // eta) values are strictly better."""
        total = ahead + len(others) + 1 + behind
        better = ahead + sum(other[0] < vector[0] for other in others)
        return _by_rank(better, total, self.eta, self.minimum, "better")


@dataclass(frozen=True)
class Median:
    """Stop what is worse than the median of the others at the same rung.

    Those ahead by constraints count as better than any value, those behind as worse; then the
    median of an even number is the worse one of the two in the middle.

    Attributes:
        minimum: With fewer values than this at the rung, everyone goes on.
    """

    minimum: int

    def judge(
        self, vector: Vector, others: Sequence[Vector], *, ahead: int = 0, behind: int = 0
    ) -> Judgement:
        """Stop what is worse than the others' median."""
        total = ahead + len(others) + 1 + behind
        if total < max(2, self.minimum):
            return Judgement(True, f"{total} values at the rung, {self.minimum} needed")
        values = [other[0] for other in others]
        if ahead or behind:
            middle = statistics.median_high([-math.inf] * ahead + values + [math.inf] * behind)
        else:
            middle = statistics.median(values)
        go_on = vector[0] <= middle
        if math.isinf(middle):
            what = "breaks the constraints by more" if go_on else "keeps the constraints better"
            return Judgement(go_on, f"the median at the rung {what}")
        return Judgement(
            go_on, f"{abs(vector[0]):.4g} against a median of {abs(middle):.4g} at the rung"
        )


@dataclass(frozen=True)
class NonDominated:
    """Successive halving for several objectives.

    The n vectors at the rung are peeled into non-dominated layers. A trial's rank is the number of
    vectors in earlier layers, plus, where `by_crowding` is set, those of its layer with a
    larger crowding distance. It goes on when its rank is below max(1, n // eta).

    Attributes:
        eta: Share 1 / eta goes on; at least 2.
        minimum: With fewer vectors than this at the rung, everyone goes on.
        by_crowding: Thin out wide layers, too. Without it a whole layer goes on or none.
    """

    eta: int
    minimum: int
    by_crowding: bool

    def judge(
        self, vector: Vector, others: Sequence[Vector], *, ahead: int = 0, behind: int = 0
    ) -> Judgement:
        """Stop unless the rank is below max(1, n // eta)."""
        vectors = [vector, *others]
        depth = layers(vectors)
        rank = ahead + sum(d < depth[0] for d in depth)
        if self.by_crowding:
            members = [i for i, d in enumerate(depth) if d == depth[0]]
            distance = crowding([vectors[i] for i in members])
            mine = distance[members.index(0)]
            rank += sum(other > mine for other in distance)
        total = ahead + len(vectors) + behind
        return _by_rank(rank, total, self.eta, self.minimum, "ahead")


def build_rule(pruner: Pruner) -> RungRule:
    """Build the rule that a sweep file names.

    Args:
        pruner: Its section `pruner`.
    """
    rules: dict[str, RungRule] = {
        "none": NoRule(),
        "halving": Halving(eta=pruner.eta, minimum=pruner.minimum),
        "median": Median(minimum=pruner.minimum),
        "non_dominated": NonDominated(
            eta=pruner.eta, minimum=pruner.minimum, by_crowding=pruner.by_crowding
        ),
    }
    return rules[pruner.rule]


def _by_rank(rank: int, total: int, eta: int, minimum: int, word: str) -> Judgement:
    if total < minimum:
        return Judgement(True, f"{total} values at the rung, {minimum} needed")
    promoted = max(1, total // eta)
    return Judgement(rank < promoted, f"{rank} of {total} {word} at the rung, {promoted} go on")
