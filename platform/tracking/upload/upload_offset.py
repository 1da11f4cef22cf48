"""How far a journal was sent, kept beside it and bound to an address and to bytes."""

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...config.typed_paths import sqlite_file
from ..journal_lines import RECORDS, lock_beside, write_beside
from .journal_faults import journal_files

_SENT = "sent.json"
_LOCK = "sender.lock"
_TAIL = 80


class SentOffset:
    """How far a journal was sent to one address; from the start where that is not known.

    A database that was moved or copied together with the journal is the one it was, if it holds the
    journal's run.

    Args:
        journal: The journal's folder.
        uri: MLflow's tracking URI.

    Attributes:
        offset: Bytes of the records that were sent.
        run_id: Their run; empty where there is none yet.
    """

    def __init__(self, journal: Path, uri: str) -> None:
        self._journal = journal
        # An address may hold a password.
        self._address = hashlib.sha256(uri.encode()).hexdigest()
        self._database = sqlite_file(uri)
        self.forget()
        try:
            state = json.loads((journal / _SENT).read_text())
            known = state["address"] == self._address or self._is_moved(state)
            if known and state["tail"] == self._tail(state["offset"]):
                self.offset, self.run_id = int(state["offset"]), str(state["run_id"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return

    def forget(self) -> None:
        """Start from the journal's beginning."""
        self.offset = 0
        self.run_id = ""

    def write(self, offset: int, run_id: str) -> None:
        """Remember that a run holds everything up to an offset.

        Raises:
            JournalError: Where the journal's folder cannot be written.
        """
        self.offset, self.run_id = offset, run_id
        with journal_files(self._journal):
            state: dict[str, Any] = {
                "offset": offset,
                "tail": self._tail(offset),
                "address": self._address,
                "database": self._relative_database(),
                "run_id": run_id,
            }
            write_beside(self._journal, _SENT, json.dumps(state))

    def _relative_database(self) -> str | None:
        """The database's path seen from the journal; None where MLflow is no sqlite database."""
        if self._database is None:
            return None
        return os.path.relpath(self._database.absolute(), self._journal.absolute())

    def _is_moved(self, state: dict[str, Any]) -> bool:
        relative = self._relative_database()
        if self._database is None or state.get("database") != relative:
            return False
        try:
            with contextlib.closing(sqlite3.connect(self._database, timeout=5)) as database:
                query = "select 1 from runs where run_uuid = ?"
                return database.execute(query, (str(state["run_id"]),)).fetchone() is not None
        except sqlite3.Error:
            return False

    def _tail(self, offset: int) -> str:
        """The bytes before an offset: after a power loss the journal may hold others there."""
        with (self._journal / RECORDS).open("rb") as file:
            start = max(0, offset - _TAIL)
            file.seek(start)
            return file.read(offset - start).decode(errors="replace")


@contextlib.contextmanager
def upload_lock(journal: Path) -> Iterator[None]:
    """Hold a journal's upload lock: two uploaders at once would do the same work twice.

    Raises:
        JournalError: Where the lock's file cannot be opened.
    """
    with contextlib.ExitStack() as lock:
        with journal_files(journal):
            lock.enter_context(lock_beside(journal, _LOCK))
        yield


def unsent(journal: Path) -> int:
    """Bytes of a journal's records that were not sent yet."""
    try:
        sent = int(json.loads((journal / _SENT).read_text())["offset"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        sent = 0
    try:
        return (journal / RECORDS).stat().st_size - sent
    except OSError:  # removed meanwhile
        return 0
