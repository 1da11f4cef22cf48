"""COCO, labelme, CVAT and VOC files become the label maps that they describe."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from own_images import COLOURS, draw_pair, to_colours, write_picture
from PIL import Image

from spikeseg.datasets.layouts.image_folder.labelme import encode_runs
from spikeseg.datasets.layouts.image_folder.prepare import FolderOptions, Prepared, prepare_folder
from spikeseg.datasets.spec import DataError, RawRow

WORDS = ("", "red box", "grün")
SIZE = (40, 48)


def outline(mask: np.ndarray) -> list[tuple[float, float]]:
    """Corners of the box that a mask is."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def plain(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image, and a label whose two boxes do not overlap."""
    while (draw_pair(seed)[1] == 1).sum() != 144:
        seed += 100
    return draw_pair(seed)


def write_images(root: Path, folder: str = "images") -> dict[str, np.ndarray]:
    labels = {}
    for index in range(4):
        image, label = plain(index)
        write_picture(root / folder / f"sub {index % 2}" / f"{index}.png", image)
        labels[f"sub {index % 2}/{index}.png"] = label if index else np.zeros_like(label)
    return labels


def write_coco(root: Path) -> dict[str, np.ndarray]:
    """Polygons, run lengths of both kinds and a crowd; the first image has no annotation."""
    labels = write_images(root)
    images, annotations = [], []
    for number, (name, label) in enumerate(labels.items()):
        images.append({"id": number, "file_name": name, "height": 40, "width": 48})
        for value in (1, 2) if label.any() else ():
            mask = label == value
            points = [float(part) for point in outline(mask) for part in point]
            runs = {"size": list(SIZE), "counts": list(encode_runs(mask).counts)}
            annotations.append(
                {
                    "id": len(annotations), "image_id": number, "category_id": value * 7,
                    "iscrowd": int(number == 3),
                    "segmentation": [points] if number == 1 else runs,
                }
            )  # fmt: skip
    categories = [{"id": 7 * value, "name": WORDS[value]} for value in (1, 2)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations").mkdir()
    (root / "annotations" / "instances.json").write_text(json.dumps(content))
    return labels


def write_panoptic(root: Path) -> dict[str, np.ndarray]:
    labels = write_images(root)
    images, annotations = [], []
    for number, (name, label) in enumerate(labels.items()):
        images.append({"id": number, "file_name": name, "height": 40, "width": 48})
        ids = label.astype(np.int64) * 70000 + (label > 0)
        colours = np.stack([ids & 255, (ids >> 8) & 255, ids >> 16], 2).astype(np.uint8)
        write_picture(root / "panoptic" / f"p{number}.png", colours)
        segments = [
            {"id": 70000 * value + 1, "category_id": value, "iscrowd": 0}
            for value in np.unique(label[label > 0]).tolist()
        ]
        annotations.append(
            {"image_id": number, "file_name": f"p{number}.png", "segments_info": segments}
        )
    categories = [{"id": value, "name": WORDS[value], "isthing": 1} for value in (1, 2)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "panoptic.json").write_text(json.dumps(content))
    return labels


def write_labelme(root: Path) -> dict[str, np.ndarray]:
    labels = write_images(root, ".")
    for number, (name, label) in enumerate(labels.items()):
        shapes = []
        for value in np.unique(label[label > 0]).tolist():
            mask = label == value
            points = [[float(x), float(y)] for x, y in outline(mask)]
            kind = ("polygon", "rectangle", "mask", "polygon")[number]
            shape = {"label": WORDS[value], "shape_type": kind, "points": points}
            if kind != "polygon":
                shape["points"] = [points[0], points[2]]
            if kind == "mask":
                file = io.BytesIO()
                x, y = (int(part) for part in points[0])
                Image.fromarray(mask[y : y + 12, x : x + 12]).save(file, "PNG")
                shape["mask"] = base64.b64encode(file.getvalue()).decode()
            shapes.append(shape)
        content = {"imagePath": Path(name).name, "shapes": shapes, "imageHeight": 40,
                   "imageWidth": 48}  # fmt: skip
        (root / name).with_suffix(".json").write_text(json.dumps(content))
    return labels


def write_cvat(root: Path) -> dict[str, np.ndarray]:
    labels = write_images(root)
    lines = ["<?xml version='1.0' encoding='utf-8'?><annotations><version>1.1</version>"]
    for number, (name, label) in enumerate(labels.items()):
        lines.append(f'<image id="{number}" name="{name}" width="48" height="40">')
        for value in np.unique(label[label > 0]).tolist():
            corners = outline(label == value)
            (x0, y0), (x1, y1) = corners[0], corners[2]
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in corners)
            shape = (
                f'polygon points="{points}"',
                f'box xtl="{x0}" ytl="{y0}" xbr="{x1}" ybr="{y1}"',
                f'mask rle="0, 144" left="{x0}" top="{y0}" width="12" height="12"',
                f'polygon points="{points}"',
            )[number]
            lines.append(f'<{shape} label="{WORDS[value]}" z_order="0"/>')
        lines.append("<tag label='seen'/></image>")
    (root / "annotations.xml").write_text("".join([*lines, "</annotations>"]), encoding="utf-8")
    return labels


