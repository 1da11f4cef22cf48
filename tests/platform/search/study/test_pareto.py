"""Fronts by hand, then as properties against brute force."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeseg.platform.search.study.pareto import (
    Front,
    Vector,
    crowding,
    dominates,
    front,
    hypervolume,
    layers,
)

NAN = math.nan
# Few values, so that many vectors tie; zero has a negative twin, ends may be infinite.
tied = st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 1.0, 2.0, 3.0, math.inf])
numbers = st.floats(-100, 100) | st.integers(-3, 3).map(float)
pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


def peeled(vectors: list[Vector]) -> list[int]:
    """Layers by their definition: what nothing that is left dominates, again and again."""
    result = [-1] * len(vectors)
    left = set(range(len(vectors)))
    depth = 0
    while left:
        best = {i for i in left if not any(dominates(vectors[j], vectors[i]) for j in left)}
        for index in best:
            result[index] = depth
        left -= best
        depth += 1
    return result


def stairs(vectors: list[Vector], reference: Vector) -> float:
    """Area below the steps of all vectors, in the order of the first objective."""
    area, ceiling = 0.0, reference[1]
    for x, y in sorted(map(tuple, vectors)):
        if x < reference[0] and y < ceiling:
            area += (reference[0] - x) * (ceiling - y)
            ceiling = y
    return area


def vectors_of(values: st.SearchStrategy[float]) -> st.SearchStrategy[list[Vector]]:
    """Up to 30 vectors of one to four objectives."""
    sizes = st.integers(1, 4)
    return sizes.flatmap(lambda size: st.lists(st.tuples(*[values] * size), max_size=30))


def test_layers_peel_the_front_first() -> None:
    assert layers([(1, 3), (3, 1), (2, 3), (3, 3), (2, 2)]) == [0, 0, 1, 2, 0]


def test_equal_vectors_share_a_layer() -> None:
    assert layers([(1, 1), (1, 1), (2, 2)]) == [0, 0, 1]


def test_the_front_is_sorted_by_its_first_objective() -> None:
    assert front([(3, 1), (2, 2), (1, 3), (3, 3)]) == [2, 1, 0]


def test_crowding_is_infinite_at_the_ends_and_sums_the_gaps_between() -> None:
    assert crowding([(0, 4), (1, 3), (4, 0)]) == [math.inf, 2.0, math.inf]
    distances = crowding([(1, 7), (2, 5), (4, 2), (9, 1)])
    assert distances[1:3] == pytest.approx([3 / 8 + 5 / 6, 7 / 8 + 4 / 6])
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


@given(vectors_of(tied | numbers | st.just(NAN)))
def test_layers_are_those_of_the_definition_with_ties_and_values_that_are_no_numbers(
    vectors: list[Vector],
) -> None:
    assert layers(vectors) == peeled(vectors)


@given(vectors_of(tied | numbers))
def test_the_front_is_the_first_layer_in_the_order_of_its_vectors(vectors: list[Vector]) -> None:
    best = [index for index, depth in enumerate(peeled(vectors)) if depth == 0]
    assert front(vectors) == sorted(best, key=lambda index: tuple(vectors[index]))


@given(vectors_of(tied | numbers))
def test_a_growing_front_is_at_every_moment_the_front_of_what_was_added(
    vectors: list[Vector],
) -> None:
    growing = Front()
    for number, vector in enumerate(vectors):
        before = growing.keys
        added = growing.add(vector, number)
        assert growing.keys == front(vectors[: number + 1])
        assert growing.vectors == [tuple(vectors[key]) for key in growing.keys]
        assert added == (growing.keys != before) == (number in growing.keys)


@given(st.lists(st.tuples(numbers, numbers), max_size=30), st.tuples(numbers, numbers))
def test_hypervolume_is_to_the_last_digit_that_of_the_steps(
    vectors: list[Vector], reference: tuple[float, float]
) -> None:
    assert hypervolume(vectors, reference) == stairs(vectors, reference)


def test_a_vector_that_is_no_number_is_on_the_front_and_hides_nothing() -> None:
    assert layers([(NAN, 0.0), (1.0, 1.0), (2.0, 2.0), (0.0, NAN)]) == [0, 0, 1, 0]
    assert layers([(NAN, NAN)]) == [0]
    assert layers([]) == []
