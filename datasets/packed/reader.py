"""Reads rows of a packed data set, from any thread, with every damage named."""

import hashlib
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..encoded_pixels import (
    MOST_PIXELS,
    decode_bands,
    decode_image,
    decode_index,
    decode_instances,
    is_jpeg,
)
from ..printable_text import make_printable
from ..spec import DataError, Row, StorageAwayError
from .manifest import MANIFEST, Manifest, read_manifest
from .parquet_limits import CheckedParquet
from .shard import SCHEMA, ShardEntry
from .shard_cache import CacheConfig, ShardCache
from .storage import Storage

_OPEN_FILES = 32
# Versions before wrote at most 8; a group is decoded whole for one of its rows.
_MOST_GROUP_ROWS = 1 << 10
# Damaged bytes make Arrow and the decoders raise any of these.
_DAMAGE = (ValueError, LookupError, TypeError, OSError, pa.ArrowException)


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
        self.channels = manifest.channels
        self.colours = manifest.colours
        self.baselines = manifest.baselines
        self._class_pixels = manifest.class_pixels
        self._largest_row = manifest.largest_row
        self._storage = storage
        self._cache = cache
        self._shards = manifest.shards.by_split()
        self._ends = {split: shards.ends() for split, shards in self._shards.items()}
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
        for file, expected in manifest.shards.sizes():
            # One call of the system each: pyarrow's own way takes ten times as long.
            size = _local_size(f"{storage.root}/{file}")
            if size != expected:
                raise DataError(f"{where}/{file}: {expected} bytes expected, found {size}")
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
        return list(self._class_pixels[split])

    def row(
        self,
        split: str,
        index: int,
        reduction: Callable[[tuple[int, int]], int] | None = None,
    ) -> Row:
        """Read and decode one row.

        Args:
            split: Name of the split.
            index: Row number within the split, from 0.
            reduction: Height and width -> divisor (1, 2, 4 or 8) at which a JPEG is decoded; whole
                if not given, as everything else is.

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
            size = self._require_size(record)
            divisor = 1 if reduction is None else reduction(size)
            return _decode_record(record, size, self.channels, divisor)

    def columns(self, split: str, names: list[str]) -> Iterator[dict[str, Any]]:
        """Some columns of all rows of a split, in their order, without decoding images.

        Raises:
            DataError: Names the shard that cannot be read.
        """
        for shard in self._shards[split]:
            yield from self._shard_columns(shard, names)

    def num_shards(self, split: str) -> int:
        """Number of shards of a split."""
        return len(self._shards[split])

    def shard_labels(self, split: str, number: int) -> Iterator[np.ndarray]:
        """Label maps of the rows of one shard, (H, W) uint8 each, without decoding images.

        Args:
            split: Name of the split.
            number: Number of the shard within the split, from 0.

        Raises:
            DataError: Names the shard and row that cannot be read, or whose size is not what was
                packed, or the shard that has other rows than the manifest says.
        """
        shard = self._shards[split][number]
        where = f"{self.path}/{shard.file}"
        rows = 0
        for record in self._shard_columns(shard, ["id", "label", "height", "width"]):
            with _name_damage(f"{where}: row {record['id']}"):
                yield decode_index(record["label"], self._require_size(record))
            rows += 1
        if rows != shard.rows:
            raise DataError(f"{where}: it has {rows} rows, {shard.rows} expected")

    def _shard_columns(self, shard: ShardEntry, names: list[str]) -> Iterator[dict[str, Any]]:
        where = f"{self.path}/{shard.file}"
        with _name_damage(where):
            opened = self._open_shard(shard)
        for group in range(opened.file.num_row_groups):
            with _name_damage(where):
                rows = opened.read_group(group, names).to_pylist()
            yield from rows

    def _require_size(self, record: Mapping[str, Any]) -> tuple[int, int]:
        """Height and width of a record, where no more pixels than the manifest allows."""
        height, width = record["height"], record["width"]
        most = MOST_PIXELS if self._largest_row is None else min(MOST_PIXELS, self._largest_row)
        if height < 1 or width < 1 or height * width > most:
            raise DataError(f"it says that it has {height} x {width} pixels, at most {most}")
        return height, width

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
        yield from filter(None, self.verify_each())

    def verify_each(self) -> Iterator[str | None]:
        """Read shard after shard and compare its hash; yields what differs, None for nothing."""
        for shards in self._shards.values():
            for shard in shards:
                digest = self._storage.sha256(shard.file)
                yield (
                    f"{self.path}/{shard.file}: SHA-256 {digest}, expected {shard.sha256}"
                    if digest != shard.sha256
                    else None
                )

    def _locate(self, split: str, index: int) -> tuple[int, int]:
        """Number of the shard that holds a row, and the row's number within it."""
        ends = self._ends[split]
        if not 0 <= index < ends[-1]:
            raise IndexError(f"split {split!r} has rows 0..{ends[-1] - 1}, got {index}")
        number = int(np.searchsorted(ends, index, "right"))
        return number, index - (int(ends[number - 1]) if number else 0)

    def _read_record(self, shard: ShardEntry, offset: int) -> dict[str, Any]:
        opened = self._open_shard(shard)
        group = int(np.searchsorted(opened.ends, offset, "right"))
        if group == len(opened.ends):
            raise DataError(f"it has {opened.file.metadata.num_rows} rows, {shard.rows} expected")
        offset -= int(opened.ends[group - 1]) if group else 0
        return opened.read_group(group).slice(offset, 1).to_pylist()[0]

    def _open_shard(self, shard: ShardEntry) -> "_OpenShard":
        files: OrderedDict[str, _OpenShard] | None = getattr(self._open, "files", None)
        if files is None:
            files = self._open.files = OrderedDict()
        name = shard.file
        if name not in files:
            if self._cache is not None:
                path = self._cache.path(name, shard.sha256, shard.bytes)
            else:
                assert self._storage.local is not None
                path = self._storage.local / name
            files[name] = _OpenShard(path)
            if len(files) > _OPEN_FILES:
                files.popitem(last=False)
        files.move_to_end(name)
        return files[name]


