"""COCO panoptic: segment ids as RGB numbers in PNG files, their classes in a JSON file."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..images import read_colours, read_image
from ..spec import DataError, EncodedRow, RawRow, load_label_space
from .image_label_pairs import find_root, require_equal_size
from .segments import Segment, make_segment_row, require_same_segments


class COCOPanoptic:
    """133 classes, 80 things and 53 stuff; group segments are marked as crowds."""

    needs_source = True
    official_rows: Mapping[str, int] = {"train": 118287, "val": 5000}
    options: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.label_space = load_label_space("coco_panoptic")

    def rows(self, source: Path, *, partial: bool) -> Sequence[RawRow]:
        """Every annotation of the two JSON files.

        Args:
            source: Folder of `annotations`, `train2017` and `val2017`.
            partial: Accept a missing split.

        Raises:
            DataError: Names a missing file, one of another kind, or an image that has no entry.
        """
        root = find_root(source, (".", "coco"), "annotations")
        rows = []
        for split in self.official_rows:
            listing = root / "annotations" / f"panoptic_{split}2017.json"
            if partial and not listing.is_file():
                continue
            rows += _read_annotations(listing, split, root / f"{split}2017")
        return rows

    def read(self, row: RawRow) -> EncodedRow:
        """Decode and check one image with its segments.

        Raises:
            DataError: Names the file and the rule it breaks.
        """
        assert row.segments is not None
        data, image, verbatim = read_image(row.image)
        ids = decode_segment_ids(read_colours(row.label))
        require_equal_size(row.image, image.shape, row.label, ids.shape)
        require_same_segments(row.label, ids, row.segments, check_areas=True)
        segments = []
        label = np.full(ids.shape, self.label_space.ignore_label, np.uint8)
        for segment, category, crowd, _ in row.segments.tolist():
            train_id = self.label_space.raw_to_train.get(category)
            if train_id is None:
                raise DataError(
                    f"{row.label}: segment {segment} has category {category}, which is outside the "
                    f"label space {self.label_space.name}"
                )
            label[ids == segment] = train_id
            segments.append(Segment(segment, train_id, bool(crowd)))
        return EncodedRow(make_segment_row(row, image, label, ids, segments), data, verbatim)


def decode_segment_ids(colours: np.ndarray) -> np.ndarray:
    """Decode the segment ids of a panoptic label, R + 256 G + 65536 B.

    Args:
        colours: (H, W, 3) uint8, RGB.

    Returns:
        (H, W) int64.
    """
    return colours.astype(np.int64) @ np.array([1, 256, 65536])


def _read_annotations(listing: Path, split: str, images: Path) -> list[RawRow]:
    try:
        content = json.loads(listing.read_bytes())
    except OSError as error:
        raise DataError(f"{listing}: the annotations of the split are missing") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{listing}: not a readable JSON file ({error})") from error
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list) or not all(
        isinstance(item, dict) and "segments_info" in item for item in annotations or [None]
    ):
        raise DataError(
            f"{listing}: not a panoptic annotation file: every annotation needs segments_info"
        )
    names: dict[Any, str] = {}
    for number, item in enumerate(content.get("images") or []):
        try:
            names[item["id"]] = item["file_name"]
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{listing}: images[{number}] needs id and file_name ({error!r})"
            ) from error
    rows = []
    for number, item in enumerate(annotations):
        try:
            rows.append(_make_row(item, names, split, images, listing))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{listing}: annotations[{number}] needs image_id, file_name, and segments of id, "
                f"category_id, iscrowd and area, whole numbers each ({error!r})"
            ) from error
    annotated = {item["image_id"] for item in annotations}
    missing = [name for image, name in names.items() if image not in annotated]
    if missing:
        raise DataError(
            f"{listing}: {len(missing)} listed images have no annotation ({', '.join(missing[:3])})"
        )
    return rows


def _make_row(
    item: Mapping[str, Any], names: Mapping[Any, str], split: str, images: Path, listing: Path
) -> RawRow:
    if item["image_id"] not in names:
        raise DataError(f"{listing}: image {item['image_id']!r} is annotated, and not listed")
    segments = np.array(
        [
            [segment["id"], segment["category_id"], segment["iscrowd"], segment["area"]]
            for segment in item["segments_info"]
        ],
        np.int64,
    ).reshape(-1, 4)
    name = _require_plain_name(names[item["image_id"]], listing)
    label = listing.with_suffix("") / _require_plain_name(item["file_name"], listing)
    return RawRow(Path(name).stem, split, images / name, label, segments=segments)


def _require_plain_name(name: Any, listing: Path) -> str:
    """Refuse a file name that leads out of its folder, or into another one."""
    if not isinstance(name, str) or name in ("", ".", "..") or re.search(r"[/\\\x00]", name):
        raise DataError(
            f"{listing}: file_name {name!r:.200} must be the plain name of a file, without folders"
        )
    return name
