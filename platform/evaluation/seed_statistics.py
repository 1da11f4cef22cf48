"""What several seeds of one experiment say: mean, interval, and whether two experiments differ."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
"""Share of repetitions in which an interval holds the mean of all seeds."""
BOOTSTRAP_FROM = 8
"""Values from which a bootstrap interval is given: of fewer, resampling knows too few sets."""
_RESAMPLES = 2000
_BOOTSTRAP_SEED = 20


class Summary(NamedTuple):
    """Values of one metric, one a seed.

    Attributes:
        seeds: Number of values, at least 1.
        mean: Their mean.
        deviation: Sample standard deviation; None of one value.
        low: Lower end of the 95 % interval of the mean (Student's t); None of one value.
        high: Its upper end; None of one value.
    """

    seeds: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None

    @property
    def half_width(self) -> float | None:
        """Half the width of the 95 % interval; None of one value."""
        return None if self.deviation is None else half_width(self.deviation, self.seeds)


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
    """Summarize one value a seed.

    Args:
        values: Finite, at least one.

    Raises:
        ValueError: Where there is no value.
    """
    if not values:
        raise ValueError("a group must have at least one value, got none")
    data = np.asarray(values, dtype=float)
    mean = float(data.mean())
    if len(data) < 2:
        return Summary(1, mean, None, None, None)
    deviation = float(data.std(ddof=1))
    reach = half_width(deviation, len(data))
    return Summary(len(data), mean, deviation, mean - reach, mean + reach)


def half_width(deviation: float, count: int) -> float:
    """Half the width of the 95 % t interval of a mean.

    Args:
        deviation: Sample standard deviation.
        count: Number of values, at least 2.
    """
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1))
    return quantile * deviation / count**0.5


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % BCa bootstrap interval of the mean (Efron 1987).

    Args:
        values: One a seed, finite.

    Returns:
        Its ends, without width where all values are equal; None of fewer than 8 values.
    """
    if len(values) < BOOTSTRAP_FROM:
        return None
    data = np.asarray(values, dtype=float)
    if np.ptp(data) == 0:
        return float(data[0]), float(data[0])
    result = stats.bootstrap(
        (data,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=_RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(_BOOTSTRAP_SEED),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


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
    value = summarize(second).mean - summarize(first).mean
    if min(len(first), len(second)) < 2:
        return Difference(value)
    if len(set(first)) == len(set(second)) == 1:
        # Without any spread there is no t; equal runs of a deterministic training are such.
        return Difference(value, value, value)
    level = 1 - (1 - CONFIDENCE) / max(1, comparisons)
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
