"""Writes the manifest of a packed data set, and its table of shards before it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..spec import LabelSpace
from .baselines import compute_baselines
from .channel_sums import ChannelSums
from .label_counts import LabelCounts
from .manifest import MANIFEST, SCHEMA_VERSION
from .shard_table import SHARD_TABLE, ShardTable
from .storage import Storage, sha256_of


@dataclass(frozen=True, kw_only=True)
class ManifestHead:
    """What the manifest says besides shards and counts; fields as in `manifest.Manifest`."""

    name: str
    digest: str
    split_digests: Mapping[str, str]
    plan: str
    options: Mapping[str, Any]
    splits: Mapping[str, int]
    quarantined: int
    label_space: LabelSpace


def hash_shards(space: LabelSpace, shards: ShardTable) -> tuple[str, dict[str, str]]:
    """Digest over the content of all rows, and that of each split.

    Args:
        space: The label space.
        shards: All shards; only split and content of each are looked at, so that the digests do
            not depend on encoders, file names or the version of the schema.
    """
    contents: dict[str, list[str]] = {}
    for split, content in shards.contents():
        contents.setdefault(split, []).append(content)
    pairs = [[split, content] for split, part in contents.items() for content in part]
    digest = _hash_json([space.to_json(), pairs])
    return digest, {split: _hash_json(part) for split, part in contents.items()}


def write_manifest(
    storage: Storage,
    head: ManifestHead,
    shards: ShardTable,
    counts: Mapping[str, LabelCounts],
    channels: Mapping[str, ChannelSums] | None = None,
) -> None:
    """Write the table of shards, then the manifest that names it, each whole.

    Args:
        storage: Folder of the packed data set.
        head: Names, digests, splits and classes.
        shards: All shards, split by split.
        counts: Split -> counts of its labels.
        channels: Split -> sums over its images' pixels; None where nobody counted them.
    """
    with storage.scratch() as scratch:
        shards.write(scratch)
        table = {
            "file": SHARD_TABLE,
            "shards": len(shards),
            "bytes": scratch.stat().st_size,
            "sha256": sha256_of(scratch),
        }
        storage.publish(scratch, SHARD_TABLE)
    content = {
        "schema_version": SCHEMA_VERSION,
        **{name: getattr(head, name) for name in ManifestHead.__dataclass_fields__},
        "label_space": head.label_space.to_json(),
        "classes": {
            split: {"rows": part.rows.tolist(), "pixels": part.pixels.tolist()}
            for split, part in counts.items()
        },
        "largest_row": max(part.largest for part in counts.values()),
        "baselines": compute_baselines(counts, head.label_space.classes),
        "shards": table,
    }
    if channels is not None:
        content["colours"] = {split: part.describe() for split, part in channels.items()}
    storage.write(MANIFEST, json.dumps(content, indent=1).encode())


def _hash_json(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