WRITERS: dict[str, tuple[str, Callable[[Path], dict[str, np.ndarray]]]] = {
    "coco": ("coco", write_coco),
    "panoptic": ("coco", write_panoptic),
    "labelme": ("labelme", write_labelme),
    "cvat": ("cvat", write_cvat),
}


def prepare(root: Path, name: str) -> Prepared:
    return prepare_folder(root, FolderOptions(format=WRITERS[name][0], split="0.5,0.5"))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", WRITERS)
def test_annotations_become_the_labels_that_they_describe(name: str, tmp_path: Path) -> None:
    labels = WRITERS[name][1](tmp_path)
    prepared = prepare(tmp_path, name)
    prepared.require_few_problems(0)
    assert prepared.table.label_space().classes == ("background", *sorted(WORDS[1:]))
    order = np.array(
        [0, 1 + sorted(WORDS[1:]).index(WORDS[1]), 1 + sorted(WORDS[1:]).index(WORDS[2])]
    )
    rows: list[RawRow] = list(prepared.dataset.rows(tmp_path, partial=True))
    assert len(rows) == 4
    for row in rows:
        expected = labels["/".join(row.image.parts[-2:])]
        np.testing.assert_array_equal(prepared.dataset.read(row).row.label, order[expected])
    shares = {share.name: share.share for share in prepared.shares}
    total = sum(label.size for label in labels.values())
    assert shares["red box"] == pytest.approx(sum((v == 1).sum() for v in labels.values()) / total)
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", WRITERS)
def test_an_annotated_image_that_is_not_there_is_a_problem_with_both_names(
    name: str, tmp_path: Path
) -> None:
    WRITERS[name][1](tmp_path)
    next(tmp_path.rglob("3.png")).unlink()
    with pytest.raises(DataError, match=r"1 of 4 pairs(.|\n)*3\.png.* is not there"):
        prepare(tmp_path, name).require_few_problems(0)


def change_json(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda c: c["annotations"][0].update(category_id=99), "category_id 99 is none of its"),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3]]), "a polygon is a list"),
        (lambda c: c["annotations"][0].update(segmentation=[]), "must be polygons or run lengths"),
        (lambda c: c["annotations"][2]["segmentation"].update(counts=[5]), "run lengths come to 5"),
        (lambda c: c["annotations"][0].update(image_id=77), "77 is annotated, and not among"),
        (lambda c: c["images"][0].pop("file_name"), r"images\[0\] needs id and file_name"),
        (lambda c: c["images"][0].update(height="x"), "height and width must be whole numbers"),
        (lambda c: c.pop("categories"), "no COCO file found"),
    ],
)  # fmt: skip
def test_a_wrong_coco_file_is_refused_with_the_entry(
    change: Callable[[dict], object], rule: str, tmp_path: Path
) -> None:
    write_coco(tmp_path)
    change_json(tmp_path / "annotations/instances.json", change)
    with pytest.raises(DataError, match=rule):
        prepare(tmp_path, "coco")


def test_splits_of_coco_files_are_words_of_their_names(tmp_path: Path) -> None:
    write_coco(tmp_path)
    path = tmp_path / "annotations/instances.json"
    content = json.loads(path.read_text())
    for split, images in (("train2017", content["images"][:2]), ("val2017", content["images"][2:])):
        ids = {image["id"] for image in images}
        part = [entry for entry in content["annotations"] if entry["image_id"] in ids]
        (path.parent / f"instances_{split}.json").write_text(
            json.dumps({**content, "images": images, "annotations": part})
        )
    path.unlink()
    prepared = prepare_folder(tmp_path, FolderOptions(format="coco"))
    splits = [row.split for row in prepared.dataset.rows(tmp_path, partial=True)]
    assert splits == ["train", "train", "val", "val"]


def test_the_share_of_overlapping_classes_is_said(tmp_path: Path) -> None:
    write_coco(tmp_path)
    corners = [0.0, 0.0, 48.0, 0.0, 48.0, 40.0, 0.0, 40.0]
    entry = {"id": 99, "image_id": 1, "category_id": 7, "segmentation": [corners]}
    change_json(tmp_path / "annotations/instances.json", lambda c: c["annotations"].append(entry))
    notes = prepare(tmp_path, "coco").notes
    share = 100 * 144 / (40 * 48 + 4 * 144)
    assert any(note.startswith(f"{share:.2f} % of the annotated pixels") for note in notes), notes


