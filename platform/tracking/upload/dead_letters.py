"""Records that will never reach MLflow: which errors are final, and where those records lie."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...config.redaction import scrubbed_message
from ..journal_lines import parse_record, write_beside
from ..recorded_files import UnsendableError

_log = logging.getLogger(__name__)

_DEAD_LETTERS = "dead_letters.jsonl"
_REFUSED = ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST")
# The request itself is at fault. Rights (401, 403), limits (429) and servers (5xx) may change.
_REFUSED_STATUS = (400, 413, 414, 422)


def refused(error: Exception) -> bool:
    """Whether MLflow, or a proxy before it, refused a request for good."""
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    if isinstance(error, HTTPError):
        # Artifacts go past MLflow's own errors.
        return error.response is not None and error.response.status_code in _REFUSED_STATUS
    if not isinstance(error, MlflowException):
        return False
    # A refusal of a proxy has a page of its own, and MLflow no code for it.
    return error.error_code in _REFUSED or any(
        f"failed with error code {status} " in str(error) for status in _REFUSED_STATUS
    )


def unsendable(error: Exception) -> bool:
    """Whether a record's own file is the reason: it is gone, damaged, or out of bounds."""
    return isinstance(error, FileNotFoundError | UnsendableError)


def set_aside(journal: Path, record: Mapping[str, Any], error: Exception) -> None:
    """Write a record that cannot be sent into a file beside the journal, and log it.

    Args:
        journal: The journal's folder.
        record: The record, or an entry of one.
        error: Why.
    """
    # A request's error holds its whole address, with the password.
    reason = scrubbed_message(error)
    with (journal / _DEAD_LETTERS).open("a") as file:
        file.write(json.dumps({"record": dict(record), "error": reason}) + "\n")
    shown = scrubbed_message(json.dumps(dict(record)))
    _log.warning("%s: MLflow refused a record: %s: %s", journal, shown, reason)


def try_again(journal: Path, send: Callable[[dict[str, Any]], object]) -> int:
    """Send the files among what was set aside once more: a mount may be back.

    Args:
        journal: The journal's folder.
        send: Sends a file's record.

    Returns:
        How many records stay set aside.
    """
    letters = journal / _DEAD_LETTERS
    if not letters.exists():
        return 0
    # A journal that was sent twice, to two databases, may name a record twice.
    lines = dict.fromkeys(letters.read_text(errors="replace").splitlines())
    kept = [line for line in lines if not _sent_now(line, send)]
    write_beside(journal, _DEAD_LETTERS, "".join(f"{line}\n" for line in kept))
    return len(kept)


def _sent_now(line: str, send: Callable[[dict[str, Any]], object]) -> bool:
    """Whether a line's record could be sent; only a file's reason can go away."""
    try:
        record = parse_record(json.loads(line)["record"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    if record is None or "path" not in record:
        return False
    try:
        send(record)
    except Exception as error:
        if not (refused(error) or unsendable(error)):
            raise
        return False
    return True
