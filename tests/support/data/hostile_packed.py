"""Packed data that somebody made to harm: whole in itself, hashes and table included."""

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from spikeseg.datasets.packed.label_counts import LabelCounts
from spikeseg.datasets.packed.manifest import read_manifest
from spikeseg.datasets.packed.shard_table import ShardTable
from spikeseg.datasets.packed.storage import Storage, sha256_of
from spikeseg.datasets.packed.write_manifest import ManifestHead, write_manifest

PLAIN: Mapping[str, Any] = {"compression": "none", "use_dictionary": False}
# More than a gigabyte of pixels, and fewer than OpenCV itself refuses.
HUGE = 32_000


def replace_shard(folder: Path, file: str, largest: int) -> None:
    """Make table and manifest fit a shard that was changed."""
    storage = Storage.at(folder)
    manifest = read_manifest(storage)
    path = folder / file
    entries = [
        replace(entry, bytes=path.stat().st_size, sha256=sha256_of(path))
        if entry.file == file
        else entry
        for entry in manifest.shards
    ]
    head = {name: getattr(manifest, name) for name in ManifestHead.__dataclass_fields__}
    counts = {}
    for split in manifest.splits:
        counts[split] = LabelCounts(len(manifest.label_space.classes))
        counts[split].largest = largest
    write_manifest(storage, ManifestHead(**head), ShardTable.from_entries(entries), counts)


def change_columns(folder: Path, file: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Rewrite a shard with other columns, stored plain."""
    table = change(pq.read_table(folder / file))
    pq.write_table(table, folder / file, **PLAIN)


def put_columns(**columns: Any) -> Callable[[pa.Table], pa.Table]:
    """Change columns of the one row of a shard, of the same type."""

    def change(table: pa.Table) -> pa.Table:
        for name, value in columns.items():
            index = table.schema.get_field_index(name)
            kind = table.schema.field(name).type
            table = table.set_column(index, name, pa.array([value], kind))
        return table

    return change


def packed_zeros(size: int) -> bytes:
    """At least so many zeros as zlib packs them, in blocks of 16 MB that are packed alike."""
    packing = zlib.compressobj(9)
    first, again = (
        packing.compress(bytes(1 << 24)) + packing.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    )
    return first + again * (size >> 24)


def png_bomb(bits: int = 8, colour: int = 2) -> bytes:
    """A black PNG of `HUGE` x `HUGE` pixels: a few megabytes that unpack to gigabytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    line = 1 + HUGE * {0: 1, 2: 3}[colour] * bits // 8
    head = struct.pack(">IIBBBBB", HUGE, HUGE, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", packed_zeros(line * HUGE)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def jpeg_bomb() -> bytes:
    """A JPEG whose header says `HUGE` x `HUGE`."""
    data = io.BytesIO()
    Image.new("RGB", (16, 16)).save(data, "JPEG")
    content = bytearray(data.getvalue())
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = struct.pack(">HH", HUGE, HUGE)
    return bytes(content)


def encoded(kind: str, size: tuple[int, int]) -> bytes:
    """A good picture of another format."""
    data = io.BytesIO()
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(data, kind)
    return data.getvalue()
