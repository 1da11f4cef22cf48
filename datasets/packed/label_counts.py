"""Exact counts of label pixels: by class, by image, and by cell of a grid of relative position."""

import base64
import zlib

import numpy as np

from ..images import count_values

GRID = 32
# Values that a label of 8 bits can have.
_VALUES = 256


class LabelCounts:
    """Integer counts over label maps; adding them in any order gives the same counts.

    A pixel (y, x) of a label of H x W lies in the cell (32 y // H, 32 x // W). Ignored pixels are
    counted nowhere.

    Args:
        num_classes: K.

    Attributes:
        cells: (32, 32, K) int64, labelled pixels of each class in each cell.
        rows: (K,) int64, label maps in which the class has at least one pixel.
        largest: Pixels of the largest label map, ignored ones included.
    """

    def __init__(self, num_classes: int) -> None:
        self.cells = np.zeros((GRID, GRID, num_classes), np.int64)
        self.rows = np.zeros(num_classes, np.int64)
        self.largest = 0

    @property
    def pixels(self) -> np.ndarray:
        """(K,) int64, labelled pixels of each class."""
        return self.cells.sum((0, 1))

    def add_label(self, label: np.ndarray) -> None:
        """Count one label map.

        Args:
            label: (H, W) uint8 train ids; values from K on are ignored.
        """
        height, width = label.shape
        classes = len(self.rows)
        # The first pixel of each cell: the smallest y with 32 y // H = cell.
        bounds = -(-np.arange(GRID + 1) * height // GRID)
        columns = np.arange(width) * GRID // width * _VALUES
        for cell in range(GRID):
            band = label[bounds[cell] : bounds[cell + 1]]
            if band.size:
                counts = np.bincount((columns + band).ravel(), minlength=GRID * _VALUES)
                self.cells[cell] += counts.reshape(GRID, _VALUES)[:, :classes]
        self.rows += count_values(label)[:classes] > 0
        self.largest = max(self.largest, label.size)

    def add(self, other: "LabelCounts") -> None:
        """Add the counts of other label maps."""
        self.cells += other.cells
        self.rows += other.rows
        self.largest = max(self.largest, other.largest)

    def to_text(self) -> str:
        """The counts as compressed text; `from_text` reads it back."""
        content = b"".join(part.astype("<i8").tobytes() for part in self._parts())
        return base64.b85encode(zlib.compress(content, 1)).decode()

    @classmethod
    def from_text(cls, text: str, num_classes: int) -> "LabelCounts":
        """Read what `to_text` returned.

        Raises:
            ValueError: Where it is damaged, or of another number of classes.
        """
        counts = cls(num_classes)
        length = sum(part.nbytes for part in counts._parts())
        try:
            content = zlib.decompressobj().decompress(base64.b85decode(text), length + 1)
        except zlib.error as error:
            raise ValueError(f"label counts are damaged ({error})") from error
        if len(content) != length:
            raise ValueError(f"label counts have {len(content)} bytes, expected {length}")
        cells = counts.cells.size
        values = np.frombuffer(content, "<i8").astype(np.int64)
        counts.cells += values[:cells].reshape(counts.cells.shape)
        counts.rows += values[cells:-1]
        counts.largest = int(values[-1])
        return counts

    def _parts(self) -> tuple[np.ndarray, ...]:
        return self.cells, self.rows, np.array([self.largest])
