"""Fronts by hand, then as properties against brute force."""

import math

from hypothesis import given
from hypothesis import strategies as st

from spikeseg.platform.search.study.pareto import crowding, dominates, front, hypervolume, layers

pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


def test_layers_peel_the_front_first() -> None:
    assert layers([(1, 3), (3, 1), (2, 3), (3, 3), (2, 2)]) == [0, 0, 1, 2, 0]


def test_equal_vectors_share_a_layer() -> None:
    assert layers([(1, 1), (1, 1), (2, 2)]) == [0, 0, 1]


def test_the_front_is_sorted_by_its_first_objective() -> None:
    assert front([(3, 1), (2, 2), (1, 3), (3, 3)]) == [2, 1, 0]


def test_crowding_is_infinite_at_the_ends_and_sums_the_gaps_between() -> None:
    assert crowding([(0, 4), (1, 3), (4, 0)]) == [math.inf, 2.0, math.inf]
    assert crowding([]) == []


def test_hypervolume_of_two_steps_is_their_area() -> None:
    # Between (1, 3), (2, 1) and the reference (4, 4): 3 x 1 and 2 x 2.
    assert hypervolume([(1, 3), (2, 1), (3, 3)], (4, 4)) == 3 * 1 + 2 * 2
    assert hypervolume([(5, 0)], (4, 4)) == 0


@given(pairs)
def test_nothing_dominates_the_front_and_the_front_dominates_the_rest(
    vectors: list[tuple[int, int]],
) -> None:
    best = front(vectors)
    for index, vector in enumerate(vectors):
        beaten = any(dominates(other, vector) for other in vectors)
        assert (index in best) == (not beaten)


@given(pairs)
def test_hypervolume_counts_the_cells_that_the_front_covers(
    vectors: list[tuple[int, int]],
) -> None:
    cells = {
        (x, y) for x in range(7) for y in range(7) if any(a <= x and b <= y for a, b in vectors)
    }
    assert hypervolume(vectors, (7, 7)) == len(cells)
