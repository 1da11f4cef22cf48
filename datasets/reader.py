"""Packed shards to rows."""

import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .images import decode_image, decode_index, decode_instances
from .pack import MANIFEST, SCHEMA_VERSION
from .shard_cache import CacheConfig, ShardCache
from .spec import DataError, LabelSpace, Row
from .storage import Storage

_OPEN_FILES = 32


class PackedDataset:
    """A packed data set, opened; shards are memory-mapped when first read.

    Any number of threads may read; each keeps its own open files, the last 32.

    Args:
        storage: Its folder.
        manifest: Content of its manifest.
        cache: Where shards of remote storage are kept; None where the folder is local.
    """

    def __init__(
        self, storage: Storage, manifest: dict[str, Any], cache: ShardCache | None
    ) -> None:
        self.path = storage.location
        self.name: str = manifest["name"]
        self.digest: str = manifest["digest"]
        self.split_digests: dict[str, str] = dict(manifest["split_digests"])
        self.splits: dict[str, int] = dict(manifest["splits"])
        self.quarantined: int = manifest["quarantined"]
        self.options: dict[str, Any] = manifest["options"]
        self.label_space = LabelSpace.from_json(manifest["label_space"])
        self._storage = storage
        self._cache = cache
        self._shards: dict[str, list[dict[str, Any]]] = {split: [] for split in self.splits}
        for shard in manifest["shards"]:
            self._shards[shard["split"]].append(shard)
        self._ends = {
            split: list(accumulate(shard["rows"] for shard in shards))
            for split, shards in self._shards.items()
        }
        self._open = threading.local()

    @classmethod
    def open(cls, path: str | Path, cache: CacheConfig | None = None) -> "PackedDataset":
        """Open a packed data set and check that its shards are there.

        Args:
            path: Its folder, or a URI such as `s3://bucket/camvid`.
            cache: Where and how many bytes of remote shards are kept; the user's cache folder and
                16 GiB if not given. Not read where the folder is local.

        Raises:
            DataError: Names the folder or file that is missing or does not fit.
        """
        return cls.open_storage(Storage.at(path), cache)

    @classmethod
    def open_storage(cls, storage: Storage, cache: CacheConfig | None = None) -> "PackedDataset":
        """Open a packed data set of any storage; as `open`."""
        where = storage.location
        if storage.local is not None and not storage.local.is_dir():
            raise DataError(f"{where}: no such folder")
        try:
            missing = storage.size(MANIFEST) is None
        except OSError as error:
            raise DataError(f"{where}: cannot be reached ({error})") from error
        if missing:
            raise DataError(
                f"{where}: not a packed data set (no {MANIFEST}); make one with spikeseg data pack"
            )
        try:
            manifest = json.loads(storage.read(MANIFEST))
            version = manifest["schema_version"]
        except (ValueError, KeyError) as error:
            raise DataError(f"{where}/{MANIFEST}: not a readable manifest ({error})") from error
        if version != SCHEMA_VERSION:
            raise DataError(
                f"{where}/{MANIFEST}: schema version {version}, this version reads "
                f"{SCHEMA_VERSION}; pack it again"
            )
        if storage.local is None:
            return cls(storage, manifest, ShardCache(storage, cache or CacheConfig.default()))
        for shard in manifest["shards"]:
            size = storage.size(shard["file"])
            if size != shard["bytes"]:
                raise DataError(
                    f"{where}/{shard['file']}: {shard['bytes']} bytes expected, found {size}"
                )
        return cls(storage, manifest, None)

    def __getstate__(self) -> dict[str, Any]:
        """Open files do not travel; they are opened again where they are needed."""
        return {key: value for key, value in self.__dict__.items() if key != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = threading.local()

    @property
    def has_segments(self) -> bool:
        """Whether rows have numbered segments, as the first row of the first split says."""
        first = next(self.columns(next(iter(self.splits)), ["segments"]))
        return first["segments"] is not None

    def class_pixels(self, split: str) -> list[int]:
        """Labelled pixels per class of a split."""
        columns = [shard["pixels"] for shard in self._shards[split]]
        return [sum(column) for column in zip(*columns, strict=True)]

    def row(self, split: str, index: int) -> Row:
        """Read and decode one row.

        Args:
            split: Name of the split.
            index: Row number within the split, from 0.

        Raises:
            DataError: Names the shard and row that cannot be read or decoded.
            IndexError: Where the split has no such row.
        """
        number, offset = self._place(split, index)
        shard = self._shards[split][number]
        name = f"row {index} of {split}"
        try:
            record = self._record(shard, offset)
            name = f"row {record['id']}"
            instances = record["instances"]
            return Row(
                id=record["id"],
                image=decode_image(record["image"]),
                label=decode_index(record["label"]),
                instances=None if instances is None else decode_instances(instances),
                segments=tuple(record["segments"] or ()),
                crowd=tuple(record["crowd"] or ()),
            )
        except (DataError, OSError, pa.ArrowException) as error:
            raise DataError(f"{self.path}/{shard['file']}: {name}: {error}") from error

    def columns(self, split: str, names: list[str]) -> Iterator[dict[str, Any]]:
        """Some columns of all rows of a split, in their order, without decoding images."""
        for shard in self._shards[split]:
            file = self._file(shard)
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group, columns=names).to_pylist()

    def fetch(self, split: str, index: int) -> None:
        """Bring the shard of a row near, where it lies on remote storage.

        Raises:
            DataError: Where it cannot be fetched.
        """
        if self._cache is not None:
            shard = self._shards[split][self._place(split, index)[0]]
            self._cache.path(shard["file"], shard["sha256"], shard["bytes"])

    def shard_number(self, split: str, index: int) -> int:
        """Which of the split's shards holds a row."""
        return self._place(split, index)[0]

    @property
    def remote(self) -> bool:
        """Whether shards are fetched before they are read."""
        return self._cache is not None

    def verify(self) -> Iterator[str]:
        """Read every shard whole and compare its hash; yields what differs."""
        for shards in self._shards.values():
            for shard in shards:
                found, expected = self._storage.sha256(shard["file"]), shard["sha256"]
                if found != expected:
                    yield f"{self.path}/{shard['file']}: SHA-256 {found}, expected {expected}"

    def _place(self, split: str, index: int) -> tuple[int, int]:
        """Number of the shard, and row within it."""
        ends = self._ends[split]
        if not 0 <= index < ends[-1]:
            raise IndexError(f"split {split!r} has rows 0..{ends[-1] - 1}, got {index}")
        number = bisect_right(ends, index)
        return number, index - (ends[number - 1] if number else 0)

    def _record(self, shard: dict[str, Any], offset: int) -> dict[str, Any]:
        file = self._file(shard)
        group = 0
        while offset >= (rows := file.metadata.row_group(group).num_rows):
            offset -= rows
            group += 1
        table = file.read_row_group(group, use_threads=False)
        return table.slice(offset, 1).to_pylist()[0]

    def _file(self, shard: dict[str, Any]) -> pq.ParquetFile:
        files: OrderedDict[str, pq.ParquetFile] | None = getattr(self._open, "files", None)
        if files is None:
            files = self._open.files = OrderedDict()
        name = shard["file"]
        if name not in files:
            if self._cache is not None:
                path = self._cache.path(name, shard["sha256"], shard["bytes"])
            else:
                assert self._storage.local is not None
                path = self._storage.local / name
            files[name] = pq.ParquetFile(path, memory_map=True)
            if len(files) > _OPEN_FILES:
                files.popitem(last=False)
        files.move_to_end(name)
        return files[name]
