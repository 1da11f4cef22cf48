"""Names in a job that is sent to a cluster: resolved in the process in which they were typed."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ..cluster.loopback import host_of, is_loopback
from ..config.recipes import PLACES
from ..config.storage import STORAGE
from ..config.typed_paths import resolve_address, resolve_path, sqlite_file
from .tracking_uri import check_uri, tracking_uri, without_user

_URI = "MLFLOW_TRACKING_URI"
_STUDY = "SPIKESEG_STUDY"
_SENT = (_URI, "MLFLOW_TRACKING_INSECURE_TLS", STORAGE, _STUDY, "SPIKESEG_TRACEBACK")
_SECRETS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def job_variables(
    tell: Callable[[str], None], *, named: Sequence[str] = (), head: str = "127.0.0.1"
) -> dict[str, str]:
    """Variables of this process that decide where a job keeps its runs, resolved here.

    Args:
        tell: Takes a line for a person about each.
        named: Further variables that a person named; told by name alone.
        head: Host of the head.

    Raises:
        ValueError: Where one holds a password, which everyone at the head's dashboard could read,
            names a place that cannot be, or one that the head cannot mean; or where a named
            variable is not set here.
    """
    sent: dict[str, str] = {}
    for name in _SENT:
        value = os.environ.get(name)
        if value:
            if not is_loopback(head):
                _require_meant_there(name, value)
            sent[name] = _resolve(name, value)
            tell(f"{name}={sent[name]}")
    for name in named:
        value = os.environ.get(name)
        if not value:
            raise ValueError(f"--env {name}: is not set here")
        if name not in sent:
            sent[name] = value
            tell(f"{name}: sent, and whoever may read the head's dashboard can read it there")
    secrets = [name for name in sorted(os.environ) if name in _SECRETS or name.startswith("AWS_")]
    for name in secrets:
        if os.environ[name] and name not in sent:
            tell(
                f"{name}: not sent, since a job's variables can be read at the dashboard; set it "
                f"where the nodes are started, or send it with --env {name}"
            )
    return sent


def _require_meant_there(name: str, value: str) -> None:
    """Refuse an address that means this machine where the head is another one."""
    file = sqlite_file(value)
    scheme = value.partition("://")[0]
    local = file is not None and not file.is_absolute()
    if file is None and "://" in value and scheme not in ("file", "sqlite"):
        local = is_loopback(host_of(value))
    if local:
        raise ValueError(
            f"{name}: {without_user(value)} is an address of this machine, and the head is another "
            "one: name a host or a folder that its nodes see"
        )


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
