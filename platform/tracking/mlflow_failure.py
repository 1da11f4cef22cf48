"""Why MLflow did not take or give something, as far as its error says it."""

import re
import sqlite3
from collections.abc import Iterator

from ..config.typed_paths import sqlite_file

_OUT_OF_REACH = "is out of reach"
_ANSWERS = "answers with an error"
# Texts of sqlite -> what to do.
_REMEDIES = {
    "locked": "another process writes to it; on a file system without locks between machines set "
    "MLFLOW_TRACKING_URI to a server",
    "disk is full": "free space there",
    "disk i/o error": "look at the disk, and at whether it is full",
    "readonly": "this user or mount may not write there",
    "read-only": "this user or mount may not write there",
    "malformed": "it is damaged: put a copy back, or move it away and send the runs again with "
    "spikeseg track sync",
    "not a database": "another file lies there: move it away, or name another database",
    "unable to open": "its folder is not there, or this user may not write there",
    "no such table": "another program made it, or another version of MLflow",
}

# What a server answers, as the client reports it -> what it means and what to do.
_ANSWERED = {
    r"error code 401\b|UNAUTHENTICATED": (
        "asks who you are: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
        "MLFLOW_TRACKING_TOKEN"
    ),
    r"error code 403\b|PERMISSION_DENIED": (
        "does not let this user do that: ask for the right to edit the experiment, or name another "
        "(tracking.experiment=NAME)"
    ),
    r"CERTIFICATE_VERIFY_FAILED": (
        "has a certificate of an authority that this machine does not know: name the authority's "
        "file, MLFLOW_TRACKING_SERVER_CERT_PATH=FILE.pem"
    ),
    r"RESOURCE_ALREADY_EXISTS": (
        "has something of this name already that this user may not see: choose another name"
    ),
}


def describe_failure(uri: str, error: BaseException) -> str:
    """What goes on after `MLflow`: `is out of reach`, what a server asks for, or its database.

    Args:
        uri: MLflow's tracking URI.
        error: What its client raised.
    """
    from requests import RequestException
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import HTTPError, Timeout
    from sqlalchemy.exc import SQLAlchemyError

    remedy = _find_remedy(error)
    if remedy:
        return remedy
    chain = list(_chain(error))
    if any(isinstance(item, HTTPError) for item in chain):
        return _ANSWERS
    if any(isinstance(item, NoConnection | Timeout | RequestException) for item in chain):
        return _OUT_OF_REACH
    file = sqlite_file(uri)
    said = " ".join(str(item) for item in chain).lower()
    of_database = any(isinstance(item, sqlite3.Error | SQLAlchemyError) for item in chain)
    if file is not None and (of_database or "sqlite3." in said):
        known = (remedy for text, remedy in _REMEDIES.items() if text in said)
        remedy = next(known, "see what sqlite says")
        return f"cannot use its database {file} ({remedy})"
    if file is not None and any(isinstance(item, OSError) for item in chain):
        return "cannot read or write a file of its database or artifacts"
    if of_database or any(isinstance(item, OSError) for item in chain):
        return _OUT_OF_REACH
    # MLflow's client gives up a connection in words of its own.
    lost = ("max retries exceeded", "timed out", "connection refused", "connection aborted")
    return _OUT_OF_REACH if any(text in said for text in lost) else _ANSWERS


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _find_remedy(error: BaseException) -> str:
    """What an answer of a shared server means and what to do; empty where that is not known.

    Args:
        error: What MLflow's client raised.
    """
    text = f"{getattr(error, 'error_code', '')} {error}"
    found = (remedy for pattern, remedy in _ANSWERED.items() if re.search(pattern, text))
    return next(found, "")
