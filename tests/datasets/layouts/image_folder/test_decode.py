"""Every format of a mask gives the same classes; what is damaged or ambiguous is named."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from own_images import COLOURS, draw_pair, to_colours
from PIL import Image

from spikeseg.datasets.images import read_photo
from spikeseg.datasets.layouts.image_folder.decode import (
    count_codes,
    read_mask,
    read_picture,
    read_size,
)
from spikeseg.datasets.spec import DataError

LABEL = draw_pair(0)[1]
CODES = np.array([(r << 16) | (g << 8) | b for r, g, b in COLOURS])[LABEL]


def encode(pixels: np.ndarray, kind: str, mode: str | None = None) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture if mode is None else picture.convert(mode)).save(file, kind)
    return file.getvalue()


def encode_numpy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def encode_palette(label: np.ndarray) -> bytes:
    picture = Image.fromarray(label)
    picture.putpalette([part for colour in COLOURS for part in colour])
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


VALUES: dict[str, Callable[[], bytes]] = {
    "grey.png": lambda: encode(LABEL, "PNG"),
    "wide.png": lambda: encode(LABEL.astype(np.uint16), "PNG"),
    "grey.tif": lambda: encode(LABEL, "TIFF"),
    "wide.tif": lambda: encode(LABEL.astype(np.uint16), "TIFF"),
    "long.tif": lambda: encode(LABEL.astype(np.int32), "TIFF"),
    "grey.bmp": lambda: encode(LABEL, "BMP"),
    "palette.png": lambda: encode_palette(LABEL),
    "grey as rgb.png": lambda: encode(np.repeat(LABEL[..., None], 3, 2), "PNG"),
    "values.npy": lambda: encode_numpy(LABEL.astype(np.int64)),
    "fortran.npy": lambda: encode_numpy(np.asfortranarray(LABEL)),
    "channel.npy": lambda: encode_numpy(LABEL[..., None]),
}
COLOURED: dict[str, Callable[[], bytes]] = {
    "rgb.png": lambda: encode(to_colours(LABEL), "PNG"),
    "opaque.png": lambda: encode(to_colours(LABEL), "PNG", "RGBA"),
    "rgb.tif": lambda: encode(to_colours(LABEL), "TIFF"),
    "rgb.bmp": lambda: encode(to_colours(LABEL), "BMP"),
    "rgb.gif": lambda: encode(to_colours(LABEL), "GIF"),
    "palette.png": lambda: encode_palette(LABEL),
    "rgb.npy": lambda: encode_numpy(to_colours(LABEL)),
}


@pytest.mark.parametrize("name", VALUES)
def test_numbers_are_read_at_full_depth(name: str) -> None:
    values = read_mask(VALUES[name](), Path(name)).values
    assert values is not None
    np.testing.assert_array_equal(values, LABEL)


@pytest.mark.parametrize("name", COLOURED)
def test_colours_are_read_exactly(name: str) -> None:
    colours = read_mask(COLOURED[name](), Path(name)).colours
    assert colours is not None
    np.testing.assert_array_equal(colours, CODES)


def test_one_bit_a_pixel_is_zero_and_one() -> None:
    mask = read_mask(encode((LABEL > 0) * np.uint8(255), "PNG", "1"), Path("m.png"))
    np.testing.assert_array_equal(mask.values, LABEL > 0)


def test_values_are_counted_as_numpy_counts_them() -> None:
    codes = np.random.default_rng(0).integers(-3, 9, (37, 11)).astype(np.int32)
    values, counts = np.unique(codes, return_counts=True)
    assert count_codes(codes) == dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_images_of_any_format_are_stored_as_a_prediction_reads_them(tmp_path: Path) -> None:
    rgb = draw_pair(1)[0]
    wide = rgb[..., 0].astype(np.uint16) * 257
    for name, data in {
        "a.jpg": encode(rgb, "JPEG"),
        "a.png": encode(rgb, "PNG"),
        "a.tif": encode(rgb, "TIFF"),
        "a.bmp": encode(rgb, "BMP"),
        "grey.tif": encode(rgb[..., 0], "TIFF"),
        "wide.tif": encode(wide, "TIFF"),
        "wide.png": encode(wide, "PNG"),
        "alpha.png": encode(rgb, "PNG", "RGBA"),
        "palette.png": encode(rgb, "PNG", "P"),
    }.items():
        (tmp_path / name).write_bytes(data)
        stored, pixels, verbatim = read_picture(data, tmp_path / name)
        expected = read_photo(tmp_path / name)
        # Two decoders of one JPEG may differ by a rounding.
        assert np.abs(pixels.astype(int) - expected).max() <= (3 if name == "a.jpg" else 0), name
        assert verbatim == (name in ("a.jpg", "a.png")) == (stored == data)
        assert read_size(data, tmp_path / name) == rgb.shape[:2]


@pytest.mark.parametrize(
    ("name", "data", "rule"),
    [
        ("a.png", encode(LABEL, "PNG")[:-30], "cannot be decoded"),
        ("a.jpg", encode(to_colours(LABEL), "JPEG")[:-200], "truncated|cannot be decoded"),
        ("a.png", b"", "the file is empty"),
        ("a.png", b"text", "not a picture"),
        ("a.npy", encode_numpy(LABEL)[:-1], "bytes of numbers"),
        ("a.npy", b"text", "not a NumPy file"),
        ("a.npy", encode_numpy(np.array([None])), "must be"),
    ],
    ids=["cut PNG", "cut JPEG", "empty", "no picture", "cut NumPy", "no NumPy", "objects"],
)
def test_damage_is_named_with_its_file(name: str, data: bytes, rule: str) -> None:
    for read in (read_picture, read_mask):
        with pytest.raises(DataError, match=rf"a\.\w+: .*({rule})"):
            read(data, Path(name))


def test_a_numpy_file_that_claims_enormous_sizes_allocates_nothing() -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (900000, 900000), }"
    data = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    with pytest.raises(DataError, match="needs 810000000000"):
        read_mask(data, Path("bomb.npy"))


@pytest.mark.parametrize(
    ("pixels", "mode", "rule"),
    [
        (np.full((9, 9, 3), 7, np.uint8), "CMYK", "must be RGB or grey"),
        (np.full((9, 9), 0.5, np.float32), None, "mode F"),
        (np.full((9, 9), 900, np.uint16), None, "largest value is 900"),
    ],
    ids=["CMYK", "fractions", "ten bits of sixteen"],
)
def test_images_without_a_known_range_are_refused(
    pixels: np.ndarray, mode: str | None, rule: str
) -> None:
    with pytest.raises(DataError, match=rule):
        read_picture(encode(pixels, "TIFF", mode), Path("a.tif"))


def test_transparent_pixels_are_counted_and_refused() -> None:
    pixels = np.dstack([to_colours(LABEL), np.where(LABEL == 1, 0, 255).astype(np.uint8)])
    hidden = int((LABEL == 1).sum())
    for read in (read_mask, read_picture):
        with pytest.raises(DataError, match=rf"a\.png: {hidden} transparent pixels"):
            read(encode(pixels, "PNG"), Path("a.png"))


def test_turned_and_paged_pictures_are_refused() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(LABEL).save(file, "PNG", exif=exif)
    with pytest.raises(DataError, match="EXIF orientation 6"):
        read_size(file.getvalue(), Path("a.png"))
    file = io.BytesIO()
    pages = [Image.fromarray(LABEL), Image.fromarray(LABEL)]
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="2 pages"):
        read_mask(file.getvalue(), Path("a.tif"))
