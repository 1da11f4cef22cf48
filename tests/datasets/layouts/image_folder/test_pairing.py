"""Images and masks find each other by folders, patterns and names."""

from pathlib import Path

import pytest

from spikeseg.datasets.layouts.image_folder.pairing import (
    Affixes,
    compile_glob,
    find_affixes,
    pair_by_convention,
    pair_by_globs,
)
from spikeseg.datasets.spec import DataError

ROOT = Path("/data")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["images/a.jpg", "masks/a.png"], [(None, "a")]),
        (["Images/x/ü 1.jpg", "Labels/x/ü 1.png"], [(None, "x/ü 1")]),
        # An accent as one character in one name, as two in the other.
        (["images/u\u0308.jpg", "masks/\u00fc.png"], [(None, "\u00fc")]),
        (["train/images/a.jpg", "train/masks/a.png", "valid/images/a.jpg", "valid/masks/a.png"],
         [("train", "a"), ("val", "a")]),
        (["images/train/n/a.jpg", "annotations/train/n/a.tif"], [("train", "n/a")]),
        (["top/images/a.b.jpg", "top/masks/a.b.png", "classes.yaml"], [(None, "a.b")]),
    ],
    ids=["flat", "nested, letters", "composed letters", "split above", "split below", "one top"],
)  # fmt: skip
def test_known_folders_are_paired(names: list[str], expected: list[tuple[str, str]]) -> None:
    pairs = pair_by_convention(names, ROOT).pairs
    assert [(pair.split, pair.key) for pair in pairs] == expected
    assert all(pair.image in names and pair.mask in names for pair in pairs)
    assert not any(pair.problem for pair in pairs)


@pytest.mark.parametrize(
    ("image", "mask", "expected"),
    [
        ("{}", "{}_mask", Affixes(mask_suffix="_mask")),
        ("{}_leftImg8bit", "{}_gtFine_labelIds",
         Affixes(image_suffix="leftImg8bit", mask_suffix="gtFine_labelIds")),
        ("img_{}", "mask_{}", Affixes(image_prefix="img", mask_prefix="mask")),
        ("{}", "{}", Affixes()),
    ],
    ids=["mask suffix", "both suffixes", "both prefixes", "equal"],
)  # fmt: skip
def test_what_names_do_not_share_is_found_out(image: str, mask: str, expected: Affixes) -> None:
    stems = [f"{folder}/{n}" for folder in ("a b", "c") for n in (1, 2, 10, 11, 100, 101)]

    def name(pattern: str, stem: str) -> str:
        folder, _, number = stem.partition("/")
        return f"{folder}/{pattern.format(number)}"

    found = find_affixes([name(image, s) for s in stems], [name(mask, s) for s in stems])
    assert found == expected


def test_a_missing_mask_does_not_take_another_images_mask() -> None:
    """`1` has no mask; `10_mask` begins like it."""
    names = ["images/1.png", "images/10.png", "images/2.png", "masks/10_mask.png"]
    names += ["masks/2_mask.png"]
    pairs = {pair.key: pair for pair in pair_by_convention(names, ROOT).pairs}
    assert pairs["10"].mask == "masks/10_mask.png"
    assert pairs["1"].problem == "the image has no mask"


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ("images/b.png", "the image has no mask"),
        ("masks/b.png", "the mask has no image"),
        ("images/a.png", "are two images of one name"),
        ("masks/a.tif", "are two masks of one image"),
    ],
)
def test_what_is_no_pair_is_a_problem_of_its_row(extra: str, problem: str) -> None:
    pairs = pair_by_convention(["images/a.jpg", "masks/a.png", extra], ROOT).pairs
    assert [problem in pair.problem for pair in pairs if pair.problem] == [True]


def test_a_source_without_known_folders_says_what_is_looked_for() -> None:
    with pytest.raises(DataError, match=r"/data: no images found: .*--images GLOB --masks GLOB"):
        pair_by_convention(["photos/a.jpg", "masks/a.png"], ROOT)
    with pytest.raises(DataError, match="labels and masks could both hold the masks"):
        pair_by_convention(["images/a.jpg", "masks/a.png", "labels/a.png"], ROOT)


def test_patterns_stay_in_their_folder_unless_they_say_so() -> None:
    assert compile_glob("a/*.png")("a/b.png")
    assert not compile_glob("a/*.png")("a/b/c.png")
    assert compile_glob("a/**/*.png")("a/b/c.png") and compile_glob("a/**/*.png")("a/c.png")
    assert compile_glob("a[1]/?.png")("a[1]/x.png")


def test_patterns_pair_by_what_is_below_their_fixed_folders() -> None:
    names = ["p/x/1_rgb.tif", "p/x/1_lab.tif", "p/y/1_rgb.tif", "p/y/1_lab.tif"]
    pairs = pair_by_globs(names, "p/**/*_rgb.tif", "p/**/*_lab.tif", ROOT).pairs
    assert [(p.key, p.image, p.mask) for p in pairs] == [
        ("x/1_rgb", "p/x/1_rgb.tif", "p/x/1_lab.tif"),
        ("y/1_rgb", "p/y/1_rgb.tif", "p/y/1_lab.tif"),
    ]
    with pytest.raises(DataError, match="--masks 'q/\\*' matches no file"):
        pair_by_globs(names, "p/**/*_rgb.tif", "q/*", ROOT)
    with pytest.raises(DataError, match="matches --images and --masks"):
        pair_by_globs(names, "p/**/*", "p/**/*_lab.tif", ROOT)
