"""Raw files to Parquet shards: plan, write one shard, commit the manifest last.

There is no scheduler in here: `pack` maps shards over threads of this process, and
`platform/packing.py` may map the same functions over a cluster.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .images import encode_png
from .spec import DataError, EncodedRow, RawDataset, RawRow, duplicates

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_PARTS = ".packing"
_ROWS_PER_GROUP = 8

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("label", pa.binary()),
        ("instances", pa.binary()),
        ("segments", pa.list_(pa.int32())),
        ("height", pa.int32()),
        ("width", pa.int32()),
    ]
)


@dataclass(frozen=True)
class PackPlan:
    """Which rows go into which shard.

    Attributes:
        name: Name of the data set in the catalog.
        dataset: Its reader.
        shards: Per shard its split and rows.
        digest: SHA-256 over the plan; an interrupted packing continues only under the same.
    """

    name: str
    dataset: RawDataset
    shards: tuple[tuple[str, tuple[RawRow, ...]], ...]
    digest: str

    def file_name(self, index: int) -> str:
        """File name of a shard."""
        split = self.shards[index][0]
        return f"{split}-{index:05d}.parquet"


@dataclass(frozen=True)
class ShardEntry:
    """What the manifest says of one shard.

    Attributes:
        file: File name.
        split: Name of the split.
        rows: Rows.
        bytes: Size of the file.
        sha256: Hash of the file.
        content: Hash of the decoded rows in their order (does not depend on encoders).
        pixels: (K,) labelled pixels per class.
    """

    file: str
    split: str
    rows: int
    bytes: int
    sha256: str
    content: str
    pixels: tuple[int, ...]


def plan_pack(
    name: str, dataset: RawDataset, source: Path, *, rows_per_shard: int = 64
) -> PackPlan:
    """Decide what goes where, without decoding anything.

    Args:
        name: Name of the data set in the catalog.
        dataset: Its reader.
        source: Folder of the raw files.
        rows_per_shard: Largest number of rows of a shard.

    Raises:
        DataError: Names what is missing, empty or repeated.
    """
    if rows_per_shard < 1:
        raise DataError(f"rows_per_shard must be at least 1, got {rows_per_shard}")
    rows = dataset.rows(source)
    if not rows:
        raise DataError(f"{source}: no rows found")
    shards: list[tuple[str, tuple[RawRow, ...]]] = []
    for split in dict.fromkeys(row.split for row in rows):
        members = [row for row in rows if row.split == split]
        for row_id in duplicates([row.id for row in members]):
            raise DataError(f"{source}: {row_id} occurs twice in split {split!r}")
        for start in range(0, len(members), rows_per_shard):
            shards.append((split, tuple(members[start : start + rows_per_shard])))
    options = getattr(dataset, "options", None)
    text = json.dumps(
        [
            SCHEMA_VERSION,
            name,
            dataset.label_space.to_json(),
            None if options is None else asdict(options),
            [[split, [[row.id, row.image.name] for row in members]] for split, members in shards],
        ]
    )
    return PackPlan(name, dataset, tuple(shards), hashlib.sha256(text.encode()).hexdigest())


def write_shard(plan: PackPlan, index: int, output: Path) -> ShardEntry:
    """Write one shard whole, or reuse it where an interrupted packing already did.

    Args:
        plan: The plan.
        index: Number of the shard.
        output: Folder of the packed data set.

    Raises:
        DataError: Names the file and the rule it breaks; nothing is left of the shard.
    """
    parts = output / _PARTS / plan.digest
    record = parts / f"{index:05d}.json"
    target = output / plan.file_name(index)
    if record.is_file() and target.is_file():
        entry = json.loads(record.read_text())
        if _hash(target) == entry["sha256"]:
            return ShardEntry(**{**entry, "pixels": tuple(entry["pixels"])})
    split, rows = plan.shards[index]
    writing = parts / f"{target.name}.writing"
    content = hashlib.sha256()
    pixels = np.zeros(len(plan.dataset.label_space.classes), np.int64)
    with pq.ParquetWriter(writing, SCHEMA, compression="none", use_dictionary=False) as writer:
        for start in range(0, len(rows), _ROWS_PER_GROUP):
            encoded = [plan.dataset.read(row) for row in rows[start : start + _ROWS_PER_GROUP]]
            for item in encoded:
                _add_content(content, item)
                counts = np.bincount(item.row.label.ravel(), minlength=256)
                pixels += counts[: len(pixels)]
            writer.write_table(_table(encoded))
    entry = ShardEntry(
        file=target.name,
        split=split,
        rows=len(rows),
        bytes=writing.stat().st_size,
        sha256=_hash(writing),
        content=content.hexdigest(),
        pixels=tuple(int(count) for count in pixels),
    )
    writing.replace(target)
    _write_text(record, json.dumps(asdict(entry)))
    return entry


def commit_manifest(plan: PackPlan, entries: Sequence[ShardEntry], output: Path) -> str:
    """Write the manifest; before it exists the folder is not a data set.

    Args:
        plan: The plan.
        entries: One entry per shard, in the plan's order.
        output: Folder of the packed data set.

    Returns:
        The digest over the content of all rows.
    """
    splits: dict[str, int] = {}
    for entry in entries:
        splits[entry.split] = splits.get(entry.split, 0) + entry.rows
    digest = hashlib.sha256(
        json.dumps(
            [plan.dataset.label_space.to_json(), [[e.split, e.content] for e in entries]],
            sort_keys=True,
        ).encode()
    ).hexdigest()
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": plan.name,
        "digest": digest,
        "plan": plan.digest,
        "splits": splits,
        "label_space": plan.dataset.label_space.to_json(),
        "shards": [asdict(entry) for entry in entries],
    }
    _write_text(output / MANIFEST, json.dumps(manifest, indent=1))
    shutil.rmtree(output / _PARTS, ignore_errors=True)
    return digest


def prepare_output(plan: PackPlan, output: Path) -> bool:
    """Make the output folder ready for a plan.

    Returns:
        True where it already holds the finished result of this very plan.

    Raises:
        DataError: Where it holds something else, or cannot be written.
    """
    manifest = output / MANIFEST
    if manifest.is_file():
        if json.loads(manifest.read_text()).get("plan") == plan.digest:
            return True
        raise DataError(
            f"{output}: holds another packed data set; choose another folder or delete it first"
        )
    try:
        (output / _PARTS / plan.digest).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror})") from error
    known = {plan.file_name(index) for index in range(len(plan.shards))} | {_PARTS}
    strangers = [entry.name for entry in output.iterdir() if entry.name not in known]
    if strangers:
        raise DataError(f"{output}: holds other files ({strangers[0]}); choose an empty folder")
    return False


def pack(
    name: str,
    dataset: RawDataset,
    source: Path,
    output: Path,
    *,
    rows_per_shard: int = 64,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Pack a raw data set with threads of this process.

    The same source gives the same digest on any machine and with any number of workers. An
    interrupted packing leaves no manifest and continues with the shards that are done.

    Args:
        name: Name of the data set in the catalog.
        dataset: Its reader.
        source: Folder of the raw files.
        output: Folder of the packed data set.
        rows_per_shard: Largest number of rows of a shard.
        workers: Threads; the number of cores if not given.
        progress: Called with rows done and rows in all.

    Returns:
        The digest over the content of all rows.

    Raises:
        DataError: Names file and rule.
    """
    plan = plan_pack(name, dataset, source, rows_per_shard=rows_per_shard)
    if prepare_output(plan, output):
        return str(json.loads((output / MANIFEST).read_text())["digest"])
    total = sum(len(rows) for _, rows in plan.shards)
    entries: list[ShardEntry] = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        try:
            for entry in pool.map(lambda i: write_shard(plan, i, output), range(len(plan.shards))):
                entries.append(entry)
                if progress is not None:
                    progress(sum(e.rows for e in entries), total)
        except OSError as error:
            pool.shutdown(cancel_futures=True)
            raise DataError(f"{output}: cannot be written ({error.strerror})") from error
        except DataError:
            pool.shutdown(cancel_futures=True)
            raise
    return commit_manifest(plan, entries, output)


def _table(encoded: Sequence[EncodedRow]) -> pa.Table:
    rows = [item.row for item in encoded]
    return pa.table(
        {
            "id": [row.id for row in rows],
            "image": [item.image for item in encoded],
            "label": [encode_png(row.label) for row in rows],
            "instances": [
                None if row.instances is None else encode_png(row.instances) for row in rows
            ],
            "segments": [None if row.instances is None else list(row.segments) for row in rows],
            "height": [row.label.shape[0] for row in rows],
            "width": [row.label.shape[1] for row in rows],
        },
        schema=SCHEMA,
    )


def _add_content(digest: Any, item: EncodedRow) -> None:
    row = item.row
    for part in (row.image, row.label, row.instances):
        if part is not None:
            digest.update(str(part.shape).encode())
            digest.update(np.ascontiguousarray(part).tobytes())
    digest.update(json.dumps([row.id, list(row.segments)]).encode())


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_text(path: Path, text: str) -> None:
    writing = path.with_name(f".{path.name}.writing")
    with writing.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    writing.replace(path)
