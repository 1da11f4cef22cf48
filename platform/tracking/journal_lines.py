"""The lines of a journal's file: written with a check sum, read whatever a kill or a disk left."""

import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ...datasets.packed.files import hold_lock, write_file

RECORDS = "records.jsonl"
LONGEST_LINE = 16_000_000
"""Bytes of a record's line; a configuration has some ten thousand."""
_CHECK_SUM = re.compile(rb',"crc":"([0-9a-f]{8})"\}\n\Z')


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _values(value: Any) -> bool:
    return isinstance(value, dict)


def _numbers(value: Any) -> bool:
    return _values(value) and all(isinstance(v, float) or _whole(v) for v in value.values())


_FIELDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "run": {"id": _text, "name": _text, "parent": lambda v: v is None or _text(v), "time": _whole},
    "metrics": {"step": _whole, "time": _whole, "values": _numbers},
    "params": {"values": _values},
    "tags": {"values": _values},
    "image": {"name": _text, "step": _whole, "time": _whole, "path": _text},
    "file": {"path": _text},
    "link": {"path": _text, "source": _text},
    "model": {
        **dict.fromkeys(("name", "folder", "example", "dataset"), _text),
        **{"params": _values, "tags": _values, "digests": _values, "step": _whole},
        "files": lambda v: isinstance(v, list) and all(map(_text, v)),
        "register": lambda v: v is None or _text(v),
    },
    "dataset": {"name": _text, "digest": _text, "context": _text, "source": _text},
    "status": {"status": ("FINISHED", "FAILED", "KILLED").__contains__, "time": _whole},
}


def record_line(record: Mapping[str, Any]) -> bytes:
    """Encode a record as a line with a check sum as its last field."""
    body = json.dumps(record, separators=(",", ":")).encode()
    return body[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(body)


def read_records(folder: Path, offset: int = 0) -> Iterator[dict[str, Any]]:
    """Read a journal's whole records from a byte offset on; each carries the offset behind it.

    A line that a disk damaged comes as a record of kind `damaged` with its `byte`: all others are
    as good as before. Lines without a check sum are of an earlier version, and read.

    Args:
        folder: The journal's folder.
        offset: Where to start, a record's `end`.
    """
    with (folder / RECORDS).open("rb") as file:
        file.seek(offset)
        while line := file.readline(LONGEST_LINE):
            start, offset = offset, offset + len(line)
            record = _parse_line(line)
            while not line.endswith(b"\n"):
                # Too long to be a record: passed over in pieces, so that it costs no memory.
                line = file.readline(LONGEST_LINE)
                if not line:
                    return
                offset += len(line)
            yield {**(record or {"kind": "damaged", "byte": start}), "end": offset}


def describe_damage(offsets: Sequence[int]) -> str:
    """Describe damaged lines in words.

    Args:
        offsets: The byte where each begins, at least one.
    """
    return f"{len(offsets)} of {RECORDS}, the first at byte {offsets[0]}"


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """Parse a line; None where it is damaged or no record."""
    check_sum = _CHECK_SUM.search(line)
    if check_sum:
        line = line[: check_sum.start()] + b"}"
        if zlib.crc32(line) != int(check_sum[1], 16):
            return None
    try:
        return parse_record(json.loads(line))
    except (ValueError, RecursionError):
        return None


def parse_record(value: Any) -> dict[str, Any] | None:
    """Check a value that JSON gave; None where it is no record.

    Letters that no encoding has (halves of a pair) become question marks: MLflow's databases
    refuse them, and a record that can never be sent would hold up all behind it.
    """
    fields = _FIELDS.get(str(value.get("kind"))) if isinstance(value, dict) else None
    if fields is None or not all(key in value and fits(value[key]) for key, fits in fields.items()):
        return None
    return _encodable(value)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list) else value


def cut_torn_line(path: Path) -> None:
    """Cut a file back to its last newline: a killed writer may have left half a record."""
    with path.open("rb+") as file:
        position = end = file.seek(0, os.SEEK_END)
        while position > 0:
            start = max(0, position - 65536)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                position = start + newline + 1
                break
            position = start
        if position != end:
            file.truncate(position)


def write_beside(journal: Path, name: str, text: str) -> None:
    """Replace a small file that stands beside a journal's records, whole or not at all."""
    write_file(journal / name, text)


def lock_beside(journal: Path, name: str) -> AbstractContextManager[None]:
    """Wait for the lock of a name that stands beside a journal's records."""
    return hold_lock(journal / name)
