"""Means over seeds, and when a difference is more than the spread of seeds."""

import pytest

from spikeseg.platform.evaluation.number_text import round_difference, round_metric
from spikeseg.platform.evaluation.seed_statistics import compare_seeds, find_best, summarize


def test_an_interval_is_students() -> None:
    mean, half_width, count = summarize([10.0, 12.0, 14.0])
    assert (mean, count) == (12.0, 3)
    # 4.303 is t at 97.5 % with two degrees of freedom; the spread is 2.
    assert half_width == pytest.approx(4.303 * 2 / 3**0.5, rel=1e-3)


def test_one_seed_has_no_interval_and_cannot_tell() -> None:
    assert summarize([10.0]).half_width is None
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
