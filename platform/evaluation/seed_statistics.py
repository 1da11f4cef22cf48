"""What several seeds of one experiment say: mean, interval, and whether two experiments differ."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy import stats

LEVEL = 0.95


class Summary(NamedTuple):
    """Mean of a metric over seeds.

    Attributes:
        mean: The mean.
        half_width: Half of its 95 % interval (Student's t); None of a single seed.
        seeds: How many seeds.
    """

    mean: float
    half_width: float | None
    seeds: int


class Difference(NamedTuple):
    """Difference of two means over seeds, second minus first.

    Attributes:
        value: The difference.
        low: Lower end of its interval (Welch); None where a side has a single seed.
        high: Upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def known(self) -> bool:
        """Whether both sides have several seeds, so that there is an interval."""
        return self.low is not None

    @property
    def beyond_seeds(self) -> bool:
        """Whether the difference is more than what seeds alone explain; False where not known."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def summarize(values: Sequence[float]) -> Summary:
    """Mean and interval of one value a seed.

    Args:
        values: At least one.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Summary(mean, None, count)
    spread = statistics.stdev(values)
    return Summary(
        mean, float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * spread / count**0.5, count
    )


def compare_seeds(
    first: Sequence[float], second: Sequence[float], *, comparisons: int = 1
) -> Difference:
    """Compare two experiments by one value a seed (Welch's t).

    Args:
        first: Values of one experiment, at least one.
        second: Those of the other.
        comparisons: Comparisons of which this is one; the interval is widened for them
            (Bonferroni).
    """
    value = math.fsum(second) / len(second) - math.fsum(first) / len(first)
    if min(len(first), len(second)) < 2:
        return Difference(value)
    if len(set(first)) == len(set(second)) == 1:
        # Without any spread there is no t; equal runs of a deterministic training are such.
        return Difference(value, value, value)
    level = 1 - (1 - LEVEL) / max(1, comparisons)
    result = stats.ttest_ind(list(second), list(first), equal_var=False)
    interval = result.confidence_interval(level)
    return Difference(value, float(interval.low), float(interval.high))


def find_best(groups: Sequence[Sequence[float]], *, minimize: bool) -> int | None:
    """Index of the experiment that beats every other by more than seeds explain; None for none.

    Args:
        groups: One value a seed of each experiment; experiments without a value are passed over.
        minimize: Whether smaller is better.
    """
    sign = -1 if minimize else 1
    known = [index for index, values in enumerate(groups) if values]
    if len(known) < 2:
        return None
    best = max(known, key=lambda index: sign * summarize(groups[index]).mean)
    others = [index for index in known if index != best]
    beaten = all(
        compare_seeds(groups[other], groups[best], comparisons=len(others)).beyond_seeds
        for other in others
    )
    return best if beaten else None
