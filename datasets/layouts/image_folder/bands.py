"""Images of any number of channels: NumPy arrays, TIFF files of many bands, pages or one."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...images import read_photo
from ...spec import MOST_CHANNELS, DataError
from .decode import FORMATS, read_numpy, read_numpy_shape, to_eight_bits

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SAMPLES, _EXTRA_SAMPLES = 277, 338
# Values of the tag of extra samples that mean transparency.
_ALPHA = (1, 2)
_MOST_VALUES = 1 << 29
_MODES = {"L": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "I;16N": 1, "I": 1, "RGB": 3, "RGBA": 4}


def find_channels(data: bytes, where: Path) -> int:
    """Channels that an image is stored with, by its header: 3 for every grey or RGB picture.

    Args:
        data: Bytes of the file.
        where: Named in errors.

    Raises:
        DataError: Where a NumPy file has no axis of 1 to 16 channels, or a TIFF cannot be read.
    """
    if where.suffix.lower() == ".npy":
        shape = read_numpy_shape(data, where)
        channels = shape[_find_axis(shape, where)] if len(shape) == 3 else 1
        return 3 if channels == 1 else channels
    if not data.startswith(_TIFF_STARTS):
        return 3
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as picture:
            tags: Any = picture.getexif()
            samples, extra = tags.get(_SAMPLES, 1), tags.get(_EXTRA_SAMPLES)
    except Exception:
        samples, extra = _read_tiff_samples(data, where), None
    kinds = extra if isinstance(extra, tuple) else (extra,)
    plain = samples in (1, 3) or (samples == 4 and kinds[0] in _ALPHA) or samples == 2
    return 3 if plain else samples


def read_bands(data: bytes, where: Path, channels: int) -> np.ndarray:
    """Decode an image of any number of channels.

    Args:
        data: Bytes of a NumPy file, a TIFF of bands or of pages, or any picture.
        where: Named in errors.
        channels: C, 1 to 16.

    Returns:
        (H, W, C) uint8; of 16 bits the upper eight.

    Raises:
        DataError: Where the file is damaged, or has another number of channels.
    """
    if where.suffix.lower() == ".npy":
        values = read_numpy(data, where)
        if values.ndim == 3:
            values = np.moveaxis(values, _find_axis(values.shape, where, channels), 2)
    elif data.startswith(_TIFF_STARTS):
        values = _read_tiff(data, where)
    else:
        values = _read_pages(data, where)
    values = values[..., None] if values.ndim == 2 else values
    if values.shape[2] != channels:
        raise DataError(
            f"{where}: an image of {values.shape[2]} channels, where {channels} are expected: all "
            "images have the same (--channels)"
        )
    return np.ascontiguousarray(to_eight_bits(values, where))


def read_input(path: Path, channels: int) -> np.ndarray:
    """Read an image that has no label, for a network of so many channels.

    Args:
        path: A picture that Pillow reads; of other channels than RGB also a TIFF or NumPy file.
        channels: C, `model.in_channels`.

    Returns:
        (H, W, C) uint8.

    Raises:
        DataError: Where the file is missing, damaged, or has another number of channels.
    """
    if channels == 3 and path.suffix.lower() != ".npy":
        return read_photo(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return read_bands(data, path, channels)


def _find_axis(shape: tuple[int, ...], where: Path, channels: int | None = None) -> int:
    """The axis of channels, of three: the last where it can be, else the first."""
    for axis in (2, 0):
        if shape[axis] == channels or (channels is None and shape[axis] <= MOST_CHANNELS):
            return axis
    wanted = f"1 to {MOST_CHANNELS}" if channels is None else channels
    raise DataError(
        f"{where}: shape {shape} has no axis of {wanted} channels, last or first: (H, W, C)"
    )


def _read_tiff(data: bytes, where: Path) -> np.ndarray:
    """Pages or bands of a TIFF; what Pillow cannot read, tifffile does."""
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as picture:
            tags: Any = picture.getexif()
            samples = tags.get(_SAMPLES, 1)
            # Of more samples Pillow takes the first three without a word.
            readable = _MODES.get(picture.mode) == samples
    except Exception:
        readable = False
    return _read_pages(data, where) if readable else _read_tiff_bands(data, where)


def _read_pages(data: bytes, where: Path) -> np.ndarray:
    """The bands of a picture, of its pages one behind the other."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            pages = getattr(picture, "n_frames", 1)
            _require_few(picture.width * picture.height * pages, where)
            parts = []
            for page in range(min(pages, MOST_CHANNELS + 1)):
                picture.seek(page)
                if picture.mode not in _MODES:
                    raise DataError(
                        f"{where}: channels are those of grey, RGB or RGBA, got mode {picture.mode}"
                    )
                pixels = np.asarray(picture)
                parts.append(pixels[..., None] if pixels.ndim == 2 else pixels)
            return np.concatenate(parts, axis=2)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{where}: the image cannot be decoded ({error})") from error


def _read_tiff_samples(data: bytes, where: Path) -> int:
    tifffile = _import_tifffile(where)
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            return int(file.pages[0].samplesperpixel)
    except Exception as error:
        raise DataError(f"{where}: not a TIFF that can be read ({error})") from error


def _read_tiff_bands(data: bytes, where: Path) -> np.ndarray:
    tifffile = _import_tifffile(where)
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            _require_few(page.imagelength * page.imagewidth * page.samplesperpixel, where)
            values = page.asarray()
            axes = page.axes
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{where}: the image cannot be decoded ({error})") from error
    if axes not in ("YX", "YXS", "SYX"):
        raise DataError(f"{where}: axes {axes}; an image has height, width and channels")
    return np.moveaxis(values, 0, 2) if axes == "SYX" else values


def _import_tifffile(where: Path) -> Any:
    try:
        import tifffile  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError(
            f"{where}: a TIFF of more bands than a picture has is read by tifffile, which is not "
            "installed: pip install 'spikeseg[bands]', or save it as NumPy"
        ) from error
    return tifffile


def _require_few(values: int, where: Path) -> None:
    if values > _MOST_VALUES:
        raise DataError(f"{where}: {values} values, at most {_MOST_VALUES} are read")
