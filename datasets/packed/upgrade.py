"""Packed data of an earlier schema version brought to the newest, in place."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..cpu_count import count_usable_cpus
from ..spec import DataError
from .baselines import count_shard_labels
from .label_counts import LabelCounts
from .manifest import SCHEMA_VERSION, Manifest, read_manifest
from .reader import PackedDataset
from .shard_cache import CacheConfig
from .storage import Storage
from .write_manifest import ManifestHead, write_manifest


def upgrade_packed(
    location: str | Path | Storage,
    *,
    workers: int | None = None,
    cache: CacheConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Add what an earlier version did not store: table of shards, counts, baselines.

    Labels are decoded once, images not at all, and no shard is written. All digests stay, so a
    run that was trained on the data goes on with it. The manifest is replaced last and whole: an
    upgrade that was killed leaves data of the earlier version, and the same command begins again.

    Args:
        location: Folder of the packed data: a path, a URI or a storage.
        workers: Threads; the number of cores if not given.
        cache: As `PackedDataset.open` takes it.
        progress: Called with rows done and rows in all.

    Returns:
        Whether there was anything to do.

    Raises:
        DataError: Where the folder holds no packed data, or labels are not those that the
            manifest counted.
    """
    storage = location if isinstance(location, Storage) else Storage.at(location)
    dataset = PackedDataset.open_storage(storage, cache)
    manifest = read_manifest(storage)
    if manifest.version == SCHEMA_VERSION:
        return False
    classes = manifest.label_space.classes
    counts: dict[str, LabelCounts] = {}
    done, total = 0, sum(manifest.splits.values())
    for split in manifest.splits:
        counts[split] = LabelCounts(len(classes))
        for part, rows in _count_shards(dataset, split, workers or count_usable_cpus()):
            counts[split].add(part)
            done += rows
            if progress is not None:
                progress(done, total)
        _require_same_pixels(storage, manifest, split, counts[split])
    head = {name: getattr(manifest, name) for name in ManifestHead.__dataclass_fields__}
    write_manifest(storage, ManifestHead(**head), manifest.shards, counts)
    return True


def _count_shards(
    dataset: PackedDataset, split: str, workers: int
) -> Iterator[tuple[LabelCounts, int]]:
    """Counts and rows of each shard of a split; few shards are held at a time."""
    numbers = range(dataset.num_shards(split))
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(numbers), workers):
            yield from pool.map(
                lambda number: count_shard_labels(dataset, split, number),
                numbers[start : start + workers],
            )


def _require_same_pixels(
    storage: Storage, manifest: Manifest, split: str, counts: LabelCounts
) -> None:
    if counts.pixels.tolist() != list(manifest.class_pixels[split]):
        raise DataError(
            f"{storage.location}: the labels of split {split!r} have other pixels of the classes "
            "than its manifest says: shards were changed; pack it again"
        )
