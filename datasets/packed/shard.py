"""One shard: rows in, a Parquet file and what the manifest says of it out."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..encoded_pixels import encode_png
from ..spec import DataError, EncodedRow, RawDataset, RawRow
from .channel_sums import ChannelSums
from .label_counts import LabelCounts
from .storage import Storage, sha256_of

# A reader takes a row group at a time: few rows where they are small, one where it is large.
_ROWS_PER_GROUP = 8
_BYTES_PER_GROUP = 1 << 20

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("label", pa.binary()),
        ("instances", pa.binary()),
        ("segments", pa.list_(pa.int32())),
        ("crowd", pa.list_(pa.bool_())),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("image_hash", pa.binary(16)),
    ]
)


@dataclass(frozen=True)
class ShardEntry:
    """Manifest entry of one shard.

    Attributes:
        file: File name.
        split: Name of the split.
        rows: Rows.
        bytes: Size of the file.
        sha256: Hash of the file.
        content: Hash of the rows in their order; it does not depend on our encoders.
    """

    file: str
    split: str
    rows: int
    bytes: int
    sha256: str
    content: str


@dataclass(frozen=True)
class WrittenShard:
    """What the writer of a shard says of it.

    Attributes:
        entry: Its manifest entry.
        counts: Counts of its labels.
        channels: Sums over the pixels of its images.
        bad: Id and reason of each row that was left out.
    """

    entry: ShardEntry
    counts: LabelCounts
    channels: ChannelSums
    bad: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_json(cls, content: dict[str, Any], num_classes: int) -> "WrittenShard":
        """Read what JSON made of `to_json`, for K classes."""
        return cls(
            ShardEntry(**content["entry"]),
            LabelCounts.from_text(content["counts"], num_classes),
            ChannelSums.from_json(content["channels"]),
            tuple((row_id, reason) for row_id, reason in content["bad"]),
        )

    def to_json(self) -> str:
        """The record as JSON text."""
        counts = self.counts.to_text()
        channels = self.channels.to_json()
        return json.dumps(
            {"entry": asdict(self.entry), "counts": counts, "channels": channels, "bad": self.bad}
        )


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to write one shard.

    Attributes:
        dataset: Reader of the raw rows.
        split: Name of the split.
        rows: What to write, in this order.
        file: File name of the shard.
        record: File that says it is done, for a packing that goes on after it was interrupted.
        quarantine: Leave out rows that break a rule, and say so in the entry.
    """

    dataset: RawDataset
    split: str
    rows: Sequence[RawRow]
    file: str
    record: str
    quarantine: bool


def write_shard(task: ShardTask, storage: Storage) -> WrittenShard:
    """Write one shard whole, or reuse it where an interrupted packing already did.

    Args:
        task: What to write.
        storage: Folder of the packed data set.

    Raises:
        DataError: Names the file and the rule it breaks; nothing is left of the shard.
    """
    num_classes = len(task.dataset.label_space.classes)
    done = _find_finished_shard(storage, task.record, num_classes)
    # A bad row is looked at again: its file may have been mended since.
    if done is not None and not done.bad:
        return done
    with storage.scratch() as scratch:
        written = write_rows(task, scratch)
        if written.entry.rows:
            storage.publish(scratch, task.file)
    storage.write(task.record, written.to_json().encode())
    return written


def write_rows(task: ShardTask, target: Path) -> WrittenShard:
    """Read the raw rows of a shard and write them to a local file.

    Args:
        task: What to write.
        target: The file.

    Raises:
        DataError: Names the file and the rule it breaks, unless rows are quarantined.
    """
    digest = hashlib.sha256()
    counts = LabelCounts(len(task.dataset.label_space.classes))
    channels = ChannelSums()
    bad: list[tuple[str, str]] = []
    group: list[tuple[EncodedRow, bytes]] = []
    written = 0
    # Images gain nothing from compression, dictionaries or smallest and largest values.
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(target, SCHEMA, **plain) as writer:
        for raw in task.rows:
            try:
                item = task.dataset.read(raw)
            except DataError as error:
                if not task.quarantine:
                    raise
                bad.append((raw.id, str(error)))
                continue
            image_hash = _hash_image(item)
            _add_content(digest, item.row, image_hash)
            counts.add_label(item.row.label)
            channels.add_image(item.row.image)
            group.append((item, image_hash))
            written += 1
            held = sum(len(encoded.image) for encoded, _ in group)
            if len(group) == _ROWS_PER_GROUP or held >= _BYTES_PER_GROUP:
                writer.write_table(_make_table(group))
                group = []
        if group:
            writer.write_table(_make_table(group))
    entry = ShardEntry(
        file=task.file,
        split=task.split,
        rows=written,
        bytes=target.stat().st_size,
        sha256=sha256_of(target),
        content=digest.hexdigest(),
    )
    return WrittenShard(entry, counts, channels, tuple(bad))


def _find_finished_shard(storage: Storage, record: str, num_classes: int) -> WrittenShard | None:
    """Record of a shard that an interrupted packing finished; None where its file differs."""
    if storage.size(record) is None:
        return None
    try:
        written = WrittenShard.from_json(json.loads(storage.read(record)), num_classes)
    except (ValueError, TypeError, KeyError):
        # A record that a power cut damaged: the shard is written again.
        return None
    entry = written.entry
    if entry.rows == 0:
        return written
    same = storage.size(entry.file) == entry.bytes and storage.sha256(entry.file) == entry.sha256
    return written if same else None


def _make_table(group: Sequence[tuple[EncodedRow, bytes]]) -> pa.Table:
    rows = [item.row for item, _ in group]
    panoptic = [row.instances is not None for row in rows]
    return pa.table(
        {
            "id": [row.id for row in rows],
            "image": [item.image for item, _ in group],
            "label": [encode_png(row.label) for row in rows],
            "instances": [
                None if row.instances is None else encode_png(row.instances) for row in rows
            ],
            "segments": [
                list(row.segments) if there else None
                for row, there in zip(rows, panoptic, strict=True)
            ],
            "crowd": [
                list(row.crowd or (False,) * len(row.segments)) if there else None
                for row, there in zip(rows, panoptic, strict=True)
            ],
            "height": [row.label.shape[0] for row in rows],
            "width": [row.label.shape[1] for row in rows],
            "image_hash": [image_hash[:16] for _, image_hash in group],
        },
        schema=SCHEMA,
    )


def _hash_image(item: EncodedRow) -> bytes:
    """Hash the file's bytes where they are stored, since decoders differ; else the pixels."""
    if item.verbatim:
        return hashlib.sha256(item.image).digest()
    return hashlib.sha256(np.ascontiguousarray(item.row.image).tobytes()).digest()


def _add_content(digest: Any, row: Any, image_hash: bytes) -> None:
    digest.update(image_hash)
    for part in (row.label, row.instances):
        if part is not None:
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
    crowd = list(row.crowd or (False,) * len(row.segments))
    digest.update(json.dumps([row.id, list(row.segments), crowd]).encode())