class _OpenShard(CheckedParquet):
    """An open shard.

    Args:
        path: Its local file.

    Attributes:
        ends: Number of rows in its row groups up to and including each.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(_open_mapped(path), SCHEMA, most_rows=_MOST_GROUP_ROWS)
        metadata = self.file.metadata
        groups = range(self.file.num_row_groups)
        self.ends = np.cumsum([metadata.row_group(number).num_rows for number in groups])


def _open_mapped(path: Path) -> pa.NativeFile:
    """Map a file into memory; open it to be read where the file system maps none."""
    try:
        return pa.memory_map(str(path))
    except OSError:
        return pa.OSFile(str(path))


def _local_size(path: str) -> int | None:
    """Bytes of a local file; None where there is no such file."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


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
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageAwayError(make_printable(f"{where}: cannot be read: {error}")) from error
        raise DataError(f"{where}: it is damaged ({error!r})") from error


def _decode_record(
    record: Mapping[str, Any], size: tuple[int, int], channels: int, reduction: int
) -> Row:
    """Decode a stored record, and compare it with the hash and sizes that were packed.

    Args:
        record: All columns of the row.
        size: Height and width that image, label and instances must have; none is decoded whose
            header says otherwise.
        channels: Channels of the image.
        reduction: Divisor at which the image is decoded where it is a JPEG.
    """
    image, reduction = _decode_image(record, size, channels, reduction)
    # Wrong bytes of a PNG are met by its own check sums.
    label = decode_index(record["label"], size)
    encoded = record["instances"]
    instances = None if encoded is None else decode_instances(encoded, size)
    segments = tuple(record["segments"] or ())
    if instances is not None and int(instances.max()) > len(segments):
        raise DataError(f"{len(segments)} segments are listed, one is numbered {instances.max()}")
    return Row(
        id=record["id"],
        image=image,
        label=label,
        instances=instances,
        segments=segments,
        crowd=tuple(record["crowd"] or ()),
        reduction=reduction,
    )


def _decode_image(
    record: Mapping[str, Any], size: tuple[int, int], channels: int, reduction: int
) -> tuple[np.ndarray, int]:
    """Decode and compare the image of a record; returns the divisor that it was decoded at, too."""
    data, digest = record["image"], record["image_hash"]
    # The hash is of the file's own bytes where these are stored, else of the pixels.
    verbatim = hashlib.sha256(data).digest().startswith(digest)
    if verbatim and reduction > 1 and channels == 3 and is_jpeg(data):
        return decode_image(data, size, reduction), reduction
    image = decode_bands(data, channels, size)
    if not verbatim and not hashlib.sha256(image.data).digest().startswith(digest):
        raise DataError("the image is not the one that was packed: its bytes have changed")
    return image, 1
