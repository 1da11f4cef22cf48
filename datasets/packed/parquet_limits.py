"""Parquet files of others: read only in the form in which we write them, at bounded cost.

We write without compression and without dictionaries, so that a column takes about its size in
the file; what claims to grow beyond it, or has other columns, is refused before it is read.
"""

import pyarrow as pa
import pyarrow.parquet as pq

from ..spec import DataError
from .parquet_pages import count_page_values

# Bytes of a footer, of one text in it, and of entries in one of its lists.
_MOST_FOOTER = 64 << 20
_MOST_ENTRIES = 1 << 21
# Segments of an image, which its 16-bit map can number.
_MOST_VALUES_OF_A_ROW = 1 << 16


class CheckedParquet:
    """An open Parquet file whose columns, and each group before it is read, are checked.

    Args:
        source: The open file.
        schema: The columns that it must have.
        most_rows: Most rows that a group may have.

    Attributes:
        file: The file as pyarrow opens it.

    Raises:
        DataError: Where it has other columns.
        ArrowException: Where its bytes are damaged.
    """

    def __init__(self, source: pa.NativeFile, schema: pa.Schema, *, most_rows: int) -> None:
        self._source = source
        self._most_rows = most_rows
        self.file = pq.ParquetFile(
            source,
            thrift_string_size_limit=_MOST_FOOTER,
            thrift_container_size_limit=_MOST_ENTRIES,
        )
        columns = self.file.schema_arrow
        for field in schema:
            if field.name not in columns.names:
                raise DataError(f"it has no column {field.name!r}")
        if not columns.equals(schema):
            raise DataError(f"its columns are {_describe(columns)}, expected {_describe(schema)}")
        stored = self.file.schema
        self._is_list = [
            stored.column(index).max_repetition_level > 0 for index in range(len(stored.names))
        ]
        self._checked: set[int] = set()

    def read_group(self, number: int, columns: list[str] | None = None) -> pa.Table:
        """Read a row group of bounded size.

        Args:
            number: Number of the group.
            columns: Names of the columns; all if not given.

        Raises:
            DataError: Where it has more rows, is compressed or has dictionaries.
            ArrowException: Where its bytes are damaged.
        """
        if number not in self._checked:
            self._check_group(number)
            self._checked.add(number)
        return self.file.read_row_group(number, columns=columns, use_threads=False)

    def _check_group(self, number: int) -> None:
        group = self.file.metadata.row_group(number)
        if not 0 <= group.num_rows <= self._most_rows:
            raise DataError(
                f"row group {number} has {group.num_rows} rows, at most {self._most_rows}"
            )
        most = max(1, group.num_rows) * _MOST_VALUES_OF_A_ROW
        for index, is_list in enumerate(self._is_list):
            column = group.column(index)
            name = column.path_in_schema
            if column.compression != "UNCOMPRESSED" or column.has_dictionary_page:
                raise DataError(
                    f"row group {number}: column {name} is compressed or has a dictionary: it "
                    "must be stored plain"
                )
            if is_list:
                # Nulls and repeated truth values cost no bytes: only their number bounds them.
                start, length = column.data_page_offset, column.total_compressed_size
                values = count_page_values(self._source, start, length, most)
                values = max(values, column.num_values)
                if values > most:
                    raise DataError(
                        f"row group {number}: column {name} has {values} values, at most "
                        f"{_MOST_VALUES_OF_A_ROW} in each of its {group.num_rows} rows"
                    )


def _describe(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)[:400]
