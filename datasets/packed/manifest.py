"""The manifest of a packed data set: written last, checked whole before anything is read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..spec import DataError, LabelSpace
from .shard import ShardEntry
from .storage import Storage

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"

_KINDS = {str: "text", int: "a whole number", float: "a number", dict: "an object", list: "a list"}
_FIELDS = {
    "name": str,
    "digest": str,
    "split_digests": dict,
    "plan": str,
    "options": dict,
    "splits": dict,
    "quarantined": int,
    "label_space": dict,
    "shards": list,
}
_BASELINE_FIELDS = {"majority": float, "position": float, "majority_class": str}
_SHARD_FIELDS = {
    "file": str,
    "split": str,
    "rows": int,
    "bytes": int,
    "sha256": str,
    "content": str,
    "pixels": list,
}


@dataclass(frozen=True)
class Manifest:
    """Manifest of a packed data set.

    Attributes:
        name: Name of the data set in the catalog.
        digest: Over the content of all rows.
        split_digests: Split -> digest over the content of its rows.
        plan: Digest of the plan that it was packed by.
        options: What was chosen when it was packed.
        splits: Split -> rows.
        quarantined: Rows that were left out.
        label_space: Its classes.
        shards: One entry per shard, split by split in their order.
        baselines: Split -> fields of `baselines.Baselines`; empty where they are not known.
    """

    name: str
    digest: str
    split_digests: Mapping[str, str]
    plan: str
    options: Mapping[str, Any]
    splits: Mapping[str, int]
    quarantined: int
    label_space: LabelSpace
    shards: tuple[ShardEntry, ...]
    baselines: Mapping[str, Mapping[str, Any]]


def read_manifest(storage: Storage) -> Manifest:
    """Read the manifest of a packed data set.

    Args:
        storage: Its folder; the manifest is there.

    Raises:
        DataError: Names the manifest, and the field that is missing, of another type, or that
            contradicts another one.
    """
    where = f"{storage.location}/{MANIFEST}"
    try:
        content = json.loads(storage.read(MANIFEST))
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: not a readable manifest ({error})") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version is not None and version != SCHEMA_VERSION:
        raise DataError(
            f"{where}: schema version {version}, this version reads {SCHEMA_VERSION}; pack it again"
        )
    try:
        return _check_manifest(content)
    except DataError as error:
        raise DataError(f"{where}: not a readable manifest ({error})") from error


def _check_manifest(content: Any) -> Manifest:
    _require_fields("the manifest", content, {"schema_version": int, **_FIELDS})
    try:
        space = LabelSpace.from_json(content["label_space"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"label_space is damaged: {error!r}") from error
    splits = content["splits"]
    _require_fields("splits", splits, dict.fromkeys(splits, int))
    _require_fields("split_digests", content["split_digests"], dict.fromkeys(splits, str))
    rows = dict.fromkeys(splits, 0)
    for number, shard in enumerate(content["shards"]):
        _require_fields(f"shards[{number}]", shard, _SHARD_FIELDS)
        pixels = shard["pixels"]
        if len(pixels) != len(space.classes) or not all(isinstance(n, int) for n in pixels):
            raise DataError(
                f"shards[{number}]: pixels must be {len(space.classes)} whole numbers, one a class"
            )
        if shard["split"] not in rows:
            raise DataError(f"shards[{number}]: split {shard['split']!r} is not one of splits")
        rows[shard["split"]] += shard["rows"]
    if rows != splits or 0 in rows.values():
        raise DataError(f"splits are {splits}, the rows of their shards are {rows}")
    return Manifest(
        **{key: content[key] for key in _FIELDS}
        | {
            "label_space": space,
            "baselines": _check_baselines(content.get("baselines", {}), splits),
            "shards": tuple(
                ShardEntry(
                    **{key: shard[key] for key in _SHARD_FIELDS}
                    | {"pixels": tuple(shard["pixels"])}
                )
                for shard in content["shards"]
            ),
        }
    )


def _check_baselines(content: Any, splits: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    _require_fields("baselines", content, {})
    for split, stored in content.items():
        where = f"baselines[{split!r}]"
        if split not in splits:
            raise DataError(f"{where}: is not one of splits")
        _require_fields(where, stored, _BASELINE_FIELDS)
        for key in ("majority", "position"):
            if not 0 <= stored[key] <= 100:
                raise DataError(f"{where}: {key} must be in [0, 100], got {stored[key]!r:.40}")
    return {
        split: {key: stored[key] for key in _BASELINE_FIELDS} for split, stored in content.items()
    }


def _require_fields(where: str, content: Any, fields: Mapping[str, type]) -> None:
    if not isinstance(content, dict):
        raise DataError(f"{where} must be an object, got {type(content).__name__}")
    for key, kind in fields.items():
        if key not in content:
            raise DataError(f"{where} has no {key!r}")
        if not isinstance(content[key], kind):
            raise DataError(f"{where}: {key} must be {_KINDS[kind]}, got {content[key]!r:.40}")
