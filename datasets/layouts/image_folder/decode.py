"""Bytes of any picture file to an image, or to the numbers or colours of a mask."""

import io
import warnings
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from ...encoded_pixels import encode_png
from ...images import check_image, open_picture, read_orientation, require_jpeg_end
from ...spec import DataError

_PNG_BITS = 24
# Of 16 bits the upper eight are kept: a picture that uses less than these twelve would lose them.
_LEAST_16_BIT_RANGE = 0x1000
_MOST_PIXELS = 1 << 27
_MOST_VALUE = 1 << 24
# What a user's pictures may be; other formats of Pillow are never tried.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
_MODES_OF_16_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


class Mask(NamedTuple):
    """A decoded mask.

    Attributes:
        values: (H, W) int32 numbers; None where the file holds colours that are no numbers.
        colours: (H, W) int32 colours as 65536 R + 256 G + B; None where it holds numbers that are
            no colours.
        palette: Colour of each number in use, where the file has a palette of its own.
        lossy: Whether the file's format changes values (JPEG).
    """

    values: np.ndarray | None
    colours: np.ndarray | None
    palette: dict[int, int] | None = None
    lossy: bool = False


def read_size(data: bytes, where: Path) -> tuple[int, int]:
    """Read height and width of an image, and check what can be without decoding it.

    A plain picture (8-bit RGB or grey, by far the most) is looked at by its header, check sums and
    end; one whose values may be out of range is decoded.

    Args:
        data: Bytes of a picture or NumPy file.
        where: Named in errors.

    Raises:
        DataError: Where it is no picture, is enormous, turned by EXIF, has several pages, or where
            `read_picture` refuses it for what it is.
    """
    if where.suffix.lower() == ".npy":
        height, width = read_picture(data, where)[1].shape[:2]
        return height, width
    with _open_header(data, where) as picture:
        _require_plain(picture, data, where)
        size = picture.height, picture.width
        if not _is_plain(picture, data):
            read_picture(data, where)
            return size
        if picture.format == "JPEG":
            require_jpeg_end(where, data, "image")
        elif picture.format == "PNG":
            try:
                # Its check sums: nothing is decompressed. Pillow asks for a picture just opened.
                _open_header(data, where).verify()
            except Exception as error:
                raise DataError(f"{where}: the image cannot be decoded ({error})") from error
        return size


def read_picture(data: bytes, where: Path) -> tuple[bytes, np.ndarray, bool]:
    """Decode an image of any format.

    Args:
        data: Bytes of the file.
        where: Named in errors.

    Returns:
        The bytes to store (the file's own where it is an RGB JPEG or PNG, else PNG), (H, W, 3)
        uint8, and whether the bytes are the file's own.

    Raises:
        DataError: Where the file is damaged, transparent, or has no range of eight or 16 bits.
    """
    if where.suffix.lower() == ".npy":
        pixels = _to_rgb(read_numpy(data, where), where)
        return encode_png(pixels), pixels, False
    with _open_header(data, where) as header:
        _require_plain(header, data, where)
        if header.format in ("JPEG", "PNG") and _is_plain(header, data):
            return check_image(where, data)
    picture = open_picture(where, data, "image", FORMATS)
    if picture.format == "PNG" and picture.mode == "RGB":
        raise DataError(f"{where}: an image must have 8 bits a channel, got {data[_PNG_BITS]}")
    if picture.mode in ("RGB", "L"):
        pixels = np.asarray(picture.convert("RGB"))
    elif picture.mode in _MODES_OF_16_BITS or picture.mode == "I":
        pixels = _to_rgb(np.asarray(picture), where)
    elif picture.mode in ("1", "P", "RGBA", "LA", "PA"):
        opaque = _require_opaque(picture, where)
        pixels = np.asarray(opaque)
    else:
        raise DataError(f"{where}: an image must be RGB or grey, got mode {picture.mode}")
    return encode_png(pixels), pixels, False


