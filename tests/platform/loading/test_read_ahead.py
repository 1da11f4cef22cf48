"""Items come in order, as soon as they are ready, and errors where they belong."""

import threading
from collections.abc import Iterator

import pytest

from spikeseg.platform.loading.read_ahead import group_equal, read_ahead


def flatten(lists: Iterator[list[int]]) -> list[int]:
    return [item for items in lists for item in items]


def test_all_items_come_in_order() -> None:
    assert flatten(read_ahead(range(50), lambda item: item * 2)) == list(range(0, 100, 2))
    assert flatten(read_ahead([], lambda item: item)) == []


def test_the_first_item_does_not_wait_for_the_second() -> None:
    taken = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        assert taken.wait(30)
        yield 2

    lists = read_ahead(items(), lambda item: item)
    assert next(lists) == [1]
    taken.set()
    assert flatten(lists) == [2]


def test_few_items_are_read_before_they_are_taken() -> None:
    read: list[int] = []
    lists = read_ahead(range(1000), lambda item: read.append(item) or item)
    next(lists)
    threading.Event().wait(0.3)
    assert len(read) < 20
    lists.close()  # pyright: ignore[reportAttributeAccessIssue]


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    seen: list[int] = []
    with pytest.raises(ValueError, match="no more"):
        for part in read_ahead(items(), lambda item: item):
            seen.extend(part)
    assert seen == [1]


def test_groups_are_neighbours_with_equal_keys_up_to_a_size() -> None:
    groups = group_equal([[1, 1, 1, 2, 1], [1, 3]], lambda item: item, 2)
    assert list(groups) == [[1, 1], [1], [2], [1], [1], [3]]
