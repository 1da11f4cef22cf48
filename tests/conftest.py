"""Fixtures that every room's tests share."""

import os
from pathlib import Path

# Ray reads this when it is first imported, which any test may do.
os.environ.setdefault("RAY_AUTH_MODE", "token")
# Bits depend on the number of threads: one, as the workers that a test compares with have.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups for `-n 2 --dist loadgroup`: a file's tests share their fixtures in one process.

    What starts Ray or a browser is one group, so that no two of them run at once. First, since
    xdist reads the groups in the same hook.
    """

    def is_serial(item: pytest.Item) -> bool:
        return any(item.get_closest_marker(name) for name in ("ray", "browser"))

    for item in items:
        group = "serial" if is_serial(item) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
    # The longest group begins first, so that the other process is not waited for at the end.
    items.sort(key=is_serial, reverse=True)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root folder."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Folder with `reference/` and `data/`, from SPIKESEG_SHARED or beside the repository."""
    folder = Path(os.environ.get("SPIKESEG_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "reference").is_dir():
        pytest.skip(f"no reference/ in {folder}: set SPIKESEG_SHARED to the folder that holds it")
    return folder
