"""Label files in Matlab's format."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from ..spec import DataError


def read_matlab(path: Path, needed: str) -> dict[str, Any]:
    """Read the variables of a .mat file.

    Args:
        path: The file, of Matlab version 4 to 7.2.
        needed: A variable that must be in it.

    Raises:
        DataError: Where the file is missing or damaged, or lacks the variable.
    """
    try:
        content = loadmat(path)
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
