"""Checks of MLflow's address and the study's place: reachable, writable, without passwords."""

import os
import sqlite3
from pathlib import Path

from ..config.errors import ConfigError
from ..config.typed_paths import sqlite_file
from ..tracking.mlflow_client import probe_tracker
from ..tracking.tracking_uri import check_uri, tracking_uri, without_user
from .findings import Finding, fail, ok, skipped, warn
from .subject import Subject

_ADDRESS = "set MLFLOW_TRACKING_URI to http://HOST:5000 or sqlite:////FOLDER/mlflow.db, or unset it"


def check_tracker_address(subject: Subject) -> Finding:
    """MLflow's address is one that can be recorded to, and holds no password."""
    uri = tracking_uri(subject.storage)
    try:
        check_uri(uri)
    except ValueError as error:
        return fail(str(error), _ADDRESS)
    if without_user(uri) != uri:
        return warn(
            f"MLFLOW_TRACKING_URI: {without_user(uri)} has a user, password or key in it",
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead",
        )
    if subject.environment.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("1", "true"):
        return warn(
            "MLFLOW_TRACKING_INSECURE_TLS: whoever is between here and the tracker reads passwords",
            "name the certificate with MLFLOW_TRACKING_SERVER_CERT_PATH",
        )
    return ok(without_user(uri))


def check_tracker(subject: Subject) -> Finding:
    """MLflow answers, and takes records from this user."""
    uri = tracking_uri(subject.storage)
    try:
        check_uri(uri)
    except ValueError:
        return skipped("the address is none of a tracker")
    file = sqlite_file(uri)
    if file is not None:
        return _check_database(file)
    try:
        probe_tracker(uri)
    except RuntimeError as error:
        return fail(
            str(error),
            "see that the server runs and who may write; trainings keep their journal meanwhile "
            "(spikeseg track sync)",
        )
    return ok(f"{without_user(uri)}: answers and takes records")


def _check_database(file: Path) -> Finding:
    if not file.exists():
        return ok(f"{file}: is made with the first run")
    if not os.access(file, os.W_OK) or not os.access(file.parent, os.W_OK):
        return fail(f"{file}: cannot be written", "chmod u+w, or another MLFLOW_TRACKING_URI")
    try:
        database = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            database.execute("select count(*) from experiments").fetchone()
        finally:
            database.close()
    except sqlite3.Error as error:
        return fail(
            f"{file}: is no database of MLflow's ({error})", "move it away; a new one is made"
        )
    return ok(f"{file}: writable")


def check_study(subject: Subject) -> Finding:
    """The place of the study can be opened, or made."""
    try:
        # Of a sweep alone, which needs Optuna anyway.
        from ..search.study.study_storage import check_storage_address, read_address

        address = read_address()
        if address is None:
            return ok("the study lies in the sweep's folder")
        exists = check_storage_address(address)
    except ConfigError as error:
        return fail(str(error), "set SPIKESEG_STUDY to a journal's path or a database, or unset it")
    return ok(f"SPIKESEG_STUDY: {'has studies' if exists else 'is made with the first sweep'}")
