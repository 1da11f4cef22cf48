"""Faults of lists, folders and annotation files of raw data are named by file and rule."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_layouts import LAYOUTS, SIZE, Layout, index_values, packed, write_image, write_index

from spikeseg.datasets.layouts.catalog import make_dataset
from spikeseg.datasets.packed.pack import pack
from spikeseg.datasets.spec import DataError


@pytest.mark.parametrize(
    ("folder", "first"),
    [("images/training", "ADE_train_a1"), ("images/validation", "ADE_val_b1")],
)
def test_labels_without_their_images_are_named(tmp_path: Path, folder: str, first: str) -> None:
    layout = LAYOUTS["ade20k"](tmp_path / "raw")
    for path in (layout.source / "ADEChallengeData2016" / folder).iterdir():
        path.unlink()
    with pytest.raises(DataError, match=rf"{first}.jpg: no such file \(and 1 more\)"):
        packed(layout, tmp_path / "packed")


def test_images_without_their_labels_are_named(tmp_path: Path) -> None:
    layout = LAYOUTS["ade20k"](tmp_path / "raw")
    write_image(layout.source / "ADEChallengeData2016/images/training/ADE_train_x.jpg", 3)
    with pytest.raises(DataError, match=r"ADE_train_x.png: no such file;"):
        packed(layout, tmp_path / "packed")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("/JPEGImages/a1.jpg /SegmentationClassAug/a1.png", "/JPEGImages/a1.jpg /Segm"),
        ("JPEGImages/a1", "JPEGImages/a1"),
        ("a1.jpg", "a1.jpg"),
    ],
    ids=["two paths", "leading folder", "suffix"],
)
def test_a_list_of_another_form_is_refused_by_line(tmp_path: Path, line: str, shown: str) -> None:
    layout = LAYOUTS["pascal_voc12"](tmp_path / "raw")
    listing = layout.source / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt"
    listing.write_text(f"a2\n\n{line}\n")
    with pytest.raises(DataError, match=rf"train.txt:3: '{shown}.*one file stem, without folder"):
        packed(layout, tmp_path / "packed")


@pytest.mark.parametrize(
    ("content", "message"),
    [("a1\na2\na1\n", "a1 is listed twice"), ("\n", "the list of the split is empty")],
    ids=["repeated", "empty"],
)
def test_a_repeated_or_empty_list_is_refused(tmp_path: Path, content: str, message: str) -> None:
    for name, listing in (
        ("pascal_voc12", "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt"),
        ("camvid", "train.txt"),
    ):
        layout = LAYOUTS[name](tmp_path / name)
        (layout.source / listing).write_text(content)
        with pytest.raises(DataError, match=rf"train.txt: {message}"):
            packed(layout, tmp_path / "packed")


@pytest.mark.parametrize(
    ("name", "listing"),
    [
        ("camvid", "val.txt"),
        ("pascal_voc12", "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"),
        ("pascal_context_60", "VOCdevkit/VOC2010/ImageSets/SegmentationContext/val.txt"),
        ("coco_stuff10k", "imageLists/test.txt"),
    ],
)
def test_a_missing_list_is_named(tmp_path: Path, name: str, listing: str) -> None:
    layout = LAYOUTS[name](tmp_path / "raw")
    (layout.source / listing).unlink()
    dataset = make_dataset(name, layout.options)
    with pytest.raises(DataError, match=rf"{listing}: the list of the split is missing"):
        pack(name, dataset, layout.source, tmp_path / "packed")


def test_a_missing_list_of_added_images_names_every_way_to_give_it(tmp_path: Path) -> None:
    layout = LAYOUTS["pascal_voc12_aug"](tmp_path / "raw")
    lists = layout.source / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    (lists / "aug.txt").unlink()
    with pytest.raises(DataError, match=r"aug.txt: the list .* missing; so are trainaug.txt and"):
        packed(layout, tmp_path / "packed")
    (lists / "trainaug.txt").write_text("a1\na2\nc1\nc2\n")
    assert packed(layout, tmp_path / "packed").splits == {"train": 4, "val": 2}


def test_sbd_lists_give_the_added_images_without_those_of_voc(tmp_path: Path) -> None:
    layout = LAYOUTS["pascal_voc12_aug"](tmp_path / "raw")
    (layout.source / "VOCdevkit/VOC2012/ImageSets/Segmentation/aug.txt").unlink()
    sbd = layout.source / "VOCdevkit/VOCaug/dataset"
    (sbd / "train.txt").write_text("c1\nb1\na1\n")
    (sbd / "val.txt").write_text("c2\nb2\n")
    dataset = packed(layout, tmp_path / "packed")
    ids = {row["id"] for row in dataset.columns("train", ["id"])}
    assert ids == {"a1", "a2", "c1", "c2"}


def test_sbd_lists_are_not_read_without_the_list_of_voc_val(tmp_path: Path) -> None:
    layout = LAYOUTS["pascal_voc12_aug"](tmp_path / "raw")
    lists = layout.source / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    (lists / "aug.txt").unlink()
    (lists / "val.txt").unlink()
    sbd = layout.source / "VOCdevkit/VOCaug/dataset"
    (sbd / "train.txt").write_text("c1\nb1\n")
    (sbd / "val.txt").write_text("c2\nb2\n")
    with pytest.raises(DataError, match=r"val.txt: the list of the split is missing"):
        packed(layout, tmp_path / "packed")


def test_validation_images_among_the_added_ones_are_refused(tmp_path: Path) -> None:
    layout = LAYOUTS["pascal_voc12_aug"](tmp_path / "raw")
    lists = layout.source / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    (lists / "aug.txt").write_text("c1\nb2\n")
    with pytest.raises(DataError, match=r"aug.txt: b2 is an image of VOC val"):
        packed(layout, tmp_path / "packed")


@pytest.mark.parametrize(
    "line",
    [
        "/CamVid/train/a1.png /CamVid/trainannot/a2.png",
        "/CamVid/train/a1.png /CamVid/valannot/a1.png",
        "/CamVid/val/a1.png",
        "train/a1.png trainannot/a1.png trainannot/a2.png",
    ],
    ids=["other label", "label of another split", "image of another split", "three paths"],
)
def test_paths_that_are_no_pair_of_camvid_are_refused_by_line(tmp_path: Path, line: str) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    (layout.source / "train.txt").write_text(f"a2\n{line}\n")
    with pytest.raises(
        DataError, match=rf"train.txt:2: '{line}': a line must be one file stem, or"
    ):
        packed(layout, tmp_path / "packed")


def panoptic_json(layout: Layout) -> tuple[Path, dict]:
    path = layout.source / "annotations" / "panoptic_train2017.json"
    return path, json.loads(path.read_text())


def test_a_detection_file_is_not_taken_for_a_panoptic_one(tmp_path: Path) -> None:
    layout = LAYOUTS["coco_panoptic"](tmp_path / "raw")
    path, content = panoptic_json(layout)
    content["annotations"] = [{"id": 1, "image_id": 0, "bbox": [0, 0, 1, 1], "category_id": 1}]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"panoptic_train2017.json: not a panoptic annotation file"):
        packed(layout, tmp_path / "packed")


def test_labels_of_another_kind_are_not_taken_for_panoptic_ones(tmp_path: Path) -> None:
    layout = LAYOUTS["coco_panoptic"](tmp_path / "raw")
    label = layout.source / "annotations" / "panoptic_train2017" / "a1.png"
    stuff = Image.fromarray(np.full(SIZE, 92, np.uint8))
    stuff.save(label)
    with pytest.raises(DataError, match=r"a1.png: segments must be stored as 8-bit RGB .* mode L"):
        packed(layout, tmp_path / "packed")
    stuff.convert("RGB").save(label)
    with pytest.raises(DataError, match=r"a1.png: segment ids \[\d+\] are not in its annotation"):
        packed(layout, tmp_path / "packed")


def test_a_listed_image_without_annotation_is_named(tmp_path: Path) -> None:
    layout = LAYOUTS["coco_panoptic"](tmp_path / "raw")
    path, content = panoptic_json(layout)
    del content["annotations"][1]
    path.write_text(json.dumps(content))
    message = r"panoptic_train2017.json: 1 listed images have no annotation \(a2.jpg\)"
    with pytest.raises(DataError, match=message):
        packed(layout, tmp_path / "packed")


def test_label_ids_in_the_place_of_instance_ids_are_refused(tmp_path: Path) -> None:
    layout = LAYOUTS["cityscapes_panoptic"](tmp_path / "raw")
    path = next((layout.source / "gtFine" / "train" / "town").glob("*a1*"))
    values = index_values(path)
    write_index(path, np.where(values < 1000, values, values // 1000).astype(np.uint8))
    with pytest.raises(DataError, match=r"a1_gtFine_instanceIds.png: .* 16 bits a pixel, got 8"):
        packed(layout, tmp_path / "packed")


def test_annotated_segments_must_have_pixels_and_their_area(tmp_path: Path) -> None:
    layout = LAYOUTS["coco_panoptic"](tmp_path / "raw")
    path, content = panoptic_json(layout)
    info = content["annotations"][0]["segments_info"]
    info.append({"id": 9, "category_id": 1, "iscrowd": 0, "area": 5})
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"a1.png: annotated segments \[9\] have no pixel in it"):
        packed(layout, tmp_path / "packed")
    info[-1] = info[0]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"a1.png: its annotation lists a segment id twice"):
        packed(layout, tmp_path / "packed")
    info[-1:] = []
    info[0]["area"] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"a1.png: segment 3000000 has \d+ pixels, its annotation"):
        packed(layout, tmp_path / "packed")


def test_a_panoptic_category_outside_the_label_space_is_refused(tmp_path: Path) -> None:
    layout = LAYOUTS["coco_panoptic"](tmp_path / "raw")
    path, content = panoptic_json(layout)
    content["annotations"][0]["segments_info"][1]["category_id"] = 12
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"a1.png: segment 77 has category 12, which is outside"):
        packed(layout, tmp_path / "packed")


def test_panoptic_categories_without_colours_do_no_harm(tmp_path: Path) -> None:
    layout = LAYOUTS["coco_panoptic"](tmp_path / "raw")
    path, content = panoptic_json(layout)
    content["categories"] = [{"id": 1, "name": "person", "supercategory": "person", "isthing": 1}]
    path.write_text(json.dumps(content))
    assert packed(layout, tmp_path / "packed").label_space.palette[0] == (220, 20, 60)


def test_every_number_in_the_manifest_is_plain_json(tmp_path: Path) -> None:
    layout = LAYOUTS["coco_panoptic"](tmp_path / "raw")
    packed(layout, tmp_path / "packed")
    manifest = json.loads((tmp_path / "packed" / "manifest.json").read_text())
    counts = [part[key] for part in manifest["classes"].values() for key in ("rows", "pixels")]
    assert all(isinstance(number, int) for part in counts for number in part)


def test_instances_must_have_one_of_the_hundred_categories(tmp_path: Path) -> None:
    layout = LAYOUTS["ade20k_panoptic"](tmp_path / "raw")
    folder = layout.source / "ADEChallengeData2016" / "annotations_instance" / "training"
    path = next(folder.glob("*a1.png"))
    colours = np.array(Image.open(path))
    colours[0, 0] = (101, 1, 0)
    Image.fromarray(colours).save(path)
    with pytest.raises(DataError, match=r"a1.png: instance category 101, they are 1\.\.100"):
        packed(layout, tmp_path / "packed")


def test_a_missing_instance_download_is_named(tmp_path: Path) -> None:
    layout = LAYOUTS["ade20k"](tmp_path / "raw")
    with pytest.raises(DataError, match=r"annotations_instance/training: no such folder; panoptic"):
        packed(Layout("ade20k_panoptic", layout.source), tmp_path / "packed")


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name, make in LAYOUTS.items():
        layout = Layout(name, tmp_path / "nowhere", make(tmp_path / name).options)
        with pytest.raises(DataError, match=r"nowhere: no such folder"):
            packed(layout, tmp_path / "packed")
