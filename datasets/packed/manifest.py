"""The manifest of a packed data set: written last, checked whole before anything is read."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..spec import MOST_CHANNELS, DataError, LabelSpace
from .shard import ShardEntry
from .shard_table import MOST_SHARDS, SHARD_TABLE, ShardTable, read_shard_table, require_rows
from .storage import Storage

SCHEMA_VERSION = 3
MANIFEST = "manifest.json"

# Version 2 lists its shards in the manifest itself: 10^5 of them make 209 MB.
_MOST_BYTES = {2: 256 << 20, 3: 16 << 20}
_MOST_TABLE_BYTES = 1 << 31
_MOST = (1 << 63) - 1
_CHANNELS = "channels"
_SPLIT = re.compile("[0-9A-Za-z_-]{1,40}")
_KINDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    dict: "an object",
    list: "a list",
}
_FIELDS = {
    "name": str,
    "digest": str,
    "split_digests": dict,
    "plan": str,
    "options": dict,
    "splits": dict,
    "quarantined": int,
    "label_space": dict,
}
_NEW_FIELDS = {"classes": dict, "largest_row": int, "baselines": dict, "shards": dict}
_CLASS_FIELDS = {"rows": list, "pixels": list}
_TABLE_FIELDS = {"file": str, "shards": int, "bytes": int, "sha256": str}
_COLOUR_FIELDS = {"mean": list, "std": list}
_BASELINE_FIELDS = {"majority": float, "position": float, "majority_class": str}
_SHARD_FIELDS = {
    "file": str,
    "split": str,
    "rows": int,
    "bytes": int,
    "sha256": str,
    "content": str,
}


@dataclass(frozen=True)
class Manifest:
    """Manifest of a packed data set.

    Attributes:
        version: Version of its schema, 2 or 3. Of version 2 `class_rows`, `largest_row` and
            `baselines` are not known.
        name: Name of the data set in the catalog.
        digest: Over the content of all rows; the same in both versions.
        split_digests: Split -> digest over the content of its rows.
        plan: Digest of the plan that it was packed by.
        options: What was chosen when it was packed.
        splits: Split -> rows.
        quarantined: Rows that were left out.
        label_space: Its classes.
        shards: One entry per shard, split by split in their order.
        class_pixels: Split -> (K,) labelled pixels of each class.
        class_rows: Split -> (K,) rows that have a pixel of the class.
        largest_row: Most pixels of a row.
        baselines: Split -> fields of `baselines.Baselines`.
        colours: Split -> `mean` and `std` of each channel of its images on the 0..255 scale; empty
            where they were not counted at packing.
    """

    version: int
    name: str
    digest: str
    split_digests: Mapping[str, str]
    plan: str
    options: Mapping[str, Any]
    splits: Mapping[str, int]
    quarantined: int
    label_space: LabelSpace
    shards: ShardTable
    class_pixels: Mapping[str, Sequence[int]]
    class_rows: Mapping[str, Sequence[int]] | None
    largest_row: int | None
    baselines: Mapping[str, Mapping[str, Any]]
    colours: Mapping[str, Mapping[str, list[float]]]

    @property
    def channels(self) -> int:
        """Channels of the images; data without a word on them has three, RGB."""
        return self.options.get(_CHANNELS, 3)


def read_manifest(storage: Storage) -> Manifest:
    """Read the manifest of a packed data set, and its table of shards.

    Args:
        storage: Its folder; the manifest is there.

    Raises:
        DataError: Names the manifest, and the field that is missing, of another type, or that
            contradicts another one.
    """
    where = f"{storage.location}/{MANIFEST}"
    try:
        size = storage.size(MANIFEST)
        if size is not None and size > max(_MOST_BYTES.values()):
            raise DataError(f"{size} bytes, at most {max(_MOST_BYTES.values())}")
        content = json.loads(storage.read(MANIFEST))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{where}: not a readable manifest ({error})") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version is not None and version not in _MOST_BYTES:
        raise DataError(
            f"{where}: schema version {version!r:.40}, this version reads "
            f"{', '.join(map(str, _MOST_BYTES))}; pack it again"
        )
    try:
        if version is not None and size is not None and size > _MOST_BYTES[version]:
            raise DataError(f"{size} bytes, at most {_MOST_BYTES[version]} in version {version}")
        return _check_manifest(content, storage)
    except DataError as error:
        raise DataError(f"{where}: not a readable manifest ({error})") from error


def _check_manifest(content: Any, storage: Storage) -> Manifest:
    _require_fields("the manifest", content, {"schema_version": int, **_FIELDS})
    version = content["schema_version"]
    _require_fields("the manifest", content, {"shards": list} if version == 2 else _NEW_FIELDS)
    try:
        space = LabelSpace.from_json(content["label_space"])
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise DataError(f"label_space is damaged: {error!r}") from error
    splits = content["splits"]
    _require_fields("splits", splits, dict.fromkeys(splits, int))
    for split in splits:
        if not _SPLIT.fullmatch(split):
            raise DataError(f"splits: {split!r:.80} must be a name of letters, digits, - and _")
    _require_fields("split_digests", content["split_digests"], dict.fromkeys(splits, str))
    _require_range("the manifest", "quarantined", content["quarantined"], 0)
    channels = content["options"].get(_CHANNELS, 3)
    if type(channels) is not int or not 1 <= channels <= MOST_CHANNELS:
        raise DataError(f"options: {_CHANNELS} must be 1..{MOST_CHANNELS}, got {channels!r:.40}")
    head = {key: content[key] for key in _FIELDS} | {"version": version, "label_space": space}
    if version == 2:
        return Manifest(**head, **_read_listed_shards(content, len(space.classes)))
    classes = _check_classes(content["classes"], splits, len(space.classes))
    _require_range("the manifest", "largest_row", content["largest_row"], 1)
    table = _read_table(content["shards"], storage)
    require_rows(table, splits)
    return Manifest(
        **head,
        shards=table,
        class_pixels={split: part["pixels"] for split, part in classes.items()},
        class_rows={split: part["rows"] for split, part in classes.items()},
        largest_row=content["largest_row"],
        baselines=_check_baselines(content["baselines"], splits),
        colours=_check_colours(content.get("colours", {}), splits, channels),
    )


def _read_listed_shards(content: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """What version 2 says of its shards, in the form of version 3."""
    splits = content["splits"]
    pixels = {split: [0] * num_classes for split in splits}
    entries: list[ShardEntry] = []
    for number, shard in enumerate(content["shards"]):
        where = f"shards[{number}]"
        _require_fields(where, shard, {**_SHARD_FIELDS, "pixels": list})
        _require_counts(where, "pixels", shard["pixels"], num_classes)
        if shard["split"] not in pixels:
            raise DataError(f"{where}: split {shard['split']!r:.40} is not one of splits")
        entries.append(ShardEntry(**{key: shard[key] for key in _SHARD_FIELDS}))
        sums = pixels[shard["split"]]
        for index, count in enumerate(shard["pixels"]):
            sums[index] += count
    order = list(splits)
    table = ShardTable.from_entries(sorted(entries, key=lambda entry: order.index(entry.split)))
    require_rows(table, splits)
    return {
        "shards": table,
        "class_pixels": pixels,
        "class_rows": None,
        "largest_row": None,
        "baselines": {},
        "colours": {},
    }


def _read_table(reference: Any, storage: Storage) -> ShardTable:
    """Read the table of shards that the manifest names by its hash."""
    _require_fields("shards", reference, _TABLE_FIELDS)
    if reference["file"] != SHARD_TABLE:
        raise DataError(f"shards: file must be {SHARD_TABLE}, got {reference['file']!r:.80}")
    if not 1 <= reference["shards"] <= MOST_SHARDS:
        raise DataError(f"shards: shards must be 1..{MOST_SHARDS}, got {reference['shards']!s:.40}")
    where = f"{storage.location}/{SHARD_TABLE}"
    try:
        size = storage.size(SHARD_TABLE)
        if size is None or not size == reference["bytes"] <= _MOST_TABLE_BYTES:
            expected = f"{reference['bytes']!s:.40} bytes expected"
            raise DataError(f"{expected}, at most {_MOST_TABLE_BYTES}, found {size}")
        digest = storage.sha256(SHARD_TABLE)
        if digest != reference["sha256"]:
            raise DataError(f"SHA-256 {digest}, expected {reference['sha256']!r:.80}")
        with storage.filesystem.open_input_file(storage.path(SHARD_TABLE)) as file:
            return read_shard_table(file, reference["shards"])
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{where}: cannot be read ({error})") from error


def _check_classes(
    content: Any, splits: Mapping[str, int], num_classes: int
) -> dict[str, dict[str, list[int]]]:
    _require_fields("classes", content, dict.fromkeys(splits, dict))
    for split in splits:
        where = f"classes[{split!r}]"
        _require_fields(where, content[split], _CLASS_FIELDS)
        for key in _CLASS_FIELDS:
            _require_counts(where, key, content[split][key], num_classes)
    return {split: content[split] for split in splits}


def _check_baselines(content: Any, splits: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    for split, stored in content.items():
        where = f"baselines[{split!r:.40}]"
        if split not in splits:
            raise DataError(f"{where}: is not one of splits")
        _require_fields(where, stored, _BASELINE_FIELDS)
        for key in ("majority", "position"):
            if not 0 <= stored[key] <= 100:
                raise DataError(f"{where}: {key} must be in [0, 100], got {stored[key]!r:.40}")
    return {
        split: {key: stored[key] for key in _BASELINE_FIELDS} for split, stored in content.items()
    }


def _check_colours(
    content: Any, splits: Mapping[str, int], channels: int
) -> dict[str, dict[str, list[float]]]:
    _require_fields("colours", content, dict.fromkeys(splits, dict) if content else {})
    for split in content:
        where = f"colours[{split!r:.40}]"
        if split not in splits:
            raise DataError(f"{where}: is not one of splits")
        _require_fields(where, content[split], _COLOUR_FIELDS)
        for key, least in (("mean", 0), ("std", 1)):
            values = content[split][key]
            # What is not a number compares as false.
            if len(values) != channels or not all(
                type(value) in (int, float) and least <= value <= 255 for value in values
            ):
                raise DataError(f"{where}: {key} must be {channels} numbers from {least} to 255")
    return {split: {key: content[split][key] for key in _COLOUR_FIELDS} for split in content}


def _require_counts(where: str, key: str, values: Sequence[Any], count: int) -> None:
    """Check a list of one count a class."""
    if len(values) != count or not all(type(value) is int for value in values):
        raise DataError(f"{where}: {key} must be {count} whole numbers, one a class")
    for value in values:
        _require_range(where, key, value, 0)


def _require_range(where: str, key: str, value: int, least: int) -> None:
    if not least <= value <= _MOST:
        raise DataError(f"{where}: {key} must be {least}..{_MOST}, got {value!s:.40}")


def _require_fields(where: str, content: Any, fields: Mapping[str, type]) -> None:
    if not isinstance(content, dict):
        raise DataError(f"{where} must be an object, got {type(content).__name__}")
    for key, kind in fields.items():
        if key not in content:
            raise DataError(f"{where} has no {key!r}")
        # True and false are whole numbers to Python.
        if not isinstance(content[key], kind) or isinstance(content[key], bool):
            raise DataError(f"{where}: {key} must be {_KINDS[kind]}, got {content[key]!r:.40}")
