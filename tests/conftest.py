"""Fixtures that every room's tests share."""

import ast
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
def is_serial(path: Path, slow: bool) -> bool:
    """Whether a file of tests starts Ray or a browser, of which only one is to run at a time.

    Args:
        path: The file.
        slow: Whether its slow tests run, too.
    """
    tree = ast.parse(path.read_text())
    marks = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign)]
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    marks += ["\n".join(map(ast.unparse, test.decorator_list)) for test in tests]
    return any(
        re.search(r"mark\.(ray|browser)\b", text)
        and (slow or not re.search(r"^pytest\.mark\.slow", text, re.MULTILINE))
        for text in marks
    )


def _runs_slow_tests(config: pytest.Config) -> bool:
    return "not slow" not in config.option.markexpr


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest group begins first, so that the other process is not waited for at the end."""
    slow = _runs_slow_tests(config)
    serial = {path for path in {item.path for item in items} if is_serial(path, slow)}
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
            serial = is_serial(config.rootpath / file, _runs_slow_tests(config))
            return "serial" if serial else file

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
