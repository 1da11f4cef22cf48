"""MLflow's address: where it comes from, what it may be, how messages show it."""

import os
import re
from pathlib import Path

from ..config.typed_paths import (
    has_options,
    resolve_address,
    resolve_path,
    sqlite_address,
    sqlite_file,
)

_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
_SECRET_IN_QUERY = re.compile(
    r"([?&][^=&]*(?:token|secret|pass|pwd|sig|key|credential)[^=&]*=)[^&\s]*", re.IGNORECASE
)


def tracking_uri(storage: Path) -> str:
    """Where runs are tracked: MLFLOW_TRACKING_URI, else sqlite in the storage folder.

    A database's file is named by its absolute path: whoever is handed the address finds the same
    one, from any folder and machine. Hand on what the driver resolved; a worker's own working
    folder is another.
    """
    typed = os.environ.get("MLFLOW_TRACKING_URI")
    return resolve_address(typed) if typed else sqlite_address(storage / "mlflow.db")


def check_uri(uri: str) -> None:
    """Refuse what MLflow could not record to.

    Raises:
        ValueError: Names the address and what may be given.
    """
    scheme = uri.partition("://")[0].partition("+")[0]
    if scheme not in _SCHEMES or (uri == scheme and scheme != "databricks"):
        raise ValueError(
            f"MLFLOW_TRACKING_URI: got {without_user(uri)!r}: must be an http address or that of a "
            "database (sqlite:///..., postgresql://...); MLflow's file stores are no more"
        )
    if scheme != "sqlite":
        return
    if "?" in uri and not has_options(uri):
        raise ValueError(
            f"MLFLOW_TRACKING_URI: got {without_user(uri)!r}: ? begins options (?name=value); a "
            "path that holds one has %3F there"
        )
    file = sqlite_file(uri)
    if file is None:
        raise ValueError(
            f"MLFLOW_TRACKING_URI: got {without_user(uri)!r}: must be sqlite:///FILE: a database "
            "in memory ends with its process"
        )
    try:
        resolve_path(file)
    except ValueError as error:
        raise ValueError(f"MLFLOW_TRACKING_URI: {error}") from error


def without_user(uri: str) -> str:
    """An address as messages may show it: without user, password and keys."""
    # Up to the last @, since a password may hold one, or a slash; a file's path is no host.
    plain = re.sub(r"://(?!/)\S*@", "://", uri)
    return _SECRET_IN_QUERY.sub(r"\1[hidden]", plain)
