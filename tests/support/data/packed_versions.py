"""Packed data as the version before wrote it."""

import json
from dataclasses import asdict
from pathlib import Path

from spikeseg.datasets.packed.manifest import MANIFEST, read_manifest
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.packed.shard_table import SHARD_TABLE
from spikeseg.datasets.packed.storage import Storage


def to_version_2(folder: Path) -> Path:
    """Rewrite the manifest of packed data in the form of version 2; the shards are the same."""
    dataset, manifest = PackedDataset.open(folder), read_manifest(Storage.at(folder))
    content = json.loads((folder / MANIFEST).read_text())
    classes = range(len(dataset.label_space.classes))
    shards, first = [], dict.fromkeys(dataset.splits, 0)
    for entry in manifest.shards:
        start = first[entry.split]
        labels = [dataset.row(entry.split, start + row).label for row in range(entry.rows)]
        first[entry.split] += entry.rows
        pixels = [sum(int((label == k).sum()) for label in labels) for k in classes]
        shards.append({**asdict(entry), "pixels": pixels, "bad": []})
    new = ("classes", "largest_row", "baselines")
    content = {key: value for key, value in content.items() if key not in new}
    content |= {"schema_version": 2, "shards": shards}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1))
    (folder / SHARD_TABLE).unlink()
    return folder
