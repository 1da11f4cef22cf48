"""The shards of a packed data set as columns, a tenth of a kilobyte each, and their file."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..spec import DataError
from .parquet_limits import CheckedParquet
from .shard import ShardEntry

SHARD_TABLE = "shards.parquet"
# More than 10^9 rows in shards of the smallest usual size.
MOST_SHARDS = 1 << 24
# What is read at a time; larger groups of others are read, too.
_SHARDS_PER_GROUP, _MOST_GROUP = 1 << 13, 1 << 16
_MOST = (1 << 63) - 1
_FILE = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.-]{0,200}\.parquet", re.ASCII)
_HASH = re.compile("[0-9a-f]{64}")
_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("split", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.binary(32)),
        ("content", pa.binary(32)),
    ]
)


class ShardTable(Sequence[ShardEntry]):
    """Entries of shards, held as Arrow columns and made when asked for.

    Args:
        table: The columns, as `from_columns` and `read_shard_table` check them.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @classmethod
    def from_entries(cls, entries: Iterable[ShardEntry]) -> "ShardTable":
        """Make a table of entries.

        Raises:
            DataError: Names the entry and field that no shard can have.
        """
        columns: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
        for number, entry in enumerate(entries):
            for name in ("file", "split"):
                columns[name].append(getattr(entry, name))
            for name in ("rows", "bytes"):
                value = getattr(entry, name)
                if not 1 <= value <= _MOST:
                    raise DataError(
                        f"shards[{number}]: {name} must be 1..{_MOST}, got {value!s:.40}"
                    )
                columns[name].append(value)
            for name in ("sha256", "content"):
                value = getattr(entry, name)
                if not _HASH.fullmatch(value):
                    raise DataError(
                        f"shards[{number}]: {name} must be 64 hexadecimal digits, got {value!r:.40}"
                    )
                columns[name].append(bytes.fromhex(value))
        table = cls(pa.table(columns, schema=_SCHEMA))
        table.check()
        return table

    def __len__(self) -> int:
        """Number of shards."""
        return self._table.num_rows

    def __getitem__(self, index: Any) -> Any:
        """Entry of one shard."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"there are shards 0..{len(self) - 1}, got {index}")
        (row,) = self._table.slice(index, 1).to_pylist()
        return ShardEntry(**row | {"sha256": row["sha256"].hex(), "content": row["content"].hex()})

    def __iter__(self) -> Iterator[ShardEntry]:
        """Entries of all shards."""
        return (self[number] for number in range(len(self)))

    def by_split(self) -> dict[str, "ShardTable"]:
        """Split -> entries of its shards."""
        lengths: dict[str, int] = {}
        for split, _ in self._rows():
            lengths[split] = lengths.get(split, 0) + 1
        parts, start = {}, 0
        for split, length in lengths.items():
            parts[split] = ShardTable(self._table.slice(start, length))
            start += length
        return parts

    def ends(self) -> np.ndarray:
        """(N,) int64, number of rows in the shards up to and including each."""
        return np.cumsum(self._table["rows"].to_numpy())

    def sizes(self) -> Iterator[tuple[str, int]]:
        """File name and bytes of each shard."""
        for batch in self._table.select(["file", "bytes"]).to_batches(4096):
            yield from zip(batch["file"].to_pylist(), batch["bytes"].to_pylist(), strict=True)

    def contents(self) -> Iterator[tuple[str, str]]:
        """Split and content hash of each shard."""
        for batch in self._table.select(["split", "content"]).to_batches(4096):
            for split, content in zip(
                batch["split"].to_pylist(), batch["content"].to_pylist(), strict=True
            ):
                yield split, content.hex()

    def rows_by_split(self) -> dict[str, int]:
        """Split -> rows."""
        # In Python's integers: 64 bits may not hold the sum of what a file claims.
        rows: dict[str, int] = {}
        for split, count in self._rows():
            rows[split] = rows.get(split, 0) + count
        return rows

    def _rows(self) -> Iterator[tuple[str, int]]:
        """Split and rows of each shard."""
        for batch in self._table.select(["split", "rows"]).to_batches(4096):
            yield from zip(batch["split"].to_pylist(), batch["rows"].to_pylist(), strict=True)

    def write(self, target: Any) -> None:
        """Write the table as a Parquet file, uncompressed: its size bounds what reading costs."""
        plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        pq.write_table(self._table, target, row_group_size=_SHARDS_PER_GROUP, **plain)

    def check(self) -> None:
        """Check what a hostile table could say.

        Raises:
            DataError: Names the shard and field: a file outside of the folder or named twice, or
                a number that is not positive.
        """
        if self._table.num_rows == 0:
            raise DataError("shards: there must be one at least")
        seen, splits = set[int](), list[str]()
        number = 0
        for batch in self._table.to_batches(4096):
            for name in _SCHEMA.names:
                if batch[name].null_count:
                    raise DataError(f"shards: {name} must not be null")
            columns = (batch[name].to_pylist() for name in ("file", "split", "rows", "bytes"))
            for file, split, rows, size in zip(*columns, strict=True):
                if not splits or split != splits[-1]:
                    if split in splits:
                        raise DataError(f"shards[{number}]: those of a split must stand together")
                    splits.append(split)
                if not _FILE.fullmatch(file) or file == SHARD_TABLE:
                    raise DataError(
                        f"shards[{number}]: file must be the plain name of a .parquet file in the "
                        f"folder, got {file!r:.200}"
                    )
                if rows < 1 or size < 1:
                    raise DataError(
                        f"shards[{number}]: rows and bytes must be at least 1, got {rows} and "
                        f"{size}"
                    )
                number += 1
                seen.add(hash(file))
        if len(seen) != number:
            raise DataError("shards: two of them have the same file")


def read_shard_table(source: pa.NativeFile, count: int) -> ShardTable:
    """Read and check a table that `ShardTable.write` wrote.

    Args:
        source: An open file.
        count: Shards that must be in it.

    Raises:
        DataError: Says what is wrong with it.
        ArrowException: Where its bytes are damaged.
    """
    opened = CheckedParquet(source, _SCHEMA, most_rows=_MOST_GROUP)
    if opened.file.metadata.num_rows != count:
        raise DataError(f"{opened.file.metadata.num_rows} shards in it, the manifest says {count}")
    groups = [opened.read_group(number) for number in range(opened.file.num_row_groups)]
    table = ShardTable(pa.concat_tables(groups) if groups else _SCHEMA.empty_table())
    table.check()
    return table


def require_rows(table: ShardTable, splits: Mapping[str, int]) -> None:
    """Check that the shards hold the rows of the splits.

    Raises:
        DataError: Gives both.
    """
    rows = table.rows_by_split()
    for split in rows:
        if split not in splits:
            raise DataError(f"shards: split {split!r:.40} is not one of splits")
    if rows != dict(splits):
        raise DataError(f"splits are {dict(splits)}, the rows of their shards are {rows}")
