"""Paths as people type them, resolved once: `~`, variables, the working folder of this process."""

import os
import re
from pathlib import Path

_UNSET = re.compile(r"\$(?:\w+|\{[^}]*\})")
# Options of a database's address; a path with a ? in it has %3F there.
_OPTIONS = re.compile(r"\?[\w.-]+=[^?]*$")
# What stands in an address of sqlite as it is.
_PLAIN = re.compile(r"[\w/.,=~ -]*")


def resolve_path(text: str | Path) -> Path:
    """The absolute path of a name that a person typed.

    A name that exists as it is typed is taken as it is, whatever characters it has; in another one
    `~`, `~user` and `$VARIABLE` are filled in. Later changes of the working folder, and processes
    elsewhere, find the same place.

    Raises:
        ValueError: Where it names a variable that is not set.
    """
    typed = Path(text)
    if typed.exists():
        return typed.absolute()
    filled = os.path.expandvars(typed.expanduser() if str(text).startswith("~") else typed)
    unset = _UNSET.search(filled)
    if unset is not None and unset[0] in str(text):
        raise ValueError(f"{text}: the variable {unset[0]} is not set here")
    return Path(filled).absolute()


def sqlite_address(file: Path) -> str:
    """The address of a sqlite database, as SQLAlchemy, MLflow and Optuna read it.

    Args:
        file: The database; its path may hold any character (`?`, `%`, `#`, spaces).
    """
    path = str(file.absolute())
    if _PLAIN.fullmatch(path):
        return f"sqlite:///{path}"
    from sqlalchemy import URL, make_url

    address = URL.create("sqlite", database=path).render_as_string()
    if make_url(address).database == path and not make_url(address).query:
        return address
    # SQLAlchemy 2.0 quotes no path; sqlite itself reads one as a URI.
    return f"sqlite:///{file.absolute().as_uri().replace('file://', 'file:', 1)}?uri=true"


def sqlite_file(address: str) -> Path | None:
    """The database's file of a sqlite address; None for other addresses, and one in memory."""
    scheme, _, path = address.partition(":///")
    if scheme.partition("+")[0] != "sqlite" or path in ("", ":memory:"):
        return None
    if _PLAIN.fullmatch(path):
        return Path(path)
    from urllib.parse import unquote

    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        database = make_url(address).database or ""
    except (ArgumentError, ValueError):
        return None
    if database.startswith("file:"):
        database = unquote(database.removeprefix("file:").partition("?")[0])
    return Path(database) if database not in ("", ":memory:") else None


def resolve_address(address: str) -> str:
    """An address that a person typed, with the absolute path of its sqlite database.

    Other addresses, and what is none, stay as they are: who opens them says what is wrong.
    """
    file = sqlite_file(address)
    options = _OPTIONS.search(address)
    if file is None or (options is None and "?" in address):
        return address
    try:
        resolved = sqlite_address(resolve_path(file))
    except ValueError:
        return address
    if options is not None and "?" not in resolved:
        resolved += options[0]
    return f"{address.partition(':///')[0]}{resolved.removeprefix('sqlite')}"


def has_options(address: str) -> bool:
    """Whether what follows the address's ? are options, `name=value`."""
    return _OPTIONS.search(address) is not None