def read_mask(data: bytes, where: Path) -> Mask:
    """Decode a mask: numbers, colours, or both where a file can be read as either.

    Grey, 16-bit and NumPy files hold numbers; a palette file numbers with a colour each; an RGB
    file colours, and numbers where every pixel is grey. One bit a pixel is 0 and 1.

    Args:
        data: Bytes of the file.
        where: Named in errors.

    Raises:
        DataError: Where the file is damaged, transparent, or holds fractions.
    """
    if where.suffix.lower() == ".npy":
        return _read_numpy_mask(data, where)
    with _open_header(data, where) as header:
        _require_plain(header, data, where)
    picture = open_picture(where, data, "mask", FORMATS)
    lossy = picture.format == "JPEG"
    mode = picture.mode
    if mode == "P" and picture.palette is not None and "transparency" not in picture.info:
        values = np.asarray(picture).astype(np.int32)
        entries = picture.getpalette("RGB") or []
        table = np.zeros((1, 256, 3), np.uint8)
        table[0, : len(entries) // 3] = np.reshape(entries, (-1, 3))
        codes = _encode_colours(table)[0]
        used = np.flatnonzero(np.bincount(values.ravel(), minlength=256)).tolist()
        palette = {value: int(codes[value]) for value in used}
        return Mask(values, codes[values], palette, lossy)
    if mode == "L" and picture.format == "PNG" and data[_PNG_BITS] not in (1, 8):
        raise DataError(
            f"{where}: a grey mask must have 8 or 16 bits, got {data[_PNG_BITS]}: its values would "
            "be scaled"
        )
    if mode in ("1", "L"):
        values = np.asarray(picture).astype(np.int32)
        return Mask(values, values * 0x010101 if mode == "L" else None, None, lossy)
    if mode in _MODES_OF_16_BITS or mode == "I":
        return Mask(np.asarray(picture).astype(np.int32), None, None, lossy)
    if mode in ("RGB", "RGBA", "LA", "P", "PA"):
        rgb = picture if mode == "RGB" else _require_opaque(picture, where)
        pixels = np.asarray(rgb)
        codes = _encode_colours(pixels)
        values = codes & 255
        return Mask(values if (values * 0x010101 == codes).all() else None, codes, None, lossy)
    raise DataError(
        f"{where}: a mask must hold a whole number or a colour per pixel, got mode {mode}"
    )


def count_codes(codes: np.ndarray) -> dict[int, int]:
    """Count the pixels of each number or colour of a (H, W) map."""
    flat = codes.ravel()
    if flat.size == 0:
        return {}
    # Masks are made of long runs: sorting these costs little, sorting pixels would.
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.append(starts, flat.size))
    values, inverse = np.unique(flat[starts], return_inverse=True)
    counts = np.bincount(inverse, weights=lengths)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def format_colour(code: int) -> str:
    """A colour as it is written in a class file, `#rrggbb`."""
    return f"#{code:06x}"


def _encode_colours(pixels: np.ndarray) -> np.ndarray:
    """(H, W) int32 of (H, W, 3) uint8: four bytes a pixel, read as one number."""
    bgra = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGRA)
    return bgra.view("<i4")[..., 0] & 0xFFFFFF


def _open_header(data: bytes, where: Path) -> Image.Image:
    if not data:
        raise DataError(f"{where}: the file is empty")
    try:
        with warnings.catch_warnings():
            # Sizes are looked at here, with a limit of our own.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:
        raise DataError(f"{where}: not a picture that can be read ({error})") from error


def _require_plain(picture: Image.Image, data: bytes, where: Path) -> None:
    if picture.width * picture.height > _MOST_PIXELS:
        raise DataError(
            f"{where}: {picture.width} x {picture.height} pixels, at most {_MOST_PIXELS} are read"
        )
    pages = getattr(picture, "n_frames", 1)
    if pages != 1:
        raise DataError(f"{where}: {pages} pages in one file; a file must be one picture")
    if picture.format == "PNG" and b"eXIf" not in data and b"exif" not in data:
        # Pillow decodes a whole PNG to look for the block.
        return
    rotation = read_orientation(picture)
    if rotation != 1:
        raise DataError(
            f"{where}: EXIF orientation {rotation}: the mask would not match; store it upright"
        )


