"""Label files in Matlab's format."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from ..spec import DataError

# Of a version 5 file: its header, the tag of each element, and the kind that is compressed.
_HEADER, _TAG, _COMPRESSED = 128, 8, 15
_PIECE = 1 << 20
# A label of 8 million pixels in 8 bytes each.
_MOST_BYTES = 64 << 20


def read_matlab(path: Path, needed: str) -> dict[str, Any]:
    """Read the variables of a .mat file.

    Args:
        path: The file, of Matlab version 4 to 7.2.
        needed: A variable that must be in it.

    Raises:
        DataError: Where the file is missing or damaged, grows beyond a label's size, or lacks the
            variable.
    """
    try:
        data = path.read_bytes()
        _require_bounded(path, data)
        content = loadmat(io.BytesIO(data))
    except DataError:
        raise
    except Exception as error:
        # Damaged bytes make the reader raise anything: zlib.error, IndexError, struct.error.
        raise DataError(f"{path}: the label cannot be decoded ({error})") from error
    if needed not in content:
        raise DataError(f"{path}: no variable {needed!r} in it")
    return content


def require_whole_numbers(path: Path, name: str, values: Any) -> np.ndarray:
    """Check that a variable is a matrix of whole numbers, and return it.

    Args:
        path: Named in errors.
        name: The variable's name, likewise.
        values: What the file holds.

    Returns:
        (H, W) int64, with at least one element.

    Raises:
        DataError: Where it is empty, sparse, of another type or shape, or has fractions.
    """
    matrix = np.asarray(values)
    if matrix.ndim == 2 and matrix.size and matrix.dtype.kind in "iuf":
        with np.errstate(invalid="ignore"):
            whole = matrix.astype(np.int64)
        if np.array_equal(whole, matrix):
            return whole
    raise DataError(
        f"{path}: {name} must be a matrix of whole numbers, got {matrix.dtype} {matrix.shape}"
    )


def _require_bounded(path: Path, data: bytes) -> None:
    """Unpack the compressed variables of a version 5 file piece by piece, keeping none."""
    total, start = 0, _HEADER
    order = ">" if data[_HEADER - 2 : _HEADER] == b"MI" else "<"
    while start + _TAG <= len(data):
        kind, length = struct.unpack_from(f"{order}II", data, start)
        part = memoryview(data)[start + _TAG : start + _TAG + length]
        if kind == _COMPRESSED:
            unpacking = zlib.decompressobj()
            while part and not unpacking.eof:
                total += len(unpacking.decompress(part, _PIECE))
                part = unpacking.unconsumed_tail
                if total > _MOST_BYTES:
                    raise DataError(
                        f"{path}: the label cannot be decoded (its {len(data)} bytes unpack to "
                        f"more than {_MOST_BYTES})"
                    )
        start += _TAG + length
