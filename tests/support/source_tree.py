"""The repository's own sources as syntax trees, for tests of the house's rules."""

import ast
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOMS = ("model", "datasets", "platform", "jobs")


class Import(NamedTuple):
    """One import of a file.

    Attributes:
        path: The file, relative to the repository.
        line: Where it stands.
        name: Dotted name from the repository's root for our files, else of the third party.
        level: Dots in front; 0 for third parties.
    """

    path: Path
    line: int
    name: str
    level: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name}"


@functools.cache
def sources(repository: Path) -> list[tuple[Path, ast.Module]]:
    """Every source file of the four rooms, relative to the repository, parsed."""
    return [
        (path.relative_to(repository), ast.parse(path.read_text()))
        for room in ROOMS
        for path in sorted((repository / room).rglob("*.py"))
    ]


def imports(path: Path, tree: ast.Module) -> Iterator[Import]:
    """Every import of a file; `from . import x` names x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path, node.lineno, alias.name, 0)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield Import(path, node.lineno, node.module or "", 0)
                continue
            base = path.parent.parts[: len(path.parent.parts) - node.level + 1]
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield Import(path, node.lineno, name, node.level)
            for alias in node.names:
                yield Import(path, node.lineno, f"{name}.{alias.name}", node.level)


@functools.cache
def all_imports(repository: Path) -> list[Import]:
    """Every import of every source file."""
    return [item for path, tree in sources(repository) for item in imports(path, tree)]


def tracked(repository: Path, *folders: str) -> list[str]:
    """Files that git knows below some folders."""
    command = ["git", "-C", str(repository), "ls-files", "--", *folders]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
