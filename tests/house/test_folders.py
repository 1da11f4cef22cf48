"""How full folders and files may be, and what stands in none of them."""

import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

from source_tree import ROOMS, sources, tracked

# Folders in which one file is one choice by name may hold as many as there are choices.
FREE = ("jobs", "jobs/benchmark", "datasets/layouts")


def test_no_folder_holds_more_than_18_python_files(repository: Path) -> None:
    files = [Path(name) for name in tracked(repository, *ROOMS, "tests") if name.endswith(".py")]
    counts = Counter(str(path.parent) for path in files if (repository / path).exists())
    assert sum(counts.values()) > 300
    assert not {
        folder: count for folder, count in counts.items() if count > 18 and folder not in FREE
    }


def test_no_source_file_is_longer_than_400_lines(repository: Path) -> None:
    long = {
        str(path): count
        for path, _ in sources(repository)
        if (count := len((repository / path).read_text().splitlines())) > 400
    }
    assert not long


def test_there_is_no_init_file_below_the_root(repository: Path) -> None:
    found = [str(p) for room in (*ROOMS, "tests") for p in (repository / room).rglob("__init__.py")]
    assert not found


def test_no_folder_and_file_hide_one_another(repository: Path) -> None:
    for room in (*ROOMS, "tests"):
        for path in (repository / room).rglob("*.py"):
            assert not path.with_suffix("").is_dir(), f"{path} beside a folder of its name"


def test_names_say_what_is_inside(repository: Path) -> None:
    empty = {"utils", "util", "common", "helpers", "helper", "misc", "core", "base", "tools"}
    assert not [str(path) for path, _ in sources(repository) if path.stem in empty]


def test_the_standard_library_platform_is_found_in_the_root(repository: Path) -> None:
    code = "import platform; print(platform.system())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "Linux"


def test_every_folder_of_sources_is_in_the_package_list(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]
    folders = {"spikeseg"}
    for name in tracked(repository, *ROOMS):
        if not name.endswith(".md"):
            folders.add(".".join(("spikeseg", *Path(name).parent.parts)))
    assert folders == set(packages)
