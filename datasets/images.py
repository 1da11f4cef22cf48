"""Image and label files to arrays: decoded once, checked, never silently repaired.

OpenCV decodes and resizes (it is what the published recipe used, and the faster one); Pillow reads
what OpenCV hides: a label's mode and palette, and the EXIF orientation.
"""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from .spec import DataError, LabelSpace

_LABEL_MODES = ("L", "P", "I;16", "I;16B", "I")
_ORIENTATION = 0x0112


def read_image(path: Path) -> tuple[bytes, np.ndarray]:
    """Read an image file.

    Args:
        path: A JPEG or PNG.

    Returns:
        The bytes to store (the file's own where it is upright RGB, else PNG), and (H, W, 3) uint8.

    Raises:
        DataError: Where the file is missing, damaged, rotated by EXIF, or CMYK.
    """
    data = _bytes(path)
    try:
        with Image.open(io.BytesIO(data)) as probe:
            mode = probe.mode
            rotation = probe.getexif().get(_ORIENTATION, 1)
            # Pillow raises on truncated data where OpenCV may return a partly grey picture.
            probe.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: the image cannot be decoded ({error})") from error
    if rotation != 1:
        raise DataError(
            f"{path}: EXIF orientation {rotation}: the label would not match; store it upright"
        )
    if mode not in ("RGB", "L"):
        raise DataError(f"{path}: an image must be RGB or grey, got mode {mode}")
    image = decode_image(data)
    if mode == "L":
        return encode_png(image), image
    return data, image


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
    try:
        with Image.open(io.BytesIO(_bytes(path))) as picture:
            if picture.mode not in _LABEL_MODES:
                raise DataError(
                    f"{path}: a label must hold one index per pixel (mode L, P or 16-bit), got "
                    f"mode {picture.mode}"
                )
            raw = np.array(picture)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(f"{path}: the label cannot be decoded ({error})") from error
    return to_train_ids(raw, space, path)


def to_train_ids(raw: np.ndarray, space: LabelSpace, path: Path) -> np.ndarray:
    """Map raw label values to train ids.

    Args:
        raw: (H, W) integer values as in the file.
        space: The label space.
        path: Named in errors.

    Raises:
        DataError: Where a value is outside the label space; names values and counts.
    """
    values, inverse, counts = np.unique(raw, return_inverse=True, return_counts=True)
    unknown = [
        f"{value} ({count} pixels)"
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        if value not in space.raw_to_train
    ]
    if unknown:
        raise DataError(
            f"{path}: label values outside the label space {space.name}: {', '.join(unknown[:8])}"
        )
    table = np.array([space.raw_to_train[int(value)] for value in values], dtype=np.uint8)
    return table[inverse].reshape(raw.shape)


def decode_image(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an encoded image."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError("an image of these bytes cannot be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_index(data: bytes) -> np.ndarray:
    """(H, W) uint8 of an encoded index map."""
    label = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if label is None or label.ndim != 2 or label.dtype != np.uint8:
        raise DataError("a label map of these bytes is not an 8-bit index PNG")
    return label


def encode_png(array: np.ndarray) -> bytes:
    """PNG of (H, W, 3) uint8 RGB or (H, W) uint8."""
    pixels = cv2.cvtColor(array, cv2.COLOR_RGB2BGR) if array.ndim == 3 else array
    done, data = cv2.imencode(".png", pixels)
    assert done, "a uint8 array is always encoded"
    return data.tobytes()


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not data:
        raise DataError(f"{path}: the file is empty")
    return data
