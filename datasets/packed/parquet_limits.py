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


def open_checked(source: pa.NativeFile, schema: pa.Schema) -> pq.ParquetFile:
    """Open a Parquet file and compare its columns with those that it must have.

    Args:
        source: The open file.
        schema: The columns.

    Raises:
        DataError: Where it has other columns.
        ArrowException: Where its bytes are damaged.
    """
    file = pq.ParquetFile(
        source,
        thrift_string_size_limit=_MOST_FOOTER,
        thrift_container_size_limit=_MOST_ENTRIES,
    )
    columns = file.schema_arrow
    for field in schema:
        if field.name not in columns.names:
            raise DataError(f"it has no column {field.name!r}")
    if not columns.equals(schema):
        raise DataError(f"its columns are {_describe(columns)}, expected {_describe(schema)}")
    return file


def read_checked_group(
    source: pa.NativeFile,
    file: pq.ParquetFile,
    number: int,
    *,
    most_rows: int,
    columns: list[str] | None = None,
) -> pa.Table:
    """Read a row group of bounded size.

    Args:
        source: The open file.
        file: The same, its columns checked.
        number: Number of the group.
        most_rows: Most rows that a group may have.
        columns: Names of the columns; all if not given.

    Raises:
        DataError: Where it has more rows, is compressed or has dictionaries.
        ArrowException: Where its bytes are damaged.
    """
    group = file.metadata.row_group(number)
    if not 0 <= group.num_rows <= most_rows:
        raise DataError(f"row group {number} has {group.num_rows} rows, at most {most_rows}")
    for index in range(group.num_columns):
        column = group.column(index)
        name = column.path_in_schema
        if column.compression != "UNCOMPRESSED" or column.has_dictionary_page:
            raise DataError(
                f"row group {number}: column {name} is compressed or has a dictionary: it must "
                "be stored plain"
            )
        if file.schema.column(index).max_repetition_level:
            # Nulls and repeated truth values cost no bytes: their number is bounded by itself.
            most = max(1, group.num_rows) * _MOST_VALUES_OF_A_ROW
            start, length = column.data_page_offset, column.total_compressed_size
            values = max(column.num_values, count_page_values(source, start, length, most))
            if values > most:
                raise DataError(
                    f"row group {number}: column {name} has {values} values, at most "
                    f"{_MOST_VALUES_OF_A_ROW} in each of its {group.num_rows} rows"
                )
    return file.read_row_group(number, columns=columns, use_threads=False)


def _describe(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)[:400]
