"""Every fault that users met in raw data is named by file and rule, and can be quarantined."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_layouts import LAYOUTS, SIZE, Layout, write_image, write_index
from scipy.io import loadmat, savemat

from spikeseg.datasets.catalog import make_dataset
from spikeseg.datasets.pack import QUARANTINE, BadRowPolicy, pack
from spikeseg.datasets.reader import PackedDataset
from spikeseg.datasets.spec import DataError


def packed(
    layout: Layout, output: Path, policy: BadRowPolicy = "refuse", share: float = 0.5
) -> PackedDataset:
    dataset = make_dataset(layout.name, layout.options)
    pack(
        layout.name,
        dataset,
        layout.source,
        output,
        rows_per_shard=2,
        on_bad_row=policy,
        max_bad_share=share,
        partial=True,
        workers=1,
    )
    return PackedDataset.open(output)


def image_of(root: Path) -> Path:
    return root / "train" / "a1.png"


def label_of(root: Path) -> Path:
    return root / "trainannot" / "a1.png"


def index_values(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def truncated(root: Path) -> None:
    path = image_of(root)
    path.write_bytes(path.read_bytes()[: int(0.9 * path.stat().st_size)])


def truncated_jpeg(root: Path) -> None:
    path = image_of(root)
    Image.open(path).save(path.with_suffix(".jpg"), quality=95)
    path.unlink()
    content = path.with_suffix(".jpg").read_bytes()
    path.with_suffix(".jpg").write_bytes(content[: int(0.99 * len(content)) - 1])


def rotated(orientation: int) -> Callable[[Path], None]:
    def fault(root: Path) -> None:
        image = Image.open(image_of(root))
        image_of(root).unlink()
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(image_of(root).with_suffix(".jpg"), exif=exif)

    return fault


def cmyk(root: Path) -> None:
    image = Image.open(image_of(root)).convert("CMYK")
    image_of(root).unlink()
    image.save(image_of(root).with_suffix(".jpg"))


def saved_label(mode: str) -> Callable[[Path], None]:
    def fault(root: Path) -> None:
        Image.open(label_of(root)).convert(mode).save(label_of(root))

    return fault


def wide_label(root: Path) -> None:
    values = index_values(label_of(root)).astype(np.uint16)
    values[0, 0] = 300
    write_index(label_of(root), values)


def values_0_and_255(root: Path) -> None:
    write_index(label_of(root), ((index_values(label_of(root)) > 3) * 255).astype(np.uint8))


def out_of_range(root: Path) -> None:
    values = index_values(label_of(root))
    values[2:4, :5] = 12
    write_index(label_of(root), values)


def smaller_label(root: Path) -> None:
    write_index(label_of(root), index_values(label_of(root))[:-1])


CAMVID_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated png": (truncated, "a1.png: the image cannot be decoded"),
    "truncated jpeg": (truncated_jpeg, r"a1.jpg: the image cannot be decoded \(.*truncated"),
    "empty image": (lambda r: image_of(r).write_bytes(b""), "a1.png: the file is empty"),
    "text as image": (
        lambda r: image_of(r).write_bytes(b"<html>not found</html>"),
        "a1.png: the image cannot be decoded",
    ),
    "cmyk image": (cmyk, "a1.jpg: an image must be RGB or grey, got mode CMYK"),
    "exif quarter turn": (rotated(6), "a1.jpg: EXIF orientation 6"),
    "exif half turn": (rotated(3), "a1.jpg: EXIF orientation 3"),
    "rgb label": (saved_label("RGB"), "annot/a1.png: a label must hold one index .* mode RGB"),
    "rgba label": (saved_label("RGBA"), "annot/a1.png: a label must hold .* mode RGBA"),
    "1-bit label": (saved_label("1"), "annot/a1.png: a label must hold .* mode 1"),
    "wide label": (wide_label, r"annot/a1.png: .* outside the label space camvid: 300 \(1 pix"),
    "label 0 and 255": (values_0_and_255, r"annot/a1.png: .* label space camvid: 255 \(\d+ pix"),
    "out of range": (out_of_range, r"annot/a1.png: .* label space camvid: 12 \(10 pixels\)"),
    "sizes differ": (
        smaller_label,
        "annot/a1.png: the label is 32 x 23, its image a1.png is 32 x 24",
    ),
    "truncated label": (
        lambda r: label_of(r).write_bytes(label_of(r).read_bytes()[:60]),
        "annot/a1.png: the label cannot be decoded",
    ),
    "no image": (lambda r: image_of(r).unlink(), r"train/a1\.(jpg|png): "),
    "no label": (lambda r: label_of(r).unlink(), "trainannot/a1.png: "),
}


@pytest.mark.parametrize("fault", CAMVID_FAULTS)
def test_a_bad_row_is_refused_by_file_and_rule(tmp_path: Path, fault: str) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    change, message = CAMVID_FAULTS[fault]
    change(layout.source)
    with pytest.raises(DataError, match=message):
        packed(layout, tmp_path / "packed")
    with pytest.raises(DataError):
        PackedDataset.open(tmp_path / "packed")


@pytest.mark.parametrize("fault", CAMVID_FAULTS)
def test_a_quarantined_row_is_listed_and_the_rest_packed(tmp_path: Path, fault: str) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    change, message = CAMVID_FAULTS[fault]
    change(layout.source)
    dataset = packed(layout, tmp_path / "packed", "quarantine")
    assert dataset.splits == {"train": 1, "val": 2, "test": 1}
    assert dataset.quarantined == 1
    assert dataset.row("train", 0).id == "a2"
    with (tmp_path / "packed" / QUARANTINE).open() as file:
        (entry,) = csv.DictReader(file)
    assert (entry["split"], entry["id"]) == ("train", "a1")
    assert message.partition(":")[0].replace("\\", "").rpartition("/")[2][:2] in entry["reason"]


def test_more_bad_rows_than_the_ceiling_stop_the_packing(tmp_path: Path) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    truncated(layout.source)
    with pytest.raises(DataError, match=r"1 of 5 rows are bad, at most 10 % may be left out: .*a1"):
        packed(layout, tmp_path / "packed", "quarantine", share=0.1)


def test_what_was_quarantined_is_refused_where_nothing_may_be_bad(tmp_path: Path) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    out_of_range(layout.source)
    packed(layout, tmp_path / "packed", "quarantine")
    with pytest.raises(DataError, match=r"was packed without 1 bad rows"):
        packed(layout, tmp_path / "packed")


def test_a_split_of_bad_rows_alone_is_refused(tmp_path: Path) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    (layout.source / "test" / "d1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"every row of split 'test' is bad"):
        packed(layout, tmp_path / "packed", "quarantine")


def test_a_grey_image_becomes_colour(tmp_path: Path) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    grey = Image.open(image_of(layout.source)).convert("L")
    grey.save(image_of(layout.source))
    image = packed(layout, tmp_path / "packed").row("train", 0).image
    np.testing.assert_array_equal(image, np.repeat(np.array(grey)[..., None], 3, 2))


def test_palette_labels_are_read_as_indices(tmp_path: Path) -> None:
    layout = LAYOUTS["pascal_voc12"](tmp_path / "raw")
    path = layout.source / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "a1.png"
    assert Image.open(path).mode == "P"
    label = packed(layout, tmp_path / "packed").row("train", 0).label
    np.testing.assert_array_equal(label, layout.labels["a1"])


def test_a_palette_label_turned_into_luminance_is_refused(tmp_path: Path) -> None:
    layout = LAYOUTS["pascal_voc12"](tmp_path / "raw")
    path = layout.source / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "a1.png"
    Image.open(path).convert("L").save(path)
    with pytest.raises(DataError, match=r"a1.png: label values outside the label space"):
        packed(layout, tmp_path / "packed")


def test_a_label_whose_zero_was_shifted_before_is_refused(tmp_path: Path) -> None:
    layout = LAYOUTS["ade20k"](tmp_path / "raw")
    path = next((layout.source / "ADEChallengeData2016/annotations/training").glob("*a1.png"))
    raw = index_values(path)
    raw[0, 0] = 0
    write_index(path, raw - 1)
    with pytest.raises(DataError, match=r"a1.png: .* label space ade20k: 255 \("):
        packed(layout, tmp_path / "packed")


def test_a_class_map_is_not_applied_over_itself(tmp_path: Path) -> None:
    # 7 -> 0, 8 -> 1, 11 -> 2 ...: applied in place, one id would run on to the next.
    layout = LAYOUTS["cityscapes"](tmp_path / "raw")
    path = next((layout.source / "gtFine" / "train" / "town").glob("*a1*"))
    values = np.zeros(SIZE, np.uint8)
    values[0, :4] = (7, 8, 11, 33)
    write_index(path, values)
    label = packed(layout, tmp_path / "packed").row("train", 0).label
    assert label[0, :5].tolist() == [0, 1, 2, 18, 255]


def test_train_ids_in_the_place_of_label_ids_are_refused(tmp_path: Path) -> None:
    layout = LAYOUTS["cityscapes"](tmp_path / "raw")
    path = next((layout.source / "gtFine" / "train" / "town").glob("*a1*"))
    write_index(path, layout.labels["town_a1"])
    with pytest.raises(DataError, match=r"labelIds.png: .* label space cityscapes: 255 \("):
        packed(layout, tmp_path / "packed")


def test_only_train_id_labels_say_which_files_are_read(tmp_path: Path) -> None:
    layout = LAYOUTS["cityscapes"](tmp_path / "raw")
    for path in (layout.source / "gtFine" / "train" / "town").iterdir():
        path.rename(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    message = r"_gtFine_labelIds.png; _gtFine_labelTrainIds.png files are there, they are not read"
    with pytest.raises(DataError, match=message):
        packed(layout, tmp_path / "packed")


def test_converted_labels_alone_say_that_raw_ones_are_read(tmp_path: Path) -> None:
    layout = LAYOUTS["coco_stuff164k"](tmp_path / "raw")
    for path in (layout.source / "annotations" / "train2017").glob("[ab]?.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"train2017: no raw labels .*_labelTrainIds.png files are"):
        packed(layout, tmp_path / "packed")


def test_an_unlisted_raw_value_of_coco_stuff_is_refused(tmp_path: Path) -> None:
    layout = LAYOUTS["coco_stuff164k"](tmp_path / "raw")
    path = layout.source / "annotations" / "train2017" / "a1.png"
    values = index_values(path)
    values[:2, :2] = 11
    write_index(path, values)
    with pytest.raises(DataError, match=r"a1.png: .* label space coco_stuff164k: 11 \(4 pixels"):
        packed(layout, tmp_path / "packed")


@pytest.mark.parametrize("folder", ["images/training", "images/validation"])
def test_labels_without_their_images_are_named(tmp_path: Path, folder: str) -> None:
    layout = LAYOUTS["ade20k"](tmp_path / "raw")
    for path in (layout.source / "ADEChallengeData2016" / folder).iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"_a1.jpg|_b1.jpg: no such file \(and 1 more\)"):
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


def test_validation_images_among_the_added_ones_are_refused(tmp_path: Path) -> None:
    layout = LAYOUTS["pascal_voc12_aug"](tmp_path / "raw")
    lists = layout.source / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    (lists / "aug.txt").write_text("c1\nb2\n")
    with pytest.raises(DataError, match=r"aug.txt: b2 is an image of VOC val"):
        packed(layout, tmp_path / "packed")


def test_a_full_ade20k_release_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "ADE20K_2016" / "images" / "training" / "a"
    write_image(folder / "ADE_train_1.jpg", 0)
    write_image(folder / "ADE_train_1_seg.png", 0)
    with pytest.raises(DataError, match=r"a full ADE20K release, whose _seg.png hold other codes"):
        packed(Layout("ade20k", tmp_path / "ADE20K_2016"), tmp_path / "packed")


def test_old_coco_stuff_labels_are_refused(tmp_path: Path) -> None:
    layout = LAYOUTS["coco_stuff10k"](tmp_path / "raw")
    path = next((layout.source / "annotations").glob("*a1.mat"))
    savemat(path, {"S": loadmat(path)["S"], "names": np.arange(172)})
    with pytest.raises(DataError, match=r"a1.mat: its 172 names are those of version 1.0"):
        packed(layout, tmp_path / "packed")


@pytest.mark.parametrize(
    ("content", "message"),
    [({"T": np.ones(SIZE)}, "no variable 'S'"), ({"S": np.full(SIZE, 1.5)}, "whole numbers")],
    ids=["other variable", "fractions"],
)
def test_other_matlab_content_is_refused(
    tmp_path: Path, content: dict[str, np.ndarray], message: str
) -> None:
    layout = LAYOUTS["coco_stuff10k"](tmp_path / "raw")
    savemat(next((layout.source / "annotations").glob("*a1.mat")), content)
    with pytest.raises(DataError, match=rf"a1.mat: .*{message}"):
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
    _, content = panoptic_json(layout)
    assert content["categories"] == []
    assert packed(layout, tmp_path / "packed").label_space.palette[0] == (220, 20, 60)


def test_every_number_in_the_manifest_is_plain_json(tmp_path: Path) -> None:
    layout = LAYOUTS["coco_panoptic"](tmp_path / "raw")
    packed(layout, tmp_path / "packed")
    manifest = json.loads((tmp_path / "packed" / "manifest.json").read_text())
    assert all(isinstance(n, int) for shard in manifest["shards"] for n in shard["pixels"])


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
