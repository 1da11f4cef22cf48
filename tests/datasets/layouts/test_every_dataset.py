"""Every data set of the catalog passes the same tests, on a raw layout with made-up content."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from raw_layouts import LAYOUTS, Layout

from spikeseg.datasets.layouts.catalog import CATALOG, make_dataset
from spikeseg.datasets.packed.pack import pack
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.spec import DataError


@pytest.fixture(params=sorted(LAYOUTS), scope="module")
def layout(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return LAYOUTS[request.param](tmp_path_factory.mktemp(request.param) / "raw")


@pytest.fixture(scope="module")
def packed(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    folder = tmp_path_factory.mktemp("packed")
    dataset = make_dataset(layout.name, layout.options)
    pack(layout.name, dataset, layout.source, folder, rows_per_shard=2, partial=True)
    return PackedDataset.open(folder)


def test_the_suite_covers_the_whole_catalog() -> None:
    # `bluemarble` has tests of its own: its source are installed packages.
    assert set(LAYOUTS) | {"bluemarble", "shapes"} == set(CATALOG)


def test_every_row_reads_back_with_its_pixels_and_classes(
    layout: Layout, packed: PackedDataset
) -> None:
    rows = make_dataset(layout.name, layout.options).rows(layout.source, partial=True)
    assert Counter(row.split for row in rows) == packed.splits
    for split in packed.splits:
        for index, raw in enumerate(row for row in rows if row.split == split):
            row = packed.row(split, index)
            direct = make_dataset(layout.name, layout.options).read(raw).row
            assert row.id == raw.id
            np.testing.assert_array_equal(row.image, direct.image)
            np.testing.assert_array_equal(row.label, layout.labels[raw.id])


def test_every_segment_covers_exactly_the_pixels_of_its_class(packed: PackedDataset) -> None:
    for split, count in packed.splits.items():
        for index in range(count):
            row = packed.row(split, index)
            assert (row.instances is not None) == packed.name.endswith("panoptic")
            if row.instances is None:
                continue
            numbers = np.unique(row.instances[row.instances > 0])
            assert numbers.tolist() == list(range(1, len(row.segments) + 1))
            for number, train_id in enumerate(row.segments, start=1):
                assert set(row.label[row.instances == number].tolist()) == {train_id}
            assert set(row.label[row.instances == 0].tolist()) <= {255}


def test_pixels_are_counted_per_class(layout: Layout, packed: PackedDataset) -> None:
    total = np.sum([packed.class_pixels(split) for split in packed.splits], axis=0)
    labels = np.concatenate([label.ravel() for label in layout.labels.values()])
    np.testing.assert_array_equal(total, np.bincount(labels, minlength=256)[: len(total)])


def test_the_official_counts_are_checked(layout: Layout, tmp_path: Path) -> None:
    dataset = make_dataset(layout.name, layout.options)
    official = dataset.official_rows["train"]
    with pytest.raises(DataError, match=rf"'train' has \d rows, the official one {official}"):
        pack(layout.name, dataset, layout.source, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_a_missing_image_is_named_before_anything_is_written(
    layout: Layout, tmp_path: Path
) -> None:
    dataset = make_dataset(layout.name, layout.options)
    image = dataset.rows(layout.source, partial=True)[0].image
    hidden = image.with_name("hidden")
    image.rename(hidden)
    try:
        with pytest.raises(DataError, match=r"no such file") as caught:
            pack(layout.name, dataset, layout.source, tmp_path / "packed", partial=True)
    finally:
        hidden.rename(image)
    assert image.stem in str(caught.value)
    assert not (tmp_path / "packed").exists()


def test_the_options_are_recorded(layout: Layout, packed: PackedDataset) -> None:
    assert packed.options == layout.options
    assert json.dumps(packed.options)


def test_both_class_orders_of_pascal_context_give_the_same_labels(tmp_path: Path) -> None:
    alphabetical = LAYOUTS["pascal_context_60"](tmp_path / "first")
    with pytest.raises(DataError, match=r"alphabetical, voc_first, got None"):
        make_dataset("pascal_context_60", {})
    other = make_dataset("pascal_context_60", {"class_order": "voc_first"})
    space = make_dataset("pascal_context_60", alphabetical.options).label_space
    assert space.classes == other.label_space.classes
    # Value 1 is aeroplane in both, value 2 is bag or bicycle.
    assert [space.classes[space.raw_to_train[v]] for v in (1, 2)] == ["aeroplane", "bag"]
    names = [other.label_space.classes[other.label_space.raw_to_train[v]] for v in (1, 2)]
    assert names == ["aeroplane", "bicycle"]


def test_an_option_of_another_data_set_is_refused() -> None:
    with pytest.raises(DataError, match=r"class_order is not an option of camvid"):
        make_dataset("camvid", {"class_order": "alphabetical"})
    with pytest.raises(DataError, match=r"seed is not an option of ade20k"):
        make_dataset("ade20k", {"seed": 1})
