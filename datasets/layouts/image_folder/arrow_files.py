"""A Hugging Face data set on disk as files: its Arrow files, read with pyarrow alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from ...spec import DataError
from .pairing import SPLIT_NAMES

_IMAGE_COLUMNS = ("image", "img", "pixel_values", "picture")


class _Cell(NamedTuple):
    """Where the bytes of an image lie."""

    file: Path
    column: str
    row: int


@dataclass(frozen=True)
class ArrowFiles:
    """What `save_to_disk` wrote: `SPLIT/data-*.arrow`, or these files alone.

    A row has two columns of images, each a struct of bytes and path; they are shown as files
    `SPLIT/images/NUMBER.png` and `SPLIT/masks/NUMBER.png`, whatever their format is.
    """

    root: Path

    def names(self) -> list[str]:
        """Names of all images and masks, sorted."""
        return sorted(_index_cells(self.root))

    def read(self, name: str) -> bytes:
        """Bytes of one image."""
        where = self.root / name
        cells = _index_cells(self.root)
        if name not in cells:
            raise DataError(f"{where}: no such row in the Arrow files")
        cell = cells[name]
        value = _open_table(cell.file)[cell.column][cell.row].as_py()
        data = None if value is None else value.get("bytes")
        if not isinstance(data, bytes):
            raise DataError(
                f"{cell.file}: row {cell.row}: {cell.column} holds no bytes (a path alone, or none)"
            )
        return data

    def archive_of(self, name: str) -> Path | None:
        """The Arrow file of a row."""
        return _index_cells(self.root)[name].file


@lru_cache(maxsize=4)
def _index_cells(root: Path) -> Mapping[str, _Cell]:
    """Name -> place of every image and mask."""
    cells: dict[str, _Cell] = {}
    files = sorted(root.rglob("*.arrow"))
    if not files:
        raise DataError(f"{root}: no Arrow file found: what save_to_disk wrote has SPLIT/*.arrow")
    numbers: dict[str, int] = {}
    for file in files:
        table = _open_table(file)
        image, mask = _find_columns(table.schema, file)
        folder = file.relative_to(root).parent.as_posix()
        split = SPLIT_NAMES.get(folder.lower(), folder)
        above = "" if split == "." else f"{split}/"
        for row in range(table.num_rows):
            number = numbers.get(above, 0)
            numbers[above] = number + 1
            cells[f"{above}images/{number:08d}.png"] = _Cell(file, image, row)
            cells[f"{above}masks/{number:08d}.png"] = _Cell(file, mask, row)
    return cells


@lru_cache(maxsize=256)
def _open_table(file: Path) -> pa.Table:
    """A memory-mapped table: rows are read where they are asked for."""
    try:
        source = pa.memory_map(str(file))
        try:
            return pa.ipc.open_stream(source).read_all()
        except pa.ArrowInvalid:
            return pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: not a readable Arrow file ({error})") from error


def _find_columns(schema: pa.Schema, file: Path) -> tuple[str, str]:
    """Names of the columns of images and of masks."""
    pictures = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
    ]
    images = [name for name in pictures if name.lower() in _IMAGE_COLUMNS]
    masks = [name for name in pictures if name not in images]
    if len(images) != 1 or len(masks) != 1:
        raise DataError(
            f"{file}: columns of images are {', '.join(pictures) or 'none'}: one of them must be "
            f"named {' or '.join(_IMAGE_COLUMNS)}, and one other holds the masks"
        )
    return images[0], masks[0]
