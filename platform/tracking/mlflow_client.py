"""MLflow's client: short timeouts, no telemetry, and sqlite databases that are made whole."""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...datasets.packed.files import hold_lock, place_file
from ..config.redaction import scrubbed_message
from .tracking_uri import sqlite_file, without_user

TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_QUIET = {
    RETRIES: "0",
    TIMEOUT: "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "DO_NOT_TRACK": "true",
    # Passwords and records would go to an address that nobody named.
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",
}


def import_mlflow() -> Any:
    """Import MLflow with short timeouts, without retries and without telemetry.

    Raises:
        ImportError: Where it is not installed.
    """
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    # Whoever sends tries again by itself, after a look at what arrived: a client that repeats a
    # request below that could make a second run.
    os.environ[RETRIES] = "0"
    # At a run's end it prints the run's address, with the password in it.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    import mlflow

    return mlflow


def connect(uri: str) -> Any:
    """Connect to MLflow; the database of a new sqlite address is made first."""
    mlflow = import_mlflow()
    if uri.startswith(("http://", "https://")):
        from .bounded_answers import install_bounds

        install_bounds()
    make_database(uri)
    return mlflow.MlflowClient(tracking_uri=uri)


def make_database(uri: str, artifacts: str | None = None) -> None:
    """Make the database of a sqlite address that has none; others are left alone.

    MLflow itself makes it by hundreds of steps in place: two processes that start together, or a
    kill in between, would leave one that nobody can use or mend.

    Args:
        uri: MLflow's tracking URI.
        artifacts: Where runs of MLflow's experiment `Default` keep their files; beside the
            database if not given.
    """
    file = sqlite_file(uri)
    if file is None or file.exists():
        return
    import_mlflow()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(file.parent / f".{file.name}.lock"):
        if file.exists():
            return
        with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
            making = Path(folder) / file.name
            root = artifacts or (file.absolute().parent / "artifacts").as_uri()
            store = SqlAlchemyStore(f"sqlite:///{making}", root)
            # MLflow's pages would list it beside ours, for ever empty.
            store.delete_experiment(SqlAlchemyStore.DEFAULT_EXPERIMENT_ID)
            store.engine.dispose()
            place_file(making, file)


_REMEDIES = {
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
"""What a server answers, as MLflow's client reports it -> what it means and what to do."""


def find_remedy(error: Exception) -> str:
    """What an answer of a shared server means and what to do; empty where that is not known.

    Args:
        error: What MLflow's client raised.
    """
    text = f"{getattr(error, 'error_code', '')} {error}"
    found = (remedy for pattern, remedy in _REMEDIES.items() if re.search(pattern, text))
    return next(found, "")


@contextlib.contextmanager
def clear_mlflow_errors(uri: str) -> Iterator[None]:
    """Turn MLflow's errors into one sentence with its address, without passwords.

    Raises:
        RuntimeError: Where MLflow raised.
    """
    from google.protobuf.json_format import ParseError
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException) as error:
        # Not from the error: its own text has the whole address.
        remedy, said = find_remedy(error), scrubbed_message(error)
        state = f"{remedy} ({said})" if remedy else f"is out of reach: {said}"
        raise RuntimeError(f"MLflow at {without_user(uri)} {state}") from None
    except (ParseError, json.JSONDecodeError, AttributeError, TypeError, KeyError) as error:
        # What MLflow's client raises over JSON of another shape; ours is no exception to it.
        said = f"{type(error).__name__}: {scrubbed_message(error)}"
        raise RuntimeError(
            f"{without_user(uri)} does not answer as MLflow does ({said})"
        ) from error
