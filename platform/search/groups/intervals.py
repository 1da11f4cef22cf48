"""Mean, standard deviation and 95 % intervals of a group of trainings that differ in the seed."""

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
    """A group's values of one metric.

    Attributes:
        seeds: Number of values, at least 1.
        mean: Their mean.
        deviation: Sample standard deviation; None of one value.
        low: Lower end of the 95 % interval of the mean (Student's t); None of one value.
        high: Its upper end; None of one value.
        bootstrap: Ends of the 95 % bootstrap interval (BCa); None of fewer than 8 values.
    """

    seeds: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    bootstrap: tuple[float, float] | None


def summarize(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Summary:
    """Summarize the values of one group.

    Args:
        values: One value a seed, finite.
        confidence: Of the intervals, in (0, 1).

    Raises:
        ValueError: Where there is no value.
    """
    if not values:
        raise ValueError("a group must have at least one value, got none")
    data = np.asarray(values, dtype=float)
    mean = float(data.mean())
    if len(data) < 2:
        return Summary(1, mean, None, None, None, None)
    deviation = float(data.std(ddof=1))
    reach = half_width(deviation, len(data), confidence=confidence)
    return Summary(
        len(data),
        mean,
        deviation,
        mean - reach,
        mean + reach,
        _bootstrap(data, confidence) if len(data) >= BOOTSTRAP_FROM else None,
    )


def half_width(deviation: float, count: int, *, confidence: float = CONFIDENCE) -> float:
    """Half the width of the t interval of a mean.

    Args:
        deviation: Sample standard deviation.
        count: Number of values, at least 2.
        confidence: Of the interval, in (0, 1).
    """
    quantile = float(stats.t.ppf((1 + confidence) / 2, count - 1))
    return quantile * deviation / count**0.5


def _bootstrap(data: np.ndarray, confidence: float) -> tuple[float, float]:
    """BCa interval of the mean (Efron 1987); equal values have an interval without width."""
    if np.ptp(data) == 0:
        return float(data[0]), float(data[0])
    result = stats.bootstrap(
        (data,),
        np.mean,
        confidence_level=confidence,
        n_resamples=_RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(_BOOTSTRAP_SEED),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
