"""A source as users have it becomes packed rows that can be traced, or is refused with reasons."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from own_images import COLOURS, draw_pair, to_colours, write_pairs, write_picture
from PIL import Image, ImageColor

from spikeseg.datasets.layouts.image_folder.prepare import FolderOptions, Prepared, prepare_folder
from spikeseg.datasets.layouts.image_folder.proposal import name_colour
from spikeseg.datasets.packed.pack import pack
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.spec import DataError

NAMES = ["a", "b", "ü ß/c (1)", "ü ß/d.e", "z/f", "z/g"]


def write_source(root: Path) -> Path:
    write_pairs(root, {f"images/{name}.png": f"masks/{name}_mask.png" for name in NAMES})
    return root


def prepare(root: Path, **options: object) -> Prepared:
    return prepare_folder(root, FolderOptions(**{"split": "0.5,0.25,0.25", **options}))  # type: ignore[arg-type]


def pack_prepared(prepared: Prepared, root: Path, output: Path) -> PackedDataset:
    pack("folder", prepared.dataset, root, output)
    return PackedDataset.open(output)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_rows_are_packed_alike_from_a_folder_and_archives(kind: str, tmp_path: Path) -> None:
    root = write_source(tmp_path / "data")
    if kind != "folder":
        root = Path(shutil.make_archive(str(tmp_path / "archive"), kind, tmp_path, "data"))
    prepared = prepare(root)
    assert prepared.proposed and "mask names end with '_mask'" in prepared.notes
    packed = pack_prepared(prepared, root, tmp_path / "packed")
    assert packed.label_space.classes == ("background", "green", "red")
    with (tmp_path / "packed" / "sources.csv").open(newline="") as file:
        listed = {row["id"]: row for row in csv.DictReader(file)}
    assert sorted(listed) == sorted(NAMES)
    folder = "data/" if kind != "folder" else ""
    order = np.array([0, 2, 1])  # red is drawn as 1, and stands third
    for split, count in packed.splits.items():
        for index in range(count):
            row = packed.row(split, index)
            image, label = draw_pair(NAMES.index(row.id))
            np.testing.assert_array_equal(row.image, image)
            np.testing.assert_array_equal(row.label, order[label])
            assert listed[row.id]["split"] == split
            assert listed[row.id]["image"] == f"{folder}images/{row.id}.png"
            assert listed[row.id]["label"] == f"{folder}masks/{row.id}_mask.png"
    assert not list(tmp_path.rglob("*.yaml"))


def test_the_same_seed_draws_the_same_split_and_equal_pictures_stay_together(
    tmp_path: Path,
) -> None:
    root = tmp_path / "data"
    names = [f"{n:02d}" for n in range(20)]
    write_pairs(root, {f"images/{n}.png": f"masks/{n}.png" for n in names})
    for copy in ("03", "07", "11"):
        shutil.copy(root / "images/00.png", root / f"images/{copy}.png")
        shutil.copy(root / "masks/00.png", root / f"masks/{copy}.png")

    def splits(seed: int) -> dict[str, str]:
        rows = prepare(root, split="0.6,0.2,0.2", seed=seed).dataset.rows(root, partial=True)
        return {row.id: row.split for row in rows}

    assert splits(1) == splits(1)
    assert any(splits(1) != splits(seed) for seed in range(2, 6))
    for seed in range(8):
        drawn = splits(seed)
        assert len({drawn[n] for n in ("00", "03", "07", "11")}) == 1
        counts = [list(drawn.values()).count(split) for split in ("train", "val", "test")]
        assert sum(counts) == 20 and counts[0] >= 10 and min(counts) >= 3, counts


def test_images_of_a_folder_stay_together(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_pairs(root, {f"images/{f}/{n}.png": f"masks/{f}/{n}.png" for f in "abcde" for n in "123"})
    for seed in range(5):
        rows = prepare(root, seed=seed, group_by="folder").dataset.rows(root, partial=True)
        found = {(Path(row.id).parent, row.split) for row in rows}
        assert len(found) == 5
    for folder in "abc":
        shutil.rmtree(root / "images" / folder)
        shutil.rmtree(root / "masks" / folder)
    with pytest.raises(DataError, match="2 groups of images that stay together cannot fill 3"):
        prepare(root, group_by="folder")


def test_lists_say_the_splits_and_what_they_leave_out_is_said(tmp_path: Path) -> None:
    root = write_source(tmp_path / "data")
    (root / "train.txt").write_text("a\nimages/b.png\nü ß/c (1)\n")
    (root / "valid.txt").write_text("\ufeffz/f.png\n")
    prepared = prepare(root, split=None)
    rows = prepared.dataset.rows(root, partial=True)
    assert [(row.split, row.id) for row in rows] == [
        ("train", "a"), ("train", "b"), ("train", "ü ß/c (1)"), ("val", "z/f"),
    ]  # fmt: skip
    assert "2 images are in no list and were left out" in prepared.notes
    (root / "valid.txt").write_text("z/f\na.png\n")
    with pytest.raises(DataError, match=r"valid\.txt:2: a\.png is in train\.txt already"):
        prepare(root, split=None)
    (root / "valid.txt").write_text("z/h\n")
    with pytest.raises(DataError, match=r"valid\.txt:1: 'z/h' is the name of no image"):
        prepare(root, split=None)


def test_the_same_picture_in_two_splits_is_named_with_both_files(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_pairs(root, {f"{s}/images/{n}.png": f"{s}/masks/{n}.png"
                       for s in ("train", "val") for n in "ab"})  # fmt: skip
    shutil.copy(root / "train/images/a.png", root / "val/images/b.png")
    notes = prepare(root, split=None).notes
    expected = "train/images/a.png (train) and val/images/b.png (val)"
    assert f"the same picture is in two splits: {expected}" in notes


def test_every_bad_file_is_found_before_anything_is_written(tmp_path: Path) -> None:
    root = write_source(tmp_path / "data")
    image, label = draw_pair(9)
    write_picture(root / "images/n.png", image)
    write_picture(root / "masks/o_mask.png", to_colours(label))
    write_picture(root / "images/p.png", image)
    write_picture(root / "masks/p_mask.png", to_colours(label)[:-1])
    (root / "images/a.png").write_bytes((root / "images/a.png").read_bytes()[:-40])
    prepared = prepare(root)
    with pytest.raises(DataError) as error:
        prepared.require_few_problems(0.0)
    text = str(error.value)
    assert text.startswith("4 of 9 pairs cannot be packed, 0 % may be left out")
    for part in (
        "images/n.png: the image has no mask",
        "masks/o_mask.png: the mask has no image",
        "masks/p_mask.png: the label is 48 x 39, its image images/p.png is 48 x 40",
        "images/a.png: the image cannot be decoded",
    ):
        assert part in text
    prepared.require_few_problems(0.5)
    output = tmp_path / "packed"
    pack("folder", prepared.dataset, root, output, on_bad_row="quarantine", max_bad_share=0.5)
    bad = (output / "quarantine.csv").read_text()
    assert PackedDataset.open(output).quarantined == 4
    assert "the image has no mask" in bad and "the mask has no image" in bad


def test_images_out_of_range_are_all_named_before_anything_is_written(tmp_path: Path) -> None:
    root = write_source(tmp_path / "data")
    height, width = draw_pair(0)[1].shape
    clear = np.full((height, width, 4), 255, np.uint8)
    clear[:2, :3, 3] = 0
    write_picture(root / "images/a.png", np.full((height, width), 899, np.uint16))
    write_picture(root / "images/b.png", clear)
    (root / "images/z/f.png").unlink()
    write_picture(root / "images/z/f.npy", np.full((height, width), 0.5))
    problems = "\n".join(prepare(root).problems)
    for rule in (
        r"a\.png: its largest value is 899",
        r"b\.png: 6 transparent",
        r"f\.npy: .*whole numbers",
    ):
        assert re.search(rule, problems), rule


def test_rare_colours_are_counted_and_no_classes(tmp_path: Path) -> None:
    root = write_source(tmp_path / "data")
    pixels = to_colours(draw_pair(0)[1])
    pixels[0, :30, 0] = np.arange(30) + 1
    write_picture(root / "masks/a_mask.png", pixels)
    prepared = prepare(root)
    assert [item.name for item in prepared.table.classes] == ["background", "green", "red"]
    note = "rare colours (30 pixels in 1 masks, such as masks/a_mask.png) were taken for no class"
    assert any(note in text for text in prepared.notes)
    with pytest.raises(DataError, match=r"a_mask\.png: 30 pixels of 30 colours .*tolerance"):
        prepared.require_few_problems(0)


def test_palettes_that_differ_make_colours_of_the_masks(tmp_path: Path) -> None:
    """Paint programs number the colours of each file anew."""
    for order, by in (((0, 1, 2), "value"), ((2, 0, 1), "colour")):
        root = tmp_path / by
        for index, name in enumerate("abcd"):
            image, label = draw_pair(index)
            write_picture(root / f"images/{name}.png", image)
            turned = order if index == 3 else (0, 1, 2)
            picture = Image.fromarray(np.argsort(turned).astype(np.uint8)[label])
            picture.putpalette([part for value in turned for part in COLOURS[value]])
            (root / "masks").mkdir(exist_ok=True)
            picture.save(root / f"masks/{name}.png")
        prepared = prepare(root, split="0.5,0.5")
        assert prepared.table.by == by
        packed = pack_prepared(prepared, root, tmp_path / f"packed {by}")
        palette = np.array(packed.label_space.palette)
        for split, count in packed.splits.items():
            for index in range(count):
                row = packed.row(split, index)
                label = draw_pair("abcd".index(row.id))[1]
                np.testing.assert_array_equal(palette[row.label], to_colours(label))


def test_255_beside_other_numbers_is_proposed_as_ignored(tmp_path: Path) -> None:
    for name, values in (("many", (0, 1, 255)), ("two", (0, 255, 255))):
        root = tmp_path / name
        for index in range(3):
            image, label = draw_pair(index)
            write_picture(root / f"images/{index}.tif", image[..., 0])
            write_picture(root / f"labels/{index}.tif", np.array(values, np.uint8)[label])
        table = prepare(root, split="0.6,0.4").table
        assert table.ignore == ((255,) if name == "many" else ())
        assert [item.codes for item in table.classes] == [(0,), (1,) if name == "many" else (255,)]


def test_a_class_file_of_the_source_is_taken_without_asking(tmp_path: Path) -> None:
    root = write_source(tmp_path / "data")
    text = (
        'classes:\n- {name: rest, colour: ["#000000", "#008000"]}\n- {name: box, colour: "#ff0000"}'
    )
    (root / "classes.yaml").write_text(text)
    prepared = prepare(root)
    assert not prepared.proposed
    assert pack_prepared(prepared, root, tmp_path / "p").label_space.classes == ("rest", "box")
    (root / "classes.yaml").write_text(text.replace(', "#008000"', ""))
    with pytest.raises(DataError, match=r"6 of 6 pairs[^#]*#008000 \(\d+ pixels\)"):
        prepare(root).require_few_problems(0)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"split": None}, "nothing says which images train"),
        ({"split": "0.5,0.6"}, "must be two or three positive shares that come to 1"),
        ({"split": "a"}, "must be two or three positive shares"),
        ({"images": "*"}, "given together"),
        ({"split": None, "group_by": "folder"}, "--group-by needs --split"),
        ({"classes": Path("/no/classes.yaml")}, "/no/classes.yaml: cannot be read"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], rule: str, tmp_path: Path) -> None:
    root = write_source(tmp_path / "data")
    with pytest.raises(DataError, match=rule):
        prepare(root, **options)


def test_json_of_the_options_says_what_was_chosen(tmp_path: Path) -> None:
    prepared = prepare(write_source(tmp_path / "data"), seed=3)
    expected = {
        "format": "masks", "split": "0.5,0.25,0.25", "seed": 3, "classes_by": "colour",
        "classes": {"background": ["#000000"], "green": ["#008000"], "red": ["#ff0000"]},
    }  # fmt: skip
    assert json.loads(json.dumps(prepared.dataset.options)) == expected


@pytest.mark.parametrize("asked_before", [False, True])
def test_colours_have_their_names_whoever_asked_pillow_for_one_before(asked_before: bool) -> None:
    if asked_before:
        # From then on Pillow's table has a tuple where it had a text.
        assert ImageColor.getrgb("red") == (255, 0, 0)
    assert [name_colour(code) for code in (0, 0xFF0000, 0x008000, 0x0A0B0C)] == [
        "background",
        "red",
        "green",
        "colour_0a0b0c",
    ]
