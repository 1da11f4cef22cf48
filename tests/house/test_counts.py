"""Counts that are to fall and not to rise again: parameters by hand, places of one decision."""

import ast
from pathlib import Path

from source_tree import sources


def long_signatures(repository: Path) -> list[str]:
    """Functions with more than six parameters, `self` and `cls` not counted."""
    found = []
    for path, tree in sources(repository):
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = sum(argument.arg not in ("self", "cls") for argument in arguments)
            if count > 6:
                found.append(f"{path}:{node.lineno}: {node.name} has {count}")
    return found


def test_at_most_twenty_functions_have_more_than_six_parameters(repository: Path) -> None:
    found = long_signatures(repository)
    assert len(found) <= 20, "\n".join(found)


def renames_over_a_file(tree: ast.Module) -> bool:
    """`path.replace(target)`, which has one argument where a string's `replace` has two."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "replace"
        and len(node.args) == 1
        and not node.keywords
        for node in ast.walk(tree)
    )


def test_whole_files_are_written_in_one_place(repository: Path) -> None:
    """A rename over a file, and fsync, stand in files.py; the model has its own."""
    writers = {
        str(path)
        for path, tree in sources(repository)
        if renames_over_a_file(tree) or "os.fsync(" in (repository / path).read_text()
    }
    # The journal appends, and says when what it appended is on the disk.
    alone = {"model/published/weights.py", "platform/tracking/journal.py"}
    assert writers == {"datasets/packed/files.py", *alone}


def test_locks_are_taken_in_one_place(repository: Path) -> None:
    for path, _ in sources(repository):
        text = (repository / path).read_text()
        assert "fcntl" not in text, path
        if str(path) != "datasets/packed/files.py":
            assert "filelock" not in text, path
