"""MLflow's address: where it comes from, what it may be, how messages show it."""

import os
import re
from pathlib import Path

_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
_SECRET_IN_QUERY = re.compile(
    r"([?&][^=&]*(?:token|secret|pass|pwd|sig|key|credential)[^=&]*=)[^&\s]*", re.IGNORECASE
)


def tracking_uri(storage: Path) -> str:
    """Where runs are tracked: MLFLOW_TRACKING_URI, else sqlite in the storage folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{storage.absolute() / 'mlflow.db'}"


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


def sqlite_file(uri: str) -> Path | None:
    """The database's file of a sqlite address; None for other addresses."""
    scheme, _, path = uri.partition(":///")
    file = path.partition("?")[0]
    if scheme.partition("+")[0] != "sqlite" or file in ("", ":memory:"):
        return None
    return Path(file)


def without_user(uri: str) -> str:
    """An address as messages may show it: without user, password and keys."""
    # Up to the last @, since a password may hold one, or a slash; a file's path is no host.
    plain = re.sub(r"://(?!/)\S*@", "://", uri)
    return _SECRET_IN_QUERY.sub(r"\1[hidden]", plain)
