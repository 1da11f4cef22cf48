"""Where a sweep's study lies: an address of its own, checked before anything is made."""

import os
import re
from pathlib import Path

import sqlalchemy.exc
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from ..address import without_user
from ..config import ConfigError

_SQLITE = "sqlite:///"


def given_address() -> str | None:
    """SPIKESEG_STUDY, with absolute paths; None where the study lies in the sweep's folder.

    Raises:
        ConfigError: Where nothing can be kept there; names the address without its host.
    """
    given = os.environ.get("SPIKESEG_STUDY")
    if given is None:
        return None
    if not given.strip():
        raise ConfigError(
            "SPIKESEG_STUDY: is empty: must be the URL of a database or the path of a journal "
            "file; unset it to keep the study in the sweep's folder"
        )
    address = _absolute(given)
    try:
        open_storage(address)
    except (ImportError, OSError, RuntimeError, sqlalchemy.exc.SQLAlchemyError) as error:
        # A driver's own message may name host and user.
        shown = re.sub(r"://(?!/)[^/?]*", "://[hidden]", without_user(address))
        raise ConfigError(f"SPIKESEG_STUDY: got {shown!r}: {_reason(error)}") from error
    return address


def open_storage(storage: str) -> BaseStorage:
    """The study's storage: an RDB URL, or the path of a journal file.

    Args:
        storage: `sqlite:///…`, another RDB URL, or a path ending in `.log`.
    """
    if "://" not in storage:
        return JournalStorage(JournalFileBackend(storage))
    arguments = {"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else {}
    return RDBStorage(storage, engine_kwargs=arguments)


def _absolute(address: str) -> str:
    """The same place, whatever the working folder is."""
    if "://" not in address:
        return str(Path(address).absolute())
    if address.startswith(_SQLITE):
        return f"{_SQLITE}{Path(address.removeprefix(_SQLITE)).absolute()}"
    return address


def _reason(error: Exception) -> str:
    if isinstance(error, ImportError | sqlalchemy.exc.NoSuchModuleError):
        return f"its driver is not installed ({error})"
    if isinstance(error, OSError):
        return f"cannot be opened ({error.strerror})"
    return f"cannot be opened ({type(error).__name__})"
