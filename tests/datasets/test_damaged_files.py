"""Damage that decoders pass over, or raise oddly on, is named by file and can be quarantined."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikeseg.datasets.images import read_colours, read_image, read_index
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
