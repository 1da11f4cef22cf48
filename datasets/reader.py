"""Packed shards to rows."""

import json
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from .images import decode_image, decode_index
from .pack import MANIFEST, SCHEMA_VERSION
from .spec import DataError, LabelSpace, Row


class PackedDataset:
    """A packed data set, opened; shards are memory-mapped when first read.

    Args:
        path: Its folder.
        manifest: Content of its manifest.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.name: str = manifest["name"]
        self.digest: str = manifest["digest"]
        self.splits: dict[str, int] = dict(manifest["splits"])
        self.label_space = LabelSpace.from_json(manifest["label_space"])
        self._shards: list[dict[str, Any]] = manifest["shards"]
        self._files: dict[str, pq.ParquetFile] = {}
        self._ends = {
            split: list(accumulate(s["rows"] for s in self._shards if s["split"] == split))
            for split in self.splits
        }

    @classmethod
    def open(cls, path: str | Path) -> "PackedDataset":
        """Open a packed data set and check that its shards are there.

        Raises:
            DataError: Names the folder or file that is missing or does not fit.
        """
        path = Path(path)
        if not path.is_dir():
            raise DataError(f"{path}: no such folder")
        manifest_path = path / MANIFEST
        if not manifest_path.is_file():
            raise DataError(
                f"{path}: not a packed data set (no {MANIFEST}); make one with spikeseg data pack"
            )
        try:
            manifest = json.loads(manifest_path.read_text())
            version = manifest["schema_version"]
        except (ValueError, KeyError) as error:
            raise DataError(f"{manifest_path}: not a readable manifest ({error})") from error
        if version != SCHEMA_VERSION:
            raise DataError(
                f"{manifest_path}: schema version {version}, this version reads {SCHEMA_VERSION}"
            )
        for shard in manifest["shards"]:
            file = path / shard["file"]
            size = file.stat().st_size if file.is_file() else None
            if size != shard["bytes"]:
                raise DataError(f"{file}: {shard['bytes']} bytes expected, found {size}")
        return cls(path, manifest)

    def __getstate__(self) -> dict[str, Any]:
        """Open files do not travel; they are opened again where they are needed."""
        return {**self.__dict__, "_files": {}}

    def class_pixels(self, split: str) -> list[int]:
        """Labelled pixels per class of a split."""
        columns = [shard["pixels"] for shard in self._shards if shard["split"] == split]
        return [sum(column) for column in zip(*columns, strict=True)]

    def row(self, split: str, index: int) -> Row:
        """Read and decode one row.

        Args:
            split: Name of the split.
            index: Row number within the split, from 0.

        Raises:
            DataError: Names the shard and row that cannot be decoded.
            IndexError: Where the split has no such row.
        """
        ends = self._ends[split]
        if not 0 <= index < ends[-1]:
            raise IndexError(f"split {split!r} has rows 0..{ends[-1] - 1}, got {index}")
        number = bisect_right(ends, index)
        shards = [shard for shard in self._shards if shard["split"] == split]
        file = self._file(shards[number]["file"])
        offset = index - (ends[number - 1] if number else 0)
        group = 0
        while offset >= file.metadata.row_group(group).num_rows:
            offset -= file.metadata.row_group(group).num_rows
            group += 1
        record = file.read_row_group(group).slice(offset, 1).to_pylist()[0]
        try:
            instances = record["instances"]
            return Row(
                id=record["id"],
                image=decode_image(record["image"]),
                label=decode_index(record["label"]),
                instances=None if instances is None else decode_index(instances),
                segments=tuple(record["segments"] or ()),
            )
        except DataError as error:
            where = self.path / shards[number]["file"]
            raise DataError(f"{where}: row {record['id']}: {error}") from error

    def _file(self, name: str) -> pq.ParquetFile:
        if name not in self._files:
            self._files[name] = pq.ParquetFile(self.path / name, memory_map=True)
        return self._files[name]
