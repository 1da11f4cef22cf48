"""The order of rows: every row once an epoch, reached from anywhere, well mixed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeseg.datasets.shuffle import RowOrder, permute

SIZES = st.integers(1, 400)
WINDOWS = st.integers(1, 500)
SEEDS = st.integers(0, 2**63 - 1)


def epoch(order: RowOrder, number: int) -> np.ndarray:
    start = number * order.num_rows
    return np.array([order.row(position) for position in range(start, start + order.num_rows)])


@given(rows=SIZES, window=WINDOWS, seed=SEEDS, number=st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_every_row_comes_exactly_once_an_epoch(
    rows: int, window: int, seed: int, number: int
) -> None:
    assert sorted(epoch(RowOrder(rows, seed, window), number)) == list(range(rows))


@given(rows=SIZES, window=WINDOWS, seed=SEEDS, positions=st.lists(st.integers(0, 10**9)))
@settings(max_examples=60, deadline=None)
def test_a_position_gives_the_same_row_whatever_was_read_before(
    rows: int, window: int, seed: int, positions: list[int]
) -> None:
    used = RowOrder(rows, seed, window)
    for position in positions:
        assert used.row(position) == RowOrder(rows, seed, window).row(position)
        assert used.epoch(position) == position // rows


@given(rows=SIZES, window=WINDOWS, seed=SEEDS, workers=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_micro_batches_are_the_same_for_any_number_of_workers(
    rows: int, window: int, seed: int, workers: int
) -> None:
    size, micro_batches, steps = 3, 4, 5
    whole = RowOrder(rows, seed, window)
    stream = [whole.row(position) for position in range(size * micro_batches * steps)]
    parts = {}
    for worker in range(workers):
        order = RowOrder(rows, seed, window)
        for step in range(steps):
            for index in range(worker, micro_batches, workers):
                first = (step * micro_batches + index) * size
                parts[step, index] = [order.row(p) for p in range(first, first + size)]
    assert [row for key in sorted(parts) for row in parts[key]] == stream


@given(size=st.integers(1, 300), keys=st.tuples(*[SEEDS] * 6))
@settings(max_examples=100, deadline=None)
def test_keyed_permutations_are_permutations(size: int, keys: tuple[int, ...]) -> None:
    assert sorted(permute(index, size, keys) for index in range(size)) == list(range(size))


def test_keyed_permutations_of_three_reach_all_six_orders() -> None:
    generator = np.random.default_rng(0)
    keys = [tuple(generator.integers(1 << 63, size=6).tolist()) for _ in range(200)]
    seen = {tuple(permute(index, 3, key) for index in range(3)) for key in keys}
    assert len(seen) == 6


def test_one_window_over_all_rows_is_numpys_shuffle() -> None:
    generator = np.random.default_rng([7, 2, 0])
    offset = int(generator.integers(50))
    inside = np.random.default_rng([7, 2, 1, 0]).permutation(50)
    np.testing.assert_array_equal(epoch(RowOrder(50, 7, 50), 2), (inside + offset) % 50)


def test_epochs_and_seeds_differ() -> None:
    order = RowOrder(1000, 0, 64)
    assert (epoch(order, 0) == epoch(order, 1)).mean() < 0.02
    assert (epoch(order, 0) == epoch(RowOrder(1000, 1, 64), 0)).mean() < 0.02


@pytest.mark.parametrize("window", [512, 4096, 20000])
def test_the_order_is_mixed_about_as_well_as_a_full_shuffle(window: int) -> None:
    rows = 20000
    rank, serial, gap = [], [], []
    for seed in range(2):
        drawn = epoch(RowOrder(rows, seed, window), seed)
        rank.append(np.corrcoef(drawn, np.arange(rows))[0, 1])
        serial.append(np.corrcoef(drawn[1:], drawn[:-1])[0, 1])
        gap.append(np.median(np.abs(np.diff(drawn))) / rows)
    # A full shuffle has means 0 and 0, and a median gap of 0.293. Between windows the rank
    # correlation is that of `rows / window` draws, so the smaller their number the wider it is.
    assert abs(np.mean(rank)) < 3 / np.sqrt(16 * max(1, rows // window))
    assert abs(np.mean(serial)) < 0.1
    assert 0.22 < np.mean(gap) < 0.32


def test_a_step_of_a_window_comes_from_far_places() -> None:
    # 16 blocks lie in a window of 512: a batch of 16 out of 20000 spans most of the rows.
    order = RowOrder(20000, 3, 512)
    spans = [np.ptp([order.row(p) for p in range(s, s + 16)]) for s in range(0, 16000, 160)]
    assert np.median(spans) > 15000


@pytest.mark.parametrize(("rows", "window"), [(0, 1), (1, 0), (-3, 4)])
def test_numbers_below_one_are_refused(rows: int, window: int) -> None:
    with pytest.raises(ValueError, match=r"at least 1"):
        RowOrder(rows, 0, window)


def test_negative_positions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 0, got -1"):
        RowOrder(3, 0, 3).row(-1)
