"""The table beside the results: a line a source, appended as it is done, read back at the end.

It is the memory of `--skip-existing` too: a line names the checkpoint, the settings and the state
of the source that made its files.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from ...datasets.packed.files import place_file, temporary_beside, write_file

JOURNAL = "predictions.jsonl"
TABLES = ("csv", "parquet")
_ROWS = 4096
SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("name", pa.string()),
        ("status", pa.string()),
        ("files", pa.list_(pa.string())),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("frames", pa.int32()),
        ("error", pa.string()),
        ("checkpoint", pa.string()),
        ("settings", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one source.

    Attributes:
        source: What a person calls it.
        name: First part of its files' names.
        status: `done` or `failed`.
        files: Its files, relative to the results' folder.
        height: Rows of the image, 0 where it could not be read.
        width: Columns of the image.
        frames: Frames of a video, 1 of an image, 0 where it could not be read.
        error: What was wrong; empty where nothing was.
        checkpoint: Digest of the checkpoint's manifest.
        settings: Digest of what else decides the files.
        stamp: State of the source's file.
    """

    source: str
    name: str
    status: Literal["done", "failed"] = "done"
    files: list[str] = field(default_factory=list)
    height: int = 0
    width: int = 0
    frames: int = 0
    error: str = ""
    checkpoint: str = ""
    settings: str = ""
    stamp: str = ""

    def key(self) -> bytes:
        """What a later call compares: the same source, name, checkpoint and settings."""
        return result_key(self.source, self.name, self.stamp, self.checkpoint + self.settings)


def result_key(source: str, name: str, stamp: str, made_by: str) -> bytes:
    """Eight bytes that two results share where one can stand for the other."""
    text = json.dumps([source, name, stamp, made_by])
    return hashlib.sha256(text.encode()).digest()[:8]


class ResultsTable:
    """The table of one folder of results.

    Args:
        folder: The folder, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._journal = folder / JOURNAL

    def has_files(self, result: Result) -> bool:
        """Whether all files of a result are there."""
        return all((self._folder / name).is_file() for name in result.files)

    def append(self, result: Result) -> None:
        """Add a line; whoever kills this process later loses none that was added."""
        with self._journal.open("ab") as file:
            if file.tell() and not self._ends_with_line():
                file.write(b"\n")
            file.write(json.dumps(asdict(result)).encode() + b"\n")

    def start(self) -> None:
        """Forget all lines, for a call that does everything anew."""
        self._journal.unlink(missing_ok=True)

    def write(self, kind: Literal["csv", "parquet"]) -> Path:
        """Write the table of the newest line of every name.

        Args:
            kind: Format.

        Returns:
            The file.
        """
        path = self._folder / f"predictions.{kind}"
        if kind == "csv":
            text = io.StringIO()
            writer = csv.writer(text)
            writer.writerow(SCHEMA.names)
            for row in self._rows():
                writer.writerow([";".join(v) if isinstance(v, list) else v for v in row.values()])
            write_file(path, text.getvalue())
            return path
        writing = temporary_beside(path)
        with pq.ParquetWriter(writing, SCHEMA) as writer:
            batch: list[dict[str, Any]] = []
            for row in self._rows():
                batch.append(row)
                if len(batch) == _ROWS:
                    writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
                    batch = []
            writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
        place_file(writing, path)
        return path

    def newest(self) -> Iterator[Result]:
        """The newest line of every name, in the order in which names first came."""
        last: dict[bytes, int] = {}
        for number, result in enumerate(self._read()):
            last[hashlib.sha256(result.name.encode()).digest()[:8]] = number
        for number, result in enumerate(self._read()):
            if last[hashlib.sha256(result.name.encode()).digest()[:8]] == number:
                yield result

    def _rows(self) -> Iterator[dict[str, Any]]:
        for result in self.newest():
            values = asdict(result)
            yield {name: values[name] for name in SCHEMA.names}

    def _read(self) -> Iterator[Result]:
        """Lines that are whole; one that a kill cut off is as if it had not been begun."""
        names = {item.name for item in fields(Result)}
        try:
            file = self._journal.open("rb")
        except FileNotFoundError:
            return
        with file:
            for line in file:
                try:
                    values = json.loads(line)
                    yield Result(**{key: values[key] for key in values if key in names})
                except (ValueError, TypeError):
                    continue

    def _ends_with_line(self) -> bool:
        with self._journal.open("rb") as file:
            file.seek(-1, io.SEEK_END)
            return file.read(1) == b"\n"
