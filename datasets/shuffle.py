"""Maps (seed, position) to a row: an endless shuffled order with random access."""

from functools import lru_cache

import numpy as np

_BLOCKS_PER_WINDOW = 16
_ROUNDS = 6
_WORD = (1 << 64) - 1


class RowOrder:
    """Position p of the endless stream is row permutation(seed, p // N)[p mod N].

    An epoch is the rows rotated by a drawn offset and cut into blocks of neighbours. The blocks
    come in a drawn order; 16 of them at a time make a window, and the rows of a window are
    shuffled. So neighbours in a batch come from 16 distant blocks, a position costs O(window) and
    never O(N), and a reader of remote shards needs those of one window only. Where the window
    holds all rows, this is a full shuffle.

    Args:
        num_rows: N, at least 1.
        seed: Decides every epoch's permutation.
        window: Rows among which order is drawn, at least 1; rounded down to whole blocks.

    Raises:
        ValueError: Where a number is too small.
    """

    def __init__(self, num_rows: int, seed: int, window: int) -> None:
        if num_rows < 1 or window < 1:
            raise ValueError(f"rows and window must be at least 1, got {num_rows} and {window}")
        self.num_rows = num_rows
        whole = window >= num_rows
        self._block = num_rows if whole else max(1, window // _BLOCKS_PER_WINDOW)
        self._window = num_rows if whole else window - window % self._block
        self._full_blocks = num_rows // self._block
        self._seed = seed
        self._inside = lru_cache(maxsize=8)(self._draw_inside)
        self._outside = lru_cache(maxsize=8)(self._draw_outside)

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
        epoch, offset_in_epoch = divmod(position, self.num_rows)
        offset, keys = self._outside(epoch)
        window, local = divmod(offset_in_epoch, self._window)
        slot = window * self._window + int(self._inside(epoch, window)[local])
        nth, within = divmod(slot, self._block)
        # A last, shorter block stays last; the offset makes it other rows in every epoch.
        block = permute(nth, self._full_blocks, keys) if nth < self._full_blocks else nth
        return (block * self._block + within + offset) % self.num_rows

    def _draw_outside(self, epoch: int) -> tuple[int, tuple[int, ...]]:
        """Rotation of the rows, and the keys of the blocks' order."""
        generator = np.random.default_rng([self._seed, epoch, 0])
        offset = int(generator.integers(self.num_rows))
        keys = generator.integers(1 << 63, size=_ROUNDS)
        return offset, tuple(int(key) for key in keys)

    def _draw_inside(self, epoch: int, window: int) -> np.ndarray:
        generator = np.random.default_rng([self._seed, epoch, 1, window])
        return generator.permutation(min(self._window, self.num_rows - window * self._window))


def permute(index: int, size: int, keys: tuple[int, ...]) -> int:
    """Map an index by a keyed permutation of 0..size-1, in constant time and memory.

    Args:
        index: In [0, size).
        size: At least 1.
        keys: One 64-bit number per round; they choose the permutation.

    Source: a balanced Feistel network over the next power of four, walked until the result is
        below `size` (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for key in keys:
            left, right = right, left ^ (_mix(right + key) & mask)
        index = left << half | right
        if index < size:
            return index


def _mix(word: int) -> int:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB & _WORD
    return word ^ word >> 31
