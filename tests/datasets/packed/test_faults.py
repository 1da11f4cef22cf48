"""Every fault that users met in raw data is named by file and rule, and can be quarantined."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_layouts import LAYOUTS, SIZE, Layout, index_values, packed, write_image, write_index
from scipy.io import loadmat, savemat

from spikeseg.datasets.packed.pack import MANIFEST, QUARANTINE, PackingStoppedError
from spikeseg.datasets.spec import DataError


def image_of(root: Path) -> Path:
    return root / "train" / "a1.png"


def label_of(root: Path) -> Path:
    return root / "trainannot" / "a1.png"


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
    "no image": (lambda r: image_of(r).unlink(), r"train/a1\.jpg: (no such file|cannot be read)"),
    "no label": (
        lambda r: label_of(r).unlink(),
        "trainannot/a1.png: (no such file|cannot be read)",
    ),
}


@pytest.mark.parametrize("fault", CAMVID_FAULTS)
def test_a_bad_row_is_refused_by_file_and_rule(tmp_path: Path, fault: str) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    change, message = CAMVID_FAULTS[fault]
    change(layout.source)
    with pytest.raises(DataError, match=message):
        packed(layout, tmp_path / "packed")
    assert not (tmp_path / "packed" / MANIFEST).exists()


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
    assert re.search(message, entry["reason"])


def test_more_bad_rows_than_the_ceiling_stop_the_packing(tmp_path: Path) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    truncated(layout.source)
    with pytest.raises(DataError, match=r"1 of 5 rows are bad, at most 10 % may be left out: .*a1"):
        packed(layout, tmp_path / "packed", "quarantine", share=0.1)


def test_what_was_quarantined_is_refused_under_a_lower_ceiling(tmp_path: Path) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    out_of_range(layout.source)
    digest = packed(layout, tmp_path / "packed", "quarantine", share=0.5).digest
    assert packed(layout, tmp_path / "packed", "quarantine", share=0.2).digest == digest
    message = r"packed without 1 bad rows \(quarantine.csv\), at most 0 of 5 may be left out now"
    with pytest.raises(DataError, match=message) as caught:
        packed(layout, tmp_path / "packed", "quarantine", share=0.1)
    assert not isinstance(caught.value, PackingStoppedError), "found before any work"


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
