"""Raw files made to harm are refused by name while packing, before they cost memory."""

import json
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile_packed import encoded, jpeg_bomb, packed_zeros, png_bomb
from PIL import Image, PngImagePlugin
from raw_layouts import LAYOUTS, Layout, packed

from spikeseg.datasets.spec import DataError


def camvid(path: str, content: bytes) -> Callable[[Path], Layout]:
    def make(folder: Path) -> Layout:
        layout = LAYOUTS["camvid"](folder)
        (layout.source / path).write_bytes(content)
        return layout

    return make


def text_bomb(folder: Path) -> Layout:
    """A good PNG with a text of 2 GB, compressed to 2 MB."""
    layout = LAYOUTS["camvid"](folder)
    path = layout.source / "train" / "a1.png"
    info = PngImagePlugin.PngInfo()
    info.add(b"zTXt", b"t\0\0" + packed_zeros(1 << 31))
    Image.open(path).save(path, pnginfo=info)
    return layout


def matlab_bomb(folder: Path) -> Layout:
    """A label file of version 5 whose one variable unpacks to 2 GB."""
    layout = LAYOUTS["coco_stuff10k"](folder)
    path = next((layout.source / "annotations").glob("*a1.mat"))
    head = path.read_bytes()[:128]
    body = packed_zeros(1 << 31)
    path.write_bytes(head + struct.pack("<II", 15, len(body)) + body)
    return layout


HOSTILE: dict[str, tuple[Callable[[Path], Layout], str]] = {
    "png bomb": (camvid("train/a1.png", png_bomb()), "a1.png: the image cannot be decoded"),
    "label bomb": (
        camvid("trainannot/a1.png", png_bomb(8, 0)),
        "trainannot/a1.png: the label cannot be decoded",
    ),
    "jpeg bomb": (camvid("train/a1.png", jpeg_bomb()), "a1.png: the image cannot be decoded"),
    "text bomb": (text_bomb, "a1.png: the image cannot be decoded"),
    "webp": (camvid("train/a1.png", encoded("WEBP", (24, 32))), "a1.png: the image cannot be dec"),
    "bmp": (camvid("train/a1.png", encoded("BMP", (24, 32))), "a1.png: the image cannot be dec"),
    "matlab bomb": (matlab_bomb, r"a1.mat: the label cannot be decoded \(its .* unpack to more"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_bomb_in_a_source_is_refused_by_its_file(tmp_path: Path, case: str) -> None:
    make, message = HOSTILE[case]
    layout = make(tmp_path / "raw")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=message):
        packed(layout, tmp_path / "packed")
    # In kilobytes; each of them takes a gigabyte or more where it is unpacked.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


NAMES = ["../x.png", "/etc/passwd", "a/b.png", "..\\x.png", "..", "", "a\0.png", 7, None]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("part", ["images", "annotations"])
def test_a_file_outside_of_its_folder_is_not_packed(
    tmp_path: Path, part: str, name: object
) -> None:
    layout = LAYOUTS["coco_panoptic"](tmp_path / "raw")
    listing = layout.source / "annotations" / "panoptic_train2017.json"
    content = json.loads(listing.read_text())
    content[part][0]["file_name"] = name
    listing.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"panoptic_train2017.json: file_name .* must be the plain"):
        packed(layout, tmp_path / "packed")


def test_annotations_nested_without_end_are_refused(tmp_path: Path) -> None:
    layout = LAYOUTS["coco_panoptic"](tmp_path / "raw")
    listing = layout.source / "annotations" / "panoptic_train2017.json"
    listing.write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"panoptic_train2017.json: not a readable JSON file"):
        packed(layout, tmp_path / "packed")


def test_a_large_label_that_is_no_bomb_is_packed(tmp_path: Path) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    size = (1500, 1400)
    for folder in ("train", "trainannot"):
        shape = (*size, 3) if folder == "train" else size
        Image.fromarray(np.zeros(shape, np.uint8)).save(layout.source / folder / "a1.png")
    assert packed(layout, tmp_path / "packed").row("train", 0).label.shape == size
