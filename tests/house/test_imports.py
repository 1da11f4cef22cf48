"""Who imports whom: rooms and wings from above to below, third parties behind one wing each."""

import sys
from pathlib import Path

import pytest
from source_tree import ROOMS, Import, all_imports, sources

# A room may import itself and the rooms named here.
BELOW = {
    "model": set(),
    "datasets": set(),
    "platform": {"model", "datasets"},
    "jobs": {"platform", "model", "datasets"},
}
# Wings of platform from top to bottom: one imports only what stands in a lower row.
WINGS = (
    ("demo",),
    ("scoring",),
    ("prediction", "doctor"),
    ("search", "runs"),
    ("train",),
    ("evaluation",),
    ("checkpoint", "export"),
    ("tracking", "loading"),
    ("config", "cluster", "figures"),
)
# Where a third party may be imported; jobs/benchmark may import what it measures.
HOMES = {
    "ray": (
        "platform/cluster/",
        "platform/loading/pack_on_ray.py",
        "platform/train/ray_workers.py",
        "platform/search/sweep.py",
        "platform/search/trials/",
    ),
    "mlflow": ("platform/tracking/",),
    "optuna": ("platform/search/study/",),
    "cupy": ("model/neuron/backends/cuda.py",),
    "pyarrow": ("datasets/", "platform/"),
    "jinja2": ("datasets/inspection/html_page.py",),
    "filelock": ("datasets/packed/files.py",),
    "click": ("jobs/",),
    "rich": ("jobs/",),
    "pydantic": ("platform/",),
    "PIL": ("datasets/", "platform/"),
    "cv2": ("datasets/", "platform/"),
    "onnx": ("platform/export/",),
    "onnxscript": ("platform/export/",),
    "onnxruntime": ("platform/export/",),
    "openvino": ("platform/export/",),
    "matplotlib": ("datasets/inspection/", "platform/figures/"),
}


def listed(items: list[Import]) -> str:
    return "\n".join(map(str, items))


def test_rooms_import_only_what_stands_below_them(repository: Path) -> None:
    wrong = [
        item
        for item in all_imports(repository)
        if item.level
        and item.name.partition(".")[0] not in BELOW[item.path.parts[0]] | {item.path.parts[0]}
    ]
    assert not wrong, listed(wrong)


def test_wings_of_platform_import_only_what_stands_below_them(repository: Path) -> None:
    row = {wing: number for number, wings in enumerate(WINGS) for wing in wings}
    folders = {p.name for p in (repository / "platform").iterdir() if any(p.rglob("*.py"))}
    assert {name.removesuffix(".py") for name in folders} | {"demo"} == set(row)
    wrong = []
    for item in all_imports(repository):
        parts = item.name.split(".")
        if item.path.parts[0] != "platform" or not item.level or parts[0] != "platform":
            continue
        source, target = item.path.with_suffix("").parts[1], parts[1]
        if source != target and row[target] <= row[source]:
            wrong.append(item)
    assert not wrong, listed(wrong)


def test_our_files_import_each_other_relatively_over_at_most_three_dots(repository: Path) -> None:
    wrong = [
        item
        for item in all_imports(repository)
        if item.level > 3
        or (not item.level and item.name.partition(".")[0] in {"spikeseg", "model", "jobs"})
        or (not item.level and item.name.startswith("datasets"))
    ]
    assert not wrong, listed(wrong)


@pytest.mark.parametrize("package", sorted(HOMES))
def test_third_parties_stay_where_they_belong(repository: Path, package: str) -> None:
    wrong = [
        item
        for item in all_imports(repository)
        if not item.level
        and item.name.partition(".")[0] == package
        and not str(item.path).startswith((*HOMES[package], "jobs/benchmark/"))
    ]
    assert not wrong, listed(wrong)


def test_the_model_imports_nothing_but_torch_numpy_scipy_and_safetensors(
    repository: Path,
) -> None:
    allowed = {"torch", "numpy", "scipy", "safetensors", "cupy"} | set(sys.stdlib_module_names)
    wrong = [
        item
        for item in all_imports(repository)
        if item.path.parts[0] == "model"
        and not item.level
        and item.name.partition(".")[0] not in allowed
    ]
    assert not wrong, listed(wrong)


def test_files_import_each_other_without_circles(repository: Path) -> None:
    names = {".".join(path.with_suffix("").parts) for path, _ in sources(repository)}
    edges: dict[str, set[str]] = {name: set() for name in names}
    for item in all_imports(repository):
        # A name imported from a file is an edge to the file, not to the name.
        if item.level and item.name in names:
            edges[".".join(item.path.with_suffix("").parts)].add(item.name)
    done: set[str] = set()

    def walk(name: str, chain: tuple[str, ...]) -> None:
        assert name not in chain, " -> ".join([*chain[chain.index(name) :], name])
        if name in done:
            return
        for other in sorted(edges[name]):
            walk(other, (*chain, name))
        done.add(name)

    assert sum(map(len, edges.values())) > len(names)
    for name in names:
        walk(name, ())


def test_rooms_are_those_of_the_package(repository: Path) -> None:
    folders = {path.parent.name for path in repository.glob("*/README.md")}
    assert set(ROOMS) <= folders
