"""Names of pictures that the image grid of MLflow's run page shows."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from .recorded_files import UnsendableError

_THUMBNAIL = 512
_LONGEST_NAME = 150
# A small file may decode to gigabytes; contact sheets have a tenth of this.
_MOST_PIXELS = 100_000_000


def write_grid_files(record: Mapping[str, Any], picture: Path, folder: Path) -> Iterable[Path]:
    """Write a picture, and a small copy, under names that the run page's image grid shows.

    The grid reads key, step and time out of the artifact's name and wants a small copy beside it
    (seen in MLflow 3.17's `log_image`, whose names hold a random part: sent twice, it doubles).

    Args:
        record: The picture's record, with name, step and time.
        picture: The PNG.
        folder: Where the named files are made.

    Raises:
        UnsendableError: Where the PNG is damaged or too large, or its name is none.
    """
    key = record["name"].replace("/", "~")
    if len(key) > _LONGEST_NAME or not key.isprintable() or not key.isascii():
        raise UnsendableError(
            f"{record['path']}: name of a picture must be at most {_LONGEST_NAME} printable "
            f"characters, got {key[:_LONGEST_NAME]!r}"
        )
    name = f"{key}+step+{record['step']}+timestamp+{record['time']}+0"
    whole, small = folder / f"{name}.png", folder / f"{name}+compressed.webp"
    data = picture.read_bytes()
    whole.write_bytes(data)
    try:
        image = Image.open(io.BytesIO(data))
        width, height = image.size
        if width * height > _MOST_PIXELS:
            raise UnsendableError(
                f"{record['path']}: picture of {width} x {height} pixels, more than "
                f"{_MOST_PIXELS} are not sent"
            )
        image = image.convert("RGB")
    except UnsendableError:
        raise
    except Exception as error:  # PIL raises errors of many kinds over damaged bytes.
        raise UnsendableError(
            f"{record['path']}: not a whole picture, {len(data)} bytes"
        ) from error
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    image.save(small, "WEBP", quality=80)
    # The small one last: where it is, the whole one is too.
    return whole, small
