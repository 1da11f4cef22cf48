"""The rules that hold the house together: who imports whom, what ships, what is documented."""

import ast
import json
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOMS = ("model", "datasets", "platform", "jobs")
# A room may import itself and the rooms named here.
BELOW = {
    "model": set(),
    "datasets": set(),
    "platform": {"model", "datasets"},
    "jobs": {"platform", "model", "datasets"},
}


def sources(repository: Path) -> Iterator[tuple[Path, ast.Module]]:
    for room in ROOMS:
        for path in sorted((repository / room).rglob("*.py")):
            yield path.relative_to(repository), ast.parse(path.read_text())


def imported(path: Path, tree: ast.Module) -> Iterator[tuple[int, str, int]]:
    """Line, absolute dotted name and relative level of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, 0
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield node.lineno, node.module or "", 0
                continue
            base = path.parent.parts[: len(path.parent.parts) - node.level + 1]
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield node.lineno, name, node.level
            if node.module is None:
                for alias in node.names:
                    yield node.lineno, ".".join([*base, alias.name]), node.level


def test_rooms_import_only_what_stands_below_them(repository: Path) -> None:
    wrong = [
        f"{path}:{line}: {name}"
        for path, tree in sources(repository)
        for line, name, level in imported(path, tree)
        if level and name.partition(".")[0] not in BELOW[path.parts[0]] | {path.parts[0]}
    ]
    assert not wrong, "\n".join(wrong)


def test_our_files_import_each_other_relatively(repository: Path) -> None:
    wrong = [
        f"{path}:{line}: {name}"
        for path, tree in sources(repository)
        for line, name, level in imported(path, tree)
        if not level and name.partition(".")[0] in {"spikeseg", "model", "datasets", "jobs"}
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        (
            "ray",
            (
                "platform/cluster/",
                "platform/loading/pack_on_ray.py",
                "platform/train/",
                "platform/search/",
            ),
        ),
        ("mlflow", ("platform/tracking/", "platform/runs/")),
        ("optuna", ("platform/search/",)),
        ("cupy", ("model/neuron/backends/cuda.py",)),
        ("pyarrow", ("datasets/", "platform/")),
        ("click", ("jobs/",)),
        ("pydantic", ("platform/",)),
        ("PIL", ("datasets/", "platform/", "jobs/benchmark/")),
        ("cv2", ("datasets/", "platform/", "jobs/benchmark/")),
        ("matplotlib", ("platform/", "datasets/")),
    ],
)
def test_third_parties_stay_where_they_belong(
    repository: Path, package: str, allowed: tuple[str, ...]
) -> None:
    wrong = [
        f"{path}:{line}: {name}"
        for path, tree in sources(repository)
        for line, name, level in imported(path, tree)
        if not level and name.partition(".")[0] == package and not str(path).startswith(allowed)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_model_imports_nothing_but_torch_numpy_scipy_and_safetensors(
    repository: Path,
) -> None:
    allowed = {"torch", "numpy", "scipy", "safetensors", "cupy"} | set(sys.stdlib_module_names)
    wrong = [
        f"{path}:{line}: {name}"
        for path, tree in sources(repository)
        if path.parts[0] == "model"
        for line, name, level in imported(path, tree)
        if not level and name.partition(".")[0] not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_files_import_each_other_without_circles(repository: Path) -> None:
    graph: dict[str, set[str]] = {}
    for path, tree in sources(repository):
        graph[".".join(path.with_suffix("").parts)] = {
            name for _, name, level in imported(path, tree) if level
        }
    # A name imported from a file is an edge to the file, not to the name.
    edges = {
        name: {other for other in graph if other in targets} for name, targets in graph.items()
    }
    done: set[str] = set()

    def walk(name: str, chain: tuple[str, ...]) -> None:
        assert name not in chain, " -> ".join([*chain[chain.index(name) :], name])
        if name in done:
            return
        for other in sorted(edges[name]):
            walk(other, (*chain, name))
        done.add(name)

    for name in graph:
        walk(name, ())


def test_there_is_no_init_file_below_the_root(repository: Path) -> None:
    found = [str(p) for room in (*ROOMS, "tests") for p in (repository / room).rglob("__init__.py")]
    assert not found


def test_the_standard_library_platform_is_found_in_the_root(repository: Path) -> None:
    code = "import platform; print(platform.system())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "Linux"


def packages(repository: Path) -> list[str]:
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    return project["tool"]["setuptools"]["packages"]


def test_every_folder_of_sources_is_in_the_package_list(repository: Path) -> None:
    folders = {"spikeseg"}
    for room in ROOMS:
        for path in (repository / room).rglob("*"):
            if path.is_file() and path.suffix in (".py", ".yaml", ".json", ".cu", ".h"):
                parts = path.parent.relative_to(repository).parts
                folders.add(".".join(("spikeseg", *parts)))
    assert folders <= set(packages(repository))


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    command = ["build", "--wheel", "--no-isolation", "--outdir", str(folder), str(repository)]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True, cwd=folder)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        return archive.namelist()


def test_the_wheel_holds_every_source_recipe_and_label_space(
    repository: Path, wheel: list[str]
) -> None:
    listed = subprocess.run(
        ["git", "-C", str(repository), "ls-files", *ROOMS],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    wanted = [p for p in listed if p.endswith((".py", ".yaml", ".json", ".cu", ".cuh", ".h"))]
    missing = [path for path in wanted if f"spikeseg/{path}" not in wheel]
    assert wanted and not missing, missing


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


def test_no_source_file_is_longer_than_400_lines(repository: Path) -> None:
    long = {
        str(path): count
        for path, _ in sources(repository)
        if (count := len((repository / path).read_text().splitlines())) > 400
    }
    assert not long


def test_label_spaces_are_complete(repository: Path) -> None:
    for path in (repository / "datasets" / "label_spaces").glob("*.json"):
        space = json.loads(path.read_text())
        classes = len(space["classes"])
        assert len(space["palette"]) == classes, path.name
        used = set(space["raw_to_train"].values())
        assert used <= set(range(classes)) | {space["ignore_label"]}, path.name
        assert set(range(classes)) <= used, path.name
