"""The durable record in front of the tracker: append-only, survives kills, knows no MLflow.

A record is one JSON line, frozen with value and time when it is written; pictures and texts are
files beside it. Replaying the whole journal any number of times gives the same run, because a
step that is redone keeps its first record's time and everything else overwrites.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

_RECORDS = "records.jsonl"
_FILES = "files"
_SYNC_SECONDS = 1.0

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Journal:
    """One run's record; it implements the training loop's `Recorder`.

    Args:
        folder: Where it lies; an existing journal is continued.
        run_name: Name of the run.
        tags: Tags of the run.
        params: Parameters of the run.
        parent: Journal id of the run that this one is a child of.

    Raises:
        OSError: Where the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run_name: str,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        parent: str | None = None,
    ) -> None:
        self.folder = folder
        (folder / _FILES).mkdir(parents=True, exist_ok=True)
        self._path = folder / _RECORDS
        self._lock = threading.Lock()
        self._times: dict[tuple[str, int], int] = {}
        self._values: dict[tuple[str, int], float] = {}
        identity = None
        if self._path.exists():
            cut_torn_line(self._path)
            for record in read_records(folder):
                if record["kind"] == "run":
                    identity = record["id"]
                elif record["kind"] == "metrics":
                    for key, value in record["values"].items():
                        place = (key, record["step"])
                        self._times.setdefault(place, record["time"])
                        self._values.setdefault(place, value)
        self._file = self._path.open("a", encoding="utf-8")
        self._synced = time.monotonic()
        self.id: str = identity or uuid.uuid4().hex
        self._append(
            {"kind": "run", "id": self.id, "name": run_name, "parent": parent, "time": _now()}
        )
        self.params(params)
        self.tags(tags)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers of one step; a step that was recorded before is left as it was.

        Args:
            step: Optimizer step.
            values: Metric name -> value.
        """
        now = _now()
        fresh = {k: float(v) for k, v in values.items() if (k, step) not in self._times}
        if not fresh:
            return
        for key, value in fresh.items():
            self._times[key, step] = now
            self._values[key, step] = value
        self._append({"kind": "metrics", "step": step, "time": now, "values": fresh})

    def params(self, values: Mapping[str, str]) -> None:
        """Record parameters of the run."""
        self._append({"kind": "params", "values": dict(values)})

    def tags(self, values: Mapping[str, str]) -> None:
        """Record tags of the run; the last value of a tag counts."""
        self._append({"kind": "tags", "values": dict(values)})

    def image(self, name: str, step: int, png: bytes) -> None:
        """Record a picture of one step as artifact `images/<name>/<step>.png`."""
        self._store(f"images/{name}/{step:08d}.png", png)

    def text(self, path: str, content: str) -> None:
        """Record a text artifact; the last content of a path counts."""
        self._store(path, content.encode())

    def artifact(self, path: str, source: Path) -> None:
        """Record a copy of a file as artifact."""
        self._store(path, source.read_bytes())

    def dataset(self, name: str, digest: str, context: str, source: str) -> None:
        """Record a data set that the run read.

        Args:
            name: Its name.
            digest: Its content's digest.
            context: What it was used for (`train`, `val`, `test`).
            source: Where it lay.
        """
        self._append(
            {
                "kind": "dataset",
                "name": name,
                "digest": digest[:36],
                "context": context,
                "source": source,
            }
        )

    def finish(self, status: Status) -> None:
        """Record that the run ended."""
        self._append({"kind": "status", "status": status, "time": _now()})
        self.sync()

    def sync(self) -> None:
        """Make everything recorded so far survive a power loss."""
        with self._lock:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        """Make everything survive a power loss and let the file go."""
        if not self._file.closed:
            self.sync()
            self._file.close()

    def _store(self, path: str, data: bytes) -> None:
        target = confined(self.folder / _FILES, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        writing = target.with_name(f".{target.name}.writing")
        writing.write_bytes(data)
        writing.replace(target)
        self._append({"kind": "file", "path": path})

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, separators=(",", ":")) + "\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()


def append_end(folder: Path, tags: Mapping[str, str], status: Status) -> None:
    """Record tags and the end of a run whose own process is done with its journal.

    Args:
        folder: The journal's folder.
        tags: Tags to set.
        status: How the run ended.
    """
    path = folder / _RECORDS
    cut_torn_line(path)
    records = [
        {"kind": "tags", "values": dict(tags)},
        {"kind": "status", "status": status, "time": _now()},
    ]
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records))
        file.flush()
        os.fsync(file.fileno())


def read_records(folder: Path, offset: int = 0) -> Iterator[dict[str, Any]]:
    """Whole records of a journal from a byte offset on; each carries the offset behind it.

    Args:
        folder: The journal's folder.
        offset: Where to start, a record's `end`.

    Raises:
        ValueError: Where a line inside is not JSON; names file and byte.
    """
    path = folder / _RECORDS
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start, offset = offset, offset + len(line)
            try:
                yield {**json.loads(line), "end": offset}
            except ValueError as error:
                raise ValueError(f"{path}: byte {start}: not a record") from error


def file_of(folder: Path, path: str) -> Path:
    """Where a recorded file's content lies."""
    return confined(folder / _FILES, path)


def confined(root: Path, path: str) -> Path:
    """A path below a root.

    Raises:
        ValueError: Where it would lie outside.
    """
    target = (root / path).resolve()
    if not target.is_relative_to(root.resolve()):
        raise ValueError(f"artifact path {path!r} leaves its folder")
    return target


def cut_torn_line(path: Path) -> None:
    """Cut a file back to its last newline: a killed writer may have left half a record."""
    with path.open("rb+") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            file.truncate(whole)


def _now() -> int:
    """Milliseconds, as MLflow counts them."""
    return time.time_ns() // 1_000_000
