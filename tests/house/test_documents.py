"""What a reader finds: docstrings and types everywhere, READMEs that read like a map."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_tree import ROOMS, sources, tracked


def public_definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield inner


def test_every_public_function_is_typed_and_documented(repository: Path) -> None:
    wrong = []
    for path, tree in sources(repository):
        if not ast.get_docstring(tree):
            wrong.append(f"{path}: the module has no docstring")
        for node in public_definitions(tree):
            if not ast.get_docstring(node):
                wrong.append(f"{path}:{node.lineno}: {node.name} has no docstring")
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                untyped = [
                    a.arg
                    for a in arguments
                    if a.annotation is None and a.arg not in ("self", "cls")
                ]
                if untyped or node.returns is None:
                    wrong.append(f"{path}:{node.lineno}: {node.name} is not fully typed")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", ROOMS)
def test_a_rooms_readme_is_short(repository: Path, room: str) -> None:
    lines = (repository / room / "README.md").read_text().splitlines()
    assert 5 <= len(lines) <= 60
    assert not [line[:60] for line in lines if len(line) > 200]


def test_documents_name_files_that_exist(repository: Path) -> None:
    """Paths in backticks, links and pictures; from the root, or from the document's folder."""
    wrong = []
    for name in tracked(repository, "*.md"):
        if name == "CHANGELOG.md":
            continue
        text = (repository / name).read_text()
        quoted = re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|md|yaml|cu|cuh|png))`", text)
        links = re.findall(r"\]\(([\w./-]+)\)", text)
        for path in {*quoted, *links}:
            places = (repository / path, (repository / name).parent / path)
            if not any(place.exists() for place in places) and not path.startswith(("runs/",)):
                wrong.append(f"{name}: {path}")
    assert not wrong, "\n".join(sorted(wrong))
