"""Ray's token is made where there is none, and nobody else can read it at any time."""

import os
import stat
from pathlib import Path

import pytest

from spikeseg.platform.cluster.token import ensure_token, find_token


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_new_token_is_private_whatever_the_umask(home: Path) -> None:
    before = os.umask(0)
    try:
        ensure_token()
    finally:
        os.umask(before)
    file = home / ".ray" / "auth_token"
    assert mode(file) == 0o600
    assert mode(file.parent) == 0o700
    assert find_token() == file.read_text()
    assert len(file.read_text()) == 64
    assert os.listdir(file.parent) == ["auth_token"]


def test_a_token_that_is_there_stays(home: Path) -> None:
    ensure_token()
    first = find_token()
    ensure_token()
    assert find_token() == first


def test_a_token_made_meanwhile_by_another_process_wins(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / ".ray" / "auth_token"

    def be_late(size: int) -> str:
        file.write_text("first")
        return "second"

    monkeypatch.setattr("secrets.token_hex", be_late)
    ensure_token()
    assert find_token() == "first"


@pytest.mark.parametrize("named", [False, True], ids=["default", "RAY_AUTH_TOKEN_PATH"])
@pytest.mark.parametrize("permissions", [0o644, 0o640, 0o666])
def test_a_token_that_others_can_read_is_taken_from_them(
    home: Path, monkeypatch: pytest.MonkeyPatch, named: bool, permissions: int
) -> None:
    file = home / ("elsewhere" if named else ".ray/auth_token")
    file.parent.mkdir(exist_ok=True)
    file.write_text("secret\n")
    file.chmod(permissions)
    if named:
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    assert find_token() == "secret"
    assert mode(file) == 0o600


def test_a_token_that_cannot_be_taken_from_others_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("secret")
    (home / ".ray" / "auth_token").chmod(0o644)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(ValueError, match=r"auth_token: .* every user .*RAY_AUTH_TOKEN_PATH"):
        ensure_token()


def test_a_token_shared_with_a_group_that_somebody_else_owns_is_used(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "mounted"
    file.write_text("secret")
    file.chmod(0o640)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "chmod", refuse)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    assert find_token() == "secret"


def test_a_named_file_that_is_missing_or_empty_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "none"))
    with pytest.raises(ValueError, match=r"RAY_AUTH_TOKEN_PATH: .*none: no such file"):
        ensure_token()
    (home / "none").write_text("\n")
    with pytest.raises(ValueError, match="none: holds no token"):
        ensure_token()


def test_the_variable_comes_before_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    assert find_token() == "mine"


def test_a_home_that_takes_no_file_is_said(home: Path) -> None:
    (home / ".ray").write_text("a file where the folder should be")
    with pytest.raises(ValueError, match=r"auth_token: Ray's token cannot be made"):
        ensure_token()
