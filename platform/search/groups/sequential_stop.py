"""A group that is clearly worse gets no further seeds; the chance of a wrong stop is bounded."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .comparisons import Values, paired_p


class StopRule(NamedTuple):
    """When groups are looked at, and how much error each look may spend.

    A group is stopped where another group is better in every objective by a one-sided paired t
    test each (the largest p of the objectives counts: an intersection of tests) at the level
    `error` / (looks x other groups). By the union bound, a group that no other group dominates is
    stopped at any look with a chance of at most `error`, however the seeds are correlated.

    Attributes:
        error: Chance that a group which is not dominated is stopped, over all looks; in (0, 1).
        replicates: Seeds that a group gets where it is not stopped.
        groups: Number of groups that may be compared with each other.
    """

    error: float
    replicates: int
    groups: int

    @property
    def level(self) -> float:
        """P below which one comparison at one look stops a group."""
        return self.error / (max(1, self.replicates - 2) * max(1, self.groups - 1))

    def find_better(self, group: int, values: Mapping[int, Sequence[Values]]) -> int | None:
        """Find a group that is clearly better; None where there is none.

        Args:
            group: The group that would get a further seed; looked at from 2 seeds on.
            values: Group -> for each objective its values by seed; larger is better.
        """
        mine = values[group]
        if not 2 <= len(mine[0]) < self.replicates:
            return None
        for name, theirs in values.items():
            if name != group and _dominance_p(mine, theirs) <= self.level:
                return name
        return None


def _dominance_p(mine: Sequence[Values], theirs: Sequence[Values]) -> float:
    """Largest one-sided p, over objectives, that theirs is not better than mine."""
    largest = 0.0
    for ours, others in zip(mine, theirs, strict=True):
        seeds = sorted(set(ours) & set(others))
        if len(seeds) < 2:
            return 1.0
        gaps = np.array([others[seed] - ours[seed] for seed in seeds])
        mean = float(gaps.mean())
        if mean <= 0:
            return 1.0
        largest = max(largest, paired_p(mean, float(gaps.std(ddof=1)), len(seeds)) / 2)
    return largest
