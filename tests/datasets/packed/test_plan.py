"""Plans: rows in the order of their splits, held on disk, digests as they always were."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed import plan as plan_module
from spikeseg.datasets.packed.plan import plan_pack
from spikeseg.datasets.spec import DataError, RawRow

OPTIONS = ShapesOptions(size=(16, 24), train=11, val=5, test=3, seed=2)


class Listed(Shapes):
    """Generated shapes whose rows are listed by the test."""

    def __init__(self, rows: Sequence[RawRow]) -> None:
        super().__init__(OPTIONS)
        self._rows = rows

    def rows(self, source: Path, *, partial: bool) -> Sequence[RawRow]:
        return self._rows


def listed(*names: str) -> list[RawRow]:
    return [RawRow(name, name.partition("-")[0], Path(f"i/{name}"), Path("l")) for name in names]


def test_the_digest_is_that_of_version_2() -> None:
    # Computed by the version that wrote schema 2: folders packed by it are known as finished.
    digest = plan_pack("shapes", Shapes(OPTIONS), Path(), rows_per_shard=4).digest
    assert digest == "c14c96819d21bc92dc6753f93414c00bc48a93a1a96e6ffee9f547045083508c"


def test_splits_that_come_mixed_are_planned_one_after_the_other() -> None:
    rows = listed("val-0", "train-0", "train-1", "val-1", "train-2", "test-0", "val-2", "train-3")
    mixed = plan_pack("shapes", Listed(rows), Path(), rows_per_shard=2)
    ordered = [row for split in ("val", "train", "test") for row in rows if row.split == split]
    apart = plan_pack("shapes", Listed(ordered), Path(), rows_per_shard=2)
    assert mixed.digest == apart.digest
    assert [(split, [row.id for row in part]) for split, part in mixed.shards] == [
        ("val", ["val-0", "val-1"]),
        ("val", ["val-2"]),
        ("train", ["train-0", "train-1"]),
        ("train", ["train-2", "train-3"]),
        ("test", ["test-0"]),
    ]
    assert [mixed.file_name(index) for index in (1, 4)] == [
        "val-00001.parquet",
        "test-00004.parquet",
    ]
    assert mixed.rows == 8


@pytest.mark.parametrize("held", [0, 1 << 20], ids=["on disk", "in memory"])
def test_rows_come_back_as_they_were_listed(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr(plan_module, "_HELD_IN_MEMORY", held)
    segments = np.array([[1, 2, 0, 4]])
    rows = [
        replace(row, instances=Path("/x/ y.png"), segments=segments) if number % 2 else row
        for number, row in enumerate(listed("train-0", "train-1", "train-2", "train-ü"))
    ]
    plan = plan_pack("shapes", Listed(rows), Path(), rows_per_shard=3)
    again = [row for _, part in plan.shards for row in part]
    for row, other in zip(rows, again, strict=True):
        assert replace(row, segments=None) == replace(other, segments=None)
        assert (row.segments is None) == (other.segments is None)
    np.testing.assert_array_equal(again[1].segments, segments)


def test_an_id_that_comes_twice_in_a_split_is_named_however_far_apart() -> None:
    names = [f"train-{number}" for number in range(50)]
    with pytest.raises(DataError, match=r"train-3 occurs twice in split 'train'"):
        plan_pack("shapes", Listed(listed(*names, "val-0", "train-3")), Path(), rows_per_shard=7)
    plan_pack(
        "shapes", Listed([*listed("train-0"), replace(listed("train-0")[0], split="val")]), Path()
    )


def test_file_names_of_the_plan_are_known() -> None:
    plan = plan_pack("shapes", Shapes(OPTIONS), Path(), rows_per_shard=4)
    assert all(plan.has_file(plan.file_name(index)) for index in range(len(plan.shards)))
    for name in ("val-00000.parquet", "train-00006.parquet", "train-0.parquet", "notes.txt", "-"):
        assert not plan.has_file(name)


@pytest.mark.parametrize("index", [-1, 6])
def test_a_shard_outside_of_the_plan_is_an_index_error(index: int) -> None:
    plan = plan_pack("shapes", Shapes(OPTIONS), Path(), rows_per_shard=4)
    with pytest.raises(IndexError, match=r"there are shards 0\.\.5"):
        plan.shards[index]


def test_a_billion_rows_are_named_without_being_listed() -> None:
    rows = Shapes(replace(OPTIONS, train=10**9)).rows(Path(), partial=False)
    assert len(rows) == 10**9 + 8
    assert rows[-1].id == "test-000002"
    assert rows[10**9].id == "val-000000"
    assert [row.id for row in rows[3:5]] == ["train-000003", "train-000004"]
    with pytest.raises(IndexError, match="there are rows"):
        rows[len(rows)]
