"""Means over seeds, and when a difference is more than the spread of seeds."""

import numpy as np
import pytest
from scipy import stats

from spikeseg.platform.evaluation.number_text import (
    round_difference,
    round_interval,
    round_metric,
    round_share,
)
from spikeseg.platform.evaluation.seed_statistics import (
    bootstrap_interval,
    compare_seeds,
    find_best,
    half_width,
    summarize,
)


def test_three_values_have_the_interval_of_the_table_of_t() -> None:
    summary = summarize([39.3, 40.8, 40.2])
    # t(0.975, 2) is 4.3027; the deviation of these three is 0.7550.
    assert summary.mean == pytest.approx(40.1)
    assert summary.deviation == pytest.approx(0.7550, abs=1e-4)
    assert summary.low == pytest.approx(40.1 - 4.3027 * 0.7550 / 3**0.5, abs=1e-3)
    assert summary.high == pytest.approx(40.1 + 4.3027 * 0.7550 / 3**0.5, abs=1e-3)
    assert summary.half_width == pytest.approx(4.3027 * 0.7550 / 3**0.5, abs=1e-3)
    assert bootstrap_interval([39.3, 40.8, 40.2]) is None


def test_one_value_has_no_interval() -> None:
    assert summarize([3.0]) == (1, 3.0, None, None, None)
    assert summarize([3.0]).half_width is None


def test_no_value_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        summarize([])


def test_equal_values_have_intervals_without_width() -> None:
    summary = summarize([2.0] * 9)
    assert (summary.low, summary.high) == bootstrap_interval([2.0] * 9) == (2.0, 2.0)


def test_a_bootstrap_of_skewed_values_leans_to_the_long_tail() -> None:
    values = np.random.default_rng(3).exponential(size=40).tolist()
    ends = bootstrap_interval(values)
    assert ends is not None
    low, high = ends
    mean = summarize(values).mean
    assert low < mean < high
    assert high - mean > mean - low


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


def test_one_seed_cannot_tell() -> None:
    difference = compare_seeds([10.0], [90.0, 91.0])
    assert difference.value == 80.5
    assert not difference.known
    assert not difference.beyond_seeds


def test_a_clear_difference_is_beyond_seeds_and_an_unclear_one_is_not() -> None:
    first = [20.0, 20.5, 21.0]
    assert compare_seeds(first, [30.0, 30.5, 31.0]).beyond_seeds
    assert not compare_seeds(first, [20.4, 21.2, 20.9]).beyond_seeds


def test_many_comparisons_widen_the_interval() -> None:
    first, second = [20.0, 21.0, 22.0], [23.0, 24.0, 25.0]
    alone, among = compare_seeds(first, second), compare_seeds(first, second, comparisons=10)
    assert alone.low is not None and among.low is not None
    assert among.low < alone.low


def test_equal_runs_do_not_differ() -> None:
    assert not compare_seeds([5.0, 5.0], [5.0, 5.0]).beyond_seeds
    assert compare_seeds([5.0, 5.0], [6.0, 6.0]).beyond_seeds


def test_only_what_beats_every_other_is_best() -> None:
    low, middle, high = [20.0, 20.5, 21.0], [29.0, 30.5, 31.0], [30.0, 30.9, 31.5]
    assert find_best([low, middle], minimize=False) == 1
    assert find_best([low, middle], minimize=True) == 0
    assert find_best([low, middle, high], minimize=False) is None
    assert find_best([[20.0], [90.0]], minimize=False) is None
    assert find_best([[], [90.0, 91.0]], minimize=False) is None


@pytest.mark.parametrize(
    ("name", "value", "half_width", "text"),
    [
        ("val/mIoU", 29.002830168298676, None, "29.0"),
        ("energy/mJ", 0.03332838991082764, None, "0.0333"),
        ("val/mIoU", 29.0028, 1.234, "29.0 ± 1.2"),
        ("energy/mJ", 0.033328, 0.00123, "0.0333 ± 0.0012"),
        ("best/step", 240.0, None, "240"),
        ("val/mIoU", None, None, "-"),
        ("val/mIoU", float("nan"), None, "nan"),
        ("energy/mJ", 1234.5678, None, "1235"),
        ("energy/mJ", 1e200, None, "1e+200"),
        ("energy/mJ", 2.5e-9, None, "2.5e-09"),
        ("energy/mJ", 0.0, None, "0"),
    ],
)
def test_a_number_has_the_digits_that_mean_something(
    name: str, value: float | None, half_width: float | None, text: str
) -> None:
    assert round_metric(name, value, half_width) == text


def test_a_difference_has_a_sign_unless_it_vanishes() -> None:
    assert round_difference("val/mIoU", 1.26) == "+1.3"
    assert round_difference("val/mIoU", -1.26) == "-1.3"
    assert round_difference("val/mIoU", 0.01) == "0.0"


@pytest.mark.parametrize(
    ("name", "low", "high", "text"),
    [
        ("val/mIoU", 48.7696, 52.5637, "48.8 to 52.6"),
        ("val/mIoU", 40.0, 40.0, "40.0 to 40.0"),
        ("energy/mJ", 0.03111, 0.03357, "0.0311 to 0.0336"),
        ("energy/mJ", -0.5, 1e300 * 10**9, "-0.500 to inf"),
    ],
)
def test_an_interval_has_the_digits_of_its_width(
    name: str, low: float, high: float, text: str
) -> None:
    assert round_interval(name, low, high) == text


def test_a_small_probability_is_no_zero() -> None:
    assert [round_share(value) for value in (0.0, 0.0004, 0.031234, 1.0)] == [
        "< 0.001",
        "< 0.001",
        "0.031",
        "1",
    ]
