"""Mean and deviation of every channel of a split's images, from exact whole numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..images import count_values

_VALUES = np.arange(256, dtype=np.int64)


class ChannelSums:
    """Pixels, sum and sum of squares of each channel; adding images in any order gives the same.

    Attributes:
        pixels: Pixels that were added.
        total: Sum of each channel's values; empty before the first image.
        squares: Sum of their squares.
    """

    def __init__(self) -> None:
        self.pixels = 0
        self.total: list[int] = []
        self.squares: list[int] = []

    def add_image(self, image: np.ndarray) -> None:
        """Add the pixels of an image.

        Args:
            image: (H, W, C) uint8.
        """
        counts = [count_values(image[..., channel]) for channel in range(image.shape[2])]
        total = [int((count * _VALUES).sum()) for count in counts]
        squares = [int((count * _VALUES**2).sum()) for count in counts]
        self._add(image.shape[0] * image.shape[1], total, squares)

    def add(self, other: "ChannelSums") -> None:
        """Add the sums of other images."""
        self._add(other.pixels, other.total, other.squares)

    def describe(self) -> dict[str, list[float]]:
        """`mean` and `std` of each channel on the 0..255 scale, to two decimals.

        A channel that hardly varies has 1 as deviation: it is divided by.
        """
        pixels = max(1, self.pixels)
        mean = np.array(self.total, np.float64) / pixels
        variance = np.array(self.squares, np.float64) / pixels - mean**2
        deviation = np.sqrt(np.maximum(variance, 1.0))
        return {"mean": np.round(mean, 2).tolist(), "std": np.round(deviation, 2).tolist()}

    def to_json(self) -> list[Any]:
        """The sums as JSON types."""
        return [self.pixels, self.total, self.squares]

    @classmethod
    def from_json(cls, content: Sequence[Any]) -> "ChannelSums":
        """Read what `to_json` returned."""
        sums = cls()
        sums.pixels, sums.total, sums.squares = content
        return sums

    def _add(self, pixels: int, total: Sequence[int], squares: Sequence[int]) -> None:
        if not total:
            return
        self.pixels += pixels
        self.total = [a + b for a, b in zip(self.total or [0] * len(total), total, strict=True)]
        self.squares = [
            a + b for a, b in zip(self.squares or [0] * len(squares), squares, strict=True)
        ]
