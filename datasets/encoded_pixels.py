"""Arrays to the bytes of a PNG and back: nothing is decoded whose header has another size."""

import io
import struct

import cv2
import numpy as np
from PIL import Image

from .spec import DataError

# Where Pillow refuses, too: beyond it a file of kilobytes takes gigabytes.
MOST_PIXELS = 178_956_970
# A PNG's header is always its first chunk, which begins with its size.
_PNG_SIZE, _PNG_HEADER = 16, 24
_PNG_START, _JPEG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8\xff"


# A JPEG is decoded at these divisors of its size from fewer of its coefficients. OpenCV has no flag
# of its own for them in RGB: the grey ones are the bits of the divisor alone.
_REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2 | cv2.IMREAD_COLOR_RGB,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4 | cv2.IMREAD_COLOR_RGB,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_COLOR_RGB,
}


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG does."""
    return data.startswith(_JPEG_START)


def decode_image(
    data: bytes, size: tuple[int, int] | None = None, reduction: int = 1
) -> np.ndarray:
    """Decode a JPEG or PNG to (H, W, 3) uint8 RGB.

    Args:
        data: Bytes of the file.
        size: Height and width that it must have; nothing is decoded where its header says
            otherwise. If not given, any size up to `MOST_PIXELS`.
        reduction: 1, or 2, 4 or 8 for a JPEG: (H / reduction, W / reduction), rounded up.

    Raises:
        DataError: Where it is of another format, size or damaged.
    """
    image = _decode(data, _REDUCED[reduction], "an image", size)
    if image is None:
        raise DataError("an image of these bytes cannot be decoded")
    return image


def encode_bands(bands: np.ndarray) -> bytes:
    """Encode (H, W, C) uint8 as one grey PNG of C H x W pixels, channel below channel."""
    height, width, channels = bands.shape
    return encode_png(bands.transpose(2, 0, 1).reshape(channels * height, width))


def decode_bands(data: bytes, channels: int, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode an image of any number of channels to (H, W, C) uint8; as `decode_image`.

    Args:
        data: What `encode_bands` made; of three channels a JPEG or PNG in RGB.
        channels: C.
        size: Height and width that it must have.
    """
    if channels == 3:
        return decode_image(data, size)
    stacked = None if size is None else (size[0] * channels, size[1])
    planes = _decode(data, cv2.IMREAD_UNCHANGED, f"an image of {channels} channels", stacked)
    if planes is None or planes.ndim != 2 or planes.dtype != np.uint8 or len(planes) % channels:
        raise DataError(f"an image of these bytes is not a grey PNG of {channels} channels")
    planes = planes.reshape(channels, -1, planes.shape[1])
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def decode_index(data: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode an index map to (H, W) uint8; as `decode_image`."""
    label = _decode(data, cv2.IMREAD_UNCHANGED, "a label map", size)
    if label is None or label.ndim != 2 or label.dtype != np.uint8:
        raise DataError("a label map of these bytes is not an 8-bit index PNG")
    return label


def decode_instances(data: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode an instance map to (H, W) uint16; as `decode_image`."""
    instances = _decode(data, cv2.IMREAD_UNCHANGED, "an instance map", size)
    if instances is None or instances.ndim != 2 or instances.dtype != np.uint16:
        raise DataError("an instance map of these bytes is not a 16-bit index PNG")
    return instances


def read_encoded_size(data: bytes) -> tuple[int, int] | None:
    """Height and width in the header of a JPEG or PNG; None where there is no such header."""
    if data.startswith(_PNG_START) and len(data) > _PNG_HEADER:
        width, height = struct.unpack_from(">II", data, _PNG_SIZE)
        return height, width
    if not data.startswith(_JPEG_START):
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            return picture.height, picture.width
    except Image.DecompressionBombError as error:
        raise DataError(f"a picture is too large to be decoded ({error})") from error
    except (OSError, ValueError, SyntaxError, struct.error):
        return None


def encode_png(array: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 RGB as PNG, or (H, W) uint8 or uint16."""
    pixels = cv2.cvtColor(array, cv2.COLOR_RGB2BGR) if array.ndim == 3 else array
    done, data = cv2.imencode(".png", pixels)
    assert done, "an array of these types is always encoded"
    return data.tobytes()


def _decode(data: bytes, flag: int, kind: str, size: tuple[int, int] | None) -> np.ndarray | None:
    """Decode with OpenCV what its header allows; None where it cannot."""
    encoded = read_encoded_size(data)
    if encoded is None:
        raise DataError(f"{kind} of these bytes cannot be decoded: it must be a JPEG or PNG")
    if size is not None and encoded != size:
        raise DataError(
            f"image and label have other sizes than were packed: {kind} of {encoded[0]} x "
            f"{encoded[1]}, expected {size[0]} x {size[1]}"
        )
    if encoded[0] * encoded[1] > MOST_PIXELS:
        raise DataError(
            f"{kind} of {encoded[0]} x {encoded[1]} pixels: at most {MOST_PIXELS} are decoded"
        )
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        return None
