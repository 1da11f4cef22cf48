"""Dependencies: everything imported is declared, bounded, judged in one table, and locked."""

import re
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from source_tree import all_imports, tracked

# Packages that share one name above, of which the import says nothing.
SHARED_NAMES = {"google": "protobuf"}
# Ray's own, which its client's errors come from; imported where Ray is used and nowhere else.
OF_RAY = {"grpc", "aiohttp"}


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, object]:
    """The table `project` of pyproject.toml."""
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def required(project: dict[str, list[str]]) -> list[Requirement]:
    """What the package needs."""
    return [Requirement(line) for line in project["dependencies"]]


@pytest.fixture(scope="module")
def locked(repository: Path) -> dict[str, str]:
    """Name -> exact version."""
    lines = (repository / "constraints.txt").read_text().splitlines()
    wrong = [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.!]+", line)]
    assert not wrong, "one exact version a line: no host, hash, path or build (+cpu)"
    pairs = [line.split("==") for line in lines]
    assert len({canonicalize_name(name) for name, _ in pairs}) == len(pairs)
    return {canonicalize_name(name): version for name, version in pairs}


def test_everything_that_is_imported_is_declared(
    repository: Path, project: dict[str, dict[str, list[str]]], required: list[Requirement]
) -> None:
    owners = packages_distributions()
    extras = project["optional-dependencies"]
    optional = [Requirement(line) for name in extras if name != "dev" for line in extras[name]]
    declared = {canonicalize_name(item.name) for item in (*required, *optional)}
    wrong = set()
    for item in all_imports(repository):
        top = item.name.partition(".")[0]
        if item.level or top in {*sys.stdlib_module_names, *OF_RAY, "cupy"}:
            continue
        names = [SHARED_NAMES[top]] if top in SHARED_NAMES else owners.get(top, [top])
        if not declared & {canonicalize_name(name) for name in names}:
            wrong.add(f"{item}: {names}")
    assert not wrong, "\n".join(sorted(wrong))


def test_everything_that_is_declared_has_an_upper_bound(required: list[Requirement]) -> None:
    assert len(required) > 15
    unbounded = [
        item.name
        for item in required
        if not any(specifier.operator in ("<", "<=", "==", "~=") for specifier in item.specifier)
    ]
    assert not unbounded
    bounds = {item.name: item.specifier for item in required}
    assert not bounds["optuna"].contains("5.1.0"), "private names are used"
    majors = [n for n in range(1, 20) if bounds["opencv-python-headless"].contains(f"{n}.5")]
    assert len(majors) == 1


def test_the_table_has_every_dependency_with_its_bound(
    repository: Path, required: list[Requirement]
) -> None:
    text = (repository / "docs" / "dependencies.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| (.+?) \|", text, re.MULTILINE)
    assert [f"{name}{bound}" for name, bound, why in rows if why.strip()]
    table = sorted((Requirement(f"{name}{bound}") for name, bound, _ in rows), key=str)
    assert table == sorted(required, key=str)


def test_locked_versions_fit_the_bounds(
    project: dict[str, dict[str, list[str]]], required: list[Requirement], locked: dict[str, str]
) -> None:
    extras = [Requirement(line) for line in project["optional-dependencies"]["dev"]]
    for item in (*required, *extras):
        version = locked[canonicalize_name(item.name)]
        assert item.specifier.contains(version), f"{item} against {version}"


def test_what_is_installed_here_is_what_is_locked(locked: dict[str, str]) -> None:
    from importlib.metadata import version

    for name in ("torch", "numpy", "mlflow", "optuna", "ray"):
        assert version(name).partition("+")[0] == locked[name], "make setup"


@pytest.mark.parametrize("name", ["Makefile", "Dockerfile", ".github/workflows/ci.yml"])
def test_whoever_installs_uses_the_locked_versions(repository: Path, name: str) -> None:
    text = (repository / name).read_text().replace("\\\n", " ")
    # The lock itself is made without it.
    text = re.sub(r"(?ms)^lock:.*?^$", "", text)
    lines = [line for line in text.splitlines() if "pip install" in line]
    if name != "Makefile":
        assert lines
    assert all("-c constraints.txt" in line for line in lines), lines
    assert "constraints.txt" in text


def test_the_image_runs_as_an_ordinary_user_and_answers_probes(repository: Path) -> None:
    lines = (repository / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and line[0] not in "# "]
    last_user = [rest for word, rest in steps if word == "USER"][-1]
    assert last_user not in ("root", "0")
    assert any(word == "RUN" and "useradd" in rest and last_user in rest for word, rest in steps)
    after = [word for word, _ in steps][[word for word, _ in steps].index("USER") :]
    assert "RUN" not in after and "COPY" not in after
    (base,) = [rest for word, rest in steps if word == "FROM"]
    arguments = [rest.partition("=") for word, rest in steps if word == "ARG"]
    defaults = {name: value for name, _, value in arguments}
    assert base == "${PYTHON_IMAGE}${PYTHON_DIGEST:+@${PYTHON_DIGEST}}"
    assert re.fullmatch(r"python:3\.11(-\w+)*", defaults["PYTHON_IMAGE"])
    assert defaults["PYTHON_DIGEST"] == ""
    installed = next(rest for word, rest in steps if word == "RUN" and "apt-get install" in rest)
    assert {"wget", "git"} <= set(installed.split())


def is_ignored(patterns: list[str], name: str) -> bool:
    """Whether Docker leaves a path out of the image, by the patterns used here."""
    parts = name.split("/")
    for pattern in patterns:
        expression = re.escape(pattern.removeprefix("**/")).replace(r"\*", "[^/]*")
        ends = range(1, len(parts) + 1)
        starts = range(len(parts)) if pattern.startswith("**/") else (0,)
        if any(
            re.fullmatch(expression, "/".join(parts[a:b])) for a in starts for b in ends if a < b
        ):
            return True
    return False


def test_the_image_takes_the_package_and_nothing_that_was_made_here(repository: Path) -> None:
    lines = (repository / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    made = (".venv/bin/python", ".git/config", "runs/a/journal/records.jsonl", "demo/x", "build/a")
    secret = (".env", ".env.local", "a/b.pem", "home/.ray/auth_token", "mlflow.db")
    for name in (*made, *secret, "data/camvid/a.parquet", "model/__pycache__/a.pyc"):
        assert is_ignored(patterns, name), name
    for name in tracked(repository):
        if name != ".gitignore" and not name.startswith((".github/", "tests/compatibility/")):
            assert not is_ignored(patterns, name), name


def test_ci_lints_and_tests_as_by_hand(repository: Path) -> None:
    workflow = yaml.safe_load((repository / ".github" / "workflows" / "ci.yml").read_text())
    steps = workflow["jobs"]["check"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert {"make setup", "make lint", "make test"} <= set(commands)
    by_hand = (repository / ".ci" / "run").read_text()
    assert "make lint" in by_hand and "make test" in by_hand
    assert workflow["permissions"] == {"contents": "read"}


def test_the_citation_names_the_version(repository: Path, project: dict[str, str]) -> None:
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert {"title", "message", "authors"} <= set(citation)


@pytest.mark.slow
def test_a_source_distribution_has_the_tests(repository: Path, tmp_path: Path) -> None:
    command = ["build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(repository)]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True, cwd=tmp_path)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    missing = {name for name in tracked(repository) if name not in names}
    assert not missing
