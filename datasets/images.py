"""Image and label files to arrays: decoded once, checked, never silently repaired.

OpenCV decodes and resizes (it is what the published recipe used, and the faster one); Pillow reads
what OpenCV hides: a label's mode and palette, and the EXIF orientation.
"""

import io
import logging
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from .encoded_pixels import decode_image, encode_png
from .spec import DataError, LabelSpace

_log = logging.getLogger(__name__)

_LABEL_MODES = ("L", "P", "I;16", "I;16B", "I")
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> what turns a picture upright."""
# Bits of a sample that cameras and scanners store in 16.
_DEPTHS = (8, 10, 12, 14, 16)
# Where a PNG's header says how many bits a sample has.
_PNG_BITS = 24
FORMATS = ("JPEG", "PNG")
_EXACT_IN_FLOAT32 = 1 << 23
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"

# Rows are decoded side by side, one a thread; more threads inside one row only get in their way.
cv2.setNumThreads(1)


def read_image(path: Path) -> tuple[bytes, np.ndarray, bool]:
    """Read an image file.

    Args:
        path: A JPEG or PNG.

    Returns:
        The bytes to store (the file's own where it is RGB, else PNG), (H, W, 3) uint8, and whether
        the bytes are the file's own.

    Raises:
        DataError: Where the file is missing, damaged, rotated by EXIF, or CMYK.
    """
    return check_image(path, _read_bytes(path))


def check_image(path: Path, data: bytes) -> tuple[bytes, np.ndarray, bool]:
    """Decode an image file's bytes; as `read_image`.

    Args:
        path: Named in errors.
        data: Bytes of a JPEG or PNG.
    """
    # Pillow raises on truncated data where OpenCV may return a partly grey picture.
    probe = open_picture(path, data, "image")
    mode = probe.mode
    rotation = read_orientation(probe)
    if rotation != 1:
        raise DataError(
            f"{path}: EXIF orientation {rotation}: the label would not match; store it upright"
        )
    if mode not in ("RGB", "L"):
        raise DataError(f"{path}: an image must be RGB or grey, got mode {mode}")
    if probe.format == "PNG" and data[_PNG_BITS] > 8:
        raise DataError(f"{path}: an image must have 8 bits a channel, got {data[_PNG_BITS]}")
    if probe.format == "PNG":
        # Lossless: any decoder gives these pixels. Of a JPEG those of OpenCV count.
        image = np.asarray(probe.convert("RGB"))
    else:
        try:
            image = decode_image(data)
        except DataError as error:
            raise DataError(f"{path}: the image cannot be decoded ({error})") from error
    if mode == "L":
        return encode_png(image), image, False
    return data, image, True


def read_orientation(picture: Image.Image) -> int:
    """How a picture is turned, by its EXIF: 2 to 8, and 1 for upright.

    Metadata that cannot be read, and values that mean nothing (EXIF 2.32, 4.6.4 A), are no damage
    of its pixels: they stand upright.
    """
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception as error:
        # Broken metadata makes Pillow raise anything: SyntaxError, struct.error, KeyError, ...
        _log.debug("metadata of a picture left out: %r", error)
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def read_photo(path: Path) -> np.ndarray:
    """Read an image that has no label: turned upright by its EXIF, any mode made RGB.

    Args:
        path: A file that Pillow reads.

    Returns:
        (H, W, 3) uint8; transparency is dropped, of 16-bit grey the upper eight of the bits that
        its values take are kept. What of the file is left out is logged as a warning.

    Raises:
        DataError: Where the file is missing, damaged, enormous, or has no range of its own.
    """
    data = _read_bytes(path)
    try:
        with Image.open(io.BytesIO(data)) as picture:
            pages = getattr(picture, "n_frames", 1)
            if pages > 1:
                _log.warning("%s: has %d pages or frames: the first one is read", path, pages)
            turn = _TURNS.get(read_orientation(picture))
            upright = picture if turn is None else picture.transpose(turn)
            if upright.mode.startswith("I;16"):
                # Pillow's own conversion clips at 255, which leaves a white picture.
                return np.repeat(_upper_bits(np.asarray(upright), path)[..., None], 3, axis=2)
            if upright.mode in ("I", "F"):
                raise DataError(
                    f"{path}: pixels of mode {upright.mode} have no range of their own; "
                    "store it with 8 or 16 bits"
                )
            return np.asarray(upright.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: too large to be decoded ({error})") from error
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: the image cannot be decoded ({error})") from error


def _upper_bits(values: np.ndarray, path: Path) -> np.ndarray:
    """Eight bits of (H, W) uint16 grey: cameras store 10, 12 or 14 bits in files of 16."""
    largest = int(values.max())
    bits = next(bits for bits in _DEPTHS if largest < 1 << bits)
    if bits < 16:
        _log.warning(
            "%s: a file of 16 bits whose values end at %d: read as %d bits", path, largest, bits
        )
    return (values >> (bits - 8)).astype(np.uint8)


def read_label(path: Path, space: LabelSpace) -> np.ndarray:
    """Read a label file and map its values to train ids.

    Args:
        path: An index PNG (grey, palette or 16-bit).
        space: Which raw values may occur, and what they mean.

    Returns:
        (H, W) uint8 train ids.

    Raises:
        DataError: Where the file is missing, damaged, a colour picture, or holds a value outside
            the label space.
    """
    return to_train_ids(read_index(path), space, path)


def read_index(path: Path) -> np.ndarray:
    """Read the (H, W) raw values of an index file, at its full bit depth.

    Raises:
        DataError: Where the file is missing, damaged, or a colour or 1-bit picture.
    """
    picture, bits = _open_label(path)
    if picture.mode not in _LABEL_MODES:
        raise DataError(
            f"{path}: a label must hold one index per pixel (mode L, P or 16-bit), got mode "
            f"{picture.mode}"
        )
    if picture.mode == "L" and bits != 8:
        raise DataError(
            f"{path}: a grey label must have 8 or 16 bits, got {bits}: its values would be scaled"
        )
    return np.array(picture)


def read_colours(path: Path) -> np.ndarray:
    """Read the (H, W, 3) uint8 RGB values of a file whose colours are numbers.

    Raises:
        DataError: Where the file is missing, damaged, or not 8-bit RGB.
    """
    picture, bits = _open_label(path)
    if picture.mode != "RGB" or bits != 8:
        raise DataError(
            f"{path}: segments must be stored as 8-bit RGB numbers, got mode {picture.mode} of "
            f"{bits} bits"
        )
    return np.array(picture)


def to_train_ids(raw: np.ndarray, space: LabelSpace, path: Path) -> np.ndarray:
    """Map raw label values to train ids.

    Args:
        raw: (H, W) integer values as in the file.
        space: The label space.
        path: Named in errors.

    Raises:
        DataError: Where a value is outside the label space; names values and counts.
    """
    counts = count_values(raw) if raw.dtype == np.uint8 else _count_wide_values(raw, path)
    unknown = [
        f"{value} ({counts[value]} pixels)"
        for value in np.flatnonzero(counts).tolist()
        if value not in space.raw_to_train
    ]
    if unknown:
        raise DataError(
            f"{path}: label values outside the label space {space.name}: {', '.join(unknown[:8])}"
        )
    table = np.zeros(max(counts.size, max(space.raw_to_train) + 1), np.uint8)
    table[list(space.raw_to_train)] = list(space.raw_to_train.values())
    return cv2.LUT(raw, table[:256]) if raw.dtype == np.uint8 else table[raw]


def open_picture(
    path: Path, data: bytes, kind: str, formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """Decode a picture, its check sums and end looked at.

    Args:
        path: Named in errors.
        data: Bytes of the file.
        kind: What it is, for errors.
        formats: What Pillow may read it as.

    Raises:
        DataError: Where it is damaged.
    """
    try:
        with Image.open(io.BytesIO(data), formats=formats) as picture:
            # Loading alone does not look at the check sums of a PNG.
            picture.verify()
        with Image.open(io.BytesIO(data), formats=formats) as picture:
            picture.load()
    except UnidentifiedImageError as error:
        # Its own text names an object in memory.
        kinds = " or ".join(formats)
        raise DataError(f"{path}: the {kind} cannot be decoded (not a {kinds})") from error
    except Exception as error:
        # Damaged bytes make decoders raise anything: zlib.error, struct.error, a bomb's error.
        raise DataError(f"{path}: the {kind} cannot be decoded ({error})") from error
    if picture.format == "JPEG":
        require_jpeg_end(path, data, kind)
    return picture


def require_jpeg_end(path: Path, data: bytes, kind: str) -> None:
    """Check that a JPEG goes on to its end.

    Raises:
        DataError: Where nothing marks the end after its last scan.
    """
    if data.find(_JPEG_END, data.rfind(_JPEG_SCAN)) < 0:
        raise DataError(
            f"{path}: the {kind} cannot be decoded (truncated: no end-of-image marker after the "
            "last scan)"
        )


def count_values(values: np.ndarray) -> np.ndarray:
    """Count the pixels of each value of a (H, W) uint8 map; (256,) int64."""
    # Several times as fast as numpy, but in float32: no part may have more pixels than that counts.
    parts = np.array_split(values, values.size // _EXACT_IN_FLOAT32 + 1)
    counts = [cv2.calcHist([part], [0], None, [256], [0, 256]) for part in parts]
    return np.sum(counts, axis=0, dtype=np.int64).ravel()


def _count_wide_values(raw: np.ndarray, path: Path) -> np.ndarray:
    if int(raw.min()) < 0 or int(raw.max()) > 0xFFFF:
        raise DataError(f"{path}: label values must be 0..65535, got {raw.min()}..{raw.max()}")
    return np.bincount(raw.ravel())


def _open_label(path: Path) -> tuple[Image.Image, int]:
    """Open a label; returns its picture, and the bits of a stored sample."""
    data = _read_bytes(path)
    picture = open_picture(path, data, "label")
    if picture.format != "PNG":
        raise DataError(f"{path}: a label must be a PNG, got {picture.format}")
    return picture, data[_PNG_BITS]


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not data:
        raise DataError(f"{path}: the file is empty")
    return data
