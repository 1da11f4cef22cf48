"""Packing over processes and Ray tasks gives what one thread gives, and names the same faults."""

from pathlib import Path

import pytest
from raw_layouts import LAYOUTS

from spikeseg.datasets.camvid import CamVid
from spikeseg.datasets.pack import MANIFEST, pack
from spikeseg.datasets.shapes import Shapes, ShapesOptions
from spikeseg.datasets.spec import DataError
from spikeseg.platform import packing
from spikeseg.platform.packing import Where, pack_dataset

OPTIONS = ShapesOptions(size=(16, 16), train=11, val=4, test=2)


@pytest.mark.parametrize("where", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_the_files_are_those_of_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Where
) -> None:
    monkeypatch.setattr(packing, "_SMALL", 0)
    told: list[tuple[int, int]] = []
    pack("shapes", Shapes(OPTIONS), Path(), tmp_path / "one", rows_per_shard=4, workers=1)
    pack_dataset(
        "shapes",
        Shapes(OPTIONS),
        Path(),
        tmp_path / "many",
        rows_per_shard=4,
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
    with pytest.raises(DataError, match=r"b2.png: the file is empty"):
        pack_dataset(
            "camvid",
            CamVid(),
            layout.source,
            tmp_path / "packed",
            rows_per_shard=1,
            partial=True,
            where=where,
            workers=2,
        )
    assert not (tmp_path / "packed" / MANIFEST).exists()
