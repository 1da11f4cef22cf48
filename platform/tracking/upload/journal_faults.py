"""Faults of one journal, which say nothing about MLflow and hold up no other journal."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..journal_lines import read_records


class JournalError(ValueError):
    """A journal cannot be sent, however often it is tried: its own files are at fault."""


@contextlib.contextmanager
def journal_files(journal: Path) -> Iterator[None]:
    """Turn errors of the disk in the block into `JournalError`.

    Args:
        journal: The journal's folder, which the error names.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise JournalError(f"{journal}: cannot be read or written: {reason}") from error


def stored_records(journal: Path, offset: int = 0) -> Iterator[dict[str, Any]]:
    """Read a journal's records as `read_records` does.

    Raises:
        JournalError: Where its file cannot be read.
    """
    records = read_records(journal, offset)
    while True:
        with journal_files(journal):
            record = next(records, None)
        if record is None:
            return
        yield record


def first_run_record(journal: Path) -> dict[str, Any]:
    """Read the first record of a journal's run: its id, name, parent and time.

    Raises:
        JournalError: Where there is none: without its run's id nothing of a journal can be sent.
    """
    for record in stored_records(journal):
        if record["kind"] == "run":
            return record
    raise JournalError(
        f"{journal}: holds no run record, so nothing of it can be sent; put a copy of the journal "
        "back, or remove the folder"
    )
