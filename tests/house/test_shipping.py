"""What leaves the house is whole: the wheel, and the package that a submitted job ships."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from source_tree import ROOMS, tracked

from spikeseg.platform.cluster.job_submission import copy_package


@pytest.fixture(scope="module")
def package_files(repository: Path) -> set[str]:
    """All files of the package in the tree: whatever stands in a room and is no document."""
    names = [
        name
        for name in tracked(repository, *ROOMS, "__init__.py", "py.typed")
        if "docs/" not in name
    ]
    return {name for name in names if not name.endswith(".md")}


def test_the_wheel_is_the_tree(repository: Path, tmp_path: Path, package_files: set[str]) -> None:
    command = ["build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(repository)]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True, cwd=tmp_path)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        names = archive.namelist()
        shipped = {n.removeprefix("spikeseg/") for n in names if n.startswith("spikeseg/")}
        assert shipped == package_files
        for name in package_files:
            assert archive.read(f"spikeseg/{name}") == (repository / name).read_bytes(), name


def test_a_submitted_job_ships_the_tree(
    repository: Path, tmp_path: Path, package_files: set[str]
) -> None:
    package = copy_package(tmp_path)
    shipped = {str(p.relative_to(package)) for p in package.rglob("*") if p.is_file()}
    assert shipped == package_files
    for name in package_files:
        assert (package / name).read_bytes() == (repository / name).read_bytes(), name


def test_the_package_holds_what_is_no_code(package_files: set[str]) -> None:
    for folder, suffix in (
        ("jobs/recipes", ".yaml"),
        ("jobs/sweeps", ".yaml"),
        ("model/accounting/rules", ".yaml"),
        ("datasets/label_spaces", ".json"),
        ("datasets/inspection", ".j2"),
        ("platform/runs", ".j2"),
        ("model/neuron/backends/kernels", ".cu"),
    ):
        found = [n for n in package_files if n.startswith(folder) and n.endswith(suffix)]
        assert found, f"no {suffix} in {folder}"


def test_label_spaces_are_complete(repository: Path) -> None:
    for path in (repository / "datasets" / "label_spaces").glob("*.json"):
        space = json.loads(path.read_text())
        classes = len(space["classes"])
        assert len(space["palette"]) == classes, path.name
        used = set(space["raw_to_train"].values())
        assert used <= set(range(classes)) | {space["ignore_label"]}, path.name
        assert set(range(classes)) <= used, path.name