def _is_plain(header: Image.Image, data: bytes) -> bool:
    """Whether a picture is RGB or grey of 8 bits, by its header."""
    deep = header.format == "PNG" and data[_PNG_BITS] > 8
    return header.mode in ("RGB", "L") and not deep


def _require_opaque(picture: Image.Image, where: Path) -> Image.Image:
    """RGB of a picture whose alpha channel hides nothing."""
    rgba = picture.convert("RGBA")
    hidden = int((np.asarray(rgba)[..., 3] != 255).sum())
    if hidden:
        raise DataError(
            f"{where}: {hidden} transparent pixels, whose colour nothing says; save it without "
            "transparency"
        )
    return rgba.convert("RGB")


def _to_rgb(values: np.ndarray, where: Path) -> np.ndarray:
    """(H, W, 3) uint8 of eight or 16 bits; of 16 the upper eight, as a prediction reads them."""
    values = to_eight_bits(values, where)
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in (1, 3):
        raise DataError(
            f"{where}: an image must have one channel or three, last, got shape {values.shape}"
        )
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))


def to_eight_bits(values: np.ndarray, where: Path) -> np.ndarray:
    """Whole numbers of 8 or 16 bits as uint8: of 16 the upper eight, whatever the shape.

    Raises:
        DataError: Where they are fractions, or have no range of 8 or 16 bits.
    """
    if values.dtype != np.uint8:
        if not np.issubdtype(values.dtype, np.integer) or int(values.min()) < 0:
            raise DataError(f"{where}: an image must hold whole numbers from 0, got {values.dtype}")
        most = int(values.max())
        if not _LEAST_16_BIT_RANGE <= most <= 0xFFFF:
            raise DataError(
                f"{where}: its largest value is {most}; wide values must fill the range up to "
                "65535, of which the upper eight bits are kept: scale it, or store it with 8 bits"
            )
        values = (values >> 8).astype(np.uint8)
    return values


def _read_numpy_mask(data: bytes, where: Path) -> Mask:
    values = read_numpy(data, where)
    if values.ndim == 3 and values.shape[2] == 3 and values.dtype == np.uint8:
        return Mask(None, _encode_colours(values), None)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "biu":
        raise DataError(
            f"{where}: a mask must be (H, W) whole numbers or (H, W, 3) uint8 colours, got "
            f"{values.dtype} of shape {values.shape}"
        )
    if values.size and not -_MOST_VALUE < int(values.min()) <= int(values.max()) < _MOST_VALUE:
        raise DataError(f"{where}: numbers of a mask must be below {_MOST_VALUE}")
    return Mask(values.astype(np.int32), None)


def _read_numpy_header(data: bytes, where: Path) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether Fortran's order, type, and where the numbers begin."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
    except Exception as error:
        raise DataError(f"{where}: not a NumPy file ({error})") from error
    if dtype.hasobject or not 2 <= len(shape) <= 3 or 0 in shape:
        raise DataError(f"{where}: must be (H, W) or (H, W, C) numbers, got {dtype} of {shape}")
    return shape, fortran, dtype, file.tell()


def read_numpy_shape(data: bytes, where: Path) -> tuple[int, ...]:
    """Shape that the header of a NumPy file says, of two or three axes."""
    return _read_numpy_header(data, where)[0]


def read_numpy(data: bytes, where: Path) -> np.ndarray:
    """The numbers of a file; never more of them than the file has bytes for."""
    shape, fortran, dtype, start = _read_numpy_header(data, where)
    count = int(np.prod(shape, dtype=object))
    if len(data) - start != count * dtype.itemsize:
        raise DataError(
            f"{where}: {len(data) - start} bytes of numbers, shape {shape} of {dtype} needs "
            f"{count * dtype.itemsize}"
        )
    values = np.frombuffer(data, dtype, count, start)
    return values.reshape(shape, order="F" if fortran else "C")
