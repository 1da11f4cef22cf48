"""Where runs are kept if nobody says where."""

import os
from pathlib import Path


def default_storage() -> Path:
    """Folder of all runs: SPIKESEG_STORAGE, else `runs` in the working folder."""
    return Path(os.environ.get("SPIKESEG_STORAGE", "runs"))
