"""Images of other channels than RGB: read exactly, packed whole, refused by count."""

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from own_images import draw_pair, write_picture
from PIL import Image

from spikeseg.datasets.layouts.image_folder.bands import find_channels, read_bands, read_input
from spikeseg.datasets.layouts.image_folder.prepare import FolderOptions, prepare_folder
from spikeseg.datasets.packed.pack import pack
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.spec import DataError

BANDS = np.random.default_rng(0).integers(0, 256, (20, 30, 6)).astype(np.uint8)
_SHORT, _LONG = 3, 4


def format_numpy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def format_pages(values: np.ndarray) -> bytes:
    """A TIFF of a page for each channel."""
    pages = [Image.fromarray(values[..., channel]) for channel in range(values.shape[2])]
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    return file.getvalue()


def format_samples(values: np.ndarray, *, photometric: int = 1) -> bytes:
    """A TIFF of one page with all channels in each pixel, as remote sensing stores them."""
    height, width, channels = values.shape
    bits = 8 * values.itemsize
    extra = channels - (3 if photometric == 2 else 1)
    after = 8 + 2 + 12 * 10 + 4
    tags = [
        (256, _LONG, 1, width), (257, _LONG, 1, height), (258, _SHORT, channels, after),
        (259, _SHORT, 1, 1), (262, _SHORT, 1, photometric),
        (273, _LONG, 1, after + 4 * channels), (277, _SHORT, 1, channels),
        (278, _LONG, 1, height), (279, _LONG, 1, values.nbytes),
        (338, _SHORT, extra, 0 if extra <= 2 else after + 2 * channels),
    ]  # fmt: skip
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    head += b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return (
        head
        + struct.pack(f"<{channels}H", *[bits] * channels)
        + bytes(2 * channels)
        + (values.tobytes())
    )


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("last.npy", format_numpy(BANDS)),
        ("first.npy", format_numpy(BANDS.transpose(2, 0, 1))),
        ("wide.npy", format_numpy(BANDS.astype(np.uint16) << 8)),
        ("pages.tif", format_pages(BANDS)),
    ],
)
def test_all_channels_are_read(name: str, data: bytes, tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_bands(data, Path(name), 6), BANDS)
    (tmp_path / name).write_bytes(data)
    np.testing.assert_array_equal(read_input(tmp_path / name, 6), BANDS)
    with pytest.raises(DataError, match=rf"{name}.*6"):
        read_bands(data, Path(name), 5)


@pytest.mark.parametrize("channels", [5, 6])
def test_samples_of_a_tiff_are_read_by_tifffile(channels: int) -> None:
    pytest.importorskip("tifffile")
    data = format_samples(np.ascontiguousarray(BANDS[..., :channels]))
    assert find_channels(data, Path("a.tif")) == channels
    np.testing.assert_array_equal(read_bands(data, Path("a.tif"), channels), BANDS[..., :channels])


def test_a_fourth_channel_that_is_not_transparency_is_not_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = format_samples(np.ascontiguousarray(BANDS[..., :4]), photometric=2)
    assert find_channels(data, Path("a.tif")) == 4
    # None stands for a module that is not installed.
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(DataError, match=r"a.tif: .*tifffile.*pip install 'spikeseg\[bands\]'"):
        read_bands(data, Path("a.tif"), 4)


@pytest.mark.parametrize(
    ("name", "pixels", "expected"),
    [
        ("grey.png", BANDS[..., 0], 3),
        ("rgb.tif", BANDS[..., :3], 3),
        ("grey.npy", BANDS[..., :1], 3),
        ("two.npy", BANDS[..., :2], 2),
    ],
)
def test_pictures_have_three_channels_unless_asked_for(
    name: str, pixels: np.ndarray, expected: int, tmp_path: Path
) -> None:
    write_picture(tmp_path / name, np.ascontiguousarray(pixels))
    assert find_channels((tmp_path / name).read_bytes(), Path(name)) == expected


@pytest.mark.parametrize(
    ("name", "data", "rule"),
    [
        ("a.npy", format_numpy(np.zeros((20, 30, 40), np.uint8)), "no axis of 1 to 16 channels"),
        ("a.tif", b"II*\0" + bytes(20), "a.tif: "),
    ],
)
def test_what_has_no_channels_is_refused(
    name: str, data: bytes, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(DataError, match=rule):
        find_channels(data, Path(name))


@pytest.mark.parametrize("channels", [1, 2, 5, 16])
def test_bands_are_packed_and_read_back_with_their_colours(channels: int, tmp_path: Path) -> None:
    root = tmp_path / "data"
    images = {}
    for number in range(4):
        image, label = draw_pair(number)
        images[f"n{number}"] = np.concatenate([image, 255 - image] * 3, 2)[..., :channels]
        if channels == 16:
            images[f"n{number}"] = np.repeat(image[..., :1], 16, 2) - np.arange(16, dtype=np.uint8)
        write_picture(root / f"images/n{number}.npy", images[f"n{number}"])
        write_picture(root / f"masks/n{number}.png", label)
    asked = channels if channels == 1 else None
    prepared = prepare_folder(root, FolderOptions(split="0.5,0.5", channels=asked))
    assert any(f"images have {channels} channels" in note for note in prepared.notes)
    pack("folder", prepared.dataset, root, tmp_path / "packed")
    packed = PackedDataset.open(tmp_path / "packed")
    assert packed.channels == channels
    for split in ("train", "val"):
        rows = [packed.row(split, index) for index in range(packed.splits[split])]
        for row in rows:
            np.testing.assert_array_equal(row.image, images[row.id])
        pixels = np.concatenate([row.image.reshape(-1, channels) for row in rows]).astype(float)
        np.testing.assert_allclose(packed.colours[split]["mean"], pixels.mean(0), atol=0.006)
        np.testing.assert_allclose(packed.colours[split]["std"], pixels.std(0), atol=0.006)


def test_another_number_of_channels_is_found_before_anything_is_written(tmp_path: Path) -> None:
    for number in range(3):
        image, label = draw_pair(number)
        bands = np.concatenate([image, image], 2)[..., : 5 if number == 2 else 4]
        write_picture(tmp_path / f"images/n{number}.npy", bands)
        write_picture(tmp_path / f"masks/n{number}.png", label)
    prepared = prepare_folder(tmp_path, FolderOptions(split="0.5,0.5"))
    (problem,) = prepared.problems
    assert "n2.npy" in problem and "no axis of 4 channels" in problem


@pytest.mark.parametrize("name", ["a.npy", "a.tif"])
def test_a_damaged_first_image_is_a_problem_of_its_own(name: str, tmp_path: Path) -> None:
    for number in range(3):
        image, label = draw_pair(number)
        write_picture(tmp_path / f"images/n{number}.npy", np.concatenate([image, image], 2))
        write_picture(tmp_path / f"masks/n{number}.png", label)
    (tmp_path / "images" / name).write_bytes(b"II*\0 cut")
    write_picture(tmp_path / "masks/a.png", draw_pair(0)[1])
    prepared = prepare_folder(tmp_path, FolderOptions(split="0.5,0.5"))
    assert any("6 channels" in note for note in prepared.notes)
    (problem,) = prepared.problems
    assert name in problem
