"""Real files of every layout pack and read back, with the pixel counts known for them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikeseg.datasets.layouts.catalog import make_dataset
from spikeseg.datasets.packed.pack import pack
from spikeseg.datasets.packed.reader import PackedDataset

SAMPLES = {
    "ade20k": ("ade20k", {}, "ade20k", 3),
    "cityscapes": ("cityscapes", {}, "cityscapes", 3),
    "coco_stuff10k": ("coco_stuff10k", {}, "coco_stuff_10k", 2),
    "coco_stuff164k": ("coco_stuff164k", {}, "coco_stuff_164k", 4),
    "pascal_context_60": (
        "pascal_context",
        {"class_order": "alphabetical"},
        "pascal_context_60",
        2,
    ),
    "pascal_voc12": ("pascal_voc12", {}, "pascal_voc12", 2),
}


def packed(name: str, options: dict[str, str], source: Path, output: Path) -> PackedDataset:
    pack(name, make_dataset(name, options), source, output, partial=True)
    return PackedDataset.open(output)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_samples_have_the_known_pixel_counts(
    shared_folder: Path, tmp_path: Path, name: str
) -> None:
    folder, options, space, expected_rows = SAMPLES[name]
    root = shared_folder / "data" / "samples"
    known = {
        entry["path"]: entry
        for entry in json.loads((root / "manifest.json").read_text())
        if entry.get("label_space") == space
    }
    dataset = packed(name, options, root / folder, tmp_path)
    seen = 0
    places = dict.fromkeys(dataset.splits, 0)
    for raw in make_dataset(name, options).rows(root / folder, partial=True):
        row = dataset.row(raw.split, places[raw.split])
        places[raw.split] += 1
        entry = known[raw.label.relative_to(root).as_posix()]
        values, counts = np.unique(row.label, return_counts=True)
        found = {str(v): c for v, c in zip(values.tolist(), counts.tolist(), strict=True)}
        assert found == entry["train_id_pixels"]
        assert [row.label.shape[1], row.label.shape[0]] == entry["size_wh"]
        seen += 1
    assert seen == expected_rows


def test_coco_panoptic_samples_have_the_annotated_segments(
    shared_folder: Path, tmp_path: Path
) -> None:
    root = shared_folder / "data" / "samples" / "coco_panoptic"
    dataset = packed("coco_panoptic", {}, root, tmp_path)
    content = json.loads((root / "annotations" / "panoptic_val2017.json").read_text())
    space = dataset.label_space
    for index, item in enumerate(content["annotations"]):
        row = dataset.row("val", index)
        assert row.instances is not None
        areas = np.bincount(row.instances.ravel())[1:].tolist()
        assert areas == [segment["area"] for segment in item["segments_info"]]
        classes = [space.raw_to_train[s["category_id"]] for s in item["segments_info"]]
        assert list(row.segments) == classes
        assert [int(crowd) for crowd in row.crowd] == [s["iscrowd"] for s in item["segments_info"]]


def test_cityscapes_segments_equal_what_the_owners_converter_wrote(
    shared_folder: Path, tmp_path: Path
) -> None:
    root = shared_folder / "data" / "samples" / "cityscapes"
    dataset = packed("cityscapes_panoptic", {}, root, tmp_path)
    space = dataset.label_space
    for split in ("train", "val"):
        content = json.loads((root / "gtFine" / f"cityscapes_panoptic_{split}.json").read_text())
        for index, item in enumerate(content["annotations"]):
            row = dataset.row(split, index)
            assert row.id == item["image_id"]
            assert row.instances is not None
            areas = np.bincount(row.instances.ravel())[1:].tolist()
            found = sorted(zip(row.segments, row.crowd, areas, strict=True))
            expected = sorted(
                (space.raw_to_train[s["category_id"]], bool(s["iscrowd"]), s["area"])
                for s in item["segments_info"]
            )
            assert found == expected


def test_camvid_packs_all_rows_with_the_known_pixel_counts(
    shared_folder: Path, tmp_path: Path
) -> None:
    root = shared_folder / "data" / "camvid"
    pack("camvid", make_dataset("camvid", {}), root, tmp_path)
    dataset = PackedDataset.open(tmp_path)
    assert dataset.splits == {"train": 367, "val": 101, "test": 233}
    raw = np.zeros(256, np.int64)
    for label in (root / "valannot").glob("*.png"):
        raw += np.bincount(np.asarray(Image.open(label)).ravel(), minlength=256)
    assert dataset.class_pixels("val") == raw[:11].tolist()
