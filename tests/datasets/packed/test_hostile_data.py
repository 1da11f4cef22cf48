"""Packed data made to harm is refused, by name, before it costs memory."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_packed import (
    HUGE,
    PLAIN,
    change_columns,
    encoded,
    jpeg_bomb,
    png_bomb,
    put_columns,
    replace_shard,
)
from packed_versions import to_version_2

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.manifest import MANIFEST
from spikeseg.datasets.packed.pack import pack
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.spec import DataError

SIZE = (32, 40)
FILE = "val-00001.parquet"
MOST_PIXELS = 178_956_970


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original")
    options = ShapesOptions(size=SIZE, train=2, val=1, test=1, seed=0)
    pack("shapes", Shapes(options), Path(), path)
    return path


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "packed"))


def columns(**values: object) -> Callable[[Path], None]:
    return lambda folder: change_columns(folder, FILE, put_columns(**values))


def written(**options: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        pq.write_table(pq.read_table(folder / FILE), folder / FILE, **{**PLAIN, **options})

    return change


def table(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    return lambda folder: change_columns(folder, FILE, change)


def footer(length: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / FILE).read_bytes()
        (folder / FILE).write_bytes(content[:-8] + length + b"PAR1")

    return change


def cut(folder: Path) -> None:
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content[: len(content) // 2])


def lying_footer(folder: Path) -> None:
    """A row of two million segments, of which the footer names thirty thousand."""
    count = 2_000_000
    change_columns(folder, FILE, put_columns(segments=[None] * count, crowd=[None]))
    content = (folder / FILE).read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    numbers = [
        bytes([n & 127 | 128, n >> 7 & 127 | 128, n >> 14 & 127 | 128, n >> 21])
        for n in (2 * count, 60_000)
    ]
    assert numbers[0] in content[start:]
    (folder / FILE).write_bytes(content[:start] + content[start:].replace(numbers[0], numbers[1]))


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "png bomb": (columns(image=png_bomb()), "other sizes .*an image of 32000 x 32000, exp"),
    "png bomb that says so": (
        columns(image=png_bomb(), height=HUGE, width=HUGE),
        rf"says that it has 32000 x 32000 pixels, at most {MOST_PIXELS}",
    ),
    "label bomb": (columns(label=png_bomb(8, 0)), "a label map of 32000 x 32000, expected 32 x 40"),
    "instances bomb": (columns(instances=png_bomb(16, 0)), "an instance map of 32000 x 32000, exp"),
    "jpeg bomb": (columns(image=jpeg_bomb()), "too large to be decoded"),
    "webp": (columns(image=encoded("WEBP", SIZE)), "an image .* it must be a JPEG or PNG"),
    "bmp": (columns(image=encoded("BMP", SIZE)), "an image .* it must be a JPEG or PNG"),
    "tiff": (columns(label=encoded("TIFF", SIZE)), "a label map .* it must be a JPEG or PNG"),
    "gif": (columns(instances=encoded("GIF", SIZE)), "an instance map .* it must be a JPEG or PNG"),
    "half a header": (columns(image=png_bomb()[:18]), "an image .*must be a JPEG or PNG"),
    "sizes below 1": (columns(height=-1, width=-1), "says that it has -1 x -1 pixels"),
    "no size": (columns(height=None), "row val-000000: it is damaged"),
    "compressed": (written(compression="zstd"), "column id is compressed or has a dictionary"),
    "one compressed column": (
        written(compression={"label": "gzip"}),
        "column label is compressed or has a dictionary",
    ),
    "dictionary": (written(use_dictionary=["id"]), "column id is compressed or has a dictionary"),
    "many rows in a group": (
        table(lambda rows: pa.concat_tables([rows] * 2000)),
        "row group 0 has 2000 rows, at most 1024",
    ),
    "a million segments": (
        columns(segments=[None] * 1_000_000, crowd=[None]),
        "column segments.list.element has 1000000 values, at most 65536",
    ),
    "segments that the footer hides": (
        lying_footer,
        "column segments.list.element has 2000000 values, at most 65536",
    ),
    "other type": (
        table(lambda rows: rows.set_column(6, "height", pa.array(["32"]))),
        "its columns are .*height string.*expected",
    ),
    "another column": (
        table(lambda rows: rows.append_column("code", pa.array(["import os"]))),
        "its columns are .*code string.*expected",
    ),
    "no column": (table(lambda rows: rows.drop_columns(["crowd"])), "it has no column 'crowd'"),
    "no rows": (table(lambda rows: rows.slice(0, 0)), "it has 0 rows, 1 expected"),
    "endless footer": (footer(b"\xff\xff\xff\x7f"), "it is damaged"),
    "footer of zeros": (footer(b"\0\0\0\0"), "it is damaged"),
    "half a file": (cut, "it is damaged"),
}


def test_data_that_fits_is_read(folder: Path) -> None:
    replace_shard(folder, FILE, SIZE[0] * SIZE[1])
    assert PackedDataset.open(folder).row("val", 0).image.shape == (*SIZE, 3)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_shard_is_refused_by_name(folder: Path, case: str) -> None:
    change, message = HOSTILE[case]
    change(folder)
    replace_shard(folder, FILE, HUGE**2)
    dataset = PackedDataset.open(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=rf"{FILE}: .*{message}"):
        dataset.row("val", 0)
    # In kilobytes; each bomb takes a gigabyte or more where it is decoded.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_a_row_larger_than_the_manifest_says_is_refused(folder: Path) -> None:
    replace_shard(folder, FILE, SIZE[0] * SIZE[1] - 1)
    with pytest.raises(DataError, match=r"32 x 40 pixels, at most 1279"):
        PackedDataset.open(folder).row("val", 0)


def test_an_id_with_escapes_is_named_printably(folder: Path) -> None:
    change_columns(folder, FILE, put_columns(id="\x1b[2Jv", label=b"no"))
    replace_shard(folder, FILE, SIZE[0] * SIZE[1])
    with pytest.raises(DataError, match=r"row \\x1b\[2Jv: a label map") as caught:
        PackedDataset.open(folder).row("val", 0)
    assert "\x1b" not in str(caught.value)


OTHER_FILES = [
    "../val.parquet",
    "/etc/passwd",
    "a/b.parquet",
    "..",
    "",
    "shards.parquet",
    "v\n.parquet",
]


@pytest.mark.parametrize("name", OTHER_FILES)
@pytest.mark.parametrize("version", [2, 3])
def test_a_shard_outside_of_the_folder_is_refused(folder: Path, name: str, version: int) -> None:
    if version == 2:
        content = json.loads((to_version_2(folder) / MANIFEST).read_text())
        content["shards"][1]["file"] = name
        (folder / MANIFEST).write_text(json.dumps(content))
    else:
        rows = pq.read_table(folder / "shards.parquet")
        rows = rows.set_column(0, "file", pa.array(["train-00000.parquet", name, "t.parquet"]))
        write_table(folder, rows)
    with pytest.raises(DataError, match=r"shards\[1\]: file must be the plain name of a .parquet"):
        PackedDataset.open(folder)


def write_table(folder: Path, rows: pa.Table, **options: object) -> None:
    """Put another table of shards into the place of the folder's, hash and size included."""
    from spikeseg.datasets.packed.storage import sha256_of

    path = folder / "shards.parquet"
    pq.write_table(rows, path, **{**PLAIN, **options})
    content = json.loads((folder / MANIFEST).read_text())
    content["shards"] |= {
        "shards": rows.num_rows,
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
    }
    (folder / MANIFEST).write_text(json.dumps(content))


