"""Damage inside of packed data is noticed when a row is read, wherever it lies."""

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packed_versions import to_version_2
from raw_layouts import LAYOUTS, packed

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.manifest import MANIFEST
from spikeseg.datasets.packed.pack import pack
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.spec import DataError, EncodedRow, RawRow, Row, StorageAwayError

OPTIONS = ShapesOptions(size=(32, 40), train=6, val=1, test=1, seed=0)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original")
    pack("shapes", Shapes(OPTIONS), Path(), path, rows_per_shard=3)
    return path


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "packed"))


def changed(file: Path, old: bytes, new: bytes) -> None:
    """Exchange bytes that occur in a file, of equal number."""
    content = file.read_bytes()
    assert old in content
    assert len(old) == len(new)
    file.write_bytes(content.replace(old, new))


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def stored(folder: Path, split: str, column: str) -> bytes:
    return next(PackedDataset.open(folder).columns(split, [column]))[column]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("column", ["image", "label", "instances"])
def test_one_wrong_bit_of_a_stored_png_is_noticed(folder: Path, column: str, share: float) -> None:
    data = stored(folder, "val", column)
    changed(folder / "val-00002.parquet", data, flipped(data, int(share * len(data))))
    with pytest.raises(DataError, match=r"packed/val-00002.parquet: row val-000000: "):
        PackedDataset.open(folder).row("val", 0)


def test_one_wrong_bit_inside_of_a_stored_jpeg_is_noticed(tmp_path: Path) -> None:
    packed(LAYOUTS["pascal_voc12"](tmp_path / "raw"), tmp_path / "packed")
    data = stored(tmp_path / "packed", "train", "image")
    changed(tmp_path / "packed" / "train-00000.parquet", data, flipped(data, int(0.95 * len(data))))
    with pytest.raises(DataError, match=r"train-00000.parquet: row a1: .* its bytes have changed"):
        PackedDataset.open(tmp_path / "packed").row("train", 0)
    with pytest.raises(DataError, match=r"train-00000.parquet: row a1: .* its bytes have changed"):
        PackedDataset.open(tmp_path / "packed").row("train", 0, lambda _: 2)


def test_an_image_in_the_place_of_another_is_noticed(folder: Path) -> None:
    rows = list(PackedDataset.open(folder).columns("train", ["image_hash"]))
    changed(folder / "train-00000.parquet", rows[0]["image_hash"], rows[1]["image_hash"])
    dataset = PackedDataset.open(folder)
    with pytest.raises(DataError, match=r"row train-000000: the image is not the one that was pac"):
        dataset.row("train", 0)
    assert dataset.row("train", 1).id == "train-000001"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda row: replace(row, segments=row.segments[:-1]),
            r"\d segments are listed, one is num",
        ),
        (lambda row: replace(row, label=row.label[:-1]), "image and label have other sizes than"),
    ],
    ids=["segment", "size"],
)
def test_parts_of_a_row_that_do_not_fit_are_noticed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: Callable[[Row], Row],
    message: str,
) -> None:
    read = Shapes.read

    def unfit(self: Shapes, row: RawRow) -> EncodedRow:
        found = read(self, row)
        return replace(found, row=wrong(found.row))

    monkeypatch.setattr(Shapes, "read", unfit)
    pack("shapes", Shapes(OPTIONS), Path(), tmp_path)
    with pytest.raises(DataError, match=rf"row val-000000: {message}"):
        PackedDataset.open(tmp_path).row("val", 0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"val-000000", b"val-\xff00000", r"row 0 of val: it is damaged \(UnicodeDecodeError"),
        (b"label", b"lebel", r"row 0 of val: it has no column 'label'"),
        (b"image_hash", b"image_hush", r"row 0 of val: it has no column 'image_hash'"),
    ],
    ids=["id", "column", "hash"],
)
def test_other_damage_of_a_shard_is_named(
    folder: Path, old: bytes, new: bytes, message: str
) -> None:
    changed(folder / "val-00002.parquet", old, new)
    with pytest.raises(DataError, match=rf"packed/val-00002.parquet: {message}"):
        PackedDataset.open(folder).row("val", 0)


def test_columns_of_a_damaged_shard_name_it(folder: Path) -> None:
    file = folder / "val-00002.parquet"
    file.write_bytes(b"\0" * file.stat().st_size)
    with pytest.raises(DataError, match=r"packed/val-00002.parquet: it is damaged \(ArrowInvalid"):
        list(PackedDataset.open(folder).columns("val", ["id"]))


