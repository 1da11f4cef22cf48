"""Predicted regions as COCO JSON: run lengths, boxes, one file an image and one of all."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...datasets.packed.files import place_file, temporary_beside
from ...datasets.spec import LabelSpace
from ...model.postprocess import PanopticMap


def encode_run_lengths(mask: np.ndarray) -> str:
    """Compress a (H, W) boolean mask as COCO's tools read it.

    Source: run lengths of COCO: column by column, lengths of zeros and ones in turn, each less the
        one two before it from the fourth on, in groups of five bits with a sign.
    """
    flat = np.concatenate(([False], mask.ravel(order="F"), [False]))
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    edges = np.concatenate(([0], changes, [mask.size]))
    counts = np.diff(edges).tolist()
    if counts[-1] == 0:
        counts.pop()
    letters = []
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            letters.append(chr((bits | 0x20 if more else bits) + 48))
    return "".join(letters)


def list_annotations(
    label: np.ndarray, segments: PanopticMap | None, space: LabelSpace
) -> list[dict[str, Any]]:
    """One annotation for each segment of a panoptic prediction, else for each class of a label map.

    Args:
        label: (H, W) uint8 train ids.
        segments: Of the same image, where the task is panoptic.
        space: Its classes; a category's id is its train id.

    Returns:
        Annotations without `id` and `image_id`.
    """
    if segments is not None:
        numbers = segments.segments.cpu().numpy()
        found = zip(segments.classes, segments.scores, strict=True)
        regions = [
            (kind, numbers == number, {"score": round(score, 4)})
            for number, (kind, score) in enumerate(found, start=1)
        ]
    else:
        regions = [(int(kind), label == kind, {}) for kind in np.unique(label)]
    return [_annotate(kind, mask, more) for kind, mask, more in regions if mask.any()]


def _annotate(kind: int, mask: np.ndarray, more: dict[str, Any]) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return {
        "category_id": kind,
        "segmentation": {"size": list(mask.shape), "counts": encode_run_lengths(mask)},
        "area": int(mask.sum()),
        "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
        "iscrowd": 0,
        **more,
    }


def list_categories(space: LabelSpace) -> list[dict[str, Any]]:
    """The classes as COCO's categories, with colours and thing flags."""
    things = space.is_thing or (False,) * len(space.classes)
    return [
        {"id": number, "name": name, "color": list(colour), "isthing": int(thing)}
        for number, (name, colour, thing) in enumerate(
            zip(space.classes, space.palette, things, strict=True)
        )
    ]


def join_coco_files(parts: Iterable[tuple[str, Path]], output: Path, space: LabelSpace) -> None:
    """Join the files of single images to one, reading one at a time.

    Args:
        parts: Name of each image's source, and its file.
        output: The file to write, whole or not at all.
        space: The classes.
    """
    writing = temporary_beside(output)
    images: list[str] = []
    with writing.open("w", encoding="utf-8") as file:
        file.write('{"categories": ' + json.dumps(list_categories(space)) + ',\n"annotations": [')
        for number, text in enumerate(_number_annotations(parts, images), start=1):
            file.write(f"{',' if number > 1 else ''}\n{text}")
        file.write('\n],\n"images": [\n' + ",\n".join(images) + "\n]}\n")
    place_file(writing, output)


def _number_annotations(parts: Iterable[tuple[str, Path]], images: list[str]) -> Iterator[str]:
    """Annotations of all images with ids; fills the list with the images."""
    number = 0
    for image_id, (origin, path) in enumerate(parts, start=1):
        content = json.loads(path.read_text(encoding="utf-8"))
        image = {**content["images"][0], "id": image_id, "file_name": origin}
        images.append(json.dumps(image))
        for annotation in content["annotations"]:
            number += 1
            yield json.dumps({**annotation, "id": number, "image_id": image_id})
