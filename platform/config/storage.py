"""Where runs are kept if nobody says where."""

import os
from pathlib import Path

from .typed_paths import resolve_path

STORAGE = "SPIKESEG_STORAGE"


def default_storage() -> Path:
    """Folder of all runs: SPIKESEG_STORAGE, else `runs` in the working folder; absolute.

    Raises:
        ValueError: Where it names a variable that is not set.
    """
    try:
        return resolve_path(os.environ.get(STORAGE) or "runs")
    except ValueError as error:
        raise ValueError(f"{STORAGE}: {error}") from error
