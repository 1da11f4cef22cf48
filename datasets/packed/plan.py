"""Which raw rows go into which shard; rows are listed once and held on disk, not in memory."""

import hashlib
import json
import pickle
import tempfile
import threading
import weakref
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, overload

import numpy as np

from ..spec import DataError, RawDataset, RawRow
from .shard import ShardTask

PARTS = ".packing"
# Part of the plan's digest, by which a finished folder is known: it stays when the schema grows.
_PLAN_VERSION = 2
_HELD_IN_MEMORY = 16 << 20

BadRowPolicy = Literal["refuse", "quarantine"]
Shard = tuple[str, tuple[RawRow, ...]]
_Stamp = tuple[int, int] | None


class PlanOptions(TypedDict, total=False):
    """What `plan_pack` takes besides data set and source; all have defaults there."""

    rows_per_shard: int
    on_bad_row: BadRowPolicy
    max_bad_share: float
    partial: bool


class _PlannedRow(NamedTuple):
    """A raw row as it is held: its fields, paths as texts, and the stamps of its files."""

    id: str
    image: str
    label: str
    instances: str | None
    segments: np.ndarray | None
    stamps: tuple[_Stamp, ...]
    sources: tuple[str, ...] = ()
    archive: str | None = None
    details: Any = None


class PlannedShards(Sequence[Shard]):
    """Split and rows of each shard, in a temporary file where they are many.

    Any number of threads may read. The file goes with the object.
    """

    def __init__(self) -> None:
        # Closed by the finalizer below, with the object.
        self._file = tempfile.SpooledTemporaryFile(_HELD_IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._ends: dict[str, array[int]] = {}
        self._starts: dict[str, array[int]] = {}
        self._lock = threading.Lock()
        self._length = 0

    def append(self, split: str, rows: Sequence[_PlannedRow]) -> None:
        """Add a shard behind the others of its split."""
        content = zlib.compress(pickle.dumps([tuple(row) for row in rows], 5), 1)
        starts = self._starts.setdefault(split, array("Q"))
        ends = self._ends.setdefault(split, array("Q"))
        with self._lock:
            starts.append(self._file.seek(0, 2))
            self._file.write(content)
            ends.append(self._file.tell())
        self._length += 1

    def order(self, splits: Sequence[str]) -> None:
        """Put the shards of the splits into this order; all splits are named."""
        self._starts = {split: self._starts[split] for split in splits}
        self._ends = {split: self._ends[split] for split in splits}

    def __len__(self) -> int:
        """Number of shards."""
        return self._length

    @overload
    def __getitem__(self, index: int) -> Shard: ...
    @overload
    def __getitem__(self, index: slice) -> list[Shard]: ...
    def __getitem__(self, index: int | slice) -> Shard | list[Shard]:
        """Read the split and the rows of a shard."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._length))]
        split, members = self.planned_rows(index)
        return split, tuple(_make_raw_row(split, member) for member in members)

    def split(self, index: int) -> str:
        """Name of the split of a shard."""
        return self._locate(index)[0]

    def planned_rows(self, index: int) -> tuple[str, list[_PlannedRow]]:
        """Split of a shard, and its rows with what is known of their files."""
        split, number = self._locate(index)
        start, end = self._starts[split][number], self._ends[split][number]
        with self._lock:
            self._file.seek(start)
            content = self._file.read(end - start)
        return split, [_PlannedRow(*fields) for fields in pickle.loads(zlib.decompress(content))]

    def _locate(self, index: int) -> tuple[str, int]:
        if not 0 <= index < self._length:
            raise IndexError(f"there are shards 0..{self._length - 1}, got {index}")
        for split, starts in self._starts.items():
            if index < len(starts):
                return split, index
            index -= len(starts)
        raise AssertionError("the splits hold all shards")


@dataclass(frozen=True)
class PackPlan:
    """Which rows go into which shard, and what happens to bad ones.

    Attributes:
        name: Name of the data set in the catalog.
        dataset: Its reader.
        shards: Per shard its split and rows.
        rows: Rows of all shards, bad ones included.
        digest: SHA-256 over the plan; an interrupted packing continues only under the same.
        on_bad_row: `refuse` stops at the first; `quarantine` leaves bad rows out, and lists them.
        max_bad_share: Largest share of rows that may be left out, in [0, 1].
    """

    name: str
    dataset: RawDataset
    shards: PlannedShards
    rows: int
    digest: str
    on_bad_row: BadRowPolicy
    max_bad_share: float

    @property
    def most_bad_rows(self) -> int:
        """Rows that may be left out."""
        return 0 if self.on_bad_row == "refuse" else int(self.max_bad_share * self.rows)

    def file_name(self, index: int) -> str:
        """File name of a shard."""
        return f"{self.shards.split(index)}-{index:05d}.parquet"

    def has_file(self, name: str) -> bool:
        """Whether a file name is that of one of the shards."""
        number = name.removesuffix(".parquet").rpartition("-")[2]
        if not (number.isascii() and number.isdecimal() and len(number) < 20):
            return False
        return int(number) < len(self.shards) and self.file_name(int(number)) == name

    def task(self, index: int) -> ShardTask:
        """All that a worker needs to write a shard."""
        split, rows = self.shards[index]
        return ShardTask(
            dataset=self.dataset,
            split=split,
            rows=rows,
            file=self.file_name(index),
            record=f"{PARTS}/{self.digest}/{index:05d}.json",
            quarantine=self.on_bad_row == "quarantine",
        )


def plan_pack(  # noqa: PLR0913
    name: str,
    dataset: RawDataset,
    source: Path,
    *,
    rows_per_shard: int = 64,
    on_bad_row: BadRowPolicy = "refuse",
    max_bad_share: float = 0.01,
    partial: bool = False,
) -> PackPlan:
    """Plan which rows go into which shard, without decoding any.

    Memory does not grow with the rows but for 8 bytes each, while ids are compared.

    Args:
        name: Name of the data set in the catalog.
        dataset: Its reader.
        source: Folder of the raw files.
        rows_per_shard: Largest number of rows of a shard.
        on_bad_row: What happens to rows that break a rule.
        max_bad_share: Largest share of rows that may be left out.
        partial: Accept a subset of the official splits.

    Raises:
        DataError: Names what is missing, empty or repeated, or the split of another size.
    """
    if rows_per_shard < 1:
        raise DataError(f"rows_per_shard must be at least 1, got {rows_per_shard}")
    if not 0 <= max_bad_share <= 1:
        raise DataError(f"the share of bad rows must be in [0, 1], got {max_bad_share}")
    shards = PlannedShards()
    hashes: dict[str, array[int]] = {}
    unfilled: dict[str, list[_PlannedRow]] = {}
    missing = _MissingFiles()
    for row in dataset.rows(source, partial=partial):
        stamps = tuple(_read_stamp(path) for path in row.files()) if dataset.needs_source else ()
        if None in stamps:
            missing.add(row, stamps)
        members = unfilled.setdefault(row.split, [])
        members.append(_hold_row(row, stamps))
        hashes.setdefault(row.split, array("q")).append(hash(row.id))
        if len(members) == rows_per_shard:
            shards.append(row.split, members)
            unfilled[row.split] = []
    for split, members in unfilled.items():
        if members:
            shards.append(split, members)
    if not hashes:
        raise DataError(f"{source}: no rows found")
    if on_bad_row == "refuse":
        missing.refuse()
    counts = {split: len(of_split) for split, of_split in hashes.items()}
    if not partial:
        _require_counts(dataset, counts, source)
    # Splits come in the order of their first rows, whichever fills a shard first.
    shards.order(list(counts))
    digest = hashlib.sha256(
        json.dumps(
            [_PLAN_VERSION, name, dataset.label_space.to_json(), dict(dataset.options)]
        ).encode()
    )
    repeated = _RepeatedIds(hashes, source)
    for index in range(len(shards)):
        split, members = shards.planned_rows(index)
        repeated.refuse(split, members)
        digest.update(json.dumps([split, [_describe_row(member) for member in members]]).encode())
    rows = sum(counts.values())
    return PackPlan(name, dataset, shards, rows, digest.hexdigest(), on_bad_row, max_bad_share)


class _MissingFiles:
    """Counts rows' files that do not exist."""

    def __init__(self) -> None:
        self._first: Path | None = None
        self._count = 0

    def add(self, row: RawRow, stamps: Sequence[_Stamp]) -> None:
        """Look at one row."""
        for path, stamp in zip(row.files(), stamps, strict=False):
            if stamp is None:
                self._first = self._first or path
                self._count += 1

    def refuse(self) -> None:
        """Raise a `DataError` where a file is missing."""
        if self._first is not None:
            more = f" (and {self._count - 1} more)" if self._count > 1 else ""
            raise DataError(f"{self._first}: no such file{more}; every row needs image and label")


class _RepeatedIds:
    """Finds ids that occur twice in a split, among those of equal hash.

    Args:
        hashes: Split -> hash of each id; they are sorted and dropped.
        source: Named in errors.
    """

    def __init__(self, hashes: dict[str, "array[int]"], source: Path) -> None:
        self._source = source
        self._suspects: dict[str, set[int]] = {}
        self._seen: set[tuple[str, str]] = set()
        for split in list(hashes):
            values = np.frombuffer(hashes.pop(split), np.int64)
            values.sort()
            equal = values[1:] == values[:-1]
            self._suspects[split] = set(values[1:][equal].tolist())

    def refuse(self, split: str, members: Sequence[_PlannedRow]) -> None:
        """Raise a `DataError` where an id of these rows was seen before."""
        suspects = self._suspects[split]
        if not suspects:
            return
        for row_id in (member.id for member in members):
            if hash(row_id) in suspects:
                if (split, row_id) in self._seen:
                    raise DataError(f"{self._source}: {row_id} occurs twice in split {split!r}")
                self._seen.add((split, row_id))


def _hold_row(row: RawRow, stamps: tuple[_Stamp, ...]) -> _PlannedRow:
    # Texts are pickled several times as fast as paths.
    instances = None if row.instances is None else str(row.instances)
    archive = None if row.archive is None else str(row.archive)
    return _PlannedRow(
        row.id,
        str(row.image),
        str(row.label),
        instances,
        row.segments,
        stamps,
        row.sources,
        archive,
        row.details,
    )


def _make_raw_row(split: str, held: _PlannedRow) -> RawRow:
    instances = None if held.instances is None else Path(held.instances)
    return RawRow(
        held.id,
        split,
        Path(held.image),
        Path(held.label),
        instances,
        held.segments,
        held.sources,
        None if held.archive is None else Path(held.archive),
        held.details,
    )


def _read_stamp(path: Path) -> _Stamp:
    """Bytes and time of change of a file; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _describe_row(row: _PlannedRow) -> list[Any]:
    """Everything known of a row before it is decoded."""
    segments = None if row.segments is None else row.segments.tolist()
    paths = (row.image, row.label, row.instances)
    names = [_name_file(path) for path in paths if path is not None]
    described = [row.id, names, row.stamps, segments]
    # Only where there are some: digests of the other layouts' plans stay what they were.
    return [*described, row.sources] if row.sources else described


def _name_file(path: str) -> str:
    """Last part of a path, as `Path.name` gives it at ten times the cost."""
    return "" if path == "." else path.rpartition("/")[2]


def _require_counts(dataset: RawDataset, counts: Mapping[str, int], source: Path) -> None:
    for split, official in dataset.official_rows.items():
        count = counts.get(split, 0)
        if count != official:
            raise DataError(
                f"{source}: split {split!r} has {count} rows, the official one {official}; "
                "--allow-partial packs a subset"
            )
