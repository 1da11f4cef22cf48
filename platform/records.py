"""The lines of a journal's file: read back one by one, whatever a kill or a disk left there."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECORDS = "records.jsonl"
_KEYS = {
    "run": {"id", "name", "parent", "time"},
    "metrics": {"step", "time", "values"},
    "params": {"values"},
    "tags": {"values"},
    "image": {"name", "step", "time", "path"},
    "file": {"path"},
    "link": {"path", "source"},
    "dataset": {"name", "digest", "context", "source"},
    "status": {"status", "time"},
}


def read_records(folder: Path, offset: int = 0) -> Iterator[dict[str, Any]]:
    """Whole records of a journal from a byte offset on; each carries the offset behind it.

    A line that a disk damaged comes as a record of kind `damaged` with its `byte`: all others are
    as good as before.

    Args:
        folder: The journal's folder.
        offset: Where to start, a record's `end`.
    """
    with (folder / RECORDS).open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start, offset = offset, offset + len(line)
            yield {**(_record(line) or {"kind": "damaged", "byte": start}), "end": offset}


def _record(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None where it is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    known = isinstance(record, dict) and _KEYS.get(str(record.get("kind")))
    return record if known and known <= record.keys() else None


def cut_torn_line(path: Path) -> None:
    """Cut a file back to its last newline: a killed writer may have left half a record."""
    with path.open("rb+") as file:
        position = end = file.seek(0, os.SEEK_END)
        while position > 0:
            start = max(0, position - 65536)
            file.seek(start)
            found = file.read(position - start).rfind(b"\n")
            if found >= 0:
                position = start + found + 1
                break
            position = start
        if position != end:
            file.truncate(position)
