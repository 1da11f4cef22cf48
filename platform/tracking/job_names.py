"""Names in a job that is sent to a cluster: resolved in the process in which they were typed."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ..config.recipes import PLACES
from ..config.storage import STORAGE
from ..config.typed_paths import resolve_address, resolve_path, sqlite_file
from .tracking_uri import check_uri, tracking_uri, without_user

_URI = "MLFLOW_TRACKING_URI"
_STUDY = "SPIKESEG_STUDY"
_SENT = (_URI, "MLFLOW_TRACKING_INSECURE_TLS", STORAGE, _STUDY, "SPIKESEG_TRACEBACK")
_SECRETS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def job_variables(tell: Callable[[str], None]) -> dict[str, str]:
    """Variables of this process that decide where a job keeps its runs, resolved here.

    Args:
        tell: Takes a line for a person about each.

    Raises:
        ValueError: Where one holds a password, which everyone at the head's dashboard could read,
            or names a place that cannot be.
    """
    sent: dict[str, str] = {}
    for name in _SENT:
        value = os.environ.get(name)
        if value:
            sent[name] = _resolve(name, value)
            tell(f"{name}={sent[name]}")
    if STORAGE not in sent:
        tell(f"{STORAGE}: not set here; without --storage runs are kept in the job's own ./runs")
    for name in filter(os.environ.get, _SECRETS):
        tell(
            f"{name}: not sent, since a job's variables can be read at the dashboard; set it where "
            "the nodes are started"
        )
    return sent


def job_arguments(arguments: Sequence[str]) -> list[str]:
    """A command's arguments, with the paths of storage, data and weights absolute.

    Raises:
        ValueError: Where a path names a variable that is not set.
    """
    resolved: list[str] = []
    for item in arguments:
        flag, equals, value = item.partition("=")
        if resolved and arguments[len(resolved) - 1] == "--storage":
            resolved.append(str(resolve_path(item)))
        elif equals and (flag == "--storage" or (flag in PLACES and _is_here(value))):
            resolved.append(f"{flag}={resolve_path(value)}")
        elif not equals and item.endswith((".yaml", ".yml")) and Path(item).is_file():
            resolved.append(str(resolve_path(item)))
        else:
            resolved.append(item)
    return resolved


def _is_here(value: str) -> bool:
    """Whether a value is a path of this machine; another may be one of the cluster's."""
    return "://" not in value and Path(value).exists()


def _resolve(name: str, value: str) -> str:
    if name == STORAGE or (name == _STUDY and "://" not in value):
        return str(resolve_path(value))
    if name not in (_URI, _STUDY):
        return value
    if name == _URI:
        check_uri(tracking_uri(Path()))
    if sqlite_file(value) is None and (urlsplit(value).username or value != without_user(value)):
        raise ValueError(
            f"{name}: {without_user(value)} has a user, password or key in it, and a job's "
            "variables can be read at the head's dashboard; set it where the nodes are started, "
            "and unset it here"
        )
    return resolve_address(value)
