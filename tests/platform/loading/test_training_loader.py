"""Micro-batches for training: the same from any thread, worker, prefetch and starting point."""

import dataclasses
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs
import pytest
import torch
from raw_layouts import LAYOUTS, packed

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import pack
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.packed.shard_cache import CacheConfig
from spikeseg.datasets.packed.storage import Storage
from spikeseg.datasets.spec import DataError, Row
from spikeseg.datasets.transforms import TransformConfig, row_generator, train_transform
from spikeseg.platform.config.phases import Phase
from spikeseg.platform.loading.evaluation_loader import read_evaluation_batches
from spikeseg.platform.loading.training_loader import LoaderOptions, MicroBatch, TrainingRows

OPTIONS = ShapesOptions(size=(16, 20), train=13, val=5, test=1)
TRANSFORM = TransformConfig(crop=(16, 16), max_category_ratio=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed")
    pack("shapes", Shapes(OPTIONS), Path(), path, rows_per_shard=4)
    return path


@pytest.fixture(scope="module")
def dataset(folder: Path) -> PackedDataset:
    return PackedDataset.open(folder)


def rows(dataset: PackedDataset, **changes: object) -> TrainingRows:
    settings: dict = {"seed": 3, "size": 3, "micro_batches": 4, "window": 6, "prefetch": 0}
    return TrainingRows(dataset, TRANSFORM, LoaderOptions(**{**settings, **changes}))


def same(first: MicroBatch, second: MicroBatch) -> bool:
    return (
        first.ids == second.ids
        and torch.equal(first.images, second.images)
        and torch.equal(first.targets, second.targets)
    )


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize(("prefetch", "threads"), [(0, 1), (1, 1), (3, 4)])
def test_micro_batches_do_not_depend_on_workers_threads_or_prefetch(
    dataset: PackedDataset, workers: int, prefetch: int, threads: int
) -> None:
    plain = rows(dataset)
    for worker in range(workers):
        share = range(worker * 4 // workers, (worker + 1) * 4 // workers)
        reader = rows(dataset, prefetch=prefetch, threads=threads)
        for step, batches in enumerate(reader.steps(2, 5, share), start=2):
            assert len(batches) == len(share)
            for index, batch in zip(share, batches, strict=True):
                assert same(batch, plain.read(step, index))


@pytest.mark.parametrize(("prefetch", "threads"), [(0, 1), (1, 1), (3, 4)])
@pytest.mark.parametrize("offset", [0, 2])
def test_a_phase_begins_exactly_at_its_step_whatever_was_read_ahead(
    dataset: PackedDataset, prefetch: int, threads: int, offset: int
) -> None:
    large = dataclasses.replace(TRANSFORM, crop=(16, 20), flip=0.0)
    listed = [Phase(0, TRANSFORM, 1.0), Phase(3, large, 1.0), Phase(5, TRANSFORM, 1.0)]
    options = LoaderOptions(
        seed=3, size=3, micro_batches=4, window=6, prefetch=prefetch, threads=threads
    )
    reader = TrainingRows(dataset, listed, options)
    crops = {True: rows(dataset), False: TrainingRows(dataset, large, options)}
    # Begun anew at every step around the borders, as after a kill.
    for first in (0, 2, 3, 4, 5):
        for step, batches in enumerate(reader.steps(first, 7, range(4), offset), start=first):
            alone = crops[step < 3 or step >= 5]
            for index, batch in enumerate(batches):
                assert same(batch, alone.read(step + offset, index))


def test_every_row_comes_once_an_epoch_and_batches_span_epochs(dataset: PackedDataset) -> None:
    reader = rows(dataset, micro_batches=1, size=4)
    ids = [name for step in range(13) for name in reader.read(step, 0).ids]
    for epoch in range(4):
        assert len(set(ids[13 * epoch : 13 * epoch + 13])) == 13


def test_an_augmented_row_can_be_made_again_from_seed_epoch_and_id(
    dataset: PackedDataset,
) -> None:
    batch = rows(dataset).read(2, 1)
    # Step 2, micro-batch 1 of 4 x 3 rows starts at position 27, in the third epoch of 13 rows.
    ids = [row["id"] for row in dataset.columns("train", ["id"])]
    for place, name in enumerate(batch.ids):
        source = dataset.row("train", ids.index(name))
        image, target = train_transform(TRANSFORM, source, row_generator(3, 2, name))
        np.testing.assert_array_equal(batch.images[place].numpy(), image)
        np.testing.assert_array_equal(batch.targets[place].numpy(), target)


def test_no_thread_outlives_an_abandoned_iterator(dataset: PackedDataset) -> None:
    before = threading.active_count()
    steps = rows(dataset, prefetch=2, threads=3).steps(0, 100, range(4))
    next(steps)
    steps.close()
    assert threading.active_count() == before


def damaged(folder: Path, target: Path, how_many: int) -> PackedDataset:
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    left = how_many
    for shard in sorted(target.glob("train-*.parquet")):
        content, place = bytearray(shard.read_bytes()), 0
        while left and (place := content.find(b"\x89PNG", place)) >= 0:
            content[place : place + 16] = bytes(16)
            # Image, label and instances of a row come in columns: only images are met here.
            left -= 1
            if left and content.find(b"\x89PNG", place) < 0:
                break
        shard.write_bytes(bytes(content))
    return PackedDataset.open(target)


def test_a_bad_row_is_named_by_shard_and_id(folder: Path, tmp_path: Path) -> None:
    reader = rows(damaged(folder, tmp_path / "bad", 1), prefetch=2)
    with pytest.raises(DataError, match=r"bad/train-00000.parquet: row train-000000: "):
        list(reader.steps(0, 4, range(4)))


def test_a_quarantined_row_is_replaced_by_the_next_the_same_way_everywhere(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = damaged(folder, tmp_path / "bad", 1)
    readers = [
        rows(broken, on_bad_row="quarantine", prefetch=prefetch, threads=2) for prefetch in (0, 3)
    ]
    first, second = (
        [batch for step in reader.steps(0, 3, range(4)) for batch in step] for reader in readers
    )
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    ids = [name for batch in first for name in batch.ids]
    assert "train-000000" not in ids
    assert list(readers[0].bad_rows) == [0]
    assert "row train-000000" in readers[0].bad_rows[0]
    assert "row 0 is bad, the next one takes its place" in caplog.text


def test_too_many_bad_rows_stop_the_training(folder: Path, tmp_path: Path) -> None:
    broken = damaged(folder, tmp_path / "bad", 1000)
    with pytest.raises(DataError, match="11 rows cannot be read, 10 may be replaced"):
        list(rows(broken, on_bad_row="quarantine").steps(0, 4, range(4)))


def far_away(folder: Path) -> Storage:
    storage = Storage(pyarrow.fs._MockFileSystem(), "set", "memory://set")
    storage.filesystem.create_dir("set")
    for path in folder.iterdir():
        with storage.filesystem.open_output_stream(f"set/{path.name}") as stream:
            stream.write(path.read_bytes())
    return storage


def test_remote_shards_give_the_same_micro_batches(
    folder: Path, dataset: PackedDataset, tmp_path: Path
) -> None:
    storage = far_away(folder)
    cache = CacheConfig(folder=tmp_path / "cache", limit=1 << 30)
    far = rows(PackedDataset.open_storage(storage, cache), prefetch=2, threads=2)
    near = rows(dataset)
    for step, batches in enumerate(far.steps(0, 6, range(4))):
        for index, batch in enumerate(batches):
            assert same(batch, near.read(step, index))


def test_fetching_ahead_ends_with_the_reader(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = PackedDataset.open_storage(
        far_away(folder), CacheConfig(folder=tmp_path / "cache", limit=1 << 30)
    )
    fetched: list[int] = []
    fetching, closing = threading.Event(), threading.Event()

    def fetch(split: str, index: int) -> None:
        fetched.append(index)
        if len(fetched) == 2:
            fetching.set()
            closing.wait(20)

    monkeypatch.setattr(dataset, "fetch", fetch)
    reader = rows(dataset, window=13, prefetch=2, threads=2)
    steps = reader.steps(0, 100, range(4))
    next(steps)
    assert fetching.wait(20)
    # The second fetch is on its way while the reader is closed, and ends only then.
    release = threading.Timer(0.3, closing.set)
    release.start()
    steps.close()
    release.join()
    assert len(fetched) == 2


def test_a_row_whose_image_changed_is_replaced_as_one_that_cannot_be_decoded(
    folder: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(folder, tmp_path / "bad"))
    first = next(PackedDataset.open(folder).columns("train", ["image_hash"]))["image_hash"]
    shard = broken / "train-00000.parquet"
    shard.write_bytes(shard.read_bytes().replace(first, bytes(16)))
    dataset = PackedDataset.open(broken)
    with pytest.raises(DataError, match=r"row train-000000: the image is not the one that was"):
        list(rows(dataset).steps(0, 4, range(4)))
    reader = rows(dataset, on_bad_row="quarantine")
    ids = [name for step in reader.steps(0, 4, range(4)) for batch in step for name in batch.ids]
    assert "train-000000" not in ids
    assert list(reader.bad_rows) == [0]


def test_evaluation_reads_rows_in_their_order_with_labels_of_their_own_size(
    dataset: PackedDataset,
) -> None:
    config = TransformConfig(crop=(16, 16), test_box=(32, 40))
    batches = list(read_evaluation_batches(dataset, "val", config, [4, 0, 2], 2))
    assert [batch.indices for batch in batches] == [[4, 0], [2]]
    assert batches[0].images.shape == (2, 3, 32, 40)
    assert batches[0].targets.shape == (2, 16, 20)
    expected = dataset.row("val", 2).label
    np.testing.assert_array_equal(batches[1].targets[0].numpy(), expected)


def test_a_recipe_that_shrinks_reads_jpegs_at_a_smaller_scale(tmp_path: Path) -> None:
    dataset = packed(LAYOUTS["pascal_voc12"](tmp_path / "raw"), tmp_path / "packed")
    size = dataset.row("train", 0).label.shape
    sizes: list[tuple[int, ...]] = []
    read = dataset.row

    def watch(*arguments: Any) -> Row:
        row = read(*arguments)
        sizes.append(row.image.shape[:2])
        return row

    dataset.row = watch
    options = LoaderOptions(seed=3, size=2, micro_batches=1, window=6, prefetch=0)
    batches = {}
    for decode in ("full", "reduced"):
        transform = TransformConfig(
            crop=(16, 16), resize="short_edge", short_edges=(12,), photometric=False,
            max_category_ratio=1.0, version=2, decode=decode, interpolation="area",
        )  # fmt: skip
        batches[decode] = TrainingRows(dataset, transform, options).read(0, 0)
    assert sizes[:2] == [size] * 2
    assert all(height <= -(-size[0] // 2) for height, _ in sizes[2:])
    assert torch.equal(batches["full"].targets, batches["reduced"].targets)
    # In grey levels: the same picture, not the same pixels.
    difference = (batches["full"].images - batches["reduced"].images).abs() * 57
    assert 0 < difference.mean() < 6
