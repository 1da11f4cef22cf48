"""Reading packed rows: any row, any thread, local and remote, damage named."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from raw_layouts import LAYOUTS, packed

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed import shard
from spikeseg.datasets.packed.pack import MANIFEST, pack
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.packed.shard_cache import CacheConfig
from spikeseg.datasets.packed.storage import Storage
from spikeseg.datasets.spec import DataError

OPTIONS = ShapesOptions(size=(16, 24), train=23, val=2, test=1, seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed")
    pack("shapes", Shapes(OPTIONS), Path(), path, rows_per_shard=10)
    return path


def remote(folder: Path, root: str = "bucket/set") -> Storage:
    storage = Storage(pyarrow.fs._MockFileSystem(), root, f"memory://{root}")
    storage.filesystem.create_dir(root)
    for path in folder.iterdir():
        with storage.filesystem.open_output_stream(f"{root}/{path.name}") as stream:
            stream.write(path.read_bytes())
    return storage


def test_threads_read_the_same_rows_as_one(folder: Path) -> None:
    dataset = PackedDataset.open(folder)
    order = [3, 22, 0, 10, 9, 19, 20, 3] * 5
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda index: dataset.row("train", index), order))
    shapes = Shapes(OPTIONS)
    raw = [row for row in shapes.rows(Path(), partial=False) if row.split == "train"]
    for index, row in zip(order, rows, strict=True):
        direct = shapes.read(raw[index]).row
        assert row.id == direct.id
        assert row.segments == direct.segments
        np.testing.assert_array_equal(row.image, direct.image)
        np.testing.assert_array_equal(row.instances, direct.instances)


def test_a_dataset_travels_to_other_processes(folder: Path) -> None:
    dataset = PackedDataset.open(folder)
    dataset.row("train", 0)
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy.row("val", 1).image, dataset.row("val", 1).image)


def test_a_jpeg_is_decoded_at_a_smaller_scale_and_nothing_else_is(
    folder: Path, tmp_path: Path
) -> None:
    dataset = packed(LAYOUTS["pascal_voc12"](tmp_path / "raw"), tmp_path / "packed")
    whole = dataset.row("train", 0)
    seen: list[tuple[int, int]] = []

    def halve(size: tuple[int, int]) -> int:
        seen.append(size)
        return 2

    half = dataset.row("train", 0, halve)
    height, width = whole.label.shape
    assert seen == [(height, width)]
    assert half.image.shape == (-(-height // 2), -(-width // 2), 3)
    assert (half.reduction, whole.reduction) == (2, 1)
    np.testing.assert_array_equal(half.label, whole.label)
    averages = cv2.resize(whole.image, half.image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(half.image.astype(int) - averages).mean() < 4
    png = PackedDataset.open(folder)
    row = png.row("train", 0, halve)
    assert row.reduction == 1
    np.testing.assert_array_equal(row.image, png.row("train", 0).image)


def test_a_row_outside_the_split_is_an_index_error(folder: Path) -> None:
    dataset = PackedDataset.open(folder)
    for index in (-1, 23):
        with pytest.raises(IndexError, match=r"rows 0\.\.22"):
            dataset.row("train", index)


def test_large_rows_get_row_groups_of_their_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pq.ParquetFile(folder / "train-00000.parquet").num_row_groups == 2
    monkeypatch.setattr(shard, "_BYTES_PER_GROUP", 100)
    pack("shapes", Shapes(OPTIONS), Path(), tmp_path, rows_per_shard=10)
    assert pq.ParquetFile(tmp_path / "train-00000.parquet").num_row_groups == 10
    dataset = PackedDataset.open(tmp_path)
    assert [dataset.row("train", index).id for index in (0, 9, 22)] == [
        "train-000000",
        "train-000009",
        "train-000022",
    ]


def copied(folder: Path, target: Path) -> Path:
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_a_missing_or_short_shard_is_named_when_opened(folder: Path, tmp_path: Path) -> None:
    broken = copied(folder, tmp_path / "copy")
    file = broken / "train-00001.parquet"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"train-00001.parquet: \d+ bytes expected, found"):
        PackedDataset.open(broken)
    file.unlink()
    with pytest.raises(DataError, match=r"train-00001.parquet: .* found None"):
        PackedDataset.open(broken)


def test_damage_inside_a_shard_is_named_when_read_and_when_verified(
    folder: Path, tmp_path: Path
) -> None:
    broken = copied(folder, tmp_path / "copy")
    file = broken / "val-00003.parquet"
    content = bytearray(file.read_bytes())
    start = content.index(b"\x89PNG")
    content[start : start + 16] = bytes(16)
    file.write_bytes(bytes(content))
    dataset = PackedDataset.open(broken)
    with pytest.raises(DataError, match=r"val-00003.parquet: row val-000000: .* cannot be decoded"):
        dataset.row("val", 0)
    assert [line.split(": ")[0] for line in dataset.verify()] == [str(file)]


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not a readable manifest"), ('{"schema_version": 1}', "schema version 1, this version")],
    ids=["damaged", "old"],
)
def test_a_manifest_that_cannot_be_read_is_named(
    folder: Path, tmp_path: Path, content: str, message: str
) -> None:
    broken = copied(folder, tmp_path / "copy")
    (broken / MANIFEST).write_text(content)
    with pytest.raises(DataError, match=message):
        PackedDataset.open(broken)


def test_remote_shards_are_fetched_once_and_read_equal(folder: Path, tmp_path: Path) -> None:
    cache = CacheConfig(folder=tmp_path / "cache", limit=1 << 30)
    near, far = PackedDataset.open(folder), PackedDataset.open_storage(remote(folder), cache)
    for index in (0, 15, 22):
        np.testing.assert_array_equal(far.row("train", index).label, near.row("train", index).label)
    kept = sorted(cache.folder.glob("*.parquet"))
    assert len(kept) == 3
    first = kept[0].stat().st_ino
    again = PackedDataset.open_storage(remote(folder), cache)
    for index in (0, 15, 22):
        again.row("train", index)
    assert sorted(cache.folder.glob("*.parquet"))[0].stat().st_ino == first


def test_the_cache_keeps_to_its_limit_and_drops_the_oldest(folder: Path, tmp_path: Path) -> None:
    sizes = [path.stat().st_size for path in sorted(folder.glob("train-*.parquet"))]
    cache = CacheConfig(folder=tmp_path / "cache", limit=sizes[0] + sizes[1] + 100)
    dataset = PackedDataset.open_storage(remote(folder), cache)
    for index in (0, 15, 22, 0, 15, 22):
        dataset.row("train", index)
        held = sum(path.stat().st_size for path in cache.folder.glob("*.parquet"))
        assert held <= cache.limit


def test_a_remote_shard_with_other_bytes_is_refused(folder: Path, tmp_path: Path) -> None:
    storage = remote(folder)
    with storage.filesystem.open_output_stream("bucket/set/train-00000.parquet") as stream:
        stream.write(b"something else")
    cache = CacheConfig(folder=tmp_path / "cache", limit=1 << 30)
    dataset = PackedDataset.open_storage(storage, cache)
    with pytest.raises(DataError, match=r"memory://bucket/set/train-00000.parquet: SHA-256"):
        dataset.row("train", 0)
    assert not list(cache.folder.glob("*.parquet"))
    assert not list(cache.folder.glob("*.fetching"))


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("options", {"channels": 17}, "channels must be 1..16, got 17"),
        ("options", {"channels": True}, "channels must be 1..16, got True"),
        ("options", {"channels": 5}, "mean must be 5 numbers"),
        ("colours", {"train": {"mean": [1, 2, 300], "std": [1, 2, 3]}}, "mean must be 3 numbers"),
        ("colours", {"train": {"mean": [1, 2, 3], "std": [1, 0, 3]}}, "std must be 3 numbers"),
        ("colours", {"none": {}}, "colours has no 'train'"),
    ],
)
def test_wrong_channels_and_colours_of_a_manifest_are_refused(
    key: str, value: dict[str, object], rule: str, tmp_path: Path
) -> None:
    options = ShapesOptions(size=(32, 40), train=1, val=1, test=1, seed=0)
    pack("shapes", Shapes(options), Path(), tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    if key == "colours":
        splits = dict.fromkeys(content["splits"], content["colours"]["train"])
        value = value if "none" in value else {**splits, **value}
    (tmp_path / "manifest.json").write_text(json.dumps({**content, key: value}))
    with pytest.raises(DataError, match=rule):
        PackedDataset.open(tmp_path)
