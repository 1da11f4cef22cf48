"""Names of pictures that the image grid of MLflow's run page shows."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from .upload.dead_letters import UnsendableError

_THUMBNAIL = 512


def write_grid_files(record: Mapping[str, Any], picture: Path, folder: Path) -> Iterable[Path]:
    """Write a picture, and a small copy, under names that the run page's image grid shows.

    The grid reads key, step and time out of the artifact's name and wants a small copy beside it
    (seen in MLflow 3.17's `log_image`, whose names hold a random part: sent twice, it doubles).

    Args:
        record: The picture's record, with name, step and time.
        picture: The PNG.
        folder: Where the named files are made.

    Raises:
        UnsendableError: Where the PNG is damaged.
    """
    key = record["name"].replace("/", "~")
    name = f"{key}+step+{record['step']}+timestamp+{record['time']}+0"
    whole, small = folder / f"{name}.png", folder / f"{name}+compressed.webp"
    data = picture.read_bytes()
    whole.write_bytes(data)
    try:
        image = Image.open(io.BytesIO(data)).convert("RGB")
    except Exception as error:  # PIL raises errors of many kinds over damaged bytes.
        raise UnsendableError(f"{picture}: not a whole picture, {len(data)} bytes") from error
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    image.save(small, "WEBP", quality=80)
    # The small one last: where it is, the whole one is too.
    return whole, small
