"""Files of a folder, a zip or a tar under one interface; archives are read without unpacking."""

import os
import re
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from ...spec import DataError, find_duplicates

# One file is read into memory at once; a label or picture of this size is none.
LARGEST_FILE = 1 << 29
_ARCHIVES = (".zip", ".tar")
_COMPRESSED_TAR = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_DRIVE = re.compile(r"^[A-Za-z]:")


class SourceFiles(Protocol):
    """Files below one root, by their path relative to it with forward slashes."""

    @property
    def root(self) -> Path:
        """The folder or the archive."""
        ...

    def names(self) -> list[str]:
        """Relative paths of all files, sorted; hidden files are left out."""
        ...

    def read(self, name: str) -> bytes:
        """Bytes of one file.

        Raises:
            DataError: Names the file that cannot be read or is too large.
        """
        ...

    def archive_of(self, name: str) -> Path | None:
        """The file on disk that holds this one; None where it is one itself."""
        ...


@dataclass(frozen=True)
class FolderFiles:
    """Files of a folder; links to folders are followed once."""

    root: Path

    def names(self) -> list[str]:
        """Relative paths of all files, sorted; hidden files are left out."""
        found: list[str] = []
        seen: set[str] = set()
        for folder, folders, files in os.walk(self.root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            above = Path(folder).relative_to(self.root)
            found += [(above / file).as_posix() for file in files]
        return _select_names(found, self.root)

    def read(self, name: str) -> bytes:
        """Bytes of one file."""
        path = self.root / name
        try:
            size = path.stat().st_size
            _require_size(path, size)
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error

    def archive_of(self, name: str) -> Path | None:
        """None: it is a file itself."""
        return None


@dataclass(frozen=True)
class ZipFiles:
    """Members of a zip."""

    root: Path

    def names(self) -> list[str]:
        """Names of all members that are files, checked and sorted."""
        members = _open_zip(self.root).infolist()
        for member in members:
            if member.flag_bits & 1:
                raise DataError(f"{self.root}: {member.filename} is encrypted; unpack it first")
            # The upper half holds the type of a file as Unix writes it.
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                raise DataError(f"{self.root}: {member.filename} is a link, and not a file")
        return _select_names((m.filename for m in members if not m.is_dir()), self.root)

    def read(self, name: str) -> bytes:
        """Bytes of one member; not more than its entry says."""
        where = self.root / name
        archive = _open_zip(self.root)
        try:
            member = archive.getinfo(name)
            _require_size(where, member.file_size)
            with archive.open(member) as file:
                data = file.read(member.file_size + 1)
        except KeyError as error:
            raise DataError(f"{where}: no such file in the archive") from error
        except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, EOFError) as error:
            raise DataError(f"{where}: cannot be read ({error})") from error
        except Exception as error:
            # Damaged members make the decompressors raise errors of their own.
            raise DataError(f"{where}: cannot be decompressed ({error})") from error
        if len(data) != member.file_size:
            raise DataError(
                f"{where}: {len(data)} bytes or more, its entry says {member.file_size}"
            )
        return data

    def archive_of(self, name: str) -> Path | None:
        """The archive."""
        return self.root


@dataclass(frozen=True)
class TarFiles:
    """Members of a tar that is not compressed: each has its own place in the file."""

    root: Path

    def names(self) -> list[str]:
        """Names of all members that are files, checked and sorted."""
        return _select_names(_index_tar(self.root), self.root)

    def read(self, name: str) -> bytes:
        """Bytes of one member."""
        where = self.root / name
        index = _index_tar(self.root)
        if name not in index:
            raise DataError(f"{where}: no such file in the archive")
        part = index[name]
        _require_size(where, part.size)
        try:
            with self.root.open("rb") as file:
                file.seek(part.offset)
                data = file.read(part.size)
        except OSError as error:
            raise DataError(f"{where}: cannot be read ({error.strerror})") from error
        if len(data) != part.size:
            raise DataError(f"{where}: the archive ends after {len(data)} of its {part.size} bytes")
        return data

    def archive_of(self, name: str) -> Path | None:
        """The archive."""
        return self.root


class _Part(NamedTuple):
    """Where a member's bytes lie in an archive."""

    offset: int
    size: int


def open_source(path: Path) -> SourceFiles:
    """Open a folder, a zip or a tar.

    Raises:
        DataError: Where there is none, or it is of another kind.
    """
    if path.is_dir():
        return FolderFiles(path)
    if not path.is_file():
        raise DataError(f"{path}: no such folder, zip or tar")
    if path.name.lower().endswith(_COMPRESSED_TAR):
        raise DataError(
            f"{path}: a compressed tar can only be read from its beginning; decompress it once to "
            "a plain .tar, or pack the files as .zip"
        )
    if path.suffix.lower() == ".zip":
        return ZipFiles(path)
    if path.suffix.lower() == ".tar":
        return TarFiles(path)
    raise DataError(f"{path}: must be a folder, or end with {' or '.join(_ARCHIVES)}")


@lru_cache(maxsize=4)
def _open_zip(path: Path) -> zipfile.ZipFile:
    # Threads may share it: zipfile locks the file while it reads from it.
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable zip ({error})") from error


@lru_cache(maxsize=4)
def _index_tar(path: Path) -> dict[str, _Part]:
    try:
        with tarfile.open(path, "r:") as archive:
            members = [member for member in archive if not member.isdir()]
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{path}: not a readable tar without compression ({error})") from error
    for member in members:
        if not member.isreg() or member.issparse():
            raise DataError(f"{path}: {member.name} is a link or device, and not a file")
    names = [member.name.removeprefix("./") for member in members]
    return {
        name: _Part(member.offset_data, member.size)
        for name, member in zip(names, members, strict=True)
    }


def _select_names(names: Iterable[str], root: Path) -> list[str]:
    """Check the names of an archive or folder; hidden files and what systems add are left out."""
    kept = []
    for name in names:
        parts = name.split("/")
        if name.startswith("/") or "\\" in name or ".." in parts or _DRIVE.match(name):
            raise DataError(
                f"{root}: {name!r} is no path below the source: a name must not be absolute, and "
                "hold neither '..' nor a backslash"
            )
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{root}: the file name {name!r} is not UTF-8 text") from error
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        if not hidden and parts[-1] not in ("Thumbs.db", "desktop.ini"):
            kept.append(name)
    for name in find_duplicates(kept):
        raise DataError(f"{root}: {name} is in the archive twice")
    return sorted(kept)


def _require_size(where: Path, size: int) -> None:
    if size > LARGEST_FILE:
        raise DataError(f"{where}: {size} bytes, at most {LARGEST_FILE} are read of one file")
