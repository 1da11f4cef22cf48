"""Raw files to a packed data set: plan, write one shard, commit the manifest last.

There is no scheduler in here: `pack` maps shards over threads of this process, and
`platform/loading/pack_on_ray.py` maps the same functions over processes or a cluster.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from ..spec import DataError, RawDataset, RawRow, find_duplicates
from .manifest import MANIFEST, SCHEMA_VERSION, read_manifest
from .shard import ShardEntry, ShardTask, write_shard
from .source_list import SOURCES, format_sources
from .storage import Storage

QUARANTINE = "quarantine.csv"
_PARTS = ".packing"

BadRowPolicy = Literal["refuse", "quarantine"]
_Stamp = tuple[int, int] | None


class PackingStoppedError(DataError):
    """Packing failed after it had begun; the request itself was valid."""


class PlanOptions(TypedDict, total=False):
    """What `plan_pack` takes besides data set and source; all have defaults there."""

    rows_per_shard: int
    on_bad_row: BadRowPolicy
    max_bad_share: float
    partial: bool


@dataclass(frozen=True)
class PackPlan:
    """Which rows go into which shard, and what happens to bad ones.

    Attributes:
        name: Name of the data set in the catalog.
        dataset: Its reader.
        shards: Per shard its split and rows.
        digest: SHA-256 over the plan; an interrupted packing continues only under the same.
        on_bad_row: `refuse` stops at the first; `quarantine` leaves bad rows out, and lists them.
        max_bad_share: Largest share of rows that may be left out, in [0, 1].
    """

    name: str
    dataset: RawDataset
    shards: tuple[tuple[str, tuple[RawRow, ...]], ...]
    digest: str
    on_bad_row: BadRowPolicy
    max_bad_share: float

    @property
    def rows(self) -> int:
        """Rows of all shards, bad ones included."""
        return sum(len(rows) for _, rows in self.shards)

    @property
    def most_bad_rows(self) -> int:
        """Rows that may be left out."""
        return 0 if self.on_bad_row == "refuse" else int(self.max_bad_share * self.rows)

    def file_name(self, index: int) -> str:
        """File name of a shard."""
        return f"{self.shards[index][0]}-{index:05d}.parquet"

    def task(self, index: int) -> ShardTask:
        """What a worker needs to write one shard."""
        split, rows = self.shards[index]
        return ShardTask(
            dataset=self.dataset,
            split=split,
            rows=rows,
            file=self.file_name(index),
            record=f"{_PARTS}/{self.digest}/{index:05d}.json",
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
    rows = list(dataset.rows(source, partial=partial))
    if not rows:
        raise DataError(f"{source}: no rows found")
    stamps = [
        [_read_stamp(path) for path in row.files()] if dataset.needs_source else [] for row in rows
    ]
    if on_bad_row == "refuse":
        _require_files(rows, stamps)
    if not partial:
        _require_counts(dataset, rows, source)
    by_split: dict[str, list[tuple[RawRow, list[_Stamp]]]] = {}
    for row, stamp in zip(rows, stamps, strict=True):
        by_split.setdefault(row.split, []).append((row, stamp))
    shards: list[tuple[str, tuple[RawRow, ...]]] = []
    digest = hashlib.sha256(
        json.dumps(
            [SCHEMA_VERSION, name, dataset.label_space.to_json(), dict(dataset.options)]
        ).encode()
    )
    for split, members in by_split.items():
        for row_id in find_duplicates([row.id for row, _ in members]):
            raise DataError(f"{source}: {row_id} occurs twice in split {split!r}")
        for start in range(0, len(members), rows_per_shard):
            part = members[start : start + rows_per_shard]
            shards.append((split, tuple(row for row, _ in part)))
            digest.update(json.dumps([split, [_describe_row(*member) for member in part]]).encode())
    return PackPlan(name, dataset, tuple(shards), digest.hexdigest(), on_bad_row, max_bad_share)


def commit_manifest(plan: PackPlan, entries: Sequence[ShardEntry], storage: Storage) -> str:
    """Write the manifest; before it exists the folder is not a data set.

    Args:
        plan: The plan.
        entries: One entry per shard, in the plan's order.
        storage: Folder of the packed data set.

    Returns:
        The digest over the content of all rows.

    Raises:
        DataError: Where too many rows are bad, or all rows of a split.
    """
    require_few_bad(plan, entries)
    filled = [entry for entry in entries if entry.rows]
    splits: dict[str, int] = {entry.split: 0 for entry in entries}
    for entry in filled:
        splits[entry.split] += entry.rows
    for split, rows in splits.items():
        if not rows:
            raise DataError(f"{storage.location}: every row of split {split!r} is bad")
    space = plan.dataset.label_space.to_json()
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": plan.name,
        "digest": _hash_json([space, [[entry.split, entry.content] for entry in filled]]),
        "split_digests": {
            split: _hash_json([entry.content for entry in filled if entry.split == split])
            for split in splits
        },
        "plan": plan.digest,
        "options": dict(plan.dataset.options),
        "splits": splits,
        "quarantined": sum(len(entry.bad) for entry in entries),
        "label_space": space,
        "shards": [{**asdict(entry), "bad": []} for entry in filled],
    }
    if manifest["quarantined"]:
        storage.write(QUARANTINE, _format_bad_rows(entries).encode())
    else:
        storage.delete(QUARANTINE)
    if any(row.sources for _, rows in plan.shards for row in rows):
        storage.write(SOURCES, format_sources(plan.shards).encode())
    storage.write(MANIFEST, json.dumps(manifest, indent=1).encode())
    storage.delete(_PARTS)
    return str(manifest["digest"])


def require_few_bad(plan: PackPlan, entries: Iterable[ShardEntry]) -> None:
    """Stop once more rows are bad than the plan allows.

    Raises:
        DataError: Gives the counts, and the first reasons.
    """
    bad = [reason for entry in entries for _, reason in entry.bad]
    if len(bad) > plan.most_bad_rows:
        reasons = "; ".join(bad[:3])
        raise DataError(
            f"{len(bad)} of {plan.rows} rows are bad, at most {100 * plan.max_bad_share:g} % may "
            f"be left out: {reasons}"
        )


def prepare_output(plan: PackPlan, storage: Storage) -> str | None:
    """Make the output folder ready for a plan.

    Returns:
        The digest where it already holds the finished result of this very plan, else None.

    Raises:
        DataError: Where it holds something else, a result that left out too many rows among it,
            or cannot be written.
    """
    where = storage.location
    try:
        if storage.size(MANIFEST) is not None:
            return _read_digest(plan, storage)
        known = {plan.file_name(index) for index in range(len(plan.shards))}
        known |= {_PARTS, QUARANTINE, SOURCES}
        strangers = [name for name in storage.names() if name not in known]
        if strangers:
            raise DataError(f"{where}: holds other files ({strangers[0]}); choose an empty folder")
        storage.write(f"{_PARTS}/{plan.digest}/plan.json", json.dumps(plan.name).encode())
    except OSError as error:
        raise DataError(f"{where}: cannot be written ({error})") from error
    return None


def _read_digest(plan: PackPlan, storage: Storage) -> str:
    """Digest of the data set in the folder, which must be the one that the plan would make."""
    where = storage.location
    try:
        manifest = read_manifest(storage)
    except DataError as error:
        raise DataError(f"{error}; choose another folder or delete it") from error
    if manifest.plan != plan.digest:
        raise DataError(
            f"{where}: holds another packed data set; choose another folder or delete it"
        )
    left_out, most = manifest.quarantined, plan.most_bad_rows
    if left_out > most:
        raise DataError(
            f"{where}: was packed without {left_out} bad rows ({QUARANTINE}), at most {most} of "
            f"{plan.rows} may be left out now; delete it to pack it again"
        )
    return manifest.digest


def pack(
    name: str,
    dataset: RawDataset,
    source: Path,
    output: str | Path | Storage,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[PlanOptions],
) -> str:
    """Pack a raw data set with threads of this process.

    The same source gives the same digest on any machine and with any number of workers. An
    interrupted packing leaves no manifest and continues with the shards that are done.

    Args:
        name: Name of the data set in the catalog.
        dataset: Its reader.
        source: Folder of the raw files.
        output: Folder of the packed data set: a path, a URI or a storage.
        workers: Threads; the number of cores if not given.
        progress: Called with rows done and rows in all.
        options: As `plan_pack`.

    Returns:
        The digest over the content of all rows.

    Raises:
        DataError: Names file and rule; a `PackingStoppedError` where the work had begun.
    """
    plan = plan_pack(name, dataset, source, **options)
    storage = output if isinstance(output, Storage) else Storage.at(output)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:

        def shards() -> Iterable[ShardEntry]:
            return pool.map(lambda i: write_shard(plan.task(i), storage), range(len(plan.shards)))

        try:
            return run_plan(plan, storage, shards, progress)
        finally:
            pool.shutdown(cancel_futures=True)


def run_plan(
    plan: PackPlan,
    storage: Storage,
    shards: Callable[[], Iterable[ShardEntry]],
    progress: Callable[[int, int], None] | None,
) -> str:
    """Execute a plan with any mapper of `write_shard`, then write the manifest.

    Args:
        plan: The plan.
        storage: Folder of the packed data set.
        shards: Starts the writing, and yields the shards' entries in order.
        progress: Called with rows done and rows in all.

    Returns:
        The digest over the content of all rows.

    Raises:
        DataError: Where the folder holds something else or cannot be written.
        PackingStoppedError: Names file and rule.
    """
    finished = prepare_output(plan, storage)
    if finished is not None:
        return finished
    entries: list[ShardEntry] = []
    done, rows = 0, plan.rows
    resume_hint = (
        f"{storage.location} keeps the shards that are done: the same command goes on from there"
    )
    try:
        for entry in shards():
            entries.append(entry)
            done += entry.rows + len(entry.bad)
            if entry.bad:
                require_few_bad(plan, entries)
            if progress is not None:
                progress(done, rows)
        return commit_manifest(plan, entries, storage)
    except DataError as error:
        raise PackingStoppedError(f"{error}\n{resume_hint}" if entries else str(error)) from error
    except OSError as error:
        message = f"{storage.location}: cannot be written ({error})\n{resume_hint}"
        raise PackingStoppedError(message) from error


def _read_stamp(path: Path) -> _Stamp:
    """Bytes and time of change of a file; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _describe_row(row: RawRow, stamps: list[_Stamp]) -> list[Any]:
    """Everything known of a row before it is decoded."""
    segments = None if row.segments is None else row.segments.tolist()
    described = [row.id, [path.name for path in row.files()], stamps, segments]
    # Only where there are some: digests of the other layouts' plans stay what they were.
    return [*described, list(row.sources)] if row.sources else described


def _require_files(rows: Sequence[RawRow], stamps: Sequence[list[_Stamp]]) -> None:
    missing = [
        path
        for row, of_row in zip(rows, stamps, strict=True)
        for path, stamp in zip(row.files(), of_row, strict=False)
        if stamp is None
    ]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]}: no such file{more}; every row needs image and label")


def _require_counts(dataset: RawDataset, rows: Sequence[RawRow], source: Path) -> None:
    for split, official in dataset.official_rows.items():
        count = sum(row.split == split for row in rows)
        if count != official:
            raise DataError(
                f"{source}: split {split!r} has {count} rows, the official one {official}; "
                "--allow-partial packs a subset"
            )


def _format_bad_rows(entries: Iterable[ShardEntry]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["split", "id", "reason"])
    for entry in entries:
        table.writerows([entry.split, row_id, reason] for row_id, reason in entry.bad)
    return text.getvalue()


def _hash_json(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