def test_shapes_without_an_area_and_unsafe_xml_are_refused(tmp_path: Path) -> None:
    write_labelme(tmp_path / "l")
    path = next((tmp_path / "l").rglob("1.json"))
    change_json(path, lambda c: c["shapes"][0].update(shape_type="line"))
    with pytest.raises(DataError, match=r"1\.json: shapes\[0\]: a line covers no pixels"):
        prepare(tmp_path / "l", "labelme").require_few_problems(0)
    write_cvat(tmp_path / "c")
    path = tmp_path / "c/annotations.xml"
    path.write_text("<!DOCTYPE x [<!ENTITY a 'b'>]>" + path.read_text(encoding="utf-8"))
    with pytest.raises(DataError, match="declares no document type"):
        prepare(tmp_path / "c", "cvat")


def test_voc_folders_take_their_lists_and_label_map(tmp_path: Path) -> None:
    root = tmp_path / "VOC2012"
    for index in range(3):
        image, label = plain(index)
        write_picture(root / f"JPEGImages/{index}.jpg", image)
        write_picture(root / f"SegmentationClass/{index}.png", to_colours(label))
    (root / "Annotations").mkdir()
    (root / "Annotations/0.xml").write_text("<annotation/>")
    for folder, lines in (("Segmentation", ("0\n1\n", "2\n")), ("Main", ("0 1\n", "1 -1\n"))):
        for split, text in zip(("train", "val"), lines, strict=True):
            path = root / "ImageSets" / folder / f"{split}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    lines = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in zip("xyz", COLOURS, strict=True)]
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(lines))
    prepared = prepare_folder(tmp_path, FolderOptions(format="voc"))
    prepared.require_few_problems(0)
    assert not prepared.proposed and prepared.table.label_space().classes == ("x", "y", "z")
    rows = prepared.dataset.rows(tmp_path, partial=True)
    assert [(row.split, row.id) for row in rows] == [("train", "0"), ("train", "1"), ("val", "2")]
    np.testing.assert_array_equal(prepared.dataset.read(rows[2]).row.label, plain(2)[1])


def write_arrow(path: Path, columns: dict[str, list[dict[str, object]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({name: pa.array(cells, kind) for name, cells in columns.items()})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def encode_cell(pixels: np.ndarray) -> dict[str, object]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def test_arrow_files_are_read_split_by_split(tmp_path: Path) -> None:
    pairs = {"train": [plain(n) for n in range(5)], "validation": [plain(n) for n in (5, 6)]}
    for split, rows in pairs.items():
        columns = {
            "image": [encode_cell(image) for image, _ in rows],
            "annotation": [encode_cell(label) for _, label in rows],
        }
        write_arrow(tmp_path / split / "data-00000-of-00001.arrow", columns)
        (tmp_path / split / "state.json").write_text("{}")
    prepared = prepare_folder(tmp_path, FolderOptions(format="arrow"))
    prepared.require_few_problems(0)
    rows = prepared.dataset.rows(tmp_path, partial=True)
    assert [row.split for row in rows] == ["train"] * 5 + ["val"] * 2
    for row, (image, label) in zip(rows, pairs["train"] + pairs["validation"], strict=True):
        decoded = prepared.dataset.read(row).row
        np.testing.assert_array_equal(decoded.image, image)
        np.testing.assert_array_equal(decoded.label, label)
        assert row.files()[0].suffix == ".arrow"


def test_arrow_files_without_bytes_or_masks_are_refused(tmp_path: Path) -> None:
    image, label = plain(0)
    path = tmp_path / "train" / "a.arrow"
    write_arrow(path, {"image": [encode_cell(image)]})
    with pytest.raises(DataError, match=r"a\.arrow: columns of images are image"):
        prepare_folder(tmp_path, FolderOptions(format="arrow"))
    other = tmp_path / "other"
    cells = {"image": [{"bytes": None, "path": "x.png"}], "mask": [encode_cell(label)]}
    write_arrow(other / "train" / "a.arrow", cells)
    with pytest.raises(DataError, match=r"row 0: image holds no bytes"):
        prepare_folder(other, FolderOptions(format="arrow"))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.arrow").write_bytes(b"no arrow file")
    with pytest.raises(DataError, match=r"a\.arrow: not a readable Arrow file"):
        prepare_folder(tmp_path / "damaged", FolderOptions(format="arrow"))
