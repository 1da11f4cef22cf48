"""Packing: deterministic, interruptible, refusing what it does not know."""

import json
from pathlib import Path

import pyarrow.fs
import pytest
from raw_layouts import LAYOUTS

from spikeseg.datasets.layouts.camvid import CamVid
from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed import pack as pack_module
from spikeseg.datasets.packed.pack import MANIFEST, pack
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.packed.storage import Storage
from spikeseg.datasets.spec import DataError, RawRow

OPTIONS = ShapesOptions(size=(16, 24), train=11, val=5, test=3, seed=2)


def shapes(output: Path | Storage, workers: int = 1, rows_per_shard: int = 4) -> str:
    return pack(
        "shapes", Shapes(OPTIONS), Path(), output, rows_per_shard=rows_per_shard, workers=workers
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_any_number_of_threads_writes_the_same_bytes(tmp_path: Path) -> None:
    for workers in (1, 3):
        shapes(tmp_path / str(workers), workers)
    assert files(tmp_path / "1") == files(tmp_path / "3")
    assert sum(name.endswith(".parquet") for name in files(tmp_path / "1")) == 3 + 2 + 1 + 1


def test_other_pixels_give_another_digest(tmp_path: Path) -> None:
    digests = set()
    for seed in (0, 1):
        options = ShapesOptions(size=(16, 16), train=2, val=1, test=1, seed=seed)
        digests.add(pack("shapes", Shapes(options), Path(), tmp_path / str(seed)))
    assert len(digests) == 2


def test_packing_again_changes_nothing(tmp_path: Path) -> None:
    first = shapes(tmp_path)
    before = files(tmp_path)
    assert shapes(tmp_path) == first
    assert files(tmp_path) == before


class InterruptedHereError(RuntimeError):
    """Stands for a killed process."""


def test_an_interrupted_packing_looks_unfinished_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shapes(tmp_path / "whole")
    read, seen = Shapes.read, []

    def failing(self: Shapes, row: RawRow) -> object:
        seen.append(row.id)
        if len(seen) == 10:
            raise InterruptedHereError
        return read(self, row)

    monkeypatch.setattr(Shapes, "read", failing)
    with pytest.raises(InterruptedHereError):
        shapes(tmp_path / "part")
    assert not (tmp_path / "part" / MANIFEST).exists()
    with pytest.raises(DataError, match=r"not a packed data set"):
        PackedDataset.open(tmp_path / "part")
    assert shapes(tmp_path / "part") == whole
    assert files(tmp_path / "part") == files(tmp_path / "whole")
    # 8 rows were done in two whole shards; they are not read again.
    assert len(seen) == 10 + (19 - 8)


def test_a_packing_that_fails_says_what_it_keeps_and_cleans_up_once_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Shapes.read

    def failing(self: Shapes, row: RawRow) -> object:
        if row.split == "val":
            raise DataError("val/1.png: the file is empty")
        return read(self, row)

    monkeypatch.setattr(Shapes, "read", failing)
    with pytest.raises(DataError, match=r"1\.png: the file is empty\n.*part keeps the shards"):
        shapes(tmp_path / "part")
    assert (tmp_path / "part" / ".packing").is_dir()
    monkeypatch.undo()
    shapes(tmp_path / "part")
    assert not (tmp_path / "part" / ".packing").exists()


def test_a_damaged_finished_shard_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shapes(tmp_path / "whole")

    def killed(*arguments: object) -> str:
        raise InterruptedHereError

    monkeypatch.setattr(pack_module, "commit_manifest", killed)
    with pytest.raises(InterruptedHereError):
        shapes(tmp_path / "part")
    monkeypatch.undo()
    shard = tmp_path / "part" / "train-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    assert shapes(tmp_path / "part") == whole
    assert files(tmp_path / "part") == files(tmp_path / "whole")


def test_a_shard_whose_record_is_damaged_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shapes(tmp_path / "whole")

    def killed(*arguments: object) -> str:
        raise InterruptedHereError

    monkeypatch.setattr(pack_module, "commit_manifest", killed)
    with pytest.raises(InterruptedHereError):
        shapes(tmp_path / "part")
    monkeypatch.undo()
    for number, text in enumerate(("", "{", '{"entry": 1}')):
        (record,) = (tmp_path / "part" / ".packing").glob(f"*/0000{number}.json")
        record.write_text(text)
    assert shapes(tmp_path / "part") == whole


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds other files \(thesis.txt\)"):
        shapes(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_packed_data_set_is_refused(tmp_path: Path) -> None:
    shapes(tmp_path)
    with pytest.raises(DataError, match=r"holds another packed data set"):
        shapes(tmp_path, rows_per_shard=5)


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written"):
        shapes(tmp_path / "file" / "below")


@pytest.mark.parametrize("kind", ["memory", "subtree"])
def test_any_pyarrow_filesystem_takes_the_same_bytes(tmp_path: Path, kind: str) -> None:
    shapes(tmp_path / "local")
    if kind == "memory":
        filesystem, root = pyarrow.fs._MockFileSystem(), "bucket/set"
    else:
        inner = pyarrow.fs.LocalFileSystem()
        (tmp_path / "tree").mkdir()
        filesystem, root = pyarrow.fs.SubTreeFileSystem(str(tmp_path / "tree"), inner), "set"
    storage = Storage(filesystem, root, f"{kind}://{root}")
    shapes(storage, workers=2)
    assert storage.names() == sorted(files(tmp_path / "local"))
    for name, content in files(tmp_path / "local").items():
        assert storage.read(name) == content


def test_an_unknown_kind_of_storage_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gopher://old/set: not a location that can be opened"):
        shapes(Storage.at("gopher://old/set"))


def test_the_manifest_says_what_the_shards_hold(tmp_path: Path) -> None:
    digest = shapes(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest["digest"] == digest
    assert manifest["splits"] == {"train": 11, "val": 5, "test": 3}
    assert manifest["options"]["seed"] == 2
    assert manifest["shards"]["shards"] == 6
    assert not list(PackedDataset.open(tmp_path).verify())


def test_grey_images_are_stored_as_colour_pngs(tmp_path: Path) -> None:
    from PIL import Image

    layout = LAYOUTS["camvid"](tmp_path / "raw")
    path = layout.source / "train" / "a1.png"
    Image.open(path).convert("L").save(path)
    pack("camvid", CamVid(), layout.source, tmp_path / "packed", partial=True)
    image = PackedDataset.open(tmp_path / "packed").row("train", 0).image
    assert image.shape[2] == 3
    assert (image[..., 0] == image[..., 2]).all()
