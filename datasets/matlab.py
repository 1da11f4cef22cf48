"""Label files in Matlab's format."""

from pathlib import Path
from typing import Any

from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from .spec import DataError


def read_matlab(path: Path, needed: str) -> dict[str, Any]:
    """Variables of a .mat file.

    Args:
        path: The file, of Matlab version 4 to 7.2.
        needed: A variable that must be in it.

    Raises:
        DataError: Where the file is missing or damaged, or lacks the variable.
    """
    try:
        content = loadmat(path)
    except (OSError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
        raise DataError(f"{path}: the label cannot be decoded ({error})") from error
    if needed not in content:
        raise DataError(f"{path}: no variable {needed!r} in it")
    return content
