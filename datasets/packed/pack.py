"""Raw files to a packed data set: write the shards of a plan, commit the manifest last.

There is no scheduler in here: `pack` maps shards over threads of this process, and
`platform/loading/pack_on_ray.py` maps the same functions over processes or a cluster.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Unpack

from ..cpu_count import count_usable_cpus
from ..spec import DataError, RawDataset
from .channel_sums import ChannelSums
from .label_counts import LabelCounts
from .manifest import MANIFEST, read_manifest
from .plan import PARTS, PackPlan, PlanOptions, plan_pack
from .shard import ShardEntry, WrittenShard, write_shard
from .shard_table import SHARD_TABLE, ShardTable
from .source_list import SOURCES, format_sources
from .storage import Storage
from .write_manifest import ManifestHead, hash_shards, write_manifest

QUARANTINE = "quarantine.csv"


class PackingStoppedError(DataError):
    """Packing failed after it had begun; the request itself was valid."""


class PackedSoFar:
    """Adds up what is written, shard by shard; images and counts of a shard are not kept.

    Args:
        plan: What is being packed.
    """

    def __init__(self, plan: PackPlan) -> None:
        self._plan = plan
        self.entries: list[ShardEntry] = []
        self.counts: dict[str, LabelCounts] = {}
        self.channels: dict[str, ChannelSums] = {}
        self.bad: list[tuple[str, str, str]] = []
        self.rows = 0

    def add(self, shard: WrittenShard) -> None:
        """Add the next shard of the plan.

        Raises:
            DataError: Where more rows are bad than the plan allows; gives the first reasons.
        """
        split = shard.entry.split
        if split not in self.counts:
            self.counts[split] = LabelCounts(len(self._plan.dataset.label_space.classes))
            self.channels[split] = ChannelSums()
        self.counts[split].add(shard.counts)
        self.channels[split].add(shard.channels)
        if shard.entry.rows:
            self.entries.append(shard.entry)
        self.bad += [(split, row_id, reason) for row_id, reason in shard.bad]
        self.rows += shard.entry.rows + len(shard.bad)
        if len(self.bad) > self._plan.most_bad_rows:
            reasons = "; ".join(reason for _, _, reason in self.bad[:3])
            raise DataError(
                f"{len(self.bad)} of {self._plan.rows} rows are bad, at most "
                f"{100 * self._plan.max_bad_share:g} % may be left out: {reasons}"
            )


def commit_manifest(plan: PackPlan, packed: PackedSoFar, storage: Storage) -> str:
    """Write the manifest; before it exists the folder is not a data set.

    Args:
        plan: The plan.
        packed: What was written of all its shards.
        storage: Folder of the packed data set.

    Returns:
        The digest over the content of all rows.

    Raises:
        DataError: Where all rows of a split are bad.
    """
    splits = dict.fromkeys(packed.counts, 0)
    for entry in packed.entries:
        splits[entry.split] += entry.rows
    for split, rows in splits.items():
        if not rows:
            raise DataError(f"{storage.location}: every row of split {split!r} is bad")
    shards = ShardTable.from_entries(packed.entries)
    space = plan.dataset.label_space
    digest, split_digests = hash_shards(space, shards)
    if packed.bad:
        storage.write(QUARANTINE, _format_bad_rows(packed.bad).encode())
    else:
        storage.delete(QUARANTINE)
    if any(row.sources for _, rows in plan.shards[:1] for row in rows):
        storage.write(SOURCES, format_sources(plan.shards).encode())
    head = ManifestHead(
        name=plan.name,
        digest=digest,
        split_digests=split_digests,
        plan=plan.digest,
        options=dict(plan.dataset.options),
        splits=splits,
        quarantined=len(packed.bad),
        label_space=space,
    )
    write_manifest(storage, head, shards, packed.counts, packed.channels)
    storage.delete(PARTS)
    return digest


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
        known = (PARTS, QUARANTINE, SHARD_TABLE, SOURCES)
        strangers = [
            name for name in storage.names() if name not in known and not plan.has_file(name)
        ]
        if strangers:
            raise DataError(f"{where}: holds other files ({strangers[0]}); choose an empty folder")
        storage.write(f"{PARTS}/{plan.digest}/plan.json", json.dumps(plan.name).encode())
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
    with ThreadPoolExecutor(workers or count_usable_cpus()) as pool:

        def shards() -> Iterable[WrittenShard]:
            return pool.map(lambda i: write_shard(plan.task(i), storage), range(len(plan.shards)))

        try:
            return run_plan(plan, storage, shards, progress)
        finally:
            pool.shutdown(cancel_futures=True)


def run_plan(
    plan: PackPlan,
    storage: Storage,
    shards: Callable[[], Iterable[WrittenShard]],
    progress: Callable[[int, int], None] | None,
) -> str:
    """Execute a plan with any mapper of `write_shard`, then write the manifest.

    Args:
        plan: The plan.
        storage: Folder of the packed data set.
        shards: Starts the writing, and yields what was written of each shard, in order.
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
    packed = PackedSoFar(plan)
    resume_hint = (
        f"{storage.location} keeps the shards that are done: the same command goes on from there"
    )
    try:
        for shard in shards():
            packed.add(shard)
            if progress is not None:
                progress(packed.rows, plan.rows)
        return commit_manifest(plan, packed, storage)
    except DataError as error:
        raise PackingStoppedError(
            f"{error}\n{resume_hint}" if packed.rows else str(error)
        ) from error
    except OSError as error:
        message = f"{storage.location}: cannot be written ({error})\n{resume_hint}"
        raise PackingStoppedError(message) from error


def _format_bad_rows(bad: Iterable[tuple[str, str, str]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["split", "id", "reason"])
    table.writerows(bad)
    return text.getvalue()
