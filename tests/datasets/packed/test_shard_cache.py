"""Local copies of remote shards: damaged ones are replaced, leftovers of killed fetches removed."""

import hashlib
import logging
import pickle
import shutil
from fcntl import LOCK_EX, flock
from pathlib import Path

import numpy as np
import pyarrow.fs
import pytest

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.manifest import read_manifest
from spikeseg.datasets.packed.pack import pack
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.packed.shard_cache import CacheConfig, ShardCache
from spikeseg.datasets.packed.storage import Storage
from spikeseg.datasets.spec import DataError, StorageAwayError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed")
    options = ShapesOptions(size=(32, 40), train=6, val=1, test=1, seed=0)
    pack("shapes", Shapes(options), Path(), path, rows_per_shard=3)
    return path


def remote(folder: Path) -> Storage:
    storage = Storage(pyarrow.fs._MockFileSystem(), "set", "memory://set")
    storage.filesystem.create_dir("set")
    for path in folder.iterdir():
        with storage.filesystem.open_output_stream(f"set/{path.name}") as stream:
            stream.write(path.read_bytes())
    return storage


@pytest.fixture
def cache(tmp_path: Path) -> CacheConfig:
    return CacheConfig(folder=tmp_path / "cache", limit=1 << 30)


@pytest.mark.parametrize("cut", [0, 10], ids=["other bytes", "truncated"])
def test_a_damaged_copy_in_the_cache_is_fetched_anew_once(
    folder: Path, cache: CacheConfig, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    storage = remote(folder)
    expected = PackedDataset.open_storage(storage, cache).row("val", 0)
    (copy,) = cache.folder.glob("*.parquet")
    whole = copy.read_bytes()
    copy.write_bytes((whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])[: len(whole) - cut])
    again = PackedDataset.open_storage(storage, cache)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(again.row("val", 0).image, expected.image)
    assert copy.read_bytes() == whole
    assert caplog.text.count("the copy is damaged, it is fetched anew") == 1


def test_a_copy_is_hashed_once_by_a_process(
    folder: Path, cache: CacheConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spikeseg.datasets.packed import shard_cache

    hashed: list[Path] = []

    def counted(path: Path) -> str:
        hashed.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(shard_cache, "sha256_of", counted)
    dataset = PackedDataset.open_storage(remote(folder), cache)
    for _ in range(3):
        dataset.fetch("val", 0)
        dataset.row("val", 0)
    assert len(hashed) == 1


def test_what_killed_fetches_left_is_removed(folder: Path, cache: CacheConfig) -> None:
    dataset = PackedDataset.open_storage(remote(folder), cache)
    left = cache.folder / f"{'0a' * 32}.fetching"
    left.write_bytes(bytes(1000))
    other = cache.folder / "mine.fetching"
    other.write_bytes(b"")
    dataset.row("val", 0)
    assert not left.exists()
    assert other.exists()


def test_what_another_process_is_fetching_stays_and_counts(
    folder: Path, cache: CacheConfig
) -> None:
    sizes = [path.stat().st_size for path in folder.glob("*.parquet")]
    tight = CacheConfig(folder=cache.folder, limit=2 * max(sizes))
    dataset = PackedDataset.open_storage(remote(folder), tight)
    dataset.row("val", 0)
    name = f"{'0a' * 32}"
    writing = cache.folder / f"{name}.fetching"
    writing.write_bytes(bytes(2 * max(sizes)))
    with (cache.folder / f".lock-{int(name[:8], 16) % 64}").open("a") as lock:
        flock(lock, LOCK_EX)
        dataset.row("test", 0)
    assert writing.exists()
    # Of the copies only the newest has a place beside it.
    assert len(list(cache.folder.glob("*.parquet"))) == 1


def test_a_cache_that_travels_makes_its_folder_where_it_arrives(
    folder: Path, cache: CacheConfig
) -> None:
    travelling = pickle.dumps(ShardCache(Storage.at(folder), cache))
    shutil.rmtree(cache.folder)
    shard = read_manifest(Storage.at(folder)).shards[0]
    copy = pickle.loads(travelling).path(shard.file, shard.sha256, shard.bytes)
    assert copy.read_bytes() == (folder / shard.file).read_bytes()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError("AWS Error NETWORK_CONNECTION"), StorageAwayError),
        (FileNotFoundError("no such key"), DataError),
    ],
)
def test_a_network_that_is_away_is_no_damage(
    folder: Path,
    cache: CacheConfig,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: type[Exception],
) -> None:
    dataset = PackedDataset.open_storage(remote(folder), cache)

    def away(*_: object) -> None:
        raise error

    with monkeypatch.context() as once:
        once.setattr(Storage, "fetch", away)
        with pytest.raises(kind, match=rf"memory://set/val-.*{error}"):
            dataset.row("val", 0)
    assert dataset.row("val", 0).id == "val-000000"
    assert not list(cache.folder.glob("*.fetching"))
