"""Reads rows of a packed data set, from any thread, with every damage named."""

import errno
import hashlib
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..images import decode_image, decode_index, decode_instances
from ..spec import DataError, Row, StorageAwayError
from .manifest import MANIFEST, Manifest, read_manifest
from .shard import ShardEntry
from .shard_cache import CacheConfig, ShardCache
from .storage import Storage

_OPEN_FILES = 32
# Damaged bytes make Arrow and the decoders raise any of these.
_DAMAGE = (ValueError, LookupError, TypeError, OSError, pa.ArrowException)
# These say nothing about the bytes.
_AWAY = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN)


class PackedDataset:
    """A packed data set, opened; shards are memory-mapped when first read.

    Any number of threads may read; each keeps its own open files, the last 32.

    Args:
        storage: Its folder.
        manifest: What it says of itself.
        cache: Where shards of remote storage are kept; None where the folder is local.
    """

    def __init__(self, storage: Storage, manifest: Manifest, cache: ShardCache | None) -> None:
        self.path = storage.location
        self.name = manifest.name
        self.digest = manifest.digest
        self.split_digests = dict(manifest.split_digests)
        self.splits = dict(manifest.splits)
        self.quarantined = manifest.quarantined
        self.options = dict(manifest.options)
        self.label_space = manifest.label_space
        self.baselines = manifest.baselines
        self._storage = storage
        self._cache = cache
        self._shards: dict[str, list[ShardEntry]] = {split: [] for split in self.splits}
        for shard in manifest.shards:
            self._shards[shard.split].append(shard)
        self._ends = {
            split: list(accumulate(shard.rows for shard in shards))
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
        manifest = read_manifest(storage)
        if storage.local is None:
            return cls(storage, manifest, ShardCache(storage, cache or CacheConfig.default()))
        for shard in manifest.shards:
            size = storage.size(shard.file)
            if size != shard.bytes:
                raise DataError(f"{where}/{shard.file}: {shard.bytes} bytes expected, found {size}")
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
        columns = [shard.pixels for shard in self._shards[split]]
        return [sum(column) for column in zip(*columns, strict=True)]

    def row(self, split: str, index: int) -> Row:
        """Read and decode one row.

        Args:
            split: Name of the split.
            index: Row number within the split, from 0.

        Raises:
            DataError: Names the shard and row that cannot be read, or is not what was packed.
            StorageAwayError: Where storage does not answer; the row may be good.
            IndexError: Where the split has no such row.
        """
        number, offset = self._locate(split, index)
        shard = self._shards[split][number]
        where = f"{self.path}/{shard.file}"
        with _name_damage(f"{where}: row {index} of {split}"):
            record = self._read_record(shard, offset)
        with _name_damage(f"{where}: row {record['id']}"):
            return _decode_record(record)

    def columns(self, split: str, names: list[str]) -> Iterator[dict[str, Any]]:
        """Some columns of all rows of a split, in their order, without decoding images.

        Raises:
            DataError: Names the shard that cannot be read.
        """
        for shard in self._shards[split]:
            where = f"{self.path}/{shard.file}"
            with _name_damage(where):
                file = self._open_shard(shard)
            for group in range(file.num_row_groups):
                with _name_damage(where):
                    rows = file.read_row_group(group, columns=names).to_pylist()
                yield from rows

    def fetch(self, split: str, index: int) -> None:
        """Fetch the shard of a row into the local cache, where storage is remote.

        Raises:
            DataError: Where it is not there, or is not what was packed.
            StorageAwayError: Where it cannot be fetched now.
        """
        if self._cache is not None:
            shard = self._shards[split][self._locate(split, index)[0]]
            self._cache.path(shard.file, shard.sha256, shard.bytes)

    def shard_number(self, split: str, index: int) -> int:
        """Which of the split's shards holds a row."""
        return self._locate(split, index)[0]

    @property
    def remote(self) -> bool:
        """Whether shards are fetched before they are read."""
        return self._cache is not None

    def verify(self) -> Iterator[str]:
        """Read every shard whole and compare its hash; yields what differs."""
        for shards in self._shards.values():
            for shard in shards:
                digest = self._storage.sha256(shard.file)
                if digest != shard.sha256:
                    yield f"{self.path}/{shard.file}: SHA-256 {digest}, expected {shard.sha256}"

    def _locate(self, split: str, index: int) -> tuple[int, int]:
        """Number of the shard that holds a row, and the row's number within it."""
        ends = self._ends[split]
        if not 0 <= index < ends[-1]:
            raise IndexError(f"split {split!r} has rows 0..{ends[-1] - 1}, got {index}")
        number = bisect_right(ends, index)
        return number, index - (ends[number - 1] if number else 0)

    def _read_record(self, shard: ShardEntry, offset: int) -> dict[str, Any]:
        file = self._open_shard(shard)
        group = 0
        while offset >= (rows := file.metadata.row_group(group).num_rows):
            offset -= rows
            group += 1
        table = file.read_row_group(group, use_threads=False)
        return table.slice(offset, 1).to_pylist()[0]

    def _open_shard(self, shard: ShardEntry) -> pq.ParquetFile:
        files: OrderedDict[str, pq.ParquetFile] | None = getattr(self._open, "files", None)
        if files is None:
            files = self._open.files = OrderedDict()
        name = shard.file
        if name not in files:
            if self._cache is not None:
                path = self._cache.path(name, shard.sha256, shard.bytes)
            else:
                assert self._storage.local is not None
                path = self._storage.local / name
            files[name] = pq.ParquetFile(path, memory_map=True)
            if len(files) > _OPEN_FILES:
                files.popitem(last=False)
        files.move_to_end(name)
        return files[name]


@contextmanager
def _name_damage(where: str) -> Iterator[None]:
    """Turn whatever damaged bytes make a decoder raise into a `DataError` that names the row."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    except _DAMAGE as error:
        if isinstance(error, StorageAwayError):
            raise
        if isinstance(error, OSError) and error.errno in _AWAY:
            raise StorageAwayError(f"{where}: {error}") from error
        raise DataError(f"{where}: it is damaged ({error!r})") from error


def _decode_record(record: dict[str, Any]) -> Row:
    """Decode a stored record, and compare it with the hash and sizes that were packed."""
    image = decode_image(record["image"])
    # The hash is of the file's own bytes where these are stored, else of the pixels.
    if not any(
        hashlib.sha256(part).digest().startswith(record["image_hash"])
        for part in (record["image"], image.data)
    ):
        raise DataError("the image is not the one that was packed: its bytes have changed")
    # Wrong bytes of a PNG are met by its own check sums.
    label = decode_index(record["label"])
    encoded = record["instances"]
    instances = None if encoded is None else decode_instances(encoded)
    segments = tuple(record["segments"] or ())
    sizes = {part.shape[:2] for part in (image, label, instances) if part is not None}
    if sizes != {(record["height"], record["width"])}:
        raise DataError(f"image and label have other sizes than were packed: {sorted(sizes)}")
    if instances is not None and int(instances.max()) > len(segments):
        raise DataError(f"{len(segments)} segments are listed, one is numbered {instances.max()}")
    return Row(
        id=record["id"],
        image=image,
        label=label,
        instances=instances,
        segments=segments,
        crowd=tuple(record["crowd"] or ()),
    )
