"""Damage that decoders pass over, or raise oddly on, is named by file and can be quarantined."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from raw_layouts import LAYOUTS
from scipy.io import savemat
from scipy.sparse import coo_array

from spikeseg.datasets.images import read_colours, read_image, read_index
from spikeseg.datasets.layouts.catalog import make_dataset
from spikeseg.datasets.layouts.matlab import read_matlab
from spikeseg.datasets.spec import DataError


def picture() -> Image.Image:
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (64, 64, 3), np.uint8))


def jpeg(*, progressive: bool = False) -> bytes:
    stream = io.BytesIO()
    picture().save(stream, "JPEG", progressive=progressive)
    return stream.getvalue()


def png(values: np.ndarray, bits: int, colour: int) -> bytes:
    """A PNG of (H, bytes of a row) packed bytes, its header as given."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    samples = {0: 1, 2: 3, 3: 1}[colour]
    width = values.shape[1] * 8 // (bits * samples)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(values), bits, colour, 0, 0, 0))
        + (chunk(b"PLTE", bytes(range(48))) if colour == 3 else b"")
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_jpeg_whose_end_is_zero_is_truncated(
    tmp_path: Path, share: float, progressive: bool
) -> None:
    content = jpeg(progressive=progressive)
    path = tmp_path / "a1.jpg"
    path.write_bytes(content)
    assert read_image(path)[2]
    kept = int(share * len(content))
    path.write_bytes(content[:kept] + bytes(len(content) - kept))
    with pytest.raises(DataError, match=r"a1.jpg: the image cannot be decoded \("):
        read_image(path)


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a1.jpg").write_bytes(jpeg() + bytes(16))
    assert read_image(tmp_path / "a1.jpg")[1].shape == (64, 64, 3)


def test_a_png_of_a_wrong_check_sum_is_refused(tmp_path: Path) -> None:
    # The pixels unpack well; only the chunk's own check sum tells.
    content = bytearray(png(np.arange(64, dtype=np.uint8).reshape(8, 8), 8, 0))
    content[-13] ^= 1
    path = tmp_path / "a1.png"
    path.write_bytes(content)
    for read, kind in ((read_index, "label"), (read_image, "image")):
        with pytest.raises(DataError, match=rf"a1.png: the {kind} cannot be decoded"):
            read(path)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_labels_of_few_bits_are_refused_and_palette_ones_read(
    tmp_path: Path, bits: int
) -> None:
    packed = np.full((4, 4), 0b01_01_01_01 if bits == 2 else 0b0001_0001, np.uint8)
    path = tmp_path / "a1.png"
    path.write_bytes(png(packed, bits, 0))
    with pytest.raises(DataError, match=rf"a1.png: a grey label must have 8 or 16 .* got {bits}:"):
        read_index(path)
    path.write_bytes(png(packed, bits, 3))
    np.testing.assert_array_equal(read_index(path), np.ones((4, 32 // bits)))


def test_colours_of_16_bits_are_refused_as_image_and_as_label(tmp_path: Path) -> None:
    path = tmp_path / "a1.png"
    path.write_bytes(png(np.zeros((4, 24), np.uint8), 16, 2))
    with pytest.raises(DataError, match=r"a1.png: an image must have 8 bits a channel, got 16"):
        read_image(path)
    with pytest.raises(DataError, match=r"a1.png: segments must be .* 8-bit RGB .* of 16 bits"):
        read_colours(path)


def test_a_jpeg_of_a_pngs_name_is_no_label(tmp_path: Path) -> None:
    path = tmp_path / "a1.png"
    for mode, read in (("L", read_index), ("RGB", read_colours)):
        picture().convert(mode).save(path, "JPEG")
        with pytest.raises(DataError, match=r"a1.png: a label must be a PNG, got JPEG"):
            read(path)


def test_a_jpeg_whose_header_says_65535_x_65535_is_named(tmp_path: Path) -> None:
    content = bytearray(jpeg())
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = b"\xff" * 4
    (tmp_path / "a1.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"a1.jpg: the image cannot be decoded"):
        read_image(tmp_path / "a1.jpg")


def test_one_wrong_bit_in_a_compressed_matlab_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a1.mat"
    savemat(path, {"S": np.arange(600.0).reshape(20, 30)}, do_compression=True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a1.mat: the label cannot be decoded"):
        read_matlab(path, "S")


@pytest.mark.parametrize(
    "value",
    [np.zeros((0, 0)), "text", np.array([[1], ["a"]], object), {"a": 1}, coo_array(np.eye(3))],
    ids=["empty", "text", "cells", "struct", "sparse"],
)
def test_matlab_labels_of_another_type_are_named(tmp_path: Path, value: Any) -> None:
    layout = LAYOUTS["coco_stuff10k"](tmp_path)
    dataset = make_dataset(layout.name, layout.options)
    row = next(row for row in dataset.rows(layout.source, partial=True) if "a1" in row.id)
    savemat(row.label, {"S": value})
    with pytest.raises(DataError, match=r"a1.mat: S must be a matrix of whole numbers"):
        dataset.read(row)


def without(item: dict[str, Any], key: str) -> None:
    del item[key]


JSON_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no iscrowd": (
        lambda c: without(c["annotations"][1]["segments_info"][0], "iscrowd"),
        r"annotations\[1\] needs .*iscrowd",
    ),
    "no image": (
        lambda c: without(c["annotations"][0], "image_id"),
        r"annotations\[0\] needs .*KeyError\('image_id'\)",
    ),
    "null segments": (
        lambda c: c["annotations"][0].update(segments_info=None),
        r"annotations\[0\] needs .*TypeError",
    ),
    "null area": (
        lambda c: c["annotations"][0]["segments_info"][0].update(area=None),
        r"annotations\[0\] needs .*TypeError",
    ),
    "huge id": (
        lambda c: c["annotations"][0]["segments_info"][0].update(id=1 << 70),
        r"annotations\[0\] needs .*OverflowError",
    ),
    "no name": (lambda c: without(c["images"][0], "file_name"), r"images\[0\] needs id and file"),
}


@pytest.mark.parametrize("fault", JSON_FAULTS)
def test_a_panoptic_entry_of_another_form_is_named(tmp_path: Path, fault: str) -> None:
    layout = LAYOUTS["coco_panoptic"](tmp_path)
    path = layout.source / "annotations" / "panoptic_train2017.json"
    content = json.loads(path.read_text())
    change, message = JSON_FAULTS[fault]
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"panoptic_train2017.json: {message}"):
        make_dataset(layout.name, {}).rows(layout.source, partial=True)
    path.write_text("[]")
    with pytest.raises(DataError, match=r"panoptic_train2017.json: not a panoptic annotation"):
        make_dataset(layout.name, {}).rows(layout.source, partial=True)


@pytest.mark.parametrize(
    ("name", "listing"),
    [
        ("pascal_voc12", "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt"),
        ("camvid", "train.txt"),
    ],
)
def test_lists_may_have_a_byte_order_mark_and_must_be_utf_8(
    tmp_path: Path, name: str, listing: str
) -> None:
    layout = LAYOUTS[name](tmp_path)
    path, dataset = layout.source / listing, make_dataset(name, layout.options)
    before = [row.id for row in dataset.rows(layout.source, partial=True)]
    text = path.read_text()
    path.write_text(text, encoding="utf-8-sig")
    assert [row.id for row in dataset.rows(layout.source, partial=True)] == before
    path.write_text(text, encoding="utf-16")
    with pytest.raises(DataError, match=r"train.txt: the list of the split is not UTF-8 text"):
        dataset.rows(layout.source, partial=True)
