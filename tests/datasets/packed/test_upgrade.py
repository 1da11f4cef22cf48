"""Data of version 2: read as before, and brought to version 3 without touching a shard."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from command import spikeseg
from packed_versions import to_version_2
from raw_layouts import LAYOUTS, packed

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.baselines import read_baselines
from spikeseg.datasets.packed.label_counts import LabelCounts
from spikeseg.datasets.packed.manifest import MANIFEST, read_manifest
from spikeseg.datasets.packed.pack import pack
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.packed.storage import Storage
from spikeseg.datasets.packed.upgrade import upgrade_packed
from spikeseg.datasets.spec import DataError

OPTIONS = ShapesOptions(size=(16, 24), train=11, val=5, test=3, seed=2)


def shapes(folder: Path) -> str:
    return pack("shapes", Shapes(OPTIONS), Path(), folder, rows_per_shard=4)


def files(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def files_without_colours(folder: Path) -> Mapping[str, bytes]:
    """All files; an upgrade decodes no image, so that its manifest has no colours."""
    content = json.loads((folder / "manifest.json").read_text())
    assert set(content.pop("colours")) == set(content["splits"])
    return {**files(folder), "manifest.json": json.dumps(content, indent=1).encode()}


def test_version_2_is_read_as_before(tmp_path: Path) -> None:
    shapes(tmp_path)
    new = PackedDataset.open(tmp_path)
    old = PackedDataset.open(to_version_2(tmp_path))
    assert (old.digest, old.split_digests) == (new.digest, new.split_digests)
    assert old.splits == new.splits
    for split, rows in old.splits.items():
        assert old.class_pixels(split) == new.class_pixels(split)
        for index in range(rows):
            one, other = old.row(split, index), new.row(split, index)
            assert (one.id, one.segments) == (other.id, other.segments)
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.label, other.label)
    assert read_baselines(old, "val") is None
    assert read_manifest(Storage.at(tmp_path)).class_rows is None
    assert not list(old.verify())


def test_an_upgrade_gives_what_packing_gives_and_keeps_the_digests(tmp_path: Path) -> None:
    digest = shapes(tmp_path)
    whole = files_without_colours(tmp_path)
    to_version_2(tmp_path)
    assert upgrade_packed(tmp_path, workers=2)
    assert files(tmp_path) == whole
    # A run records this digest, and goes on only with data that has it.
    assert PackedDataset.open(tmp_path).digest == digest
    assert not upgrade_packed(tmp_path)
    assert shapes(tmp_path) == digest, "packing again finds it finished"
    assert files(tmp_path) == whole


def test_panoptic_data_with_ignored_pixels_is_upgraded_alike(tmp_path: Path) -> None:
    packed(LAYOUTS["cityscapes_panoptic"](tmp_path / "raw"), tmp_path / "packed")
    whole = files_without_colours(tmp_path / "packed")
    upgrade_packed(to_version_2(tmp_path / "packed"))
    assert files(tmp_path / "packed") == whole


def test_the_manifest_counts_rows_and_pixels_of_each_class(tmp_path: Path) -> None:
    shapes(tmp_path)
    manifest = read_manifest(Storage.at(tmp_path))
    dataset = PackedDataset.open(tmp_path)
    assert manifest.class_rows is not None
    for split, rows in dataset.splits.items():
        labels = [dataset.row(split, index).label for index in range(rows)]
        classes = range(9)
        assert list(manifest.class_rows[split]) == [
            sum(bool((label == k).any()) for label in labels) for k in classes
        ]
        assert list(manifest.class_pixels[split]) == [
            sum(int((label == k).sum()) for label in labels) for k in classes
        ]
    assert manifest.largest_row == 16 * 24


class KilledHereError(RuntimeError):
    """Stands for a killed process."""


@pytest.mark.parametrize("where", ["counting", "manifest"])
def test_a_killed_upgrade_leaves_version_2_and_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    shapes(tmp_path)
    whole = files_without_colours(tmp_path)
    before = files(to_version_2(tmp_path))

    def killed(*_: object) -> None:
        raise KilledHereError

    with monkeypatch.context() as patched:
        if where == "counting":
            patched.setattr(LabelCounts, "add", killed)
        else:
            patched.setattr(Storage, "write", killed)
        with pytest.raises(KilledHereError):
            upgrade_packed(tmp_path)
    assert {name: files(tmp_path)[name] for name in before} == before
    assert PackedDataset.open(tmp_path).row("val", 4).id == "val-000004"
    assert upgrade_packed(tmp_path)
    assert files(tmp_path) == whole


def test_labels_that_changed_since_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    shapes(tmp_path)
    to_version_2(tmp_path)
    content = json.loads((tmp_path / MANIFEST).read_text())
    content["shards"][0]["pixels"][0] += 1
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    before = files(tmp_path)
    with pytest.raises(DataError, match=r"labels of split 'train' have other pixels"):
        upgrade_packed(tmp_path)
    assert files(tmp_path) == before


def test_a_shard_with_fewer_rows_than_listed_is_refused(tmp_path: Path) -> None:
    shapes(tmp_path)
    to_version_2(tmp_path)
    content = json.loads((tmp_path / MANIFEST).read_text())
    content["shards"][0]["rows"] += 1
    content["splits"]["train"] += 1
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"train-00000.parquet: it has 4 rows, 5 expected"):
        upgrade_packed(tmp_path)


def test_the_command_upgrades_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes(tmp_path)
    to_version_2(tmp_path)
    ran = spikeseg(capsys, "data", "pack", "--upgrade", str(tmp_path))
    assert ran.code == 0, ran.err
    assert "upgraded to version 3" in ran.out
    assert (
        "already of version 3" in spikeseg(capsys, "data", "pack", "--upgrade", str(tmp_path)).out
    )
    both = spikeseg(capsys, "data", "pack", "shapes", "--upgrade", str(tmp_path))
    assert both.code == 2
    assert "--upgrade DIR takes no NAME" in both.err
    nothing = spikeseg(capsys, "data", "pack", "--upgrade", str(tmp_path / "nowhere"))
    assert nothing.code == 2
    assert "no such folder" in nothing.err
