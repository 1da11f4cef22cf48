"""Packing over processes and Ray tasks gives what one thread gives, and names the same faults."""

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from raw_layouts import LAYOUTS

from spikeseg.datasets.layouts.camvid import CamVid
from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import MANIFEST, pack
from spikeseg.datasets.packed.plan import plan_pack
from spikeseg.datasets.packed.shard import WrittenShard
from spikeseg.datasets.spec import DataError
from spikeseg.platform.loading import pack_on_ray as packing
from spikeseg.platform.loading.pack_on_ray import Where, pack_dataset

OPTIONS = ShapesOptions(size=(16, 16), train=11, val=4, test=2)


@pytest.mark.parametrize(
    "where", ["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])]
)
def test_the_files_are_those_of_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Where
) -> None:
    monkeypatch.setattr(packing, "_SMALL", 0)
    told: list[tuple[int, int]] = []
    pack("shapes", Shapes(OPTIONS), Path(), tmp_path / "one", rows_per_shard=4, workers=1)
    pack_dataset(
        plan_pack("shapes", Shapes(OPTIONS), Path(), rows_per_shard=4),
        tmp_path / "many",
        where=where,
        workers=2,
        progress=lambda done, total: told.append((done, total)),
    )
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "many" / path.name).read_bytes() == path.read_bytes()
    assert told == [(4, 17), (8, 17), (11, 17), (15, 17), (17, 17)]


@pytest.mark.parametrize("where", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_fault_in_another_process_is_named_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Where
) -> None:
    monkeypatch.setattr(packing, "_SMALL", 0)
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    (layout.source / "val" / "b2.png").write_bytes(b"")
    plan = plan_pack("camvid", CamVid(), layout.source, rows_per_shard=1, partial=True)
    with pytest.raises(DataError, match=r"b2.png: the file is empty"):
        pack_dataset(plan, tmp_path / "packed", where=where, workers=2)
    assert not (tmp_path / "packed" / MANIFEST).exists()


class WeighingPool:
    """In the place of a process pool: weighs what is sent, works when a result is asked for."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.in_flight = self.most_in_flight = 0

    def __call__(self, count: int, *, mp_context: object) -> "WeighingPool":
        return self

    def shutdown(self, *, cancel_futures: bool) -> None:
        if cancel_futures:
            self.in_flight = 0

    def submit(self, function: Callable[..., WrittenShard], *arguments: object) -> "Later":
        self.sizes.append(len(pickle.dumps((function, arguments))))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return Later(self, partial(function, *arguments))


class Later:
    """A task of a `WeighingPool`."""

    def __init__(self, pool: WeighingPool, work: Callable[[], WrittenShard]) -> None:
        self._pool = pool
        self._work = work

    def result(self) -> WrittenShard:
        self._pool.in_flight -= 1
        return self._work()


def weighed(monkeypatch: pytest.MonkeyPatch, output: Path, rows: int) -> WeighingPool:
    pool = WeighingPool()
    monkeypatch.setattr(packing, "_SMALL", 0)
    monkeypatch.setattr(packing, "ProcessPoolExecutor", pool)
    options = ShapesOptions(size=(16, 16), train=rows, val=1, test=1)
    plan = plan_pack("s", Shapes(options), Path(), rows_per_shard=1)
    pack_dataset(plan, output, where="local", workers=3)
    assert len(pool.sizes) == rows + 2
    return pool


def test_what_a_task_is_sent_does_not_grow_with_the_number_of_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = weighed(monkeypatch, tmp_path / "few", 10)
    many = weighed(monkeypatch, tmp_path / "many", 200)
    # Only numbers in the options and names are longer.
    assert max(many.sizes) <= max(few.sizes) + 8


def test_one_task_more_than_workers_is_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = weighed(monkeypatch, tmp_path / "packed", 20)
    assert pool.most_in_flight == 4
    assert pool.in_flight == 0


def test_tasks_that_wait_behind_a_fault_are_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = WeighingPool()
    monkeypatch.setattr(packing, "_SMALL", 0)
    monkeypatch.setattr(packing, "ProcessPoolExecutor", pool)
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    (layout.source / "train" / "a1.png").write_bytes(b"")
    plan = plan_pack("camvid", CamVid(), layout.source, rows_per_shard=1, partial=True)
    with pytest.raises(DataError, match=r"a1.png: the file is empty"):
        pack_dataset(plan, tmp_path / "packed", where="local", workers=2)
    assert len(pool.sizes) == 3
    assert pool.in_flight == 0
