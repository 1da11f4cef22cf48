"""Run lengths are those that COCO's tools read; boxes and areas are counted by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from spikeseg.datasets.spec import load_label_space
from spikeseg.platform.prediction.coco import (
    encode_run_lengths,
    join_coco_files,
    list_annotations,
)


def decode(text: str, size: tuple[int, int]) -> np.ndarray:
    """The other direction, written from the format's description."""
    counts: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            letter = ord(text[place]) - 48
            value |= (letter & 0x1F) << shift
            more = bool(letter & 0x20)
            place, shift = place + 1, shift + 5
            if not more and letter & 0x10:
                value |= -1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    flat = np.repeat(np.arange(len(counts)) % 2, counts).astype(bool)
    return flat.reshape(size, order="F")


def test_a_small_mask_has_the_letters_computed_by_hand() -> None:
    # Column by column: 0 1 | 1 0 is one zero, two ones, one zero.
    mask = np.array([[False, True], [True, False]])
    assert encode_run_lengths(mask) == "121"
    # 40 zeros: 40 = 8 + 1 * 32, so 8 with the sign that more follows, then 1.
    assert encode_run_lengths(np.zeros((40, 1), bool)) == chr((8 | 0x20) + 48) + chr(1 + 48)


@pytest.mark.parametrize("seed", range(6))
def test_any_mask_comes_back(seed: int) -> None:
    generator = np.random.default_rng(seed)
    size = (int(generator.integers(1, 70)), int(generator.integers(1, 70)))
    mask = generator.random(size) < generator.random()
    assert (decode(encode_run_lengths(mask), size) == mask).all()


def test_annotations_have_boxes_areas_and_ids_over_all_images(tmp_path: Path) -> None:
    space = load_label_space("camvid")
    label = np.zeros((6, 8), np.uint8)
    label[2:4, 3:8] = 1
    sky, building = list_annotations(label, None, space)
    assert (building["area"], building["bbox"]) == (10, [3, 2, 5, 2])
    assert (sky["area"], sky["bbox"]) == (38, [0, 0, 8, 6])
    for name in ("a", "b"):
        content = {"images": [{"id": 1, "height": 6, "width": 8}], "annotations": [sky, building]}
        (tmp_path / name).write_text(json.dumps(content))
    parts = ((f"{name}.png", tmp_path / name) for name in ("a", "b"))
    join_coco_files(parts, tmp_path / "coco.json", space)
    joined = json.loads((tmp_path / "coco.json").read_text())
    assert [item["id"] for item in joined["annotations"]] == [1, 2, 3, 4]
    assert [item["image_id"] for item in joined["annotations"]] == [1, 1, 2, 2]
    assert [item["file_name"] for item in joined["images"]] == ["a.png", "b.png"]
    assert len(joined["categories"]) == len(space.classes)