def dropped(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.pop(key)


def put(value: Any, *keys: Any) -> Callable[[dict[str, Any]], object]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


Fault = tuple[Callable[[dict[str, Any]], object], str]
HUGE = 10**400
HEAD_FAULTS: dict[str, Fault] = {
    "no shards": (dropped("shards"), "the manifest has no 'shards'"),
    "no digest": (dropped("digest"), "the manifest has no 'digest'"),
    "no version": (dropped("schema_version"), "the manifest has no 'schema_version'"),
    "digest is a number": (put(3, "digest"), "the manifest: digest must be text, got 3"),
    "shards are a text": (put("x", "shards"), "the manifest: shards must be .*, got 'x'"),
    "other number of rows": (put(7, "splits", "train"), r"splits are .*the rows of their shards"),
    "endless rows": (put(HUGE, "splits", "train"), r"splits are .*the rows of their shards"),
    "split is a text": (put("6", "splits", "train"), "splits: train must be a whole number"),
    "split is true": (put(True, "splits", "val"), "splits: val must be a whole number, got True"),
    "split without digest": (lambda c: c["split_digests"].pop("val"), "split_digests has no 'val'"),
    "split of odd name": (put(1, "splits", "../x"), r"splits: '\.\./x' must be a name of letters"),
    "negative quarantined": (
        put(-1, "quarantined"),
        r"the manifest: quarantined must be 0\.\.\d+, got",
    ),
    "no classes": (lambda c: c["label_space"].pop("classes"), "label_space is damaged: KeyError"),
    "few colours": (put([], "label_space", "palette"), "9 classes and 0 colours: numbers must agr"),
    "raw values are a list": (put([1], "label_space", "raw_to_train"), "label_space is damaged"),
    "endless colour": (put([[HUGE, 0, 0]] * 9, "label_space", "palette"), "colours must be 0..255"),
    "ignored class": (put(3, "label_space", "ignore_label"), "ignore_label 3 of 9 classes"),
    "infinite ignored": (
        put(float("inf"), "label_space", "ignore_label"),
        "label_space is damaged",
    ),
    "class of no id": (put({"1": 77}, "label_space", "raw_to_train"), "raw value 1 -> 77: must be"),
    "class is a number": (put(5, "label_space", "classes", 2), "name 5 must be printable text"),
}
TABLE_FAULTS: dict[str, Fault] = {
    "other table": (
        put("../x", "shards", "file"),
        r"shards: file must be shards.parquet, got '\.\./x",
    ),
    "endless shards": (put(HUGE, "shards", "shards"), r"shards: shards must be 1\.\."),
    "other number": (put(99, "shards", "shards"), "4 shards in it, the manifest says 99"),
    "endless table": (put(HUGE, "shards", "bytes"), "1000.* bytes expected"),
    "few pixels": (
        put([1], "classes", "val", "pixels"),
        r"classes\['val'\]: pixels must be 9 whole",
    ),
    "text as pixels": (
        put(["1"] * 9, "classes", "val", "pixels"),
        "pixels must be 9 whole numbers",
    ),
    "endless pixels": (
        put([HUGE] * 9, "classes", "val", "pixels"),
        r"pixels must be 0\.\.\d+, got 1000",
    ),
    "negative pixels": (put([-1] * 9, "classes", "val", "rows"), r"rows must be 0\.\.\d+, got -1"),
    "split without classes": (lambda c: c["classes"].pop("val"), "classes has no 'val'"),
    "no largest row": (put(0, "largest_row"), r"largest_row must be 1\.\.\d+, got 0"),
    "baseline of no split": (
        put({}, "baselines", "dev"),
        r"baselines\['dev'\]: is not one of splits",
    ),
    "baseline is nan": (
        put(float("nan"), "baselines", "val", "position"),
        r"must be in \[0, 100\]",
    ),
    "baseline is text": (put("9", "baselines", "val", "majority"), "majority must be a number"),
}
LIST_FAULTS: dict[str, Fault] = {
    "shard is a list": (put([], "shards", 0), r"shards\[0\] must be an object, got list"),
    "rows are text": (put("3", "shards", 1, "rows"), r"shards\[1\]: rows must be a whole number"),
    "negative rows": (put(-3, "shards", 1, "rows"), r"shards\[1\]: rows must be 1\.\.\d+, got -3"),
    "endless bytes": (
        put(HUGE, "shards", 1, "bytes"),
        r"shards\[1\]: bytes must be 1\.\.\d+, got 100",
    ),
    "shard without file": (lambda c: c["shards"][0].pop("file"), r"shards\[0\] has no 'file'"),
    "shard of no split": (put("dev", "shards", 0, "split"), r"shards\[0\]: split 'dev' is not one"),
    "few pixels": (put([1], "shards", 0, "pixels"), r"shards\[0\]: pixels must be 9 whole numbers"),
    "text as pixels": (put(["1"] * 9, "shards", 0, "pixels"), r"shards\[0\]: pixels must be 9"),
    "endless pixels": (
        put([HUGE] * 9, "shards", 0, "pixels"),
        r"shards\[0\]: pixels must be 0\.\.\d+",
    ),
    "hash is a word": (put("abc", "shards", 0, "sha256"), "sha256 must be 64 hexadecimal digits"),
}
MANIFEST_FAULTS: dict[tuple[int, str], Fault] = {
    (version, name): fault
    for version, faults in ((2, HEAD_FAULTS | LIST_FAULTS), (3, HEAD_FAULTS | TABLE_FAULTS))
    for name, fault in faults.items()
}


@pytest.mark.parametrize("fault", MANIFEST_FAULTS, ids=str)
def test_a_manifest_of_another_form_is_named_with_its_field(
    folder: Path, fault: tuple[int, str]
) -> None:
    change, message = MANIFEST_FAULTS[fault]
    if fault[0] == 2:
        to_version_2(folder)
    content = json.loads((folder / MANIFEST).read_text())
    change(content)
    (folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"{MANIFEST}: not a readable manifest .*{message}"):
        PackedDataset.open(folder)
    with pytest.raises(DataError, match=rf"{MANIFEST}: .*{message}.*choose another folder or del"):
        pack("shapes", Shapes(OPTIONS), Path(), folder, rows_per_shard=3)


@pytest.mark.parametrize("text", ["", "[]", "3", '{"a": ', "\xff\xfe"])
def test_a_manifest_that_is_no_object_is_named(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text, "latin-1")
    with pytest.raises(DataError, match=rf"{MANIFEST}: not a readable manifest"):
        PackedDataset.open(folder)


def test_a_disk_that_does_not_answer_is_no_damage(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    dataset = PackedDataset.open(folder)
    with monkeypatch.context() as once:
        once.setattr(PackedDataset, "_read_record", broken)
        with pytest.raises(StorageAwayError, match=r"row 0 of val: .*Input/output error"):
            dataset.row("val", 0)
    assert dataset.row("val", 0).id == "val-000000"
