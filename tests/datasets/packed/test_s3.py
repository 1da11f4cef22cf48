"""Packing to and reading from an S3-compatible server that the test starts."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from object_store import Bucket, open_bucket

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import MANIFEST, pack
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.packed.shard_cache import CacheConfig
from spikeseg.datasets.spec import DataError

OPTIONS = ShapesOptions(size=(16, 16), train=9, val=3, test=1)


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with open_bucket() as opened:
        yield opened


def test_a_set_packed_to_s3_reads_as_the_local_one(bucket: Bucket, tmp_path: Path) -> None:
    uri = bucket.uri("deep/shapes")
    cache = CacheConfig(folder=tmp_path / "cache", limit=1 << 30)
    with pytest.raises(DataError, match="not a packed data set"):
        PackedDataset.open(uri, cache)
    arguments = ("shapes", Shapes(OPTIONS), Path())
    digest = pack(*arguments, uri, rows_per_shard=4, workers=2)
    assert pack(*arguments, tmp_path / "local", rows_per_shard=4) == digest
    assert pack(*arguments, uri, rows_per_shard=4) == digest
    far, near = PackedDataset.open(uri, cache), PackedDataset.open(tmp_path / "local")
    for index in range(9):
        np.testing.assert_array_equal(far.row("train", index).image, near.row("train", index).image)
    assert not list(far.verify())
    assert len(list(cache.folder.glob("*.parquet"))) == 3


def test_a_packing_to_s3_that_stops_looks_unfinished_and_continues(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = bucket.uri("stopped")
    read, seen = Shapes.read, []

    def failing(self: Shapes, row: object) -> object:
        seen.append(row)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return read(self, row)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Shapes, "read", failing)
    arguments = ("shapes", Shapes(OPTIONS), Path(), uri)
    with pytest.raises(KeyboardInterrupt):
        pack(*arguments, rows_per_shard=4, workers=1)
    with pytest.raises(DataError, match=f"no {MANIFEST}"):
        PackedDataset.open(uri, CacheConfig(folder=tmp_path, limit=1 << 30))
    pack(*arguments, rows_per_shard=4, workers=1)
    # Four rows were whole in their shard; they are not read again.
    assert len(seen) == 7 + (13 - 4)
