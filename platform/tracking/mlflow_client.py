"""MLflow's client: short timeouts, no telemetry, and sqlite databases that are made whole."""

import contextlib
import functools
import json
import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ...datasets.packed.files import hold_lock, place_file
from ..config.redaction import scrubbed_message
from ..config.typed_paths import sqlite_address, sqlite_file
from .mlflow_failure import describe_failure
from .tracking_uri import without_user

_log = logging.getLogger(__name__)

_TAKEN = "RESOURCE_ALREADY_EXISTS"
# An experiment that every server has: making it again is refused, after the right to write and the
# database were asked.
_KNOWN = "Default"
# Where MLflow's tables hold places of artifacts.
_PATHS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
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
    find_moved_artifacts(uri)
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
    if file is None:
        return
    import_mlflow()
    _decode_database_folders()
    if file.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(file.parent / f".{file.name}.lock"):
        if file.exists():
            return
        with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
            making = Path(folder) / file.name
            root = artifacts or (file.absolute().parent / "artifacts").as_uri()
            store = SqlAlchemyStore(sqlite_address(making), root)
            # MLflow's pages would list it beside ours, for ever empty.
            store.delete_experiment(SqlAlchemyStore.DEFAULT_EXPERIMENT_ID)
            store.engine.dispose()
            place_file(making, file)


@functools.cache
def _decode_database_folders() -> None:
    """Have MLflow 3.17 make the folder of a sqlite address as decoded: `a?b`, and no `a%3Fb`.

    It takes the address for the path; other addresses are left to it.
    """
    from mlflow.store.db import utils

    make_folder = utils._make_parent_dirs_if_sqlite

    def make_decoded_folder(db_uri: str) -> None:
        file = sqlite_file(db_uri)
        if file is None or str(file) == db_uri.partition(":///")[2]:
            make_folder(db_uri)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)

    utils._make_parent_dirs_if_sqlite = make_decoded_folder


def find_moved_artifacts(uri: str) -> None:
    """Name artifacts by where they lie now, where a storage was moved with its database.

    MLflow stores whole paths. Artifacts of a storage always lie beside its database: where the
    recorded place is gone and there are some there, the database's paths are brought up to date.
    """
    file = sqlite_file(uri)
    if file is None or not file.is_file() or not (file.parent / "artifacts").is_dir():
        return
    here = (file.absolute().parent / "artifacts").as_uri()
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=5)) as database:
            rows = database.execute("select distinct artifact_location from experiments").fetchall()
            gone = [place for (place,) in rows if _is_gone(place, here)]
            for place in gone:
                for table, column in _PATHS:
                    database.execute(
                        f"update {table} set {column} = ? || substr({column}, ?) "
                        f"where {column} = ? or substr({column}, 1, ?) = ?",
                        (here, len(place) + 1, place, len(place) + 1, f"{place}/"),
                    )
            database.commit()
    except sqlite3.Error as error:
        _log.warning("%s: artifacts are named by a place that is gone (%s)", file, error)
        return
    if gone:
        _log.warning("%s: artifacts were in %s, and are found in %s", file, gone[0], here)


def _is_gone(place: str | None, here: str) -> bool:
    """Whether a recorded place of artifacts is a folder of ours that is not there any more."""
    if place is None or place == here or not place.startswith("file://"):
        return False
    path = Path(unquote(urlsplit(place).path))
    return path.name == "artifacts" and not path.exists()


@contextlib.contextmanager
def clear_mlflow_errors(uri: str) -> Iterator[None]:
    """Turn MLflow's errors into one sentence with its address, without passwords.

    Raises:
        RuntimeError: Where MLflow raised.
    """
    from google.protobuf.json_format import ParseError
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        # Not from the error: its own text has the whole address.
        what = describe_failure(uri, error)
        text = f"MLflow at {without_user(uri)} {what}: {scrubbed_message(error)}"
        raise RuntimeError(text) from None
    except (ParseError, json.JSONDecodeError, AttributeError, TypeError, KeyError) as error:
        # What MLflow's client raises over JSON of another shape; ours is no exception to it.
        said = f"{type(error).__name__}: {scrubbed_message(error)}"
        raise RuntimeError(
            f"{without_user(uri)} does not answer as MLflow does ({said})"
        ) from error


def probe_tracker(uri: str) -> None:
    """Ask a server for its experiments and try to write; nothing is left there.

    Args:
        uri: An HTTP address, or that of a database.

    Raises:
        RuntimeError: Where it does not answer, or does not take records; names the address.
    """
    import_mlflow()
    from mlflow.exceptions import MlflowException

    with clear_mlflow_errors(uri):
        client = connect(uri)
        client.search_experiments(max_results=1)
        try:
            made = client.create_experiment(_KNOWN)
        except MlflowException as error:
            if error.error_code != _TAKEN:
                raise
        else:
            client.delete_experiment(made)
