"""Journal of a run on disk: append-only, survives kills, uploaded to MLflow by `upload/`.

A record is one JSON line with a check sum, frozen with value and time when it is written; pictures
and texts are files beside it. Uploading the whole journal any number of times gives the same run,
because a step that is redone keeps its first record and everything else overwrites.
"""

import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, Literal

from ...datasets.packed.files import write_file
from .journal_lines import (
    LONGEST_LINE,
    RECORDS,
    cut_torn_line,
    describe_damage,
    read_records,
    record_line,
)

_log = logging.getLogger(__name__)

FILES = "files"
# What a power loss takes is measured again from the newest checkpoint on.
_SYNC_SECONDS = 5.0
_SHARE_OF_FILES = 0.9
_GIBIBYTE = 1 << 30

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Journal:
    """One run's record; it implements the training loop's `Recorder`. Safe to use from threads.

    Nothing that goes wrong on disk is raised once it is open: a full disk costs records, which
    are counted in `dropped` and said in the log, never the training.

    Args:
        folder: Where it lies; an existing journal is continued.
        run_name: Name of the run.
        tags: Tags of the run.
        params: Parameters of the run.
        parent: Journal id of the run that this one is a child of.
        mirror: Folder on storage that outlives this machine, brought up to date by every `sync`;
            where it holds more than `folder` (a new machine) the journal starts from it.
        limit: Bytes that it may take; pictures and files stop at nine tenths of it.

    Raises:
        OSError: Where the folder cannot be written.
    """

    def __init__(  # noqa: PLR0913
        self,
        folder: Path,
        *,
        run_name: str,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        parent: str | None = None,
        mirror: Path | None = None,
        limit: int = 4 * _GIBIBYTE,
    ) -> None:
        self.folder = folder
        self.dropped = 0
        self.first_drop = ""
        self._mirror = mirror
        self._limit = limit
        self._path = folder / RECORDS
        self._lock = threading.RLock()
        self._known: set[tuple[str, str, int]] = set()
        self._unshipped: set[str] = set()
        if mirror is not None and _size(mirror / RECORDS) > _size(self._path):
            shutil.copytree(mirror, folder, dirs_exist_ok=True, ignore=_links_and_devices)
        (folder / FILES).mkdir(parents=True, exist_ok=True)
        identity, self.started, damaged = self._scan()
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._used = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        self._synced = time.monotonic()
        self.id: str = identity or uuid.uuid4().hex
        run = {"kind": "run", "id": self.id, "name": run_name, "parent": parent, "time": _now()}
        self._append(run)
        self.params(params)
        self.tags(tags)
        if identity is None:
            # A second time: without the run's id nothing of a journal can be sent.
            self._append(run)
        if damaged:
            text = describe_damage(damaged)
            _log.warning("%s: damaged lines are left out: %s", folder, text)
            self.tags({"records_damaged": text})

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers of one step; a step that was recorded before is left as it was.

        Args:
            step: Optimizer step.
            values: Metric name -> value.
        """
        with self._lock:
            fresh = {k: float(v) for k, v in values.items() if ("m", k, step) not in self._known}
            if fresh:
                self._known.update(("m", key, step) for key in fresh)
                self._append({"kind": "metrics", "step": step, "time": _now(), "values": fresh})

    def params(self, values: Mapping[str, str]) -> None:
        """Record parameters of the run; as in MLflow, the first value of a name stays."""
        with self._lock:
            fresh = {k: value for k, value in values.items() if ("p", k, 0) not in self._known}
            if fresh:
                self._known.update(("p", key, 0) for key in fresh)
                self._append({"kind": "params", "values": fresh})

    def tags(self, values: Mapping[str, str]) -> None:
        """Record tags of the run; the last value of a tag counts."""
        self._append({"kind": "tags", "values": dict(values)})

    def image(self, name: str, step: int, png: bytes) -> None:
        """Record a picture of one step; a step that was recorded before is left as it was."""
        with self._lock:
            if ("i", name, step) in self._known:
                return
            path = f"pictures/{name}/{step:08d}.png"
            record = {"kind": "image", "name": name, "step": step, "time": _now(), "path": path}
            if self._store(record, png):
                self._known.add(("i", name, step))

    def text(self, path: str, content: str) -> None:
        """Record a text artifact; the last content of a path counts."""
        self._store({"kind": "file", "path": path}, content.encode())

    def picture(self, path: str, png: bytes) -> None:
        """Record a picture without step as artifact; the last one of a path counts."""
        self._store({"kind": "file", "path": path}, png)

    def artifact(self, path: str, source: Path) -> None:
        """Record a copy of a small file as artifact."""
        self._store({"kind": "file", "path": path}, source.read_bytes())

    def link(self, path: str, source: Path) -> None:
        """Record a large file as artifact; it is sent from where it lies, without a copy here."""
        confined(self.folder / FILES, path)
        source, run = source.absolute(), self.folder.absolute().parent
        # Below the run's folder relative to it, so that the folder can be moved.
        stored = source.relative_to(run) if source.is_relative_to(run) else source
        self._append({"kind": "link", "path": path, "source": str(stored)})

    def dataset(
        self,
        name: str,
        digest: str,
        context: str,
        source: str,
        profile: Mapping[str, Any] | None = None,
    ) -> None:
        """Record a data set that the run read.

        Args:
            name: Its name.
            digest: Its content's digest.
            context: What it was used for (`train`, `val`, `test`).
            source: Where it lay.
            profile: What MLflow shows of it: rows, classes, shares; None for nothing.
        """
        entry = {"name": name, "digest": digest[:36], "context": context, "source": source}
        entry |= {} if profile is None else {"profile": json.dumps(profile)}
        self._append({"kind": "dataset", **entry})

    def model(self, record: Mapping[str, Any]) -> None:
        """Record the model that a run trained, as `model_record` describes it."""
        self._append({"kind": "model", **record})

    def finish(self, status: Status) -> None:
        """Record that the run ended."""
        # Whatever the limit: without these MLflow would never learn that the run ended.
        if self.dropped:
            dropped = {"records_dropped": str(self.dropped)}
            self._append({"kind": "tags", "values": dropped}, limited=False)
        self._append({"kind": "status", "status": status, "time": _now()}, limited=False)
        self.sync()

    def sync(self) -> None:
        """Make everything recorded so far survive a power loss, and this machine's if mirrored."""
        with self._lock:
            try:
                self._flush()
                if self._mirror is not None:
                    self._ship(self._mirror)
            except OSError as error:
                _log.warning("%s: could not be made durable: %s", self.folder, error)

    def close(self) -> None:
        """Make everything survive a power loss and let the file go."""
        with self._lock:
            if self._file >= 0:
                self.sync()
                os.close(self._file)
                self._file = -1

    def _scan(self) -> tuple[str | None, int, list[int]]:
        """Read an existing journal: its run's id, its first time, offsets of damaged lines."""
        identity, started = None, _now()
        damaged: list[int] = []
        if self._path.exists():
            cut_torn_line(self._path)
            for record in read_records(self.folder):
                kind = record["kind"]
                if kind == "run" and identity is None:
                    identity, started = record["id"], record["time"]
                elif kind == "metrics":
                    self._known.update(("m", key, record["step"]) for key in record["values"])
                elif kind == "image":
                    self._known.add(("i", record["name"], record["step"]))
                elif kind == "params":
                    self._known.update(("p", key, 0) for key in record["values"])
                elif kind == "damaged":
                    damaged.append(record["byte"])
        return identity, started, damaged

    def _store(self, record: dict[str, Any], data: bytes) -> bool:
        target = confined(self.folder / FILES, record["path"])
        with self._lock:
            grown = len(data) - _size(target)
            if self._used + grown > self._limit * _SHARE_OF_FILES:
                return self._drop(f"{record['path']}: the journal's limit is reached")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                # Its record, written next, must not outlive it.
                write_file(target, data, durable=True)
            except OSError as error:
                return self._drop(f"{record['path']}: {error.strerror}")
            self._used += grown
            self._unshipped.add(record["path"])
            return self._append(record)

    def _append(self, record: dict[str, Any], *, limited: bool = True) -> bool:
        line = record_line(record)
        with self._lock:
            if len(line) > LONGEST_LINE:
                return self._drop(f"{record['kind']}: longer than {LONGEST_LINE} bytes")
            if limited and self._used + len(line) > self._limit:
                return self._drop(f"{record['kind']}: the journal's limit is reached")
            try:
                # One call per record, without a buffer: whatever a kill leaves is cut at the start.
                written = os.write(self._file, line)
                if written != len(line):
                    os.ftruncate(self._file, os.fstat(self._file).st_size - written)
                    return self._drop(f"{record['kind']}: the disk is full")
                self._used += len(line)
                if time.monotonic() - self._synced > _SYNC_SECONDS:
                    self._flush()
            except OSError as error:
                return self._drop(f"{record['kind']}: {error.strerror}")
            return True

    def _drop(self, reason: str) -> bool:
        if not self.dropped:
            self.first_drop = reason
            _log.warning(
                "%s: not recorded, and more may follow (limit %.0f MB): %s",
                self.folder,
                self._limit / 1e6,
                reason,
            )
        self.dropped += 1
        return False

    def _flush(self) -> None:
        os.fsync(self._file)
        self._synced = time.monotonic()

    def _ship(self, mirror: Path) -> None:
        """Bring the mirror up to date: files first, since records name them."""
        for path in sorted(self._unshipped):
            target = confined(mirror / FILES, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_file(target, confined(self.folder / FILES, path).read_bytes(), durable=True)
        mirror.mkdir(parents=True, exist_ok=True)
        (mirror / RECORDS).touch()
        cut_torn_line(mirror / RECORDS)
        with self._path.open("rb") as source, (mirror / RECORDS).open("ab") as target:
            source.seek(target.tell())
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        self._unshipped.clear()


def append_end(folder: Path, tags: Mapping[str, str], status: Status) -> None:
    """Record tags and the end of a run whose own process is done with its journal.

    Args:
        folder: The journal's folder.
        tags: Tags to set.
        status: How the run ended.
    """
    end = {"kind": "status", "status": status, "time": _now()}
    _append_lines(folder, [{"kind": "tags", "values": dict(tags)}, end])


def append_tags(folder: Path, tags: Mapping[str, str]) -> None:
    """Record tags of a run whose own process is done with its journal.

    Args:
        folder: The journal's folder.
        tags: Tags to set.
    """
    _append_lines(folder, [{"kind": "tags", "values": dict(tags)}])


def _append_lines(folder: Path, records: list[dict[str, Any]]) -> None:
    path = folder / RECORDS
    cut_torn_line(path)
    with path.open("ab") as file:
        file.write(b"".join(record_line(record) for record in records))
        file.flush()
        os.fsync(file.fileno())


def append_model(folder: Path, record: Mapping[str, Any]) -> None:
    """Record the model of a run whose own process is done with its journal.

    Args:
        folder: The journal's folder.
        record: As `model_record` describes it.
    """
    _append_lines(folder, [{"kind": "model", **record}])


def file_of(folder: Path, path: str) -> Path:
    """Where a recorded file's content lies."""
    return confined(folder / FILES, path)


def confined(root: Path, path: str) -> Path:
    """A path below a root.

    Raises:
        ValueError: Where it would lie outside.
    """
    target = (root / path).resolve()
    if not target.is_relative_to(root.resolve()):
        raise ValueError(f"artifact path {path!r} leaves its folder")
    return target


def _links_and_devices(folder: str, names: list[str]) -> set[str]:
    """Names in a folder that are neither files nor folders: what they lead to is no journal's."""
    modes = {name: (Path(folder) / name).lstat().st_mode for name in names}
    return {name for name, mode in modes.items() if not (S_ISREG(mode) or S_ISDIR(mode))}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _now() -> int:
    """Milliseconds, as MLflow counts them."""
    return time.time_ns() // 1_000_000
