"""Folders, zips and tars are read alike, and what is unsafe in an archive is refused."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from spikeseg.datasets.layouts.image_folder import source_files
from spikeseg.datasets.layouts.image_folder.source_files import open_source
from spikeseg.datasets.spec import DataError

FILES = {"images/ü/a b.png": b"first", "masks/ü/a b.png": b"second"}


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def write_folder(path: Path, members: dict[str, bytes]) -> None:
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


WRITERS = {"data.zip": write_zip, "data.tar": write_tar, "data": write_folder}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_source_gives_the_same_files(kind: str, tmp_path: Path) -> None:
    hidden = {"__MACOSX/images/._a b.png": b"", "images/.DS_Store": b"", "images/Thumbs.db": b""}
    WRITERS[kind](tmp_path / kind, FILES | hidden)
    source = open_source(tmp_path / kind)
    assert source.names() == sorted(FILES)
    assert {name: source.read(name) for name in FILES} == FILES
    archive = None if kind == "data" else tmp_path / kind
    assert [source.archive_of(name) for name in FILES] == [archive, archive]
    with pytest.raises(DataError, match="no/such"):
        source.read("no/such")


@pytest.mark.parametrize("kind", ["data.zip", "data.tar"])
@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/a.png", "x/../../a.png", "C:/a.png", "a\\b.png"]
)
def test_names_that_lead_out_of_an_archive_are_refused(
    kind: str, name: str, tmp_path: Path
) -> None:
    WRITERS[kind](tmp_path / kind, {name: b"x"})
    with pytest.raises(DataError, match="is no path below the source"):
        open_source(tmp_path / kind).names()


def test_links_of_archives_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        entry = tarfile.TarInfo("images/a.png")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(DataError, match=r"images/a\.png is a link or device"):
        open_source(tmp_path / "data.tar").names()
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        member = zipfile.ZipInfo("images/a.png")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match=r"images/a\.png is a link"):
        open_source(tmp_path / "data.zip").names()


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_of_enormous_size_is_not_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_files, "LARGEST_FILE", 1000)
    WRITERS[kind](tmp_path / kind, {"images/a.png": bytes(1001)})
    with pytest.raises(DataError, match="1001 bytes, at most 1000 are read of one file"):
        open_source(tmp_path / kind).read("images/a.png")


def test_a_member_that_is_larger_than_it_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", bytes(100))
    content = path.read_bytes()
    # The size without compression, in the central directory alone.
    at = content.index(b"PK\x01\x02") + 24
    path.write_bytes(content[:at] + (50).to_bytes(4, "little") + content[at + 4 :])
    with pytest.raises(DataError, match=r"data\.zip/a\.png"):
        open_source(path).read("a.png")


def test_a_compressed_tar_and_other_files_are_refused_with_what_to_do(tmp_path: Path) -> None:
    write_tar(tmp_path / "data.tar.gz", FILES, "w:gz")
    with pytest.raises(DataError, match=r"decompress it once to a plain \.tar"):
        open_source(tmp_path / "data.tar.gz")
    (tmp_path / "data.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match="not a readable zip"):
        open_source(tmp_path / "data.zip").names()
    with pytest.raises(DataError, match="no such folder, zip or tar"):
        open_source(tmp_path / "nothing")


def test_links_between_folders_end(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", FILES)
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data", target_is_directory=True)
    assert open_source(tmp_path / "data").names() == sorted(FILES)
