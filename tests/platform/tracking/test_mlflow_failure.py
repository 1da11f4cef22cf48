"""Sentences about MLflow name the cause that was seen, and none that was not."""

import sqlite3
from pathlib import Path

import pytest
import requests
import sqlalchemy.exc
from mlflow.exceptions import MlflowException

from spikeseg.platform.tracking.mlflow_client import clear_mlflow_errors
from spikeseg.platform.tracking.mlflow_failure import describe_failure
from spikeseg.platform.tracking.tracking_uri import tracking_uri

HTTP = "http://127.0.0.1:9"


def of_database(text: str) -> Exception:
    """What MLflow raises where sqlite raised, as its store wraps it."""
    inner = sqlalchemy.exc.OperationalError("select 1", {}, sqlite3.OperationalError(text))
    try:
        raise MlflowException(str(inner)) from inner
    except MlflowException as error:
        return error


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("database is locked", "another process writes to it"),
        ("database or disk is full", "free space there"),
        ("attempt to write a readonly database", "may not write there"),
        ("database disk image is malformed", "it is damaged: put a copy back"),
        ("file is not a database", "another file lies there"),
        ("unable to open database file", "its folder is not there"),
        ("something new", "see what sqlite says"),
    ],
)
def test_a_databases_fault_is_not_told_as_an_outage(tmp_path: Path, text: str, remedy: str) -> None:
    uri = tracking_uri(tmp_path)
    with pytest.raises(RuntimeError) as raised, clear_mlflow_errors(uri):
        raise of_database(text)
    said = str(raised.value)
    assert f"cannot use its database {tmp_path / 'mlflow.db'} (" in said
    assert remedy in said
    assert text in said
    assert "out of reach" not in said


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (requests.ConnectionError("refused"), "is out of reach"),
        (requests.Timeout("Read timed out"), "is out of reach"),
        (requests.HTTPError("500 Server Error"), "answers with an error"),
        (MlflowException("BAD_REQUEST: no"), "answers with an error"),
        (MlflowException("failed with exception Max retries exceeded with url"), "is out of reach"),
        (ConnectionResetError("peer"), "is out of reach"),
    ],
)
def test_a_servers_answer_is_no_outage_and_silence_is_one(error: Exception, what: str) -> None:
    assert describe_failure(HTTP, error) == what


def test_a_disk_beside_the_database_is_named_as_one(tmp_path: Path) -> None:
    error = PermissionError(13, "Permission denied", "/artifacts/a.png")
    what = describe_failure(tracking_uri(tmp_path), error)
    assert what == "cannot read or write a file of its database or artifacts"