TABLES: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "negative rows": (
        lambda rows: rows.set_column(2, "rows", pa.array([3, -1, 1])),
        r"shards\[1\]: rows and bytes must be at least 1, got -1",
    ),
    "no bytes": (
        lambda rows: rows.set_column(3, "bytes", pa.array([3, 1, 0])),
        r"shards\[2\]: rows and bytes must be at least 1, got 1 and 0",
    ),
    "rows beyond 64 bits in all": (
        lambda rows: rows.set_column(2, "rows", pa.array([2, 2**63 - 1, 2**63 - 1])),
        r"splits are .*, the rows of their shards are",
    ),
    "null": (
        lambda rows: rows.set_column(2, "rows", pa.array([2, None, 1], pa.int64())),
        "shards: rows must not be null",
    ),
    "two of one file": (
        lambda rows: rows.set_column(0, "file", pa.array(["a.parquet"] * 3)),
        "two of them have the same file",
    ),
    "mixed splits": (
        lambda rows: rows.set_column(1, "split", pa.array(["train", "val", "train"])),
        r"shards\[2\]: those of a split must stand together",
    ),
    "other split": (
        lambda rows: rows.set_column(1, "split", pa.array(["train", "val", "\x1b[2J"])),
        r"split '\\x1b\[2J' is not one of splits",
    ),
    "no shards": (lambda rows: rows.slice(0, 0), "shards must be 1.."),
    "other columns": (lambda rows: rows.drop_columns(["content"]), "it has no column 'content'"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_hostile_table_of_shards_is_refused(folder: Path, case: str) -> None:
    change, message = TABLES[case]
    write_table(folder, change(pq.read_table(folder / "shards.parquet")))
    with pytest.raises(DataError, match=message):
        PackedDataset.open(folder)


def test_a_compressed_table_of_shards_is_refused(folder: Path) -> None:
    write_table(folder, pq.read_table(folder / "shards.parquet"), compression="zstd")
    with pytest.raises(DataError, match=r"shards.parquet: .*column file is compressed"):
        PackedDataset.open(folder)


def test_a_changed_table_of_shards_is_refused_by_its_hash(folder: Path) -> None:
    path = folder / "shards.parquet"
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"shards.parquet: SHA-256 .*, expected"):
        PackedDataset.open(folder)
    path.unlink()
    with pytest.raises(DataError, match=r"shards.parquet: \d+ bytes expected, .*found None"):
        PackedDataset.open(folder)


def test_a_manifest_nested_without_end_is_refused(folder: Path) -> None:
    (folder / MANIFEST).write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"not a readable manifest"):
        PackedDataset.open(folder)


def test_a_manifest_of_gigabytes_is_not_read(folder: Path) -> None:
    with (folder / MANIFEST).open("r+b") as file:
        file.truncate(8 << 30)
    with pytest.raises(DataError, match=r"not a readable manifest .*8589934592 bytes, at most"):
        PackedDataset.open(folder)


_CHILD = """
import resource, sys
from pathlib import Path
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.spec import DataError

PackedDataset.open(sys.argv[1]).row("train", 0)
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
for folder in sys.argv[2:]:
    try:
        PackedDataset.open(folder).row("val", 0)
    except DataError as error:
        print("refused", Path(folder).name)
"""


def test_the_bombs_fit_into_256_megabytes(original: Path, tmp_path: Path) -> None:
    cases = ["png bomb that says so", "label bomb", "instances bomb", "a million segments"]
    cases += ["endless footer", "many rows in a group", "jpeg bomb"]
    for case in cases:
        folder = Path(shutil.copytree(original, tmp_path / case))
        HOSTILE[case][0](folder)
        replace_shard(folder, FILE, HUGE**2)
    folders = [str(tmp_path / case) for case in cases]
    command = [sys.executable, "-c", _CHILD, str(original), *folders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == [f"refused {case}" for case in cases]
