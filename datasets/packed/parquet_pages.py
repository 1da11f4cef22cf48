"""Page headers of a Parquet column: how many values its pages say that they hold.

The footer says so, too, but the reader of a list believes the pages, where nulls cost no bytes.

Source: the Parquet format, `PageHeader`, in Thrift's compact protocol.
"""

from typing import Any

import pyarrow as pa

from ..spec import DataError

_HEADER_BYTES = 4096
# Numbers of fields: of the header, and of both kinds of data page in it.
_COMPRESSED_SIZE, _NUM_VALUES = 3, 1
_DATA_PAGES = (5, 8)
_TRUE, _FALSE, _BYTE, _WHOLE, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, (4, 5, 6), 7, 8, 12


def count_page_values(source: pa.NativeFile, start: int, length: int, most: int) -> int:
    """Sum the values of a column's pages, as far as their headers say.

    Args:
        source: The open file.
        start: Offset of the first page.
        length: Bytes of all pages.
        most: Stop where there are more.

    Raises:
        DataError: Where a header is damaged or of another form.
    """
    values, at, end = 0, start, start + length
    while at < end and values <= most:
        header, size = _read_struct(source.read_at(min(_HEADER_BYTES, end - at), at), 0)
        part = next((header[field] for field in _DATA_PAGES if field in header), {})
        body = header.get(_COMPRESSED_SIZE, -1)
        if not isinstance(part, dict) or not isinstance(body, int) or body < 0:
            raise DataError("the header of a page is damaged")
        values += part.get(_NUM_VALUES, 0)
        at += size + body
    return values


def _read_struct(data: bytes, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """Fields of a struct by their numbers, and the offset behind it."""
    fields: dict[int, Any] = {}
    number = 0
    try:
        while data[at]:
            kind, step = data[at] & 15, data[at] >> 4
            at += 1
            if step:
                number += step
            else:
                number, at = _read_whole(data, at)
            fields[number], at = _read_value(data, at, kind, depth)
    except IndexError as error:
        raise DataError("the header of a page is damaged") from error
    return fields, at + 1


def _read_value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if kind in _WHOLE:
        return _read_whole(data, at)
    if kind == _BINARY:
        length, at = _read_varint(data, at)
        return None, at + length
    if kind == _STRUCT and depth < 3:
        return _read_struct(data, at, depth + 1)
    if kind in (_BYTE, _DOUBLE):
        return None, at + (1 if kind == _BYTE else 8)
    raise DataError("the header of a page is damaged")


def _read_whole(data: bytes, at: int) -> tuple[int, int]:
    value, at = _read_varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise DataError("the header of a page is damaged")
