"""Paired tests between groups on equal seeds, corrected for their number; which group is best."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from ...evaluation.seed_statistics import half_width

ERROR = 0.05
"""Chance of a wrong claim over all comparisons of one table."""
Values = Mapping[int, float]
"""Seed -> value of one metric; larger is better."""


class Comparison(NamedTuple):
    """One group against a reference, on the seeds that both have.

    Attributes:
        pairs: Number of seeds that both have.
        difference: Mean of group minus reference; positive is better. None without a pair.
        low: Lower end of its 95 % interval; None of fewer than 2 pairs.
        high: Its upper end; None of fewer than 2 pairs.
        p: Two-sided p of the paired t test; 1 of fewer than 2 pairs.
        adjusted: `p` after Holm's correction over all comparisons of the table.
        effect: Difference over the standard deviation of the differences (Cohen's d_z), shrunk for
            few pairs (Hedges); None of fewer than 3 pairs or of equal differences.
    """

    pairs: int
    difference: float | None
    low: float | None
    high: float | None
    p: float
    adjusted: float
    effect: float | None

    @property
    def better(self) -> bool:
        """Whether the group beats the reference by more than chance."""
        return self.adjusted <= ERROR and (self.difference or 0.0) > 0

    @property
    def worse(self) -> bool:
        """Whether the reference beats the group by more than chance."""
        return self.adjusted <= ERROR and (self.difference or 0.0) < 0


def compare_pairs(group: Values, reference: Values) -> Comparison:
    """Compare a group with a reference; `adjusted` is not yet corrected.

    Args:
        group: Its values by seed; larger is better.
        reference: The reference's values, likewise.
    """
    seeds = sorted(set(group) & set(reference))
    gaps = np.array([group[seed] - reference[seed] for seed in seeds], dtype=float)
    if len(gaps) < 2:
        difference = float(gaps[0]) if len(gaps) else None
        return Comparison(len(gaps), difference, None, None, 1.0, 1.0, None)
    mean, deviation = float(gaps.mean()), float(gaps.std(ddof=1))
    reach = half_width(deviation, len(gaps))
    p = paired_p(mean, deviation, len(gaps))
    shrink = 1 - 3 / (4 * (len(gaps) - 1) - 1)
    effect = shrink * mean / deviation if deviation > 0 and len(gaps) > 2 else None
    return Comparison(len(gaps), mean, mean - reach, mean + reach, p, p, effect)


def paired_p(mean: float, deviation: float, pairs: int) -> float:
    """Two-sided p of the paired t test.

    Differences that are all equal and not 0 have p 0, those that are all 0 have p 1.

    Args:
        mean: Mean difference.
        deviation: Sample standard deviation of the differences.
        pairs: Their number, at least 2.
    """
    if deviation == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean) / deviation * pairs**0.5, pairs - 1))


def correct_holm(values: Sequence[float]) -> list[float]:
    """Correct p values for their number by Holm's step-down procedure (Holm 1979).

    Args:
        values: p of each comparison.

    Returns:
        Adjusted p in the same order, at most 1; those at most `ERROR` are claims of which any is
        wrong with a chance of at most `ERROR`.
    """
    adjusted = [0.0] * len(values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted


def compare_with(groups: Mapping[int, Values], reference: int) -> dict[int, Comparison]:
    """Compare all other groups with one of them, corrected for their number.

    Args:
        groups: Group -> values by seed; larger is better.
        reference: int of the reference, chosen before the values were seen.
    """
    others = [name for name in groups if name != reference]
    compared = [compare_pairs(groups[name], groups[reference]) for name in others]
    adjusted = correct_holm([item.p for item in compared])
    return {
        name: item._replace(adjusted=p)
        for name, item, p in zip(others, compared, adjusted, strict=True)
    }


class Leader(NamedTuple):
    """The group with the best mean, and what cannot be told from it.

    Attributes:
        name: The group.
        rivals: Groups that it does not beat by more than chance, from the best mean on.
    """

    name: int
    rivals: list[int]

    @property
    def crowned(self) -> bool:
        """Whether it beats every other group by more than chance."""
        return not self.rivals


def find_leader(groups: Mapping[int, Values]) -> Leader:
    """Find the group with the best mean and whether it is the best by more than chance.

    The leader is chosen by the values that are tested, so it is crowned only if it beats all
    others at once: an intersection of tests, each corrected for their number.

    Args:
        groups: Group -> values by seed, at least one each; larger is better.

    Raises:
        ValueError: Where there is no group.
    """
    if not groups:
        raise ValueError("there must be at least one group, got none")
    means = {name: float(np.mean(list(values.values()))) for name, values in groups.items()}
    ordered = sorted(groups, key=lambda name: -means[name])
    name = ordered[0]
    compared = compare_with(groups, name)
    if len(groups) == 1 and len(groups[name]) < 2:
        return Leader(name, [])
    return Leader(name, [other for other in ordered[1:] if not compared[other].worse])


def paired_power(effect: float, pairs: int, *, error: float = ERROR) -> float:
    """Chance that the two-sided paired t test finds an effect, by the noncentral t distribution.

    Args:
        effect: Mean difference over the standard deviation of the differences.
        pairs: Number of seeds, at least 2.
        error: Level of the test.
    """
    bound = float(stats.t.ppf(1 - error / 2, pairs - 1))
    shift = effect * pairs**0.5
    above = stats.nct.sf(bound, pairs - 1, shift)
    found = float(above + stats.nct.cdf(-bound, pairs - 1, shift))
    # Far in its tail scipy has no number: the test is sure there.
    return 1.0 if math.isnan(found) else found
