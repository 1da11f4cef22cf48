"""Reader of a user's own images: rows that were paired and checked, read at packing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...encoded_pixels import encode_bands
from ...spec import DataError, EncodedRow, LabelSpace, RawRow, Row
from ..image_label_pairs import require_equal_size
from .bands import read_bands
from .class_table import ClassTable, map_mask
from .decode import read_mask, read_picture
from .source_files import SourceFiles
from .survey import Item, draw_item


class ImageFolder:
    """A user's own images with masks or annotations.

    Args:
        source: Where the files are.
        table: The classes.
        items: Images with labels and splits, in their order.
        options: What was chosen; recorded with the packed data. `channels` is among these where
            images have others than RGB.
    """

    needs_source = True
    official_rows: Mapping[str, int] = {}

    def __init__(
        self,
        source: SourceFiles,
        table: ClassTable,
        items: Sequence[Item],
        options: Mapping[str, Any],
    ) -> None:
        self.label_space: LabelSpace = table.label_space()
        self.options: Mapping[str, Any] = dict(options)
        self._source = source
        self._table = table
        self._rows = [self._make_row(item) for item in items]

    def rows(self, source: Path, *, partial: bool) -> Sequence[RawRow]:
        """Every pair, bad ones included: `read` says what is wrong with them."""
        return self._rows

    def read(self, row: RawRow) -> EncodedRow:
        """Decode and check one pair.

        Raises:
            DataError: Names the file and the rule it breaks.
        """
        item: Item = row.details
        if item.problem:
            raise DataError(format_problem(item, self._source.root))
        where = self._source.root
        data, image, verbatim = self._read_image(item)
        size = (image.shape[0], image.shape[1])
        if item.regions is not None or item.segments is not None:
            drawn = draw_item(
                item, self._source, size, self._table.label_ids(), self._table.background_id()
            )
            label = drawn.label
        else:
            path = where / item.label
            label = map_mask(read_mask(self._source.read(item.label), path), self._table, path)
        require_equal_size(row.image, image.shape, row.label, label.shape)
        return EncodedRow(Row(row.id, image, label), data, verbatim)

    def _read_image(self, item: Item) -> tuple[bytes, np.ndarray, bool]:
        data, where = self._source.read(item.image), self._source.root / item.image
        channels = self.options.get("channels")
        if channels is None:
            return read_picture(data, where)
        image = read_bands(data, where, channels)
        return encode_bands(image), image, False

    def __getstate__(self) -> dict[str, Any]:
        """A worker is sent its own rows, and not all of them."""
        return {**self.__dict__, "_rows": []}

    def _make_row(self, item: Item) -> RawRow:
        root = self._source.root
        return RawRow(
            id=item.key,
            split=item.split or "train",
            image=root / (item.image or item.label),
            label=root / (item.label or item.image),
            sources=(item.image, item.label),
            archive=self._source.archive_of(item.image or item.label),
            details=item,
        )


def format_problem(item: Item, root: Path) -> str:
    """What is wrong with an item, beginning with its file."""
    name = str(root / item.name())
    return item.problem if str(root) in item.problem else f"{name}: {item.problem}"
