"""Items read by a thread ahead of the work, and handed on in groups of equal kind."""

import queue
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")
_Read = TypeVar("_Read")
_DEPTH = 4


def read_ahead(items: Iterable[_Item], read: Callable[[_Item], _Read]) -> Iterator[list[_Read]]:
    """Read items in a thread; yields all that are ready, and waits where none is.

    At most four items that were read wait to be taken, so memory does not grow with their number.

    Args:
        items: What to read; may block, as lines of a pipe do.
        read: Called in the thread.

    Returns:
        Lists of at least one item, in order.

    Raises:
        Exception: What `items` or `read` raised, after the items before it.
    """
    ready: queue.Queue[tuple[str, object]] = queue.Queue(_DEPTH)
    stop = threading.Event()

    def put(kind: str, value: object) -> bool:
        while not stop.is_set():
            try:
                ready.put((kind, value), timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    def fill() -> None:
        try:
            for item in items:
                if not put("item", read(item)):
                    return
        except BaseException as error:
            put("error", error)
        else:
            put("end", None)

    threading.Thread(target=fill, daemon=True, name="read-ahead").start()
    try:
        kind, value = ready.get()
        while kind == "item":
            taken = [value]
            kind, value = _take_ready(ready, taken)
            yield taken  # pyright: ignore[reportReturnType]
            if kind == "":
                kind, value = ready.get()
        if kind == "error":
            assert isinstance(value, BaseException)
            raise value
    finally:
        stop.set()


def _take_ready(
    ready: "queue.Queue[tuple[str, object]]", taken: list[object]
) -> tuple[str, object]:
    """Move items that are ready to a list; returns what came that is no item, or two empties."""
    while True:
        try:
            kind, value = ready.get_nowait()
        except queue.Empty:
            return "", None
        if kind != "item":
            return kind, value
        taken.append(value)


def group_equal(
    lists: Iterable[list[_Read]], key: Callable[[_Read], Hashable], size: int
) -> Iterator[list[_Read]]:
    """Split lists into groups of neighbours with equal keys, of at most `size` items."""
    for items in lists:
        group: list[_Read] = []
        for item in items:
            if group and (len(group) == size or key(item) != key(group[0])):
                yield group
                group = []
            group.append(item)
        if group:
            yield group
