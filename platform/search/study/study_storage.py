"""Where a sweep's study is stored: in its folder, a database or a journal file, checked first."""

import json
import os
import re
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from ...config.recipes import ConfigError
from ...config.run_names import shown
from ...config.typed_paths import resolve_path, sqlite_address, sqlite_file
from ...tracking.tracking_uri import without_user

MEMORY = "memory"
"""Address of a study that ends with its process: of replayed sweeps, never of a real one."""
_NO_JOURNAL = (ValueError, LookupError, TypeError, AssertionError)


def read_address() -> str | None:
    """Read SPIKESEG_STUDY, with absolute paths; None where the study lies in the sweep's folder.

    Raises:
        ConfigError: Where it is no address; names it without its host.
    """
    address = os.environ.get("SPIKESEG_STUDY")
    if address is None:
        return None
    if not address.strip():
        raise ConfigError(
            "SPIKESEG_STUDY: is empty: must be the URL of a database or the path of a journal "
            "file; unset it to keep the study in the sweep's folder"
        )
    return _absolute(address)


def check_storage_address(address: str, name: str = "SPIKESEG_STUDY") -> bool:
    """Check that a study can be stored at an address; nothing is made there.

    Args:
        address: As `open_storage` takes it.
        name: What errors call it.

    Returns:
        Whether there are studies already.

    Raises:
        ConfigError: Where nothing can be stored there; names the address without its host.
    """
    try:
        exists = _exists(address, name)
        if exists:
            open_storage(address)
    except ConfigError:
        raise
    except (ImportError, OSError, RuntimeError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise _refused(address, _reason(error), name) from error
    except _NO_JOURNAL as error:
        raise _refused(address, "is no journal of Optuna's", name) from error
    return exists


def _exists(address: str, name: str) -> bool:
    if "://" not in address:
        if not _file_exists(Path(address)):
            return False
        # Optuna takes a last line that is none of its own for one that is not written to its end.
        with Path(address).open("rb") as journal:
            first = journal.readline()
        if first and "op_code" not in json.loads(first):
            raise ValueError("no operation of a journal")
        return True
    engine = sqlalchemy.create_engine(address)
    try:
        # To look into a file that is not there would make it.
        file = sqlite_file(address)
        if file is not None and not _file_exists(file):
            return False
        tables = sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()
    if tables and "studies" not in tables:
        raise _refused(address, f"holds tables of another program ({tables[0]}, …)", name)
    return bool(tables)


def _file_exists(file: Path) -> bool:
    """Whether a file exists; raises `OSError` where it does not and none could be made."""
    if file.exists():
        return True
    with tempfile.TemporaryFile(dir=file.parent):
        return False


def begin_study(
    address: str, name: str, directions: Sequence[Literal["maximize", "minimize"]]
) -> None:
    """Create a new sweep's study in a database or journal that may hold others.

    Args:
        address: `read_address()`.
        name: The sweep's name.
        directions: Which way is better, for each objective.

    Raises:
        ConfigError: Where there is a study of this name: two sweeps would share their trials.
    """
    storage = open_storage(address)
    try:
        optuna.create_study(storage=storage, study_name=name, directions=directions)
    except DuplicatedStudyError as error:
        raise ConfigError(
            f"SPIKESEG_STUDY: holds a study {name} already, of another sweep; start this one "
            "again, under another name"
        ) from error


def open_storage(storage: str) -> BaseStorage:
    """Open Optuna's storage at an RDB URL or the path of a journal file.

    Args:
        storage: `sqlite:///…`, another RDB URL, a path ending in `.log`, or `MEMORY`.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage == MEMORY:
        return InMemoryStorage()
    if "://" not in storage:
        return JournalStorage(JournalFileBackend(storage))
    arguments = {"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else {}
    return RDBStorage(storage, engine_kwargs=arguments)


def open_study(
    storage: str, name: str, directions: Sequence[Literal["maximize", "minimize"]]
) -> optuna.Study:
    """Open a sweep's study, made where there is none yet.

    Args:
        storage: As `open_storage` takes it.
        name: The sweep's name.
        directions: Which way is better, for each objective.

    Raises:
        ConfigError: Where a study of this name has other objectives.
    """
    study = optuna.create_study(
        storage=open_storage(storage), study_name=name, directions=directions, load_if_exists=True
    )
    stored = [direction.name.lower() for direction in study.directions]
    if stored != list(directions):
        raise ConfigError(
            f"{name}: its study: directions: got {', '.join(stored)}: must be those of the sweep's "
            f"objectives, {', '.join(directions)}"
        )
    return study


def read_trials(study: optuna.Study, where: str) -> list[FrozenTrial]:
    """All trials of a study.

    Raises:
        ConfigError: Where its storage holds what Optuna cannot read.
    """
    try:
        return study.get_trials(deepcopy=False)
    except (*_NO_JOURNAL, sqlalchemy.exc.SQLAlchemyError) as error:
        reason = f"{type(error).__name__}: {shown(str(error))}"
        raise ConfigError(f"{where}: its trials cannot be read ({reason})") from error


def _absolute(address: str) -> str:
    """The address with an absolute path; a `ConfigError` where no study can be stored there."""
    if "://" not in address:
        return str(_resolve(address))
    try:
        url = sqlalchemy.make_url(address)
    except (ValueError, sqlalchemy.exc.ArgumentError) as error:
        raise _refused(address, "is no address of a database") from error
    if url.get_backend_name() != "sqlite":
        return address
    file = url.database or ":memory:"
    if file == ":memory:" or file.startswith("file:") or url.query or url.host:
        raise _refused(
            address,
            "must be sqlite:///PATH, without options: a study in memory ends with its process, "
            "one that is only read takes no trials",
        )
    return sqlite_address(_resolve(file)).replace("sqlite", url.drivername, 1)


def _resolve(path: str) -> Path:
    try:
        return resolve_path(path)
    except ValueError as error:
        raise ConfigError(f"SPIKESEG_STUDY: {error}") from error


def _refused(address: str, rule: str, name: str = "SPIKESEG_STUDY") -> ConfigError:
    # A driver's own message may name host and user.
    shown = re.sub(r"://(?!/)[^/?]+", "://[hidden]", without_user(address))
    return ConfigError(f"{name}: got {shown!r}: {rule}")


def _reason(error: Exception) -> str:
    if isinstance(error, ImportError | sqlalchemy.exc.NoSuchModuleError):
        return f"its driver is not installed ({error})"
    if isinstance(error, OSError):
        return f"cannot be opened ({error.strerror})"
    if isinstance(error, sqlalchemy.exc.DBAPIError) and isinstance(error.orig, sqlite3.Error):
        # Other drivers' texts may name host and user.
        return f"cannot be opened (sqlite: {error.orig})"
    return f"cannot be opened ({type(error).__name__})"
