"""Ray's token: where it lies, who can read it, and a new one where there is none."""

import contextlib
import logging
import os
import secrets
import stat
import tempfile
from pathlib import Path

_log = logging.getLogger(__name__)

_VALUE = "RAY_AUTH_TOKEN"
_PATH = "RAY_AUTH_TOKEN_PATH"
NO_TOKEN = (
    f"there is no token on this machine: copy the head's ~/.ray/auth_token to ~/.ray/auth_token "
    f"(mode 0600), or set {_PATH}"
)
"""What to do where a head asks for a token."""


def token_file() -> Path:
    """File that Ray reads the token from, unless `RAY_AUTH_TOKEN` holds it; it may be absent."""
    named = os.environ.get(_PATH)
    return Path(named) if named else Path.home() / ".ray" / "auth_token"


def find_token() -> str | None:
    """The token that Ray sends from this process; None where there is none.

    Raises:
        ValueError: Where its file is missing though named, is empty, or can be read by others.
    """
    token = os.environ.get(_VALUE)
    if token:
        return token.strip()
    file = token_file()
    if not file.is_file():
        if os.environ.get(_PATH):
            raise ValueError(f"{_PATH}: {file}: no such file; it must hold the head's token")
        return None
    _hide_from_others(file)
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: Ray's token cannot be read: {error}") from error
    if not token:
        raise ValueError(f"{file}: holds no token; remove it, and a new one is made")
    return token


def ensure_token() -> None:
    """Make a token where there is none, readable by this user alone from its first byte on.

    Ray would make one that every user of the machine can read.

    Raises:
        ValueError: As `find_token`, and where the file cannot be made.
    """
    if find_token() is not None:
        return
    file = token_file()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=".auth_token-")
        try:
            with os.fdopen(handle, "w") as made:
                made.write(secrets.token_hex(32))
            _name_once(Path(name), file)
        finally:
            Path(name).unlink()
    except OSError as error:
        raise ValueError(
            f"{file}: Ray's token cannot be made ({error.strerror}); set {_PATH} to a file of yours"
        ) from error


def _name_once(made: Path, file: Path) -> None:
    """Give a finished file its name; another process may do so at the same time: the first wins."""
    with contextlib.suppress(FileExistsError):
        try:
            os.link(made, file)
        except FileExistsError:
            raise
        except OSError:
            # No hard links (SMB, exFAT, FUSE): readers meanwhile may see it empty.
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as named:
                named.write(made.read_text())


def _hide_from_others(file: Path) -> None:
    """Take a token's file from other users, and refuse one that cannot be taken from them."""
    status = file.stat()
    if not stat.S_IMODE(status.st_mode) & 0o077:
        return
    try:
        file.chmod(0o600)
    except OSError as error:
        if status.st_mode & 0o007:
            raise ValueError(
                f"{file}: Ray's token can be read by every user of this machine, and this user "
                f"cannot change that ({error.strerror}); whoever reads it can run code on the "
                f"cluster: set {_PATH} to a file of yours with mode 0600"
            ) from error
    else:
        _log.warning(
            "%s could be read by others and has mode 0600 now; if others use this machine, remove "
            "it before the next start: a new token is made",
            file,
        )
