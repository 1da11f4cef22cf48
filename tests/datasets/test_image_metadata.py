"""Metadata is not pixels: what of it cannot be read, or means nothing, leaves a picture upright."""

import logging
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_layouts import write_image

from spikeseg.datasets.images import read_image, read_photo
from spikeseg.datasets.layouts.image_label_pairs import list_stems
from spikeseg.datasets.spec import DataError

SHORT, TEXT = 3, 2
Tag = tuple[int, int, int, bytes]


def make_exif(tags: Sequence[Tag]) -> bytes:
    """A block of EXIF by hand, big-endian: number, type, count and value of each tag."""
    entries = b"".join(struct.pack(">HHI", *tag[:3]) + tag[3] for tag in sorted(tags))
    return b"MM\0*" + struct.pack(">IH", 8, len(tags)) + entries + bytes(4)


def orientation(value: int) -> Tag:
    return (0x0112, SHORT, 1, struct.pack(">HH", value, 0))


def add_to_jpeg(path: Path, exif: bytes) -> None:
    data, block = path.read_bytes(), b"Exif\0\0" + exif
    head = b"\xff\xe1" + struct.pack(">H", len(block) + 2)
    path.write_bytes(data[:2] + head + block + data[2:])


def add_to_png(path: Path, exif: bytes) -> None:
    data = path.read_bytes()
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif
    path.write_bytes(data[:33] + chunk + struct.pack(">I", zlib.crc32(chunk[4:])) + data[33:])


@pytest.fixture
def plain(tmp_path: Path) -> np.ndarray:
    """Pixels of a.jpg and a.png, which have no metadata."""
    for name in ("a.jpg", "a.png", "b.jpg", "b.png"):
        write_image(tmp_path / name, 3)
    return read_photo(tmp_path / "a.png")


UNREADABLE = {
    "junk": b"\0\x08\0\x02\x01\x12\0\x03junk",
    "nothing": b"",
    "cut": make_exif([orientation(6)])[:12],
    "offset far away": b"MM\0*" + struct.pack(">I", 1 << 30),
}
MEANINGLESS = {
    "0": make_exif([orientation(0)]),
    "9": make_exif([orientation(9)]),
    "a word": make_exif([(0x0112, TEXT, 4, b"six\0")]),
    "none": make_exif([]),
}


@pytest.mark.parametrize(
    "exif", [*UNREADABLE.values(), *MEANINGLESS.values()], ids=[*UNREADABLE, *MEANINGLESS]
)
def test_pictures_stand_upright_where_nothing_says_that_they_are_turned(
    tmp_path: Path, plain: np.ndarray, exif: bytes
) -> None:
    add_to_jpeg(tmp_path / "b.jpg", exif)
    add_to_png(tmp_path / "b.png", exif)
    assert (read_photo(tmp_path / "b.png") == plain).all()
    assert (read_image(tmp_path / "b.png")[1] == plain).all()
    for read in (read_photo, lambda path: read_image(path)[1]):
        assert (read(tmp_path / "b.jpg") == read(tmp_path / "a.jpg")).all()


@pytest.mark.parametrize("turn", range(2, 9))
def test_a_turned_photo_is_made_upright_whatever_other_tags_are(
    tmp_path: Path, plain: np.ndarray, turn: int
) -> None:
    """A malformed tag beside it ended in a traceback: it was written back, too."""
    malformed = (0x0100, TEXT, 4, b"abc\0")
    add_to_png(tmp_path / "b.png", make_exif([orientation(turn), malformed]))
    photo = read_photo(tmp_path / "b.png")
    # What a viewer does, written out: rows and columns of the stored picture.
    upright = {
        2: plain[:, ::-1],
        3: plain[::-1, ::-1],
        4: plain[::-1],
        5: plain.transpose(1, 0, 2),
        6: plain.transpose(1, 0, 2)[:, ::-1],
        7: plain[::-1, ::-1].transpose(1, 0, 2),
        8: plain.transpose(1, 0, 2)[::-1],
    }
    assert np.array_equal(photo, upright[turn])
    with pytest.raises(DataError, match=rf"b.png: EXIF orientation {turn}: the label would not"):
        read_image(tmp_path / "b.png")


@pytest.mark.parametrize(("bits", "largest"), [(10, 1000), (12, 4095), (14, 9000)])
def test_data_of_fewer_bits_in_16_is_scaled_by_its_own_range_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bits: int, largest: int
) -> None:
    values = np.linspace(0, largest, 32 * 24).astype(np.uint16).reshape(24, 32)
    Image.fromarray(values).save(tmp_path / "deep.png")
    photo = read_photo(tmp_path / "deep.png")
    assert (photo[..., 0] == values >> (bits - 8)).all()
    assert photo.max() == largest >> (bits - 8)
    assert f"deep.png: a file of 16 bits whose values end at {largest}: read as {bits}" in (
        caplog.text
    )


def test_full_16_bits_are_read_as_they_were_and_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.linspace(0, 65535, 32 * 24).astype(np.uint16).reshape(24, 32)
    Image.fromarray(values).save(tmp_path / "deep.tif")
    assert (read_photo(tmp_path / "deep.tif")[..., 2] == values >> 8).all()
    assert not caplog.text


@pytest.mark.parametrize("suffix", [".gif", ".tif", ".png"])
def test_of_several_pages_the_first_is_read_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    pages = [Image.new("RGB", (32, 24), colour) for colour in ("red", "blue", "lime")]
    pages[0].save(tmp_path / f"many{suffix}", save_all=True, append_images=pages[1:])
    with caplog.at_level(logging.WARNING):
        photo = read_photo(tmp_path / f"many{suffix}")
    assert (photo == (255, 0, 0)).all()
    assert f"many{suffix}: has 3 pages or frames: the first one is read" in caplog.text


def test_hidden_files_beside_pictures_are_no_rows(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".DS_Store.png", "d/b.png", "d/._b.png", ".trash/c.png"):
        write_image(tmp_path / name, 1)
    assert list_stems(tmp_path, ".png") == ["a"]
    assert list_stems(tmp_path, ".png", deep=True) == ["d/b"]


def test_what_is_no_picture_is_named_without_objects_in_memory(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\0\x05\x16\x07 of macOS")
    with pytest.raises(DataError) as refused:
        read_image(tmp_path / "a.png")
    assert str(refused.value).endswith("a.png: the image cannot be decoded (not a JPEG or PNG)")
