"""The commit is that of the package's own code; uncommitted code is told, and not sent unasked."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from planted_secrets import PLANTED

from spikeseg.platform.checkpoint.run_folder import RunFolder
from spikeseg.platform.config.recipes import config_digest, load_experiment
from spikeseg.platform.tracking import code_state
from spikeseg.platform.train.tracked_training import make_journal

SECRET = "s3cr3t-value-that-must-not-leak"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def write_package(folder: Path) -> None:
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "model" / "old.py").write_text("a = 1\n")


def commit(folder: Path) -> str:
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "x", "--allow-empty")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of two files, in no repository yet."""
    root = tmp_path / "outer" / "site-packages" / "spikeseg"
    write_package(root)
    look_at(root, monkeypatch)
    yield root
    clear_caches()


def look_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_state, "_ROOT", root)
    clear_caches()


def clear_caches() -> None:
    code_state.git_state.cache_clear()
    code_state.code_diff.cache_clear()
    code_state.code_digest.cache_clear()


def test_a_checkout_says_its_commit(package: Path) -> None:
    made = commit(package)
    assert code_state.git_state() == {"git_sha": made, "dirty": "false"}
    assert code_state.code_diff() == ""


@pytest.mark.parametrize("ignored", [True, False])
def test_a_package_installed_inside_another_repository_says_no_commit(
    package: Path, ignored: bool
) -> None:
    outer = package.parents[1]
    (outer / "own.py").write_text("b = 1\n")
    if ignored:
        (outer / ".gitignore").write_text("site-packages\n")
    git(outer, "init", "-q")
    git(outer, "add", "own.py")
    git(outer, "commit", "-qm", "x")
    assert code_state.git_state() == {}
    assert code_state.code_diff() == ""


def test_a_repository_that_keeps_a_copy_of_the_package_counts(package: Path) -> None:
    assert code_state.git_state() == {}
    clear_caches()
    made = commit(package.parents[1])
    assert code_state.git_state()["git_sha"] == made


def test_a_submodule_says_its_own_commit(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = commit(package)
    above = tmp_path / "above"
    above.mkdir()
    outer = commit(above)
    git(above, "submodule", "add", "-q", str(package), "spikeseg")
    look_at(above / "spikeseg", monkeypatch)
    assert code_state.git_state()["git_sha"] == made != outer


def test_a_worktree_says_its_own_commit(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(package)
    tree = tmp_path / "tree"
    git(package, "worktree", "add", "-q", str(tree))
    (tree / "model" / "old.py").write_text("a = 3\n")
    git(tree, "commit", "-qam", "y")
    look_at(tree, monkeypatch)
    assert code_state.git_state() == {"git_sha": git(tree, "rev-parse", "HEAD"), "dirty": "false"}


def test_a_repository_that_a_hook_names_is_not_asked(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = commit(package)
    other = tmp_path / "other"
    write_package(other)
    (other / "more.py").write_text("")
    commit(other)
    for name, value in (("GIT_DIR", other / ".git"), ("GIT_WORK_TREE", other)):
        monkeypatch.setenv(name, str(value))
    assert code_state.git_state()["git_sha"] == made


def test_without_git_there_is_no_commit(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(package)
    monkeypatch.setenv("PATH", str(package))
    assert code_state.git_state() == {}
    assert code_state.code_diff() == ""


def test_an_unreadable_repository_is_none(package: Path) -> None:
    commit(package)
    shutil.rmtree(package / ".git" / "objects")
    assert code_state.git_state() == {}


def test_a_difference_has_a_digest_that_changes_with_it(package: Path) -> None:
    commit(package)
    digests = set()
    for text in ("a = 2\n", "a = 3\n"):
        (package / "model" / "old.py").write_text(text)
        clear_caches()
        state = code_state.git_state()
        assert state["dirty"] == "true"
        digests.add(state["code_diff_digest"])
    assert {len(digest) for digest in digests} == {64}
    assert len(digests) == 2


def test_the_difference_from_the_commit_holds_changed_and_new_files(
    tmp_path: Path, package: Path
) -> None:
    commit(package)
    (package / "model" / "old.py").write_text("a = 2\n")
    (package / "model" / "new.py").write_text("b = 3\n")
    (package / "model" / "empty.py").write_text("")
    (package / "model" / "café.py").write_text("c = 4\n")
    (package / "model" / "login.py").write_text(f'api_key = "{SECRET}"\n')
    (package / "model" / "latin.py").write_bytes(b"# caf\xe9\n")
    (package / ".env").write_text(SECRET)
    text = code_state.code_diff()
    assert "-a = 1\n+a = 2" in text
    assert "+b = 3" in text
    assert SECRET not in text
    assert '+api_key = "[hidden]"' in text
    git(package, "stash", "-qu")
    patch = tmp_path / "code.diff"
    patch.write_text(text)
    git(package, "apply", str(patch))
    assert (package / "model" / "empty.py").read_text() == ""
    assert (package / "model" / "café.py").read_text() == "c = 4\n"
    assert (package / "model" / "old.py").read_text() == "a = 2\n"
    clear_caches()
    assert code_state.git_state()["dirty"] == "true"


def test_a_long_difference_is_cut_at_a_line(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(package)
    monkeypatch.setattr(code_state, "_LONGEST_DIFF", 500)
    token = "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345"
    (package / "model" / "new.py").write_text("".join(f'x{n} = "{token}"\n' for n in range(50)))
    text = code_state.code_diff()
    assert len(text) < 600
    assert text.endswith("[cut here: the difference is too long]\n")
    assert token[:12] not in text


def test_no_record_of_a_run_holds_uncommitted_code(tmp_path: Path, package: Path) -> None:
    commit(package)
    for number, planted in enumerate(PLANTED):
        suffix = Path(planted.file).suffix
        content = "".join(f"{line}\n" for line in planted.lines)
        (package / "model" / f"new_{number}{suffix}").write_text(content)
    run = RunFolder(tmp_path / "run")
    run.claim()
    make_journal(load_experiment("shapes_tiny"), run, 1, {}).close()
    records = b"".join(path.read_bytes() for path in run.path.rglob("*") if path.is_file())
    secrets = {secret for planted in PLANTED for secret in planted.secrets}
    assert not [secret for secret in secrets if secret.encode() in records]
    state = code_state.git_state()
    assert state["code_diff_digest"].encode() in records
    assert b"left out, since it may hold secrets; tracking.code_diff=true records it" in records
    assert not (run.path / "journal" / "files" / "code.diff").exists()


def test_who_asks_for_it_has_the_difference(tmp_path: Path, package: Path) -> None:
    commit(package)
    (package / "model" / "old.py").write_text("a = 2\n")
    run = RunFolder(tmp_path / "run")
    run.claim()
    make_journal(load_experiment("shapes_tiny", ["tracking.code_diff=true"]), run, 1, {}).close()
    assert "+a = 2" in (run.path / "journal" / "files" / "code.diff").read_text()


def test_an_experiments_digest_is_what_it_was_before_there_was_the_field() -> None:
    asked = load_experiment("shapes_tiny", ["tracking.code_diff=true"]).config
    assert config_digest(asked) == config_digest(load_experiment("shapes_tiny").config)
