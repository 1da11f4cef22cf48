"""(seed, position) to row: an endless, shuffled order that any worker can enter anywhere."""

from functools import lru_cache

import numpy as np


class RowOrder:
    """Position p of the endless stream is row permutation(seed, p // N)[p mod N].

    An epoch is the rows rotated by a drawn offset, cut into windows of `window` rows; the windows
    come in a drawn order and the rows inside each window too. So a position costs O(window) at
    most, never O(N), and rows that share a window in one epoch are spread in the next.

    Args:
        num_rows: N, at least 1.
        seed: Decides every epoch's permutation.
        window: Rows among which order is drawn; at least 1.

    Raises:
        ValueError: Where a number is too small.
    """

    def __init__(self, num_rows: int, seed: int, window: int) -> None:
        if num_rows < 1 or window < 1:
            raise ValueError(f"rows and window must be at least 1, got {num_rows} and {window}")
        self.num_rows = num_rows
        self._window = min(window, num_rows)
        self._windows = -(-num_rows // self._window)
        self._seed = seed
        self._inside = lru_cache(maxsize=4)(self._draw_inside)
        self._outside = lru_cache(maxsize=4)(self._draw_outside)

    def epoch(self, position: int) -> int:
        """Number of the epoch that a position lies in."""
        return position // self.num_rows

    def row(self, position: int) -> int:
        """Row at a position of the stream, from 0.

        Raises:
            ValueError: Where the position is negative.
        """
        if position < 0:
            raise ValueError(f"a position is at least 0, got {position}")
        epoch, place = divmod(position, self.num_rows)
        offset, order, starts = self._outside(epoch)
        nth = int(np.searchsorted(starts, place, side="right")) - 1
        window = int(order[nth])
        inside = self._inside(epoch, window)
        local = int(inside[place - int(starts[nth])])
        return (window * self._window + local + offset) % self.num_rows

    def _draw_outside(self, epoch: int) -> tuple[int, np.ndarray, np.ndarray]:
        """Rotation of the rows, order of the windows, and the place each of them starts at."""
        generator = np.random.default_rng([self._seed, epoch, 0])
        offset = int(generator.integers(self.num_rows))
        order = generator.permutation(self._windows)
        sizes = np.array([self._size(int(window)) for window in order])
        return offset, order, np.concatenate(([0], np.cumsum(sizes)[:-1]))

    def _draw_inside(self, epoch: int, window: int) -> np.ndarray:
        generator = np.random.default_rng([self._seed, epoch, 1, window])
        return generator.permutation(self._size(window))

    def _size(self, window: int) -> int:
        return min(self._window, self.num_rows - window * self._window)
