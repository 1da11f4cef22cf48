"""Group means and intervals: by hand, against scipy, and how often they hold the truth."""

import numpy as np
import pytest
from scipy import stats

from spikeseg.platform.search.groups.intervals import half_width, summarize


def test_three_values_have_the_interval_of_the_table_of_t() -> None:
    summary = summarize([39.3, 40.8, 40.2])
    # t(0.975, 2) is 4.3027; the deviation of these three is 0.7550.
    assert summary.mean == pytest.approx(40.1)
    assert summary.deviation == pytest.approx(0.7550, abs=1e-4)
    assert summary.low == pytest.approx(40.1 - 4.3027 * 0.7550 / 3**0.5, abs=1e-3)
    assert summary.high == pytest.approx(40.1 + 4.3027 * 0.7550 / 3**0.5, abs=1e-3)
    assert summary.bootstrap is None


def test_one_value_has_no_interval() -> None:
    assert summarize([3.0]) == (1, 3.0, None, None, None, None)


def test_no_value_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        summarize([])


def test_equal_values_have_intervals_without_width() -> None:
    summary = summarize([2.0] * 9)
    assert (summary.low, summary.high, summary.bootstrap) == (2.0, 2.0, (2.0, 2.0))


def test_a_bootstrap_of_skewed_values_leans_to_the_long_tail() -> None:
    values = np.random.default_rng(3).exponential(size=40)
    summary = summarize(values.tolist())
    assert summary.bootstrap is not None
    low, high = summary.bootstrap
    assert low < summary.mean < high
    assert high - summary.mean > summary.mean - low


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_intervals_hold_the_mean_in_95_of_100_groups(count: int) -> None:
    data = np.random.default_rng(count).normal(7.0, 2.0, size=(4000, count))
    deviations = data.std(axis=1, ddof=1)
    reach = deviations * half_width(1.0, count)
    held = np.mean(np.abs(data.mean(axis=1) - 7.0) <= reach)
    spread = (0.95 * 0.05 / 4000) ** 0.5
    assert abs(held - 0.95) < 3 * spread
    one = summarize(data[0].tolist())
    expected = stats.t.interval(0.95, count - 1, data[0].mean(), stats.sem(data[0]))
    assert (one.low, one.high) == pytest.approx(expected)
