"""Fixtures that every room's tests share."""

import functools
import os
import re
from pathlib import Path
from typing import Any

# Ray reads this when it is first imported, which any test may do.
os.environ.setdefault("RAY_AUTH_MODE", "token")
# Bits depend on the number of threads: one, as the workers that a test compares with have.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@functools.cache
def is_serial(path: Path) -> bool:
    """Whether a file of tests starts Ray or a browser, of which only one is to run at a time."""
    return re.search(r"mark\.(ray|browser)\b", path.read_text()) is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest group begins first, so that the other process is not waited for at the end."""
    serial = {path for path in {item.path for item in items} if is_serial(path)}
    items.sort(key=lambda item: item.path in serial, reverse=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out whole files, whose tests share their fixtures, and all serial ones to one process.

    xdist's own `--dist loadgroup` does not group under pytest 9.2.
    """
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class FileScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "serial" if is_serial(config.rootpath / file) else file

    return FileScheduling(config, log)


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
